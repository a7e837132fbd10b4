"""The names of weights in a file and in the model: prefixes of wrappers and of trainers, adapters.

DataParallel and torch.compile prefix names with `module.` and `_orig_mod.`, Lightning with `model.`, a scorer that
wraps the model with its attribute; adapter files omit the name of the adapter.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TypeVar

Value = TypeVar("Value")
Change = Callable[[str], str]

EXTRA_STATE = "_extra_state"  # of modules with more than tensors
AVERAGED = "n_averaged"  # the count that torch.optim.swa_utils.AveragedModel saves beside the weights
_WRAPPER = re.compile(r"(?:^|(?<=\.))(?:module|_orig_mod)\.")
_SAVED = re.compile(r"\.modules_to_save\.\w+")
_ADAPTED = re.compile(r"(\.(?:lora|ia3|vera|boft|oft|hada|lokr)_\w+)\.\w+(?=\.|$)")


def renamed(names: Collection[str], known: Collection[str]) -> tuple[dict[str, str], str]:
    """The names that `names` are read as, and the change in words ("" for none).

    It is the smallest change after which most names are `known`. Names of extra state and of the count of an averaged
    model are left out.
    """
    plain = [name for name in names if name in known or not (name.endswith(EXTRA_STATE) or name == AVERAGED)]
    best, words = plain, ""
    most = sum(name in known for name in plain)
    if most < len(plain):
        for change, what in _changes(plain, known):
            changed = [change(name) for name in plain]
            count = sum(name in known for name in changed)
            if count > most and len(set(changed)) == len(changed):
                best, words, most = changed, what, count
    return dict(zip(plain, best, strict=True)), words


def unwrapped(named: Mapping[str, Value], known: Collection[str]) -> dict[str, Value]:
    """`named` by the names of `renamed`."""
    return {name: named[former] for former, name in renamed(named, known)[0].items()}


def _changes(names: list[str], known: Collection[str]) -> Iterator[tuple[Change, str]]:
    """Ways to change names, each with its words; the smallest change first."""
    prefixes, longer = _prefixes(names), _longer(known)
    for prefix in prefixes:
        yield _cut(prefix), f"without the prefix {prefix!r}"
    for prefix in ["", *prefixes]:
        cut, words = _cut(prefix), f"without the prefix {prefix!r}, and " if prefix else ""
        bare = _then(cut, lambda name: _WRAPPER.sub("", name))
        if all(bare(name) in known for name in names):  # else it may be the name of a submodule
            yield bare, f"{words}without `module.` and `_orig_mod.`"
        yield _then(cut, lambda name: longer.get(name, name)), f"{words}with the name of the adapter"
        if added := _added([cut(name) for name in names], known):
            yield _then(cut, added.__add__), f"{words}with the prefix {added!r}"


def _cut(prefix: str) -> Change:
    return lambda name: name.removeprefix(prefix)


def _then(first: Change, second: Change) -> Change:
    return lambda name: second(first(name))


def _prefixes(names: list[str]) -> list[str]:
    """Prefixes of more than half of the names, the shortest first."""
    parts = Counter(name[: dot.end()] for name in names for dot in re.finditer(r"\.", name))
    return sorted((prefix for prefix, count in parts.items() if 2 * count > len(names)), key=len)


def _longer(known: Collection[str]) -> dict[str, str]:
    """Names without the name of the adapter -> the known ones with it, if there is one adapter."""
    short = {name: _SAVED.sub("", _ADAPTED.sub(r"\1", name)) for name in known}
    count = Counter(short.values())
    return {bare: name for name, bare in short.items() if bare != name and count[bare] == 1}


def _added(names: list[str], known: Collection[str]) -> str:
    """The one prefix with which most names are known; "" if there is none, or two fit equally."""
    ends = [f".{name}" for name in names[:3]]
    candidates = {name[: -len(end) + 1] for name in known for end in ends if name.endswith(end)}
    counts = Counter({prefix: sum(prefix + name in known for name in names) for prefix in candidates})
    most = counts.most_common(2)
    return most[0][0] if len(most) == 1 or (len(most) == 2 and most[0][1] > most[1][1]) else ""

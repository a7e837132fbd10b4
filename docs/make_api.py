"""The page of the Python API, from the docstrings of the public names: python docs/make_api.py"""

import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

import tracin_func

PAGE = Path(__file__).with_name("api.md")

SECTIONS = {
    "Scores": ("self_influence", "influence", "top_influences"),
    "Tasks": (
        "Task",
        "ItemView",
        "with_queries",
        "Pairs",
        "PairTable",
        "Checkpoint",
        "find_checkpoints",
        "save_checkpoint",
    ),
    "Losses": ("MarginRankingLoss", "GHMRankingLoss", "LogisticLoss", "PairLoss"),
    "Results": ("SelfInfluence", "Influence", "TopInfluences", "load", "compare", "Comparison", "Agreement"),
    "Settings of a run": ("Method", "Projection", "Compute", "Observer"),
    "Before and after scoring": ("accuracy", "Evaluation", "forecast", "Forecast", "verify", "fill_store"),
    "Sources of tasks": ("sources.demo", "sources.recordings", "sources.python"),
    "Training": ("train", "TrainingSettings", "Trained", "EpochReport"),
    "Errors": ("UsageError", "InputError", "NumericalError", "OutputError"),
}

HEAD = """# Python API

<!-- Written by docs/make_api.py from docstrings. Change these and run that again, not this page. -->

`import tracin_func as ti`. Each function answers one question about a `ti.Task`: a scorer, its items, pairs of items
and saved checkpoints. Shapes are in brackets: [pairs] is one value per pair. The [glossary](../README.md#glossary)
explains the terms.
"""

PART = re.compile(r"^(Args|Attributes|Returns|Raises|Example|Examples):(.*)$")


def page() -> str:
    """The whole page."""
    links = _links()
    contents = [
        f"- [{title}](#{title.lower().replace(' ', '-')}): {', '.join(map(links.__getitem__, names))}"
        for title, names in SECTIONS.items()
    ]
    parts = [HEAD, "\n".join(contents) + "\n"]
    for title, names in SECTIONS.items():
        parts += [f"## {title}\n", *(_entry(name) for name in names)]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(parts))


def _links() -> dict[str, str]:
    """A link to each name; names that differ in capitals have numbered places on GitHub."""
    links, seen = {}, dict[str, int]()
    for name in (name for names in SECTIONS.values() for name in names):
        place = f"ti{name.lower().replace('.', '')}"
        seen[place] = seen.get(place, -1) + 1
        links[name] = f"[`{name}`](#{place}{f'-{seen[place]}' if seen[place] else ''})"
    return links


def _entry(name: str) -> str:
    value: Any = tracin_func
    for part in name.split("."):
        value = getattr(value, part)
    lines = [f"### ti.{name}", "", *_signature(f"ti.{name}", value), *_prose(inspect.getdoc(value) or "")]
    if inspect.isclass(value) and not issubclass(value, Exception):
        for member, each in _members(value):
            lines += ["", f"**`{_call(member, each)}`**", "", *_prose(inspect.getdoc(each) or "")]
    return "\n".join(lines) + "\n"


def _members(value: type) -> Iterator[tuple[str, Any]]:
    """Public methods and properties that have a docstring, those of the class first, without those of a public base."""
    shown = {name for base in value.__mro__[1:] if base.__name__ in tracin_func.__all__ for name in vars(base)}
    for owner in value.__mro__:
        for name, each in vars(owner).items() if owner.__module__.startswith("tracin_func") else ():
            described = isinstance(each, FunctionType | classmethod | property) and inspect.getdoc(getattr(value, name))
            if described and not name.startswith("_") and name not in shown:
                shown.add(name)
                yield name, getattr(value, name)


def _signature(name: str, value: Any) -> list[str]:
    if inspect.isclass(value) and issubclass(value, Exception):
        return []
    call = _call(name, value)
    if len(call) > 100:
        inside = call[len(name) + 1 : -1]
        call = f"{name}(\n    " + re.sub(r", (?=[*\w]+(?:=|,|$))", ",\n    ", inside) + ",\n)"
    return ["```", call, "```", ""]


def _call(name: str, value: Any) -> str:
    """The name with its parameters and their defaults."""
    if isinstance(value, property):
        return f".{name}"
    own = inspect.signature(value).parameters.values()
    method = not name.startswith("ti.")
    shown = [each for each in own if each.name != "self" and not each.name.startswith("_")]
    parts = [re.sub(r":.*?(?= = |$)", "", str(each.replace(annotation=each.empty))) for each in map(_plain, shown)]
    star = next((place for place, each in enumerate(shown) if each.kind is each.KEYWORD_ONLY), None)
    if star is not None and not any(each.kind is each.VAR_POSITIONAL for each in shown):
        parts.insert(star, "*")
    return f"{'.' if method else ''}{name}({', '.join(parts)})"


def _plain(parameter: inspect.Parameter) -> inspect.Parameter:
    """With a default that is short and the same on every machine."""
    default = parameter.default
    if default is parameter.empty or isinstance(default, str | int | float | bool | tuple | None):
        return parameter
    name = type(default).__name__
    return parameter.replace(default=_Words(f"{name}()" if hasattr(tracin_func, name) else "..."))


class _Words(str):
    """Words in place of a default."""

    def __repr__(self) -> str:
        return str(self)


def _prose(docstring: str) -> Iterator[str]:
    """A docstring as Markdown: parts as lists, examples as code."""
    part, block = "", list[str]()
    for line in [*docstring.splitlines(), "Returns:"]:
        found = PART.match(line)
        if found is None and (part == "" or not line or line.startswith(" ")):
            block.append(line)
            continue
        yield from _part(part, block)
        part, block = (found[1], [found[2].strip()]) if found else ("", [line])


def _part(part: str, lines: list[str]) -> Iterator[str]:
    text = textwrap.dedent("\n".join(lines).lstrip("\n")).strip("\n")
    if not text:
        return
    if part == "":
        yield from _paragraphs(text)
    elif part.startswith("Example") and ">>>" in text:
        yield from ("", "```pycon", text, "```", "")
    elif part in ("Args", "Attributes"):
        yield ""
        for entry in re.split(r"\n(?! )", text):
            name, _, words = entry.partition(": ")
            yield f"- `{name}`: {' '.join(words.split())}"
        yield ""
    else:
        yield from ("", f"*{part}*: {' '.join(text.split())}", "")


def _paragraphs(text: str) -> Iterator[str]:
    """Prose; what is indented is code."""
    for paragraph in re.split(r"\n\n", text):
        if all(line.startswith("    ") for line in paragraph.splitlines()):
            yield from ("```", textwrap.dedent(paragraph), "```", "")
        else:
            yield from (paragraph, "")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8", newline="\n")

"""Options by group, whoever gives them: a frozen dataclass per group, whose fields carry what help shows.

A setting comes from the first of these that has it: the option, the environment variable TRACIN_FUNC_NAME, the
checkpoint's own `args`, the default. A field is None, or a switch False, where its option was not given.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from tracin_func.errors import UsageError
from tracin_func.files import present

DATA, MODEL, LOSS, PAIRS = "Data", "Model and checkpoints", "Loss and scores", "Pairs"
COMPUTING, ESTIMATES, RESULTS, VIEW = "Computing", "Projection and store", "Results", "View"
MOST_USED = "Most used"
PATHS = tuple[Path, Path]
PANELS = (MOST_USED, VIEW, MODEL, LOSS, PAIRS, COMPUTING, ESTIMATES, RESULTS, DATA)

_Group = TypeVar("_Group")


@dataclass(frozen=True)
class Option:
    """One option of a group.

    Args:
        help: what it sets.
        default: what applies if it is not given, in words.
        panel: panel of help, if not the `panel` of its group.
        words: allowed words, or the `module:NAME` (a registry or a function) that gives them; none for a `Literal`.
        least: smallest allowed number.
        path: a text that may name a file; every `Path` does.
        argument: given without a flag.
        on: a switch that `--no-NAME` turns off.
        variable: whether the environment may set it.
    """

    help: str
    default: str = ""
    panel: str = ""
    words: str | tuple[str, ...] = ()
    least: int | None = None
    path: bool = False
    metavar: str | None = None
    aliases: tuple[str, ...] = ()
    argument: bool = False
    on: bool = False
    variable: bool = True
    spelled: str | None = None
    name: str = ""
    kind: Any = None
    optional: bool = False

    @property
    def flag(self) -> str:
        return self.spelled or flag(self.name)

    @property
    def environment(self) -> str | None:
        return f"TRACIN_FUNC_{self.name.upper()}" if self.variable else None

    @property
    def base(self) -> Any:
        """The type of a value: str, int, float, bool, Path, list[str] or a pair of paths."""
        return str if get_origin(self.kind) is Literal else self.kind

    def present(self, value: Any) -> Any:
        """The value; a path in the Unicode normal form that the file system has for it."""
        if self.kind == PATHS and isinstance(value, tuple | list):
            return tuple(present(Path(each)) for each in value)
        if self.kind == list[Path] and value:
            return [present(each) for each in value]
        if not value or not (self.path or self.kind is Path) or (found := present(Path(value))) == Path(value):
            return value
        return type(value)(found)

    def check(self, value: Any) -> None:
        """Check the allowed words and the least number.

        Raises:
            UsageError: the value is not allowed.
        """
        if value is None:
            return
        allowed = get_args(self.kind) if get_origin(self.kind) is Literal else self.words
        if isinstance(allowed, str):
            module, _, name = allowed.partition(":")
            known = getattr(import_module(f"tracin_func.{module}"), name)
            allowed = tuple(known() if callable(known) else known)
        name = f"the {self.name}" if self.argument else self.flag
        if allowed and value not in allowed:
            raise UsageError(f"{name} should be one of {', '.join(allowed)}. Got {value!r}.")
        if self.least is not None and value < self.least:
            raise UsageError(f"{name} should be at least {self.least}. Got {value}.")


def option(help: str, default: str = "", **more: Any) -> Any:
    """A field of a group; see `Option`."""
    return field(default=None, metadata={"option": Option(help, default, **more)})


def switch(help: str, **more: Any) -> Any:
    """A field of a group that is False by default; with `on`, True unless `--no-NAME` turns it off."""
    own = Option(help, **more)
    return field(default=own.on, metadata={"option": own})


def flag(name: str) -> str:
    """The command-line option of a setting."""
    return f"--{name.replace('_', '-')}"


def setting(name: str, value: Any) -> str:
    """A setting and its value in backticks, as Python writes them; the command line prints its own form."""
    return f"`{name}={value}`" if isinstance(value, int | float) else f'`{name}="{value}"`'


@cache
def declared(group: type) -> dict[str, Option]:
    """The options of a group by name."""
    types, panel, own = get_type_hints(group), getattr(group, "panel", ""), fields(group)
    options = {each.name: each.metadata["option"] for each in own}
    return {
        name: replace(
            each,
            name=name,
            kind=_kind(types[name]),
            optional=_kind(types[name]) != types[name],
            panel=each.panel or panel,
        )
        for name, each in options.items()
    }


def is_given(value: Any) -> bool:
    """Whether an option was given: not None, False or an empty list; 0 is a value."""
    return value is not None and value is not False and value not in ([], ())


@dataclass(frozen=True)
class Options:
    """The given options: `options[Group]` is typed; a group that the command does not take has its defaults.

    Args:
        groups: groups that the command takes.
        values: values by name, in the order given.
    """

    groups: tuple[type, ...]
    values: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, group: type[_Group]) -> _Group:
        own: type = group
        return group(**{name: self.values[name] for name in declared(own) if name in self.values})

    @property
    def table(self) -> dict[str, Option]:
        """Every option of the groups by name."""
        return {name: each for group in self.groups for name, each in declared(group).items()}

    def changed(self, **values: Any) -> "Options":
        """With other values."""
        return replace(self, values={**self.values, **values})

    def given(self) -> dict[str, Any]:
        """The values that were given, by name."""
        return {name: value for name, value in self.values.items() if is_given(value)}

    def flags(self, names: Any) -> list[str]:
        """The flags of those of these options that were given."""
        given, table = self.given(), self.table
        return [table[name].flag for name in names if name in given and name in table]

    def checked(self) -> "Options":
        """These options, checked one by one and group by group, with paths in the file system's form.

        Raises:
            UsageError, InputError: an option is not allowed, or two contradict each other.
        """
        table = self.table
        for name, value in self.values.items():
            table[name].check(value)
        found = self.changed(**{name: table[name].present(value) for name, value in self.values.items()})
        for group in self.groups:
            _ = found[group]
        return found


def groups_of(groups: Iterable[type | Callable[[], tuple[type, ...]]]) -> tuple[type, ...]:
    """The groups, with those that a registry makes."""
    return tuple(each for one in groups for each in ((one,) if isinstance(one, type) else one()))


def _kind(annotation: Any) -> Any:
    """`X` of `X | None`."""
    if isinstance(annotation, UnionType) or (get_origin(annotation) is not None and NoneType in get_args(annotation)):
        (annotation,) = (each for each in get_args(annotation) if each is not NoneType)
    return annotation

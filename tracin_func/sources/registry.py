"""Sources by name. A new one is a folder with its options and its class, and a line here."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from tracin_func.errors import UsageError
from tracin_func.sources.groups import ModelOptions, PairOptions, QueryOptions, loss_groups
from tracin_func.sources.options import Options, declared, groups_of
from tracin_func.sources.python.options import PythonOptions
from tracin_func.sources.recordings.names import classes_in_names
from tracin_func.sources.recordings.options import RecordingOptions
from tracin_func.sources.source import Listener, Source, queries_of

if TYPE_CHECKING:
    from tracin_func.task.item_view import ItemView
    from tracin_func.task.task import Task

DEFAULT_SOURCE = "recordings"  # if no source is asked for
SHARED = (ModelOptions, loss_groups, PairOptions, QueryOptions)  # groups of options that every source takes


@dataclass(frozen=True)
class Entry:
    """A source in the registry.

    Args:
        options: its group of options.
        place: `module:Class` of the `Source`, imported when needed.
        classes: reads the classes of items from their ids, as far as ids show them; used for result files.
        viewer: `module:function`: from what provenance records about a source to a function that shows an item by its
            id, or None if the items are not at hand; used for reports.
    """

    options: type
    place: str
    classes: Callable[[Iterable[str]], dict[str, str]] | None = None
    viewer: str | None = None


SOURCES = {
    "python": Entry(PythonOptions, "tracin_func.sources.python.source:PythonTask"),
    "recordings": Entry(
        RecordingOptions,
        "tracin_func.sources.recordings.source:Recordings",
        classes_in_names,
        "tracin_func.sources.recordings.view:viewer",
    ),
}


def source_groups() -> tuple[type, ...]:
    """The option groups of all sources."""
    return tuple(entry.options for entry in SOURCES.values())


def source_of(options: Options) -> Source:
    """The source that the options ask for.

    Raises:
        UsageError: options that contradict each other.
    """
    name, kind = next(
        ((name, found) for name in SOURCES if (found := _load(name)).asked(options)),
        (DEFAULT_SOURCE, _load(DEFAULT_SOURCE)),
    )
    foreign = [field for group in source_groups() if group is not SOURCES[name].options for field in declared(group)]
    if given := [f"`{each}`" for each in (*foreign, *kind.unused) if each in options.given()]:
        raise UsageError(f"{', '.join(given)} cannot be used here: {kind.brings}.")
    return kind(options)


def task_from(name: str, values: Mapping[str, Any], **more: Any) -> "Task":
    """The task of the source `name` with options by name; `more` are further arguments of its `job`.

    Raises:
        UsageError: an option is unknown, or its value is not allowed.
    """
    groups = groups_of((SOURCES[name].options, *SHARED))
    known = {each for group in groups for each in declared(group)}
    if unknown := sorted(values.keys() - known):
        raise UsageError(f"`{unknown[0]}` is not an option of {name}. Allowed: {', '.join(sorted(known))}.")
    options = Options(groups, {key: value for key, value in values.items() if value is not None}).checked()
    source = _load(name)(options)
    source.check()
    job = source.job(Listener(), **more)
    queries, task = queries_of(job, options), job.task
    return import_module("tracin_func.scoring.queries").directed(task, queries) if queries else task


def classes_of_ids(ids: Iterable[str]) -> dict[str, str]:
    """The class of each item whose id shows it."""
    names = list(ids)
    known = [entry.classes(names) for entry in SOURCES.values() if entry.classes is not None]
    return {item: found for each in known for item, found in each.items()}


def viewer_of(record: Mapping[str, Any]) -> "Callable[[str], ItemView | None] | None":
    """What shows items by their ids, by what provenance records about their source; None if no source can."""
    found = (_object(entry.viewer)(record) for entry in SOURCES.values() if entry.viewer is not None)
    return next((each for each in found if each is not None), None)


def _load(name: str) -> type[Source]:
    found: type[Source] = _object(SOURCES[name].place)
    return found


def _object(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)

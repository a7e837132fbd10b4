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
    from tracin_func.sources.training import TrainingJob
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
        training: `module:function` of options and listener that returns a `TrainingJob`; None if it has none.
    """

    options: type
    place: str
    classes: Callable[[Iterable[str]], dict[str, str]] | None = None
    viewer: str | None = None
    training: str | None = None


SOURCES = {
    "python": Entry(
        PythonOptions,
        "tracin_func.sources.python.source:PythonTask",
        training="tracin_func.sources.python.training:job",
    ),
    "recordings": Entry(
        RecordingOptions,
        "tracin_func.sources.recordings.source:Recordings",
        classes_in_names,
        "tracin_func.sources.recordings.view:viewer",
        "tracin_func.sources.recordings.training:job",
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
    name, kind = _asked(options)
    _refuse(options, [*_foreign(name), *kind.unused], kind.brings)
    return kind(options)


def training_job(options: Options, listener: Listener) -> "TrainingJob":
    """What the options ask to train.

    Raises:
        UsageError, InputError: options contradict each other, or what they name does not fit.
    """
    name, kind = _asked(options)
    place = SOURCES[name].training
    if place is None:
        raise UsageError(f"`train` cannot train on the data of {name}. Give a task of your own with `task`.")
    recorded = ("model", "model_arg", "seed") if name != DEFAULT_SOURCE else ("keep_weights",)
    _refuse(options, [*_foreign(name), *recorded], kind.brings)
    module, _, function = place.partition(":")
    found: TrainingJob = getattr(import_module(module), function)(options, listener)
    return found


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


def _asked(options: Options) -> tuple[str, type[Source]]:
    """The name and the class of the source that the options ask for."""
    found = ((name, kind) for name in SOURCES if (kind := _load(name)).asked(options))
    return next(found, (DEFAULT_SOURCE, _load(DEFAULT_SOURCE)))


def _foreign(name: str) -> list[str]:
    """The options of the other sources."""
    return [field for group in source_groups() if group is not SOURCES[name].options for field in declared(group)]


def _refuse(options: Options, names: Iterable[str], brings: str) -> None:
    if given := [f"`{each}`" for each in names if each in options.given()]:
        raise UsageError(f"{', '.join(given)} cannot be used here: {brings}.")


def _load(name: str) -> type[Source]:
    found: type[Source] = _object(SOURCES[name].place)
    return found


def _object(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)

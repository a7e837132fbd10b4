"""`--from FILE.provenance.json`: the options of a recorded run, and what has changed since."""

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from tracin_func.cli.errors import say
from tracin_func.cli.options import INFLUENCE, ResultOptions
from tracin_func.errors import InputError
from tracin_func.files import read_object
from tracin_func.gradients.device import versions
from tracin_func.results.run import Run
from tracin_func.sources.options import PATHS, Options, groups_of

_REMEDY = "Name the FILE.provenance.json of a result file with --from."


def recorded_options(command: str, options: Options) -> Options:
    """`options`, and where one was not given that of the run that `--from` names, with its batch size and budget.

    With equal threads, files and versions such a run gives the same scores to the last bit.

    Raises:
        InputError: the file records no run of this command.
    """
    repeat = options[ResultOptions].repeat
    if repeat is None:
        return options
    records = _records(repeat, command)
    column, record = next(reversed(records.items()))  # they are in the order in which they were first written
    if any(other["options"] != record["options"] for other in records.values()):
        say(f"warning: {repeat} records different runs of {command}; repeating that of {column}.")
    engine = record["engine"]
    before = {
        **record["options"],
        "batch_size": str(engine["batch_size"]),
        "memory_budget": str(engine["memory_budget"]),
    }
    threads = engine["threads"]
    if 1 <= threads <= (os.cpu_count() or 1):
        torch.set_num_threads(threads)
    known = as_options({name: value for name, value in before.items() if name in options.table}, repeat, _REMEDY)
    given = options.given()
    return options.changed(**{name: value for name, value in known.items() if name not in given}).checked()


def recorded_kernels(command: str, options: Options) -> Mapping[str, Any] | None:
    """How the run that `--from` names computed convolutions; None where no run is named or it records nothing.

    Raises:
        InputError: the file records no run of this command.
    """
    repeat = options[ResultOptions].repeat
    if repeat is None:
        return None
    kernels = next(reversed(_records(repeat, command).values()))["engine"].get("kernels")
    return kernels if isinstance(kernels, dict) else None


def as_options(recorded: Mapping[str, Any], path: Path, remedy: str) -> dict[str, Any]:
    """Options as the command line gives them, of those that the file at `path` records.

    Raises:
        InputError: an option does not exist, or its value is of another type.
    """
    types: dict[Any, tuple[type, ...]] = {str: (str,), Path: (str,), int: (int,), float: (int, float), bool: (bool,)}
    table, found = Options(groups_of(INFLUENCE)).table, {}
    for name, value in recorded.items():
        kind = table[name].base if name in table else None
        if kind is None or type(value) not in types.get(kind, (list,)):
            raise InputError(f"`{path}` is damaged: it records the option '{name}' with the value {value!r}. {remedy}")
        found[name] = _as_given(kind, value)
    return found


def _as_given(kind: Any, value: Any) -> Any:
    if kind == PATHS:
        return tuple(map(Path, map(str, value)))
    return Path(value) if kind is Path else [*map(str, value)] if kind == list[str] else value


def report_changes(path: Path, score: str, run: Run, report: Callable[[str], None]) -> None:
    """Warn of what is not as it was recorded: files of other content, other versions, other threads."""
    record = list(_records(path, score).values())[-1]
    changes = list(_changes(record, run))
    if record["options"].get("with_self") and score == "self":
        changes.append("self-influence was recorded from one pass with influence (--with-self)")
    if changes:
        report(f"warning: not as recorded in {path}: {'; '.join(changes)}. Scores may differ.")


def _records(path: Path, command: str) -> dict[str, dict[str, Any]]:
    """The columns of a command in the file, and how each came about; at least one."""
    if not path.is_file():
        raise InputError(f"--from {path}: no such file. Expected a file FILE.provenance.json beside a result file.")
    columns = read_object(path, number=None, remedy=_REMEDY).get("columns")
    named = columns if isinstance(columns, dict) else {}
    entries = {name: entry for name, entry in named.items() if isinstance(entry, dict)}
    own = {name: entry for name, entry in entries.items() if entry.get("score") == command}
    records = {name: entry for name, entry in own.items() if _can_be_repeated(entry)}
    if not records:
        scores = ", ".join(sorted({str(entry.get("score")) for entry in entries.values()})) or "no run"
        what = (
            f"its runs of {command} are not recorded with their options: another version or a Python program wrote them"
            if own
            else f"records no run of {command}, only of {scores}"
        )
        raise InputError(f"--from {path}: {what}. Expected the provenance file of a result of `tracin-func {command}`.")
    return records


def _can_be_repeated(entry: Mapping[str, Any]) -> bool:
    if not all(isinstance(entry.get(name), dict) for name in ("engine", "options", "source", "versions")):
        return False
    engine, checkpoints = entry["engine"], entry.get("checkpoints")
    return (
        engine.keys() >= {"batch_size", "memory_budget"}
        and isinstance(engine.get("threads"), int)
        and isinstance(checkpoints, list)
        and all(isinstance(each, dict) and isinstance(each.get("name"), str) for each in checkpoints)
    )


def _changes(record: Mapping[str, Any], run: Run) -> Iterator[str]:
    before = {each["name"]: each.get("sha256") for each in record["checkpoints"]}
    now = {each["name"]: each.get("sha256") for each in run.checkpoints}
    if changed := [name for name in now if now[name] != before.get(name)] + [
        name for name in before if name not in now
    ]:
        yield f"checkpoints {', '.join(changed[:3])}{' ...' if len(changed) > 3 else ''} have other content"
    of = {
        "recordings_sha256": "recordings",
        "query_audio": "recordings of the query",
        "pairs": "pairs",
        "exclusions": "exclusions",
    }
    for name, words in of.items():
        if name in run.source and run.source[name] != record["source"].get(name):
            yield f"{words} differ"
    for name in ("torch", "tracin-func"):
        recorded, own = record["versions"].get(name), versions().get(name)
        if recorded != own:
            yield f"{name} {own}, recorded {recorded}"
    if record["engine"]["threads"] != run.engine["threads"]:
        yield f"{run.engine['threads']} threads, recorded {record['engine']['threads']}"

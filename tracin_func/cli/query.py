"""Runs whose training pairs are read in blocks: the strongest pairs of each test pair, or a score of every pair."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from tracin_func.cli.assess import Assessment
from tracin_func.cli.errors import Teller, interruption, note, printing, say
from tracin_func.cli.options import TABLE, is_given
from tracin_func.cli.output import Output
from tracin_func.cli.progress import phases
from tracin_func.cli.repeat import tell_changes
from tracin_func.cli.tasks import job_of, with_tests
from tracin_func.errors import UsageError
from tracin_func.gradients.compute import Compute
from tracin_func.report.terminal.forecast import print_forecast
from tracin_func.report.terminal.scores import (
    influence_document,
    print_hardest,
    print_influence,
    print_plan,
    run_document,
)
from tracin_func.results.top import StreamedSelfInfluence, TopInfluences
from tracin_func.results.views import PAIR
from tracin_func.scoring.forecast import forecast
from tracin_func.scoring.observer import Observer
from tracin_func.scoring.top_k.run import query, query_self
from tracin_func.task.method import Method
from tracin_func.task.pair_reader import is_parquet
from tracin_func.task.pair_table import PairTable
from tracin_func.task.task import Task

# Options that need every score at hand, with the value that does not.
_OF_ALL = {
    "per_checkpoint": None,
    "score_name": None,
    "with_self": None,
    "verify": None,
    "weight_test_pairs": None,
    "normalize": "none",
    "by": PAIR,
}


@dataclass(frozen=True)
class Kept:
    """What a query came to."""

    output: Output
    task: Task
    queried: TopInfluences | StreamedSelfInfluence
    told: list[str]


def check_query(options: Mapping[str, Any], scores: tuple[str, ...]) -> None:
    """Raise for options that contradict --keep, before anything is read.

    Raises:
        UsageError: naming both.
    """
    keep = options.get("keep")
    if keep is not None:
        if keep < 1:
            raise UsageError(f"--keep should be at least 1. Got {keep}.")
        if options["format"] == "json":
            raise UsageError(
                "--format json holds a score of every pair, and --keep writes the strongest alone. Use --format "
                "parquet or csv; --json prints them as a document."
            )
        if given := _needing_all(options):
            raise UsageError(f"{given[0]} needs every score, and --keep holds the strongest alone. Leave one out.")
    if is_streamed(options, scores) and options["limit"] is not None:
        raise UsageError(f"--limit is of pairs that are held, and {options['pairs']} is read in blocks. Leave it out.")


def is_query(options: Mapping[str, Any], scores: tuple[str, ...]) -> bool:
    """Whether training pairs are read in blocks: with --keep, and for self-influence from Parquet to Parquet."""
    if options.get("keep") is not None:
        return True
    both = is_parquet(options["pairs"]) and options["format"] == "parquet"
    return scores == ("self",) and both and not _needing_all(options)


def is_streamed(options: Mapping[str, Any], scores: tuple[str, ...]) -> bool:
    """Whether they come from a file that is never held."""
    return is_query(options, scores) and is_parquet(options["pairs"])


def run_query(
    kind: str,
    options: Mapping[str, Any],
    output: Output,
    method: Method,
    compute: Compute,
    scores: tuple[str, ...],
    check_files: Callable[[], None],
) -> Kept | None:
    """One tone, or one task: the answer in its file; None for a dry run."""
    tell = Teller(options["quiet"])
    streamed, of_self = is_streamed(options, scores), scores == ("self",)
    job = job_of(kind, options, not of_self, tell, streamed=streamed, chosen=check_files)
    check_files()
    task = job.task if of_self else with_tests(job, options, method, compute, tell)
    task = replace(task, describe={**task.describe, "notices": tell.told})
    table = replace(task, train=PairTable(options["pairs"], ids=options["ids"])) if streamed else task
    pairs = len(table.train)
    assess = Assessment(
        lambda line: say(line, quiet=options["quiet"]), tell, len(task.checkpoints), pairs, job.contradiction
    )
    planned = print_plan if options["explain_plan"] else lambda _: None
    observer = Observer(partial(note, quiet=options["quiet"]), planned=planned, evaluated=assess)
    if options["dry_run"]:
        asked = {"self_influence": of_self, "influence": not of_self, "every": True}
        expected = forecast(task, **asked, method=method, compute=compute, observer=observer)
        with printing():
            print_forecast(task, expected, output.files.values(), as_json=options["json"], streamed=pairs)
        return None
    totals = {"gradients": len(task.checkpoints), "pairs": 1.0}
    with phases(totals, quiet=options["quiet"]) as (of_checkpoints, of_pairs):
        observer = replace(observer, progress=of_checkpoints)
        how = method, compute, observer, of_pairs
        found = query_self(table, *how) if of_self else query(table, options["keep"], *how)
    if options["repeat"] is not None:
        tell_changes(options["repeat"], "self" if of_self else "influence", found.run, tell)
    if compute.world.first:
        _save(found, output)
    return Kept(output, task, found, tell.told)


def show_kept(done: Kept, top: int | None) -> None:
    """The tables, and where the file is."""
    with interruption(f"the scores are in {done.output}"), printing():
        if isinstance(done.queried, TopInfluences):
            print_influence(done.queried, done.task, PAIR, top or 3)
        else:
            print_hardest(done.queried, top or 10)
        for name, path in done.output.described().items():
            print(f"{name} scores: {path}")
        print("Origin of each: FILE.provenance.json beside it.")


def kept_document(done: Kept, top: int | None) -> dict[str, Any]:
    """A query for `--json`."""
    found, top = done.queried, top or 10
    result: dict[str, Any] = {
        "files": done.output.described(),
        "notices": [*done.told, *found.run.notices],
        "run": run_document(found.run),
    }
    if isinstance(found, StreamedSelfInfluence):
        return result | {"pairs": len(found.scores), "self": [each._asdict() for each in found.hardest(top)]}
    return result | {"pairs": found.strongest.pairs, "influence": influence_document(found, top)}


def _save(found: TopInfluences | StreamedSelfInfluence, output: Output) -> None:
    command = [Path(sys.argv[0]).name, *sys.argv[1:]]
    with interruption(f"each of {output} is as it was or holds the new scores"):
        for path in output.files.values():
            found.save(path, command=command, options=output.options)


def _needing_all(options: Mapping[str, Any]) -> list[str]:
    """The options given that need every score."""
    values = {name: options.get(name) for name in _OF_ALL}
    return [TABLE[name].flag for name, value in values.items() if is_given(value) and value != _OF_ALL[name]]

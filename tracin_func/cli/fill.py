"""`tracin-func gradients`, and the shards of `self` and `influence`: fill a store, score nothing."""

import logging
import sys
from dataclasses import asdict, replace

from tracin_func.cli.errors import Reporter, interruption, printing
from tracin_func.cli.options import PrintOptions, ScoringOptions, StoreOptions
from tracin_func.cli.output import recorded
from tracin_func.cli.processes import record_job, require_same_job, say_filled, together
from tracin_func.cli.progress import progress
from tracin_func.cli.resolve import (
    compute_of,
    is_in_blocks,
    is_streamed,
    limited,
    listener_of,
    method_of,
    observer_of,
    runs_of,
)
from tracin_func.errors import UsageError
from tracin_func.gradients.processes import World
from tracin_func.report.terminal.scores import print_document
from tracin_func.scoring.fill import fill_store
from tracin_func.scoring.observer import Observer
from tracin_func.scoring.queries import directed
from tracin_func.sources.groups import PairOptions
from tracin_func.sources.options import Options
from tracin_func.sources.source import queries_of
from tracin_func.task.pair_reader import is_parquet


def gradients(options: Options) -> None:
    """Fill the store of each run, in all processes that share it.

    Raises:
        As `score_all`; blocks that are finished stay in the store.
    """
    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr)
    if options[StoreOptions].store is None:
        raise UsageError("gradients are kept in a store. Expected --store FOLDER.")
    with together(options) as world:
        fill(None, options if world.first else options.changed(quiet=True), ("influence",), world)


def fill(command: str | None, options: Options, scores: tuple[str, ...], world: World) -> None:
    """The rows of every run, or this shard's share of them; `command` is what shards are to be merged to."""
    quiet, found = options[PrintOptions].quiet, []
    for source in runs_of(options):
        own = source.options
        method, compute = method_of(source), compute_of(source, world)
        of_items = command is None and is_parquet(own[PairOptions].pairs)  # rows of all items, whatever the pairs
        with_test, streamed = "influence" in scores and not of_items, of_items or is_streamed(own, scores)
        report = Reporter(quiet, options[PrintOptions].verbose)
        job = source.job(listener_of(report), with_test=with_test, streamed=streamed)
        task = limited(job.task, own[ScoringOptions].limit, report)
        if with_test and (queries := queries_of(job, own)):
            task = directed(task, queries, method, compute, Observer(notice=report))
        store = compute.store
        assert store is not None
        if command is not None:
            require_same_job(store, command, recorded(own), compute.shard)
        with (
            interruption(f"blocks that are finished are in {store}"),
            progress("gradients", len(task.checkpoints), quiet=quiet) as advance,
        ):
            items = command is None or is_in_blocks(own, scores)
            observer = replace(observer_of(own, job.settings), progress=advance)
            filled = fill_store(task, compute, items=items, method=method, observer=observer)
        if job.settings.differing is not None:
            report(f"warning: {job.settings.differing}")
        if command is not None and world.first:
            record_job(store, command, recorded(own), compute.shard)
        say_filled(filled, store, command, quiet=quiet)
        found.append({"store": str(store), "checkpoints": [asdict(each) for each in filled]})
    if options[PrintOptions].json:
        with printing():
            print_document(command or "gradients", found)

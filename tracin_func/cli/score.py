"""`tracin-func self`, `influence` and `merge`: options to tasks, tasks to scores, scores to files and tables."""

import functools
import logging
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tracin_func.cli.assess import Assessment
from tracin_func.cli.errors import Reporter, interruption, printing, say, show
from tracin_func.cli.fill import fill
from tracin_func.cli.options import (
    INFLUENCE,
    SELF,
    InfluenceOptions,
    MergeOptions,
    PrintOptions,
    ResultOptions,
    ScoringOptions,
    StoreOptions,
    in_flags,
)
from tracin_func.cli.output import Output, Result, output_of
from tracin_func.cli.processes import recorded_job, together
from tracin_func.cli.progress import phases, progress
from tracin_func.cli.repeat import recorded_kernels, recorded_options, report_changes
from tracin_func.cli.resolve import (
    compute_of,
    is_in_blocks,
    is_streamed,
    limited,
    listener_of,
    method_of,
    needing_all,
    observer_of,
    runs_of,
    shard_of,
    title_of,
)
from tracin_func.errors import NumericalError, UsageError
from tracin_func.gradients.compute import Compute
from tracin_func.gradients.processes import World
from tracin_func.losses.custom import as_loss
from tracin_func.report.terminal.forecast import print_forecast
from tracin_func.report.terminal.scores import (
    influence_document,
    item_classes,
    print_document,
    print_hardest,
    print_influence,
    print_self,
    run_document,
)
from tracin_func.results.influence import Influence, SelfInfluence
from tracin_func.results.top import TopInfluences
from tracin_func.results.verification import Verification
from tracin_func.results.views import CLASS, CLASS_PAIR, ITEM, PAIR
from tracin_func.scoring.accuracy import BY_SCORE, select_test_pairs
from tracin_func.scoring.forecast import forecast
from tracin_func.scoring.observer import Observer
from tracin_func.scoring.queries import directed
from tracin_func.scoring.score import score
from tracin_func.scoring.self_influence import query_self
from tracin_func.scoring.top_k.run import query
from tracin_func.sources.groups import PairOptions, QueryOptions
from tracin_func.sources.options import Options, groups_of
from tracin_func.sources.registry import classes_of_ids
from tracin_func.sources.source import Source, queries_of
from tracin_func.sources.values import NUM_TEST, num_test
from tracin_func.task.method import Method
from tracin_func.task.pair_table import PairTable
from tracin_func.task.task import Task


@dataclass(frozen=True)
class Done:
    """The outcome of a run: results by score, and the notices given."""

    task: Task
    output: Output
    results: Mapping[str, Result]
    notices: list[str]
    verification: Verification | None


def merge(options: Options) -> None:
    """Run what the shards on a store were run for, now that its rows are there.

    Raises:
        InputError: rows are missing. Else as `score_all`.
    """
    command, values = recorded_job(options[MergeOptions].folder)
    own = options[PrintOptions]
    groups = groups_of(SELF if command == "self" else INFLUENCE)
    score_all(command, Options(groups, {**values, "quiet": own.quiet, "json": own.json}).checked())


def score_all(command: str, options: Options, *, tables: bool = True) -> list[Done]:
    """Run the command "self" or "influence", once for each run of its source, in all processes that share it.

    What is read is checked first, then the files of all runs, then they are scored. Returns what was scored, of the
    first process only; without `tables` no scores are printed.

    Raises:
        UsageError, InputError, NumericalError, OutputError: see `errors`; result files are then as they were.
    """
    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr)
    options = recorded_options(command, options)
    scores = ("self",) if command == "self" else ("influence", "self")[: 1 + options[InfluenceOptions].with_self]
    _check(options, scores)
    with together(options) as world:
        own = options if world.first else options.changed(quiet=True, json=False)
        if own[StoreOptions].shard is not None:
            fill(command, own, scores, world)
            return []
        finished = _score_runs(own, scores, world, tables=tables)
        if own[PrintOptions].json and finished:
            with interruption("the scores are in their files"), printing():
                print_document(command, [_document(done, own[ResultOptions].top or 10) for done in finished])
        _require_verified(finished)
        return finished if world.first else []


self_influence, influence = functools.partial(score_all, "self"), functools.partial(score_all, "influence")


def _check(options: Options, scores: tuple[str, ...]) -> None:
    """Options that contradict each other, before anything is read."""
    own, keep, store = options[ScoringOptions], options[InfluenceOptions].keep, options[StoreOptions]
    if shard_of(store.shard) is not None and (given := options.flags(("dry_run", "verify"))):
        raise UsageError(f"{given[0]} was given with --shard, which scores nothing. Leave one of them out.")
    if keep is not None:
        if options[ResultOptions].format == "json":
            raise UsageError(
                "--format json needs every score, and --keep writes only the strongest. Use --format parquet or csv; "
                "--json prints them as a document."
            )
        if given := needing_all(options):
            raise UsageError(f"{given[0]} needs every score, and --keep keeps only the strongest. Leave one out.")
    if is_streamed(options, scores) and own.limit is not None:
        pairs = options[PairOptions].pairs
        raise UsageError(f"--limit needs all pairs in memory, and {pairs} is read in blocks. Leave it out.")


def _score_runs(options: Options, scores: tuple[str, ...], world: World, *, tables: bool) -> list[Done]:
    sources = runs_of(options)
    kernels = recorded_kernels(scores[0], options)
    runs = [
        (each, output_of(each, scores), method_of(each), replace(compute_of(each, world), kernels=kernels))
        for each in sources
    ]
    for each in sources:
        each.check()

    @functools.cache
    def check_files() -> None:
        for each, output, *_ in runs:
            output.check(synthetic=each.synthetic, named=options[ResultOptions].metadata_dir is not None)

    finished = []
    for each, output, method, compute in runs:
        if len(runs) > 1:
            say(f"{title_of(each, sources)}:", quiet=options[PrintOptions].quiet)
        done = _score_one(each, output, method, compute, scores, check_files)
        if done is not None:
            finished.append(done)
            if tables and not (options[PrintOptions].json or options[PrintOptions].quiet):
                show("\n")
                _show(done, options)
            if done.verification is not None:
                say(_verdict(done.verification), quiet=options[PrintOptions].quiet)
    return finished


def _score_one(
    source: Source,
    output: Output,
    method: Method,
    compute: Compute,
    scores: tuple[str, ...],
    check_files: Callable[[], None],
) -> Done | None:
    """One run: scores in their files; None for a dry run."""
    options, shown = source.options, source.options[PrintOptions]
    report = Reporter(shown.quiet, shown.verbose)
    blocks, streamed = is_in_blocks(options, scores), is_streamed(options, scores)
    with_influence = "influence" in scores
    job = source.job(listener_of(report, check_files), with_test=with_influence, streamed=streamed)
    task = limited(job.task, options[ScoringOptions].limit, report)
    if method.weight_test_pairs and (method.test_functional != "loss" or not as_loss(task.loss).weighted):
        report("warning: --weight-test-pairs has no effect: it needs a GHM loss and --test-functional loss.")
    _require_classes(options[ResultOptions].by, task)
    check_files()
    if with_influence and options[QueryOptions].test_select in BY_SCORE:
        task = _with_selected(task, options[QueryOptions], job.settings.seed, method, compute, report)
    if with_influence and (queries := queries_of(job, options)):
        task = directed(task, queries, method, compute, Observer(notice=report))
    own = options[PairOptions]
    table = replace(task, train=PairTable(str(own.pairs), ids=own.ids)) if streamed else task
    dry_run, pairs = options[ScoringOptions].dry_run, len(table.train)
    assess = Assessment(
        report,
        quiet=shown.quiet,
        verbose=shown.verbose or dry_run,
        names=[each.known_as(place) for place, each in enumerate(task.checkpoints, start=1)],
        pairs=pairs,
        limited=len(task.train) < len(job.task.train),
        settings=job.settings,
    )
    observer = observer_of(options, job.settings, assess)
    if dry_run:
        asked = {"self_influence": "self" in scores, "influence": with_influence}
        expected = forecast(task, **asked, every=blocks, method=method, compute=compute, observer=observer)
        with printing():
            read = pairs if blocks else None
            print_forecast(task, expected, output.files.values(), as_json=shown.json, streamed=read)
        return None
    how = method, compute, observer
    found, checked = _in_blocks(table, *how, scores, options) if blocks else _at_once(task, *how, scores, options)
    results = {name: _with_notices(result, report.notices) for name, result in found.items()}
    if (path := options[ResultOptions].repeat) is not None:
        report_changes(path, scores[0], results[scores[0]].run, report)
    if checked is not None:
        report.notices.append(str(checked) if checked.passed else f"warning: {checked}")
    if compute.world.first:
        output.save(results, report)
    return Done(task, output, results, report.notices, checked)


def _at_once(
    task: Task, method: Method, compute: Compute, observer: Observer, scores: tuple[str, ...], options: Options
) -> tuple[dict[str, Any], Verification | None]:
    """The scores by name, each of all pairs, and their verification."""
    asked = {"self_influence": "self" in scores, "influence": "influence" in scores}
    count = options[ScoringOptions].verify if compute.world.first else None
    with progress("scoring", len(task.checkpoints), quiet=options[PrintOptions].quiet) as advance:
        found = score(task, method, compute, replace(observer, progress=advance), **asked, verify=count)
    every = {"influence": found.influence, "self": found.self_influence}
    return {name: result for name, result in every.items() if result is not None}, found.verification


def _in_blocks(
    task: Task, method: Method, compute: Compute, observer: Observer, scores: tuple[str, ...], options: Options
) -> tuple[dict[str, Any], None]:
    """The same where training pairs are scored in blocks."""
    totals = {"gradients": len(task.checkpoints), "pairs": 1.0}
    with phases(totals, quiet=options[PrintOptions].quiet) as (of_checkpoints, of_pairs):
        how = method, compute, replace(observer, progress=of_checkpoints), of_pairs
        if scores == ("self",):
            return {"self": query_self(task, *how)}, None
        keep = options[InfluenceOptions].keep
        assert keep is not None
        return {"influence": query(task, keep, *how)}, None


def _with_notices(result: Any, notices: list[str]) -> Any:
    """A result whose record holds the notices, also those that follow until it is saved."""
    return replace(result, run=replace(result.run, source={**result.run.source, "notices": notices}))


def _with_selected(
    task: Task, asked: QueryOptions, seed: int, method: Method, compute: Compute, report: Reporter
) -> Task:
    """The task with the test pairs that --test-select asks for."""
    held_out, count = len(task.held_out or ()), num_test(asked.num_test)
    wanted = min(NUM_TEST, held_out) if count == "default" else count
    assert asked.test_select is not None
    assert not isinstance(wanted, str)
    silent = Observer(notice=lambda sentence: None)
    test = select_test_pairs(task, method, compute, asked.test_select, wanted, seed, silent)
    report(f"{len(test)} of {held_out} test pairs were selected as {asked.test_select}.")
    return replace(task, test=test)


def _show(done: Done, options: Options) -> None:
    """The tables, where the files are, and what to run next."""
    asked, verbose = options[ResultOptions], options[PrintOptions].verbose
    by, top = asked.by or PAIR, asked.top
    with interruption(f"the scores are in {done.output}"), printing():
        for result in done.results.values():
            if isinstance(result, Influence | TopInfluences):
                print_influence(result, by, top or 3, verbose=verbose)
            elif isinstance(result, SelfInfluence):
                print_self(result, by, top or 10, verbose=verbose)
            else:
                print_hardest(result, top or 10, verbose=verbose)
        print()
        for path in done.output.files.values():
            print(f"Written  {path} (+ .provenance.json)")
        first = next(iter(done.results.values()))
        if isinstance(first, SelfInfluence | Influence):
            in_classes = isinstance(first, SelfInfluence) and by != CLASS_PAIR and classes_of_ids(first.pairs.items[0])
            view = CLASS_PAIR if in_classes else ITEM  # `show` knows classes by the ids of items alone
            print(f"Next     tracin-func show {shlex.quote(str(next(iter(done.output.files.values()))))} --by {view}")


def _document(done: Done, top: int) -> dict[str, Any]:
    """A run for `--json`."""
    found: dict[str, Any] = {"files": done.output.described(), "notices": list(done.notices)}
    for name in ("self", "influence"):
        if (result := done.results.get(name)) is None:
            continue
        found |= {"run": run_document(result.run)}
        if isinstance(result, Influence | TopInfluences):
            pairs = result.strongest.pairs if isinstance(result, TopInfluences) else len(result.ids)
            found |= {"pairs": pairs, name: influence_document(result, top)}
        else:
            found |= {"pairs": len(result.scores), name: [each._asdict() for each in result.hardest(top)]}
    found["notices"] += map(in_flags, next(iter(done.results.values())).run.notices)
    return found if done.verification is None else found | {"verification": done.verification.describe()}


def _verdict(found: Verification) -> str:
    return str(found) if found.passed else f"warning: {found}"


def _require_verified(finished: Sequence[Done]) -> None:
    for done in finished:
        if done.verification is not None and not done.verification.passed:
            raise NumericalError(
                f"{done.verification} The scores are in {done.output}. Score with --dtype float64, or with another "
                "--engine, and compare."
            )


def _require_classes(by: str | None, task: Task) -> None:
    if by in (CLASS, CLASS_PAIR) and not item_classes(task):
        raise UsageError(
            f"--by {by} needs classes of items, and this task has none. Give `Task(item_classes=...)` or --by item."
        )

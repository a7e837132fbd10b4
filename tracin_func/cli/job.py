"""One run of `self` or `influence`: options to a task, a task to scores, scores to files and tables."""

import functools
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from tracin_func.cli.assess import Assessment
from tracin_func.cli.computing import check_options, compute_of, method_of
from tracin_func.cli.errors import Teller, interruption, note, printing, say
from tracin_func.cli.options import INFLUENCE_ONLY, JOB
from tracin_func.cli.output import Output, given, output_of
from tracin_func.cli.processes import record_job, recorded_job, require_same_job, say_filled, shard_of, together
from tracin_func.cli.progress import progress
from tracin_func.cli.query import Kept, check_query, is_query, is_streamed, kept_document, run_query, show_kept
from tracin_func.cli.repeat import recorded_options, tell_changes
from tracin_func.cli.tasks import check_folders, each_tone, job_of, kind_of, with_tests
from tracin_func.errors import NumericalError, UsageError
from tracin_func.gradients.compute import Compute
from tracin_func.gradients.device import resolve_device
from tracin_func.gradients.processes import World
from tracin_func.losses.custom import as_loss
from tracin_func.report.terminal.forecast import print_forecast
from tracin_func.report.terminal.scores import (
    influence_document,
    item_classes,
    print_document,
    print_influence,
    print_plan,
    print_self,
    run_document,
)
from tracin_func.results.views import CLASS, CLASS_PAIR
from tracin_func.scoring.fill import fill_store
from tracin_func.scoring.forecast import forecast
from tracin_func.scoring.observer import Observer
from tracin_func.scoring.score import Scores, score
from tracin_func.task.method import Method
from tracin_func.task.pair_reader import is_parquet
from tracin_func.task.task import Task


@dataclass(frozen=True)
class Finished:
    """What a run came to."""

    output: Output
    task: Task
    scores: Scores
    told: list[str]


def run_job(command: str, options: Mapping[str, Any]) -> None:
    """Run the command "self" or "influence" with these options, once a tone, in all processes that share it.

    Raises:
        UsageError, InputError, NumericalError, OutputError: see `errors`; result files are then as they were.
    """
    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr)
    options = recorded_options(command, options)
    scores: tuple[str, ...] = ("self",)
    if command == "influence":
        scores = ("influence", "self") if options["with_self"] else ("influence",)
    check_options(options)
    check_query(options, scores)
    shard_of(options["shard"])
    with together(options) as world:
        own = options if world.first else {**options, "quiet": True, "json": False}
        if options["shard"] is None:
            _score_all(command, own, scores, world)
        else:
            _fill_all(own, world, scores, command)


def run_gradients(options: Mapping[str, Any]) -> None:
    """Run the command "gradients": fill the store.

    Raises:
        As `run_job`; blocks that are finished stay in the store.
    """
    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr)
    every = {option.name: False if option.kind is bool else None for option in (*JOB, *INFLUENCE_ONLY)}
    options = {**every, **options}
    if options["store"] is None:
        raise UsageError("gradients are kept in a store. Expected --store FOLDER.")
    check_options(options)
    with together(options) as world:
        _fill_all(options if world.first else {**options, "quiet": True}, world, ("influence",))


def run_merge(options: Mapping[str, Any]) -> None:
    """Run the command "merge": what the shards on a store were run for, now that its rows are there.

    Raises:
        InputError: rows are missing. Else as `run_job`.
    """
    command, recorded = recorded_job(options["folder"])
    own = JOB if command == "self" else (*JOB, *INFLUENCE_ONLY)
    every = {option.name: False if option.kind is bool else None for option in own}
    run_job(command, {**every, **recorded, "quiet": options["quiet"], "json": options["json"]})


def _score_all(command: str, options: Mapping[str, Any], scores: tuple[str, ...], world: World) -> None:
    """Every tone: first what is read is checked, then the files of all, then they are scored."""
    kind = kind_of(options)
    resolve_device(options["device"])  # a device that is not there is told before anything is read
    runs = [
        (own, output_of(kind, own, scores), method_of(own), compute_of(own, world)) for own in each_tone(kind, options)
    ]
    for own, *_ in runs:
        check_folders(kind, own)

    @functools.cache
    def check_files() -> None:
        for _, output, *_ in runs:
            output.check(kind, options["metadata_dir"] is not None)

    finished: list[Finished | Kept] = []
    for own, output, method, compute in runs:
        if len(runs) > 1:
            say(f"{own['frequency']}:", quiet=options["quiet"])
        done: Finished | Kept | None
        if is_query(own, scores):
            done = run_query(kind, own, output, method, compute, scores, check_files)
        else:
            done = _run(kind, own, output, method, compute, scores, check_files)
        if done is None:
            continue
        finished.append(done)
        if not options["json"]:
            _show(done, own)
    if options["json"] and finished:
        with interruption("the scores are in their files"), printing():
            print_document(command, [_document(done, options) for done in finished])
    _require_verified(finished)


def _fill_all(options: Mapping[str, Any], world: World, scores: tuple[str, ...], command: str | None = None) -> None:
    """The rows of every tone, or this shard's share of them; `command` is what shards are to be merged to."""
    kind = kind_of(options)
    resolve_device(options["device"])
    found = []
    for own in each_tone(kind, options):
        tell, method, compute = Teller(options["quiet"]), method_of(own), compute_of(own, world)
        of_items = command is None and is_parquet(own["pairs"])  # rows of all items, whatever the pairs
        with_test, streamed = "influence" in scores and not of_items, of_items or is_streamed(own, scores)
        task = job_of(kind, own, with_test, tell, streamed=streamed).task
        notice = functools.partial(note, quiet=options["quiet"])
        store = compute.store
        assert store is not None
        if command is not None:
            require_same_job(store, command, given(own), compute.shard)
        with (
            interruption(f"blocks that are finished are in {store}"),
            progress("gradients", len(task.checkpoints), quiet=options["quiet"]) as advance,
        ):
            items = command is None or is_query(own, scores)
            observer = Observer(notice, advance, _planned(options))
            filled = fill_store(task, compute, items=items, method=method, observer=observer)
        if command is not None and world.first:
            record_job(store, command, given(own), compute.shard)
        say_filled(filled, store, quiet=options["quiet"])
        found.append({"store": str(store), "checkpoints": [asdict(each) for each in filled]})
    if options["json"]:
        with printing():
            print_document(command or "gradients", found)


def _run(
    kind: str,
    options: Mapping[str, Any],
    output: Output,
    method: Method,
    compute: Compute,
    scores: tuple[str, ...],
    check_files: Callable[[], None],
) -> Finished | None:
    """One tone, or one task: scores in their files; None for a dry run."""
    tell = Teller(options["quiet"])
    show = functools.partial(say, quiet=options["quiet"])
    with_influence = "influence" in scores
    job = job_of(kind, options, with_influence, tell, chosen=check_files)
    if method.weight_test_pairs and (method.test_functional != "loss" or not as_loss(job.task.loss).weighted):
        tell("warning: --weight-test-pairs changes nothing: there are GHM weights of losses only.")
    _require_classes(options["by"], job.task)
    check_files()
    task = with_tests(job, options, method, compute, tell) if with_influence else job.task
    assess = Assessment(show, tell, len(task.checkpoints), len(task.train_pairs), job.contradiction)
    task = replace(task, describe={**task.describe, "notices": tell.told})
    observer = Observer(functools.partial(note, quiet=options["quiet"]), planned=_planned(options), evaluated=assess)
    asked = {"self_influence": "self" in scores, "influence": with_influence}
    if options["dry_run"]:
        expected = forecast(task, **asked, method=method, compute=compute, observer=observer)
        with printing():
            print_forecast(task, expected, output.files.values(), as_json=options["json"])
        return None
    with progress("scoring", len(task.checkpoints), quiet=options["quiet"]) as advance:
        verify = options["verify"] if compute.world.first else None
        found = score(task, method, compute, replace(observer, progress=advance), **asked, verify=verify)
    if options["repeat"] is not None:
        result = found.influence or found.self_influence
        assert result is not None
        tell_changes(options["repeat"], "self" if found.influence is None else "influence", result.run, tell)
    if (checked := found.verification) is not None:
        tell(f"note: {checked}" if checked.passed else f"warning: {checked}")
    if compute.world.first:
        output.save(found, tell)
    return Finished(output, task, found, tell.told)


def _show(done: Finished | Kept, options: Mapping[str, Any]) -> None:
    """The tables, and where the files are."""
    if options["quiet"]:
        return
    if isinstance(done, Kept):
        show_kept(done, options["top"])
        return
    by, top = options["by"] or "pair", options["top"]
    with interruption(f"the scores are in {done.output}"), printing():
        if done.scores.influence is not None:
            print_influence(done.scores.influence, done.task, by, top or 3)
        if done.scores.self_influence is not None:
            print_self(done.scores.self_influence, done.task, by, top or 10)
        for (name, per_checkpoint), path in done.output.files.items():
            each = " at each checkpoint" if per_checkpoint else ""
            print(f"{name} scores{each}: {path}")
        print("Origin of each: FILE.provenance.json beside it.")


def _document(done: Finished | Kept, options: Mapping[str, Any]) -> dict[str, Any]:
    """A run for `--json`."""
    if isinstance(done, Kept):
        return kept_document(done, options["top"])
    top = options["top"] or 10
    result: dict[str, Any] = {"files": done.output.described(), "notices": list(done.told)}
    if (own := done.scores.self_influence) is not None:
        result |= {"run": run_document(own.run), "pairs": len(own.ids)}
        result["self"] = [each._asdict() for each in own.hardest(top)]
    if (found := done.scores.influence) is not None:
        result |= {"run": run_document(found.run), "pairs": len(found.ids)}
        result["influence"] = influence_document(found, top)
    if (scores := found or own) is not None:
        result["notices"] += scores.run.notices
    if done.scores.verification is not None:
        result["verification"] = done.scores.verification.describe()
    return result


def _require_verified(finished: Sequence[Finished | Kept]) -> None:
    for done in finished:
        if isinstance(done, Finished) and (checked := done.scores.verification) is not None and not checked.passed:
            raise NumericalError(
                f"{checked} The scores are in {done.output}. Score with --dtype float64, or with another "
                "--engine, and compare."
            )


def _require_classes(by: str | None, task: Task) -> None:
    if by in (CLASS, CLASS_PAIR) and not item_classes(task):
        raise UsageError(
            f"--by {by} needs classes of items, and this task has none. Give `Task(item_classes=...)`, or --by item."
        )


def _planned(options: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], None]:
    return print_plan if options["explain_plan"] else lambda _: None

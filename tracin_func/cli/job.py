"""One run of `self` or `influence`: options to a task, a task to scores, scores to files and tables."""

import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tracin_func.checkpoints import Checkpoint, find_checkpoints, load
from tracin_func.cli.faults import say
from tracin_func.cli.options import TABLE
from tracin_func.cli.progress import progress
from tracin_func.cli.report import print_influence, print_self
from tracin_func.cli.settings import DEFAULTS, MOST_SEED, Settings, whole_or, words
from tracin_func.devices import resolve_device
from tracin_func.errors import InputError, UsageError
from tracin_func.results import SELF_COLUMN
from tracin_func.scoring import score
from tracin_func.sinks.merge import check_mergeable, embedded_conflict
from tracin_func.sources.demo import SYNTHETIC_NOTICE, embedded
from tracin_func.sources.loading import load_model, load_task, parse_arguments
from tracin_func.sources.ranker import AngleRanker
from tracin_func.sources.tones import Tones
from tracin_func.task import Task
from tracin_func.trace import Compute

EMBEDDED, TONES, TASK = "embedded", "tones", "task"
TONES_OPTIONS = (
    *("data_root", "frequency", "material", "classes", "takes", "sample_rate", "clip_seconds"),
    *("checkpoint_dir", "checkpoint_prefix", "model", "model_arg", "pairs", "exclusions_file", "seed"),
)
LOSS_OPTIONS = ("loss_type", "margin", "ghm_bins", "ghm_alpha", "ghm_variant", "ghm_batch_size")


EMBEDDED, TONES, TASK = "embedded", "tones", "task"
SOURCE_OPTIONS = ("data_root", "checkpoint_dir", "frequency", "material", "classes", "takes", "pairs", "model", "seed")


@dataclass(frozen=True)
class Output:
    """Where results go: `files` by score name, those that were asked for."""

    files: dict[str, Path]

    def check(self, kind: str, named: bool) -> None:
        """Faults of the files that are there, found before hours of computing."""
        for name, path in self.files.items():
            check_mergeable(path, [SELF_COLUMN] if name == "self" else [])
            if kind == EMBEDDED and not named and (conflict := embedded_conflict(path)):
                raise InputError(conflict)


def run_job(command: str, options: Mapping[str, Any]) -> None:
    """Run the command "self" or "influence" with these options.

    Raises:
        UsageError, InputError, NumericalError, OutputError: see `errors`; result files are then as they were.
    """
    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr)
    with_influence = command == "influence"
    with_self = not with_influence or bool(options["with_self"])
    if options["top"] is not None and options["top"] < 1:
        raise UsageError(f"--top should be at least 1. Got {options['top']}.")
    compute = _compute(options)
    resolve_device(compute.device)  # a device that is not there is told before anything is read
    kind = _kind(options)
    make = {EMBEDDED: _tones_task, TONES: _tones_task, TASK: _own_task}[kind]
    output = _output(kind, options, with_self, with_influence)
    output.check(kind, options["metadata_dir"] is not None)
    task = make(kind, options, with_influence)
    with progress("scoring", len(task.checkpoints)) as advance:
        scores = score(task, replace(compute, progress=advance), self_influence=with_self, influence=with_influence)
    words = [Path(sys.argv[0]).name, *sys.argv[1:]]
    if scores.influence is not None:
        scores.influence.save(output.files["influence"], command=words)
        print_influence(scores.influence, options["top"] or 3)
    if scores.self_influence is not None:
        scores.self_influence.save(output.files["self"], command=words)
        print_self(scores.self_influence, options["top"] or 10)
    for name, path in output.files.items():
        print(f"{name} scores: {path}   (their origin: {path.name}.provenance.json)")


def _kind(options: Mapping[str, Any]) -> str:
    """Which source the options ask for."""
    if options["task"] is not None:
        given = [TABLE[name].flag for name in TONES_OPTIONS if options[name] not in (None, [], ())]
        if given:
            raise UsageError(f"--task brings its own data, model and pairs; {', '.join(given)} cannot be used with it.")
        return TASK
    if (options["data_root"] is None) != (options["checkpoint_dir"] is None):
        missing, there = (
            ("checkpoint_dir", "data_root") if options["checkpoint_dir"] is None else ("data_root", "checkpoint_dir")
        )
        raise UsageError(
            f"{TABLE[there].flag} was given without {TABLE[missing].flag}. Scores need recordings and the checkpoints "
            "of a model trained on them: give both, or neither for the embedded default."
        )
    if options["data_root"] is None and options["model"] is not None:
        raise UsageError(
            "--model needs --data-root and --checkpoint-dir: the embedded checkpoints fit the embedded ranker."
        )
    return EMBEDDED if options["data_root"] is None else TONES


def _output(kind: str, options: Mapping[str, Any], with_self: bool, with_influence: bool) -> Output:
    folder = Path(options["metadata_dir"] or "metadata")
    if kind == TASK:
        stem = options["task"].rpartition(":")[2]
    else:
        stem = f"{options['material'] or DEFAULTS['material']}_{options['frequency'] or DEFAULTS['frequency']}"
    names = {"influence": f"{stem}_influence_metadata.json"} if with_influence else {}
    names |= {"self": f"{stem}_metadata.json"} if with_self else {}
    return Output({name: folder / file for name, file in names.items()})


def _compute(options: Mapping[str, Any]) -> Compute:
    batch_size = whole_or("auto", "--batch-size", options["batch_size"])
    return Compute(
        engine=options["engine"] or "auto",
        device=options["device"],
        batch_size=batch_size if isinstance(batch_size, int) else "auto",
        test_functional=options.get("test_functional") or "loss",
        weight_test_pairs=bool(options.get("weight_test_pairs")),
        notice=lambda sentence: say(f"note: {sentence}"),
    )


def _own_task(kind: str, options: Mapping[str, Any], with_test: bool) -> Task:
    """The task of the user's own factory; loss options and the learning rate replace its own where given."""
    task = load_task(options["task"])
    if options["learning_rate"] is not None:
        rate = options["learning_rate"]
        task = replace(task, checkpoints=[replace(each, learning_rate=rate) for each in task.checkpoints])
    if any(options[name] is not None for name in LOSS_OPTIONS):
        task = replace(task, loss=Settings(options, {}).loss())
    return replace(task, describe={"kind": kind, "task": options["task"], **task.describe})


def _tones_task(kind: str, options: Mapping[str, Any], with_test: bool) -> Task:
    """Recordings of the lab's layout, or the embedded default, which lies in it too."""
    frequency, material = (options[name] or DEFAULTS[name] for name in ("frequency", "material"))
    if kind == EMBEDDED:
        say(f"note: {SYNTHETIC_NOTICE} For your own recordings give --data-root and --checkpoint-dir.")
        demo = embedded(frequency, material, progress=say)
        data_root, checkpoint_dir = demo.data_root, demo.checkpoint_dir
    else:
        data_root = options["data_root"]
        folder = str(options["checkpoint_dir"]).replace("{frequency}", frequency).replace("{material}", material)
        checkpoint_dir = Path(folder)
    prefix = options["checkpoint_prefix"] or DEFAULTS["checkpoint_prefix"]
    checkpoints = [Checkpoint(path, options["learning_rate"]) for path in find_checkpoints(checkpoint_dir, prefix)]
    settings = Settings(options, load(checkpoints[0], 1).args)
    exclusions = settings.get("exclusions_file")
    tones = Tones(
        data_root,
        material,
        frequency,
        words(options["classes"]),
        _numbers("--takes", options["takes"]),
        options["sample_rate"] or DEFAULTS["sample_rate"],
        options["clip_seconds"],
        settings.whole("seed", 0, MOST_SEED),
        options["pairs"] or DEFAULTS["pairs"],
        _num_test(options.get("num_test")),
        Path(exclusions) if exclusions else None,
    )
    model = (
        load_model(options["model"], parse_arguments(options["model_arg"] or [])) if options["model"] else AngleRanker()
    )
    loss = settings.loss()
    for contradiction in settings.contradictions:
        say(f"warning: {contradiction}.")
    with progress("reading clips", 1) as advance:
        return tones.task(
            model,
            checkpoints,
            loss,
            kind=kind,
            with_test=with_test,
            workers=options["num_workers"] or 0,
            loaded=lambda done, total: advance(1 / total),
            notice=lambda sentence: say(f"note: {sentence}"),
        )


def _num_test(value: str | None) -> int | str | None:
    number = whole_or("all", "--num-test", value)
    return "default" if number is None else None if number == "all" else number


def _numbers(option: str, value: str | None) -> list[int] | None:
    parts = words(value)
    try:
        return None if parts is None else [int(part) for part in parts]
    except ValueError:
        raise UsageError(f"{option} should be whole numbers separated by commas. Got {value!r}.") from None

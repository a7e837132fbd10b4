"""One run of `self` or `influence`: options to a task, a task to scores, scores to files and tables."""

import logging
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from tracin_func.checkpoints import Checkpoint, find_checkpoints, load
from tracin_func.cli.faults import interruption, printing, say
from tracin_func.cli.options import TABLE
from tracin_func.cli.progress import progress
from tracin_func.cli.report import print_influence, print_plan, print_self
from tracin_func.cli.settings import DEFAULTS, MOST_SEED, Settings, check_words, numbers, whole_or, words
from tracin_func.compute import Compute
from tracin_func.devices import resolve_device
from tracin_func.errors import InputError, UsageError
from tracin_func.losses import LogisticLoss, MarginRankingLoss, PairLoss
from tracin_func.results import SELF_COLUMN
from tracin_func.scorer import Scorer
from tracin_func.scoring import Scores, score
from tracin_func.sinks.merge import check_mergeable, embedded_conflict, own_conflict
from tracin_func.sources.demo import SYNTHETIC_NOTICE, embedded
from tracin_func.sources.loading import load_model, load_task, parse_arguments
from tracin_func.sources.ranker import AngleRanker
from tracin_func.sources.tones import WORDS, Tones
from tracin_func.task import Task

EMBEDDED, TONES, TASK = "embedded", "tones", "task"
TONES_OPTIONS = (
    *("data_root", "frequency", "material", "classes", "takes", "sample_rate", "clip_seconds", "checkpoint_dir"),
    *("checkpoint_prefix", "model", "model_arg", "pairs", "exclusions_file", "seed", "num_test", "num_workers"),
)
MOST_BYTES = 10**9  # of checkpoints whose args are compared

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Output:
    """Where results go: `files` by score name, those that were asked for."""

    files: dict[str, Path]

    def check(self, kind: str, named: bool) -> None:
        """Faults of the files that are there, found before hours of computing."""
        conflict_of = embedded_conflict if kind == EMBEDDED else own_conflict
        for name, path in self.files.items():
            check_mergeable(path, [SELF_COLUMN] if name == "self" else [])
            if not named and (conflict := conflict_of(path)):
                raise InputError(conflict)

    def save(self, scores: Scores) -> None:
        """Every file, before anything is printed: a reader of the tables who leaves early loses none."""
        command = [Path(sys.argv[0]).name, *sys.argv[1:]]
        with interruption(f"each of {self} is as it was or holds the new scores"):
            for name, result in (("influence", scores.influence), ("self", scores.self_influence)):
                if result is not None:
                    result.save(self.files[name], command=command)

    def show(self, scores: Scores, top: int | None) -> None:
        """The tables, and where the files are."""
        with interruption(f"the scores are in {self}"), printing():
            if scores.influence is not None:
                print_influence(scores.influence, top or 3)
            if scores.self_influence is not None:
                print_self(scores.self_influence, top or 10)
            for name, path in self.files.items():
                print(f"{name} scores: {path}   (their origin: {path.name}.provenance.json)")

    def __str__(self) -> str:
        return ", ".join(map(str, self.files.values()))


def run_job(command: str, options: Mapping[str, Any]) -> None:
    """Run the command "self" or "influence" with these options.

    Raises:
        UsageError, InputError, NumericalError, OutputError: see `errors`; result files are then as they were.
    """
    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr)
    with_influence = command == "influence"
    with_self = not with_influence or bool(options["with_self"])
    _check_options(options)
    compute = _compute(options)
    resolve_device(compute.device)  # a device that is not there is told before anything is read
    kind = _kind(options)
    output = _output(kind, options, with_self, with_influence)
    output.check(kind, options["metadata_dir"] is not None)
    told: list[str] = []

    def tell(sentence: str) -> None:
        told.append(sentence)
        say(sentence)

    make = _own_task if kind == TASK else _tones_task
    task = make(kind, options, with_influence, tell)
    if compute.weight_test_pairs and (compute.test_functional != "loss" or not _weighs(task.loss)):
        tell("warning: --weight-test-pairs changes nothing: there are GHM weights of losses only.")
    task = replace(task, describe={**task.describe, "notices": told})
    with progress("scoring", len(task.checkpoints)) as advance:
        scores = score(task, replace(compute, progress=advance), self_influence=with_self, influence=with_influence)
    output.save(scores)
    output.show(scores, options["top"])


def _check_options(options: Mapping[str, Any]) -> None:
    """Options that are wrong in themselves, before anything is read."""
    check_words(options)
    for name, least in (("top", 1), ("sample_rate", 1), ("num_workers", 0)):
        if options[name] is not None and options[name] < least:
            raise UsageError(f"{TABLE[name].flag} should be at least {least}. Got {options[name]}.")
    if options["model_arg"] and options["model"] is None:
        raise UsageError("--model-arg was given without --model. Expected the model class whose arguments they are.")
    pairs = options["pairs"]
    if pairs is not None and pairs not in WORDS and not Path(pairs).exists():
        raise InputError(f"--pairs {pairs}: no such file. Expected {', '.join(WORDS)} or a CSV FILE.")


def _kind(options: Mapping[str, Any]) -> str:
    """Which source the options ask for."""
    if options["task"] is not None:
        given = [TABLE[name].flag for name in TONES_OPTIONS if options.get(name) not in (None, [], ())]
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
        place, _, factory = options["task"].rpartition(":")
        stem = f"{Path(place).stem if place.endswith('.py') else place}_{factory}"
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
        planned=print_plan if options["explain_plan"] else lambda _: None,
    )


def _own_task(kind: str, options: Mapping[str, Any], with_test: bool, tell: Tell) -> Task:
    """The task of the user's own factory; loss options and the learning rate replace its own where given."""
    task = load_task(options["task"])
    _require_scorer(f"--task {options['task']}", task.scorer, task.joint)
    if options["learning_rate"] is not None:
        rate = options["learning_rate"]
        task = replace(task, checkpoints=[replace(each, learning_rate=rate) for each in task.checkpoints])
    settings = Settings(options, {})
    if options["loss_type"] is None:
        task = replace(task, loss=settings.adjusted(task.loss))
    else:
        task = replace(task, loss=settings.loss())
        tell(f"note: --loss-type {options['loss_type']} replaces the task's own loss.")
        _warn(settings, {}, tell)
    return replace(task, describe={"kind": kind, "task": options["task"], **task.describe})


def _tones_task(kind: str, options: Mapping[str, Any], with_test: bool, tell: Tell) -> Task:
    """Recordings of the lab's layout, or the embedded default, which lies in it too."""
    frequency, material = (options[name] or DEFAULTS[name] for name in ("frequency", "material"))
    classes, takes = words("--classes", options["classes"]), numbers("--takes", options["takes"])
    num_test = _num_test(options.get("num_test"))
    model = _model(options)
    if kind == EMBEDDED:
        tell(f"note: {SYNTHETIC_NOTICE} For your own recordings give --data-root and --checkpoint-dir.")
        demo = embedded(frequency, material, progress=say)
        data_root, checkpoint_dir = demo.data_root, demo.checkpoint_dir
    else:
        data_root, checkpoint_dir = options["data_root"], _checkpoint_dir(options, frequency, material)
    paths = find_checkpoints(checkpoint_dir, options["checkpoint_prefix"] or DEFAULTS["checkpoint_prefix"])
    args = _args(paths, tell)
    settings = Settings(options, args[paths[0].name])
    settings.compare("frequency", frequency)
    settings.compare("material", material)
    exclusions = _exclusions(settings, tell)
    seed, loss = settings.whole("seed", 0, MOST_SEED), settings.loss()
    _warn(settings, args, tell)
    tones = Tones(
        data_root,
        material,
        frequency,
        classes,
        takes,
        options["sample_rate"] or DEFAULTS["sample_rate"],
        options["clip_seconds"],
        seed,
        options["pairs"] or DEFAULTS["pairs"],
        num_test,
        exclusions,
    )
    with progress("reading clips", 1) as advance:
        task = tones.task(
            model,
            [Checkpoint(path, options["learning_rate"]) for path in paths],
            loss,
            kind=kind,
            with_test=with_test,
            workers=options["num_workers"] or 0,
            loaded=lambda done, total: advance(1 / total),
            notice=lambda sentence: tell(f"note: {sentence}"),
        )
    own = {"model": options["model"], "model_arguments": options["model_arg"] or []} if options["model"] else {}
    return replace(task, describe={**task.describe, **own, "checkpoint_dir": str(checkpoint_dir.absolute())})


def _model(options: Mapping[str, Any]) -> nn.Module:
    if options["model"] is None:
        return AngleRanker()
    model = load_model(options["model"], parse_arguments(options["model_arg"] or []))
    _require_scorer(f"--model {options['model']}", model, joint=False)
    return model


def _require_scorer(where: str, module: nn.Module, joint: bool) -> None:
    """A module that cannot be a scorer is a fault of what was read, not of the option that names it."""
    try:
        Scorer(module, joint=joint)
    except UsageError as error:
        raise InputError(f"{where}: {error}") from error


def _checkpoint_dir(options: Mapping[str, Any], frequency: str, material: str) -> Path:
    folder = str(options["checkpoint_dir"]).replace("{frequency}", frequency).replace("{material}", material)
    if (left := re.search(r"\{\w*\}", folder)) and not Path(folder).exists():
        raise UsageError(
            f"--checkpoint-dir holds the placeholder {left[0]}. Expected {{frequency}} or {{material}}. Got "
            f"{options['checkpoint_dir']}."
        )
    return Path(folder)


def _args(paths: Sequence[Path], tell: Tell) -> dict[str, Mapping[str, Any]]:
    """The checkpoints' own `args` by file name; of the first one only where all are too large to read twice."""
    size = sum(path.stat().st_size for path in paths)
    if size > MOST_BYTES:
        tell(f"note: {size / 1e9:.1f} GB of checkpoints: only the first's args were read, not compared.")
        paths = paths[:1]
    return {path.name: load(Checkpoint(path), 1).args for path in paths}


def _exclusions(settings: Settings, tell: Tell) -> Path | None:
    value = settings.get("exclusions_file")
    if value is None or str(value) in ("", "none"):
        return None
    path = Path(str(value))
    if settings.given.get("exclusions_file") is not None:
        return path
    if not path.is_file():
        raise InputError(
            f"the checkpoint's args name the exclusions file {path}, and {path.absolute()} is no file. Name it with "
            "--exclusions-file, or go on without it: --exclusions-file none."
        )
    tell(
        f"note: the checkpoint's args name the exclusions file {path.absolute()}; it is applied, after the split. "
        "--exclusions-file none goes on without it."
    )
    return path


def _warn(settings: Settings, args: Mapping[str, Mapping[str, Any]], tell: Tell) -> None:
    for sentence in settings.warnings(args):
        tell(f"warning: {sentence}")


def _weighs(loss: Any) -> bool:
    """Whether a loss may weigh pairs by the population."""
    return isinstance(loss, PairLoss) and not isinstance(loss, MarginRankingLoss | LogisticLoss)


def _num_test(value: str | None) -> int | str | None:
    number = whole_or("all", "--num-test", value)
    return "default" if number is None else None if number == "all" else number

"""From options to the job they ask for: the embedded default, recordings in the lab's layout, a task of one's own."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tracin_func.cli.errors import say
from tracin_func.cli.options import TABLE, is_given
from tracin_func.cli.progress import progress
from tracin_func.cli.settings import DEFAULTS, MOST_SEED, Settings
from tracin_func.cli.values import checkpoint_choice, numbers, whole_or, words
from tracin_func.errors import InputError, UsageError
from tracin_func.files import present
from tracin_func.gradients.compute import Compute
from tracin_func.gradients.model import Scorer
from tracin_func.losses.custom import DEFAULT, as_loss
from tracin_func.scoring.accuracy import BY_SCORE, select_test_pairs
from tracin_func.scoring.observer import Observer
from tracin_func.sources.demo.ranker import AngleRanker
from tracin_func.sources.demo.source import SYNTHETIC_NOTICE, embedded
from tracin_func.sources.demo.synthesis import FREQUENCIES
from tracin_func.sources.python import load_model, load_task, parse_arguments
from tracin_func.sources.recordings.source import NUM_TEST, Tones
from tracin_func.sources.recordings.tree import find_tones
from tracin_func.task.checkpoints import Checkpoint, find_checkpoints, load
from tracin_func.task.method import Method
from tracin_func.task.pair_files import read_ids
from tracin_func.task.task import Task

EMBEDDED, TONES, TASK = "embedded", "tones", "task"
ALL = "all"
TONES_OPTIONS = (
    *("data_root", "frequency", "material", "classes", "takes", "sample_rate", "clip_seconds", "skip_bad_audio"),
    *("checkpoint_dir", "checkpoint_prefix", "checkpoints", "model", "model_arg", "pairs", "ids", "exclusions_file"),
    *("exclude_before_split", "seed", "num_test", "test_pairs", "test_select", "num_workers"),
)
MOST_BYTES = 10**9  # of checkpoints whose args are compared

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Job:
    """A task, and how its settings contradict the checkpoints; what that changes is told with the evaluation."""

    task: Task
    contradiction: str | None = None


def kind_of(options: Mapping[str, Any]) -> str:
    """Which source the options ask for.

    Raises:
        UsageError: options that contradict each other.
    """
    if options["task"] is not None:
        given = [TABLE[name].flag for name in TONES_OPTIONS if is_given(options.get(name))]
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


def each_tone(kind: str, options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The options of each run: one a tone for `--frequency all`, else these."""
    if options["frequency"] != ALL:
        return [dict(options)]
    material = options["material"] or DEFAULTS["material"]
    tones = FREQUENCIES if kind == EMBEDDED else find_tones(options["data_root"], material)
    folder = str(options["checkpoint_dir"])
    if kind == TONES and "{frequency}" not in folder and len(tones) > 1:
        raise UsageError(
            f"--frequency all runs {', '.join(tones)}, each with checkpoints of its own. Expected {{frequency}} in "
            f"--checkpoint-dir. Got {folder}."
        )
    return [{**options, "frequency": tone} for tone in tones]


def stem_of(kind: str, options: Mapping[str, Any]) -> str:
    """How the names of result files begin."""
    if kind == TASK:
        place, _, factory = options["task"].rpartition(":")
        return f"{Path(place).stem if place.endswith('.py') else place}_{factory}"
    return f"{options['material'] or DEFAULTS['material']}_{options['frequency'] or DEFAULTS['frequency']}"


def job_of(
    kind: str,
    options: Mapping[str, Any],
    with_test: bool,
    tell: Tell,
    *,
    streamed: bool = False,
    chosen: Callable[[], None] = lambda: None,
) -> Job:
    """The job; `tell` is called with each sentence that the user should read.

    Of a Parquet file that is `streamed` the first training pairs stand for all. `chosen` is called before recordings
    are read, when all else is checked.
    """
    job = _own_job(options, tell) if kind == TASK else _tones_job(kind, options, with_test, tell, streamed, chosen)
    task, limit = job.task, options["limit"]
    if limit is not None and limit < len(task.train_pairs):
        if (loss := as_loss(task.loss)).weighted:
            weights = f"{loss.loss_type.upper()} weights"
            tell(f"warning: --limit {limit}: {weights} are then those of {limit} pairs, not of the training.")
        task = replace(task, train=task.train_pairs.select(torch.arange(limit)))
    return replace(job, task=task)


def _own_job(options: Mapping[str, Any], tell: Tell) -> Job:
    """The task of the user's own factory; loss options and the learning rate replace its own where given."""
    task = load_task(options["task"])
    _require_scorer(f"--task {options['task']}", task.scorer, task.joint)
    if options["learning_rate"] is not None:
        rate = options["learning_rate"]
        task = replace(task, checkpoints=[replace(each, learning_rate=rate) for each in task.checkpoints])
    settings = Settings(options, {})
    if options["loss_type"] is None:
        task = replace(task, loss=settings.adjusted(DEFAULT if task.loss is None else task.loss))
    else:
        task = replace(task, loss=settings.loss())
        tell(f"note: --loss-type {options['loss_type']} replaces the task's own loss.")
        _warn(settings, {}, tell)
    return Job(replace(task, describe={"kind": TASK, "task": options["task"], **task.describe}))


def _tones_job(
    kind: str,
    options: Mapping[str, Any],
    with_test: bool,
    tell: Tell,
    streamed: bool,
    chosen: Callable[[], None],
) -> Job:
    """Recordings of the lab's layout, or the embedded default, which lies in it too."""
    frequency, material = (options[name] or DEFAULTS[name] for name in ("frequency", "material"))
    asked = _asked_pairs(options)
    choose = checkpoint_choice("--checkpoints", options["checkpoints"])
    model = _model(options)
    if kind == EMBEDDED:
        tell(f"note: {SYNTHETIC_NOTICE} For your own recordings give --data-root and --checkpoint-dir.")
        demo = embedded(frequency, material, progress=lambda line: say(line, quiet=options["quiet"]))
        data_root, checkpoint_dir = demo.data_root, demo.checkpoint_dir
    else:
        data_root, checkpoint_dir = options["data_root"], _checkpoint_dir(options, frequency, material)
    paths = choose(_checkpoints(options, checkpoint_dir))
    args = _args(paths, tell)
    settings = Settings(options, args[paths[0].name])
    settings.compare("frequency", frequency)
    settings.compare("material", material)
    exclusions = _exclusions(settings, tell)
    seed, loss = settings.whole("seed", 0, MOST_SEED), settings.loss()
    trained_loss = settings.trained_loss()
    _warn(settings, args, tell)
    tones = Tones(
        data_root,
        material,
        frequency,
        sample_rate=options["sample_rate"] or DEFAULTS["sample_rate"],
        clip_seconds=options["clip_seconds"],
        seed=seed,
        pairs=options["pairs"] or DEFAULTS["pairs"],
        ids=options["ids"],
        exclusions=exclusions,
        exclude_before_split=options["exclude_before_split"],
        skip_bad=options["skip_bad_audio"],
        streamed=streamed,
        **asked,
    )
    with progress("reading clips", 1, quiet=options["quiet"]) as advance:
        task = tones.task(
            model,
            [Checkpoint(path, options["learning_rate"]) for path in paths],
            loss,
            kind=kind,
            with_test=with_test,
            workers=options["num_workers"] or 0,
            chosen=chosen,
            loaded=lambda done, total: advance(1 / total),
            notice=lambda sentence: tell(f"note: {sentence}"),
        )
    own = {"model": options["model"], "model_arguments": options["model_arg"] or []} if options["model"] else {}
    describe = {**task.describe, **own, "checkpoint_dir": str(checkpoint_dir.absolute())}
    return Job(replace(task, trained_loss=trained_loss, describe=describe), settings.contradiction)


def with_tests(job: Job, options: Mapping[str, Any], method: Method, compute: Compute, tell: Tell) -> Task:
    """The task with the test pairs that --test-select asks for."""
    how = options["test_select"]
    if how not in BY_SCORE:
        return job.task
    count = num_test(options["num_test"])
    held_out = job.task.held_out
    seed = job.task.describe.get("seed", 0)
    wanted = min(NUM_TEST, len(held_out or ())) if count == "default" else count
    assert not isinstance(wanted, str)
    silent = Observer(notice=lambda _: None)
    test = select_test_pairs(job.task, method, compute, how, wanted, seed, silent)
    tell(f"note: {len(test)} of {len(held_out or ())} test pairs were selected as {how}.")
    return replace(job.task, test_pairs=test)


def check_folders(kind: str, options: Mapping[str, Any]) -> None:
    """Raise at once where a run would find no recordings of the material, or no checkpoints.

    Raises:
        UsageError, InputError: see `find_tones` and `find_checkpoints`.
    """
    if kind == TONES:
        frequency, material = (options[name] or DEFAULTS[name] for name in ("frequency", "material"))
        find_tones(options["data_root"], material)
        choose = checkpoint_choice("--checkpoints", options["checkpoints"])
        choose(_checkpoints(options, _checkpoint_dir(options, frequency, material)))


def _checkpoints(options: Mapping[str, Any], folder: Path) -> list[Path]:
    return find_checkpoints(folder, options["checkpoint_prefix"] or DEFAULTS["checkpoint_prefix"])


def _asked_pairs(options: Mapping[str, Any]) -> dict[str, Any]:
    """Which recordings and test pairs are asked for, as arguments of `Tones`."""
    named = options.get("test_pairs")
    if named is not None and (options.get("num_test") is not None or options.get("test_select") is not None):
        raise UsageError("--test-pairs names the test pairs; --num-test and --test-select cannot be used with it.")
    by_score = options.get("test_select") not in (None, "random")
    return {
        "classes": words("--classes", options["classes"]),
        "takes": numbers("--takes", options["takes"]),
        "num_test": None if by_score else num_test(options.get("num_test")),
        "test_pairs": None if named is None else read_ids(named),
    }


def num_test(value: str | None) -> int | str | None:
    """`--num-test`: a number, None for all, or "default"."""
    number = whole_or(ALL, "--num-test", value)
    return "default" if number is None else None if number == ALL else number


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
    return present(Path(folder))


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

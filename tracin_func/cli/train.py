"""`tracin-func train --checkpoint-dir DIR`: a ranker trained on the training pairs of a source."""

import logging
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from tracin_func.cli.errors import Reporter, interruption, printing, say
from tracin_func.cli.options import PrintOptions
from tracin_func.cli.resolve import listener_of
from tracin_func.gradients.device import resolve_device
from tracin_func.report.terminal.scores import print_document
from tracin_func.sources.options import Options
from tracin_func.sources.registry import training_job
from tracin_func.sources.training import TrainingJob, ids_in
from tracin_func.sources.training_options import TrainingOptions
from tracin_func.sources.values import numbers
from tracin_func.training.fit import EpochReport, Trained
from tracin_func.training.run import check_folder
from tracin_func.training.run import train as train_task
from tracin_func.training.settings import TrainingSettings

_LISTS = ("exclusions_file", "flips_file")


def train(options: Options) -> None:
    """Train once for each seed, each in a folder of its own.

    Raises:
        UsageError, InputError, NumericalError, OutputError: see `errors`; checkpoints of finished epochs stay.
    """
    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr)
    own, shown = options[TrainingOptions], options[PrintOptions]
    device = resolve_device(own.device or "cpu")
    folders = _folders(own)
    for folder in folders.values():
        check_folder(folder, resume=own.resume)
    ids = {name: ids_in(name, getattr(own, name)) for name in _LISTS}
    report = Reporter(shown.quiet, shown.verbose)
    job = training_job(options, listener_of(report))
    args = {**job.args, **{name: _absolute(getattr(own, name)) for name in _LISTS}, "device": str(device)}
    found = []
    for seed, folder in folders.items():
        settings = _settings(own, seed if seed is not None else int(args.get("seed", TrainingSettings.seed)))
        with interruption(f"checkpoints of finished epochs are in {folder}; continue with --resume"):
            trained = train_task(
                job.task, folder, settings=settings, scorer=job.scorer, exclude=ids[_LISTS[0]], flip=ids[_LISTS[1]],
                resume=own.resume, device=device, args={**args, "training_seed": settings.seed},
                on_epoch=lambda epoch: say(_line(epoch), quiet=shown.quiet), notice=report,
            )  # fmt: skip
        found.append({"folder": str(folder), "seed": settings.seed, **_document(trained)})
        if not (shown.json or shown.quiet):
            with printing():
                _print(trained, folder, job, settings)
    if shown.json:
        with printing():
            print_document("train", found)


def _folders(own: TrainingOptions) -> dict[int | None, Path]:
    """The folder of each seed of `--seeds`, or the one folder under None."""
    assert own.checkpoint_dir is not None
    if (seeds := numbers("seeds", own.seeds)) is None:
        return {None: own.checkpoint_dir}
    return {seed: own.checkpoint_dir / f"seed_{seed}" for seed in seeds}


def _settings(own: TrainingOptions, seed: int) -> TrainingSettings:
    names = [each.name for each in fields(TrainingSettings) if hasattr(own, each.name) and each.name != "seed"]
    return TrainingSettings(**{name: value for name in names if (value := getattr(own, name)) is not None}, seed=seed)


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())


def _line(epoch: EpochReport) -> str:
    """An epoch in one line."""
    held_out = "" if epoch.test_accuracy is None else f", {epoch.test_accuracy:.1%} on held-out pairs"
    return (
        f"epoch {epoch.epoch} of {epoch.epochs}: loss {epoch.loss:.3g}, pair accuracy {epoch.train_accuracy:.1%} on "
        f"training pairs{held_out}"
    )


def _document(trained: Trained) -> dict[str, Any]:
    return {"checkpoints": list(map(str, trained.checkpoints)), "history": [asdict(each) for each in trained.history]}


def _print(trained: Trained, folder: Path, job: TrainingJob, settings: TrainingSettings) -> None:
    """How it ended, the bins of GHM, where the checkpoints are, and what to run next."""
    last = trained.history[-1]
    print(f"Trained  seed {settings.seed}, {_line(last)}; learning rate {last.learning_rate:g}")
    if last.bins:
        print("GHM bins (training pairs from easy to hard)")
        for each in dict.fromkeys((trained.history[0], trained.history[len(trained.history) // 2], last)):
            outside = f"; in no bin {each.bins[0]}" if each.bins[0] else ""
            print(f"  epoch {each.epoch:>3}  {' '.join(f'{count:>4}' for count in each.bins[1:])}{outside}")
    if trained.checkpoints:
        print(f"Written  {_listed(trained.checkpoints)}")
    else:
        print(f"Nothing to do: {folder} holds this training to its last epoch.")
    print(f"Next     {shlex.join(['tracin-func', 'self', *job.next, '--checkpoint-dir', str(folder)])}")


def _listed(paths: Sequence[Path]) -> str:
    return f"{paths[0]}" if len(paths) == 1 else f"{paths[0]} to {paths[-1].name} ({len(paths)} checkpoints)"

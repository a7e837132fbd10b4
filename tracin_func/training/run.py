"""Training the scorer of a task: which pairs, from which weights, into which folder."""

import hashlib
import logging
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tracin_func.errors import InputError
from tracin_func.files import locked, require_writable
from tracin_func.losses.custom import as_loss
from tracin_func.losses.registry import as_args
from tracin_func.results.exclusions import flipped, kept_rows
from tracin_func.results.names import counted
from tracin_func.task.checkpoint_files import content_of
from tracin_func.task.checkpoints import natural_order
from tracin_func.task.pairs import COLUMNS, Pairs
from tracin_func.task.task import Task
from tracin_func.training.checkpoint import PREFIX, save_content
from tracin_func.training.fit import EpochReport, Trained, fit, kept
from tracin_func.training.initial import initialised, kept_weights
from tracin_func.training.settings import TrainingSettings

# Of `args`: what may differ where a training is continued.
_FREE = ("epochs", "device", "exclusions_file", "flips_file")
_log = logging.getLogger("tracin_func")


def train(
    task: Task,
    folder: str | Path | None = None,
    *,
    settings: TrainingSettings | None = None,
    scorer: Callable[[int], nn.Module] | None = None,
    exclude: Collection[str] = (),
    flip: Collection[str] = (),
    resume: bool = False,
    device: torch.device | str = "cpu",
    args: Mapping[str, Any] | None = None,
    on_epoch: Callable[[EpochReport], None] | None = None,
    notice: Callable[[str], None] | None = None,
) -> Trained:
    """Train the scorer of a task on its training pairs with its loss, from fresh weights.

    Held-out pairs are evaluated after each epoch and are the same whatever is left out of the training. The task and
    its scorer are not changed. Equal arguments give bit-equal checkpoints on the CPU.

    Args:
        task: its checkpoints are not used. Of a task that was not trained yet they may be `[scorer]`.
        folder: where checkpoints `model_epoch_N.pt` are written; None keeps their contents in memory.
        settings: of the training.
        scorer: makes the module to train, with its initial weights, from the seed; by default a copy of the task's
            scorer whose layers draw their weights anew.
        exclude: ids of items or pairs to leave out of the training pairs.
        flip: ids of pairs whose target is inverted.
        resume: continue behind the last checkpoint in the folder.
        device: where the scorer is trained.
        args: further settings to record in checkpoints.
        on_epoch: called after every epoch.
        notice: receives sentences for the user; by default the log does.

    Returns:
        The trained scorer, the checkpoints of this call (paths, or contents) and the report of every epoch.

    Raises:
        UsageError: a setting is wrong.
        InputError: no pair is left, the scorer does not fit, or the folder has checkpoints, with `resume` of a training
            with other settings or pairs.
        NumericalError: the loss became NaN or infinite.
        OutputError: a checkpoint cannot be written.

    Example:
        >>> trained = ti.train(task, settings=ti.TrainingSettings(epochs=20, batch_size=2))
        >>> trained
        Trained(Linear: 20 epochs, pair accuracy 80.0% of training pairs, 100.0% of held-out pairs)
    """
    own, notice = settings or TrainingSettings(), notice or _log.warning
    pairs = selected(task, exclude, flip, notice)
    if scorer is None and (kept_as := kept_weights(task.scorer)):
        notice(
            f"note: {counted(len(kept_as), 'parameter')} of the scorer begin with the weights of the task, since their "
            f"modules have no reset_parameters: {', '.join(kept_as[:3])}."
        )
    make = partial(initialised, task.scorer) if scorer is None else scorer
    held_out = task.test if task.held_out is None else task.held_out
    every = {**(args or {}), "pairs_sha256": _digest(pairs, held_out)}
    work = partial(
        fit, make(own.seed), task.items, pairs, task.loss, own,
        held_out=held_out, joint=task.joint, device=device, args=every, on_epoch=on_epoch,
    )  # fmt: skip
    if folder is None:
        return work(save=kept)
    check_folder(Path(folder), resume=resume)
    with locked(Path(folder) / "training", timeout=0):
        recorded = as_args(as_loss(task.loss)) | own.as_args() | every
        check_folder(Path(folder), resume=resume)
        state = _state(Path(folder), recorded)
        return work(save=partial(save_content, folder), state=state)


def selected(
    task: Task, exclude: Collection[str], flip: Collection[str], notice: Callable[[str], None] = _log.warning
) -> Pairs:
    """The training pairs of a task without those of `exclude`, and with the target of those of `flip` inverted.

    Raises:
        InputError: no pair is left.
    """
    ids, pairs = task.all_item_ids, task.train_pairs
    rows, unknown = kept_rows(pairs, ids, exclude)
    if not rows:
        raise InputError(f"`exclusions_file` excludes all {counted(len(pairs), 'training pair')}. Remove some ids.")
    found, unflipped = flipped(pairs.select(torch.tensor(rows)), ids, flip)
    for name, missing in (("exclusions_file", unknown), ("flips_file", unflipped)):
        if missing:
            some = ", ".join(sorted(missing)[:3])
            notice(f"note: `{name}`: no training pair found for {counted(len(missing), 'id')}: {some}.")
    return found


def check_folder(folder: Path, *, resume: bool) -> None:
    """Check, before anything else is read, that checkpoints can be written to the folder.

    Raises:
        OutputError: they cannot.
        InputError: it holds checkpoints, and `resume` is False.
    """
    require_writable(folder / f"{PREFIX}1.pt", "checkpoint_dir")
    there = _checkpoints(folder)
    if there and not resume:
        raise InputError(
            f"`checkpoint_dir`: {folder} already holds {counted(len(there), 'checkpoint')}, the last {there[-1].name}. "
            "Continue this training with `resume=True`, or name another folder."
        )


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"{PREFIX}*.pt"), key=natural_order)


def _state(folder: Path, args: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The content of the last checkpoint in the folder, to continue from; None for the start.

    Raises:
        InputError: the checkpoints are of another training.
    """
    there = _checkpoints(folder)
    if not there:
        return None
    content: Mapping[str, Any] = content_of(there[-1])[0]
    before = content.get("args", {})
    for name in sorted((args.keys() | before.keys()) - set(_FREE)):
        if args.get(name) != before.get(name):
            raise InputError(
                f"`checkpoint_dir`: {there[-1]} is of another training: its {name} is {before.get(name)}, not "
                f"{args.get(name)}. Give the settings of that training, or name another folder."
            )
    if content.get("epoch", 0) > args["epochs"]:
        raise InputError(
            f"`checkpoint_dir`: {there[-1]} is beyond `epochs={args['epochs']}`. Give more epochs, or name another "
            "folder."
        )
    return content


def _digest(train: Pairs, held_out: Pairs | None) -> str:
    """A hash of the columns of training and held-out pairs."""
    found = hashlib.sha256()
    for pairs in (train, held_out):
        for name in COLUMNS:
            column = None if pairs is None else getattr(pairs, name)
            found.update(b"-" if column is None else column.numpy().tobytes())
    return found.hexdigest()

"""Saving checkpoints from any training loop, in the form that this package reads."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tracin_func.errors import UsageError
from tracin_func.files import replace, require_writable

PREFIX = "model_epoch_"
_OWN = ("model_state_dict", "optimizer_state_dict", "epoch", "args")


def save_checkpoint(
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None,
    step: int,
    folder: str | Path,
    *,
    args: Mapping[str, Any] | None = None,
    **recorded: float | str,
) -> Path:
    """Write `folder/model_epoch_{step}.pt`: weights, optimiser state with learning rates, and recorded values.

    The file is replaced as a whole: if the process is killed, the old file or the new one remains.

    Args:
        model: its `state_dict()` is saved; that of `model.module` for a parallel wrapper.
        optimizer: its learning rates and moments are used for scores; None if learning rates are given later.
        step: epoch or step, which orders checkpoints; at least 0.
        folder: created if missing.
        args: settings of the training, the defaults of scoring: `margin`, `loss_type`, `ghm_bins`, `seed`.
        recorded: further values, such as `train_accuracy=0.93`, which scoring compares with its own value.

    Returns:
        The path of the file.

    Raises:
        UsageError: `step` is negative, or a recorded value has the name of a part of the file.
        OutputError: the file cannot be written; the old one is unchanged.

    Example:
        >>> import tempfile, torch, tracin_func as ti
        >>> model = torch.nn.Linear(4, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> folder = tempfile.mkdtemp()
        >>> ti.save_checkpoint(model, optimizer, 1, folder, train_accuracy=0.9).name
        'model_epoch_1.pt'
        >>> [path.name for path in ti.find_checkpoints(folder)]
        ['model_epoch_1.pt']
    """
    if step < 0:
        raise UsageError(f"`step` should be at least 0. Got {step}.")
    if taken := [name for name in _OWN if name in recorded]:
        raise UsageError(f"`{taken[0]}` is a part of the file. Choose another name for the recorded value.")
    model = model.module if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel) else model
    content: dict[str, Any] = {"model_state_dict": model.state_dict()}
    if optimizer is not None:
        content["optimizer_state_dict"] = optimizer.state_dict()
    return save_content(folder, content | {"epoch": step, **recorded, "args": dict(args or {})})


def save_content(folder: str | Path, content: Mapping[str, Any]) -> Path:
    """Write the content of a checkpoint to `folder/model_epoch_N.pt`, N its 'epoch', whole or not at all.

    Raises:
        OutputError: the file cannot be written; the old one is unchanged.
    """
    path = Path(folder) / f"{PREFIX}{content['epoch']}.pt"
    require_writable(path, "checkpoint_dir")
    path.parent.mkdir(parents=True, exist_ok=True)
    replace(path, [(path, partial(torch.save, content))], "checkpoint_dir")
    return path

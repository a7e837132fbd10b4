"""Checkpoints: one saved state of the model each, read when it is needed, under distinct names."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tracin_func.errors import InputError, UsageError
from tracin_func.task.checkpoint_files import ARGUMENT_KEYS, OPTIMIZER_KEYS, WEIGHT_KEYS, content_of, is_checkpoint
from tracin_func.task.weight_names import EXTRA_STATE

LearningRate = float | Mapping[str, float]
_EXPECTED = f"{', '.join(map(repr, WEIGHT_KEYS))} or a bare state dict"


@dataclass(frozen=True, repr=False)
class Checkpoint:
    """One saved state of the model, read when it is needed.

    Args:
        source: a state dict, a loaded checkpoint (a dict with `model_state_dict`, `state_dict` or `model`), a module,
            whose weights are copied now, or the path of a checkpoint file or of its folder.
        learning_rate: η_t, a number or a mapping by parameter name; by default the recorded one.
        name: its name in outputs; by default the file name, or its position.

    Raises:
        UsageError: `source` is of another type, or a learning rate is negative or not finite.
    """

    source: Mapping[str, Any] | nn.Module | Path | str
    learning_rate: LearningRate | None = None
    name: str | None = None
    _read: "list[LoadedCheckpoint]" = field(default_factory=list, repr=False, compare=False)

    def __repr__(self) -> str:
        source = self.source if isinstance(self.source, str | Path) else "a state dict"
        return f"Checkpoint({self.name or source}{'' if self.learning_rate is None else f', {self.learning_rate}'})"

    def known_as(self, position: int) -> str:
        """Its name in outputs if it is the checkpoint at `position`, counted from 1."""
        if self.name is not None:
            return self.name
        return Path(self.source).name if isinstance(self.source, str | Path) else f"checkpoint {position}"

    def peek(self) -> "LoadedCheckpoint":
        """Its content, kept for the next `load`, so that the file is opened once."""
        if not self._read:
            self._read.append(load(self, 1))
        return self._read[0]

    def __post_init__(self) -> None:
        if isinstance(self.source, nn.Module):
            state = {name: copied(value) for name, value in self.source.state_dict().items()}
            object.__setattr__(self, "source", state)
        elif not isinstance(self.source, Mapping | str | Path):
            raise UsageError(
                "`source` of a checkpoint should be a state dict, a loaded checkpoint, a module, or the path of a file "
                f"or folder. Got {type(self.source).__name__}."
            )
        rates = self.learning_rate
        if rates is None:
            return
        plain = {n: float(rate) for n, rate in rates.items()} if isinstance(rates, Mapping) else float(rates)
        object.__setattr__(self, "learning_rate", plain)  # tensors and numpy scalars cannot be recorded
        for rate in plain.values() if isinstance(plain, dict) else [plain]:
            if not (np.isfinite(rate) and rate >= 0):
                raise UsageError(f"`learning_rate` should be finite and at least 0. Got {rate}.")


@dataclass(frozen=True)
class LoadedCheckpoint:
    """The content of a checkpoint. `args` are the settings of the training, `recorded` its other plain values.

    `sha256` is of the files of its weights, as hex; None if it was in memory.
    """

    name: str
    weights: dict[str, Tensor]
    optimizer: Mapping[str, Any] | None = None
    args: Mapping[str, Any] = field(default_factory=dict)
    recorded: Mapping[str, Any] = field(default_factory=dict)
    args_key: str = ARGUMENT_KEYS[0]
    sha256: str | None = None


def load(checkpoint: Checkpoint, position: int) -> LoadedCheckpoint:
    """Read one checkpoint onto the CPU.

    Raises:
        InputError: it is missing, truncated or without weights, or contains refused objects.
    """
    name = checkpoint.known_as(position)
    if checkpoint._read:
        return replace(checkpoint._read.pop(), name=name)
    if isinstance(checkpoint.source, Mapping):
        return parsed(checkpoint.source, name, name)
    assert not isinstance(checkpoint.source, nn.Module)
    return read(Path(checkpoint.source), name)


def read(path: Path, name: str) -> LoadedCheckpoint:
    """Read the checkpoint file or folder at `path`; see `load`."""
    content, sha256 = content_of(path)
    return replace(parsed(content, name, str(path)), sha256=sha256)


def parsed(content: Any, name: str, where: str) -> LoadedCheckpoint:
    """The parts of a checkpoint; InputError if it has no weights, or one has no values."""
    if not isinstance(content, Mapping):
        raise InputError(f"{where}: contains a {type(content).__name__}. Expected a dict with {_EXPECTED}.")
    key = next((key for key in WEIGHT_KEYS if isinstance(content.get(key), Mapping | nn.Module)), None)
    held = content if key is None else content[key]
    weights = _weights(held.state_dict() if isinstance(held, nn.Module) else held, where)
    if weights is None:
        keys = ", ".join(map(str, list(content)[:8])) or "nothing"
        raise InputError(f"{where}: no weights found among its keys ({keys}). Expected {_EXPECTED}.")
    if key is None:
        return LoadedCheckpoint(name, weights)
    args_key = next((key for key in ARGUMENT_KEYS if isinstance(content.get(key), Mapping)), ARGUMENT_KEYS[0])
    args = content.get(args_key)
    plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in content.items()}
    return LoadedCheckpoint(
        name,
        weights,
        _optimizer(content),
        args if isinstance(args, Mapping) else {},
        {name: value for name, value in plain.items() if isinstance(value, int | float | str)},
        args_key,
    )


def find_checkpoints(directory: Path | str, prefix: str = "model_epoch_") -> list[Path]:
    """The checkpoints `directory/prefix*` in natural order: epoch 2 before epoch 10.

    A checkpoint is a file, or a folder with one (`checkpoint-500/model.safetensors`).

    Raises:
        InputError: the folder is missing, or no checkpoint of that prefix; the message lists the others.
    """
    directory = Path(directory)
    if not directory.is_dir():
        what = "not a folder" if directory.exists() else "folder not found"
        raise InputError(f"`checkpoint_dir`: {what}: {directory}. It should hold checkpoints such as {prefix}1.pt.")
    there = sorted((path for path in directory.iterdir() if is_checkpoint(path)), key=natural_order)
    found = [path for path in there if path.name.startswith(prefix)]
    if not found:
        names = ", ".join(path.name for path in there[:6]) or "no checkpoint"
        raise InputError(f"`checkpoint_prefix` {prefix!r} not found in {directory}. Available: {names}.")
    return found


def natural_order(path: Path) -> list[tuple[int, int | str]]:
    """Sort key that reads digits as numbers."""
    parts = re.split(r"(\d+)", path.name)
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts if part]


def named_apart(checkpoints: Sequence[Checkpoint]) -> list[Checkpoint]:
    """The same with distinct names, from the shortest parts of their paths that differ.

    Raises:
        InputError: two have the same given name, or the same path.
    """
    names = [each.known_as(position) for position, each in enumerate(checkpoints, start=1)]
    if len(set(names)) == len(names):
        return list(checkpoints)
    paths = [
        Path(each.source).absolute().parts if each.name is None and isinstance(each.source, str | Path) else None
        for each in checkpoints
    ]
    ends = iter(_differing([path for path in paths if path is not None]))
    names = [name if path is None else next(ends) for name, path in zip(names, paths, strict=True)]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(
            f"`checkpoints`: two have the name {twice!r}. Give each state once, with Checkpoint(..., name=...)."
        )
    return [replace(each, name=name) for each, name in zip(checkpoints, names, strict=True)]


def copied(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value


def digest(weights: Mapping[str, Tensor]) -> str:
    """A hash of the names, types, shapes and bytes of weights."""
    found = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(weights.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def description(checkpoint: Checkpoint, loaded: LoadedCheckpoint, rate: LearningRate, source: str) -> dict[str, Any]:
    return {
        "name": loaded.name,
        "path": str(Path(checkpoint.source).absolute()) if isinstance(checkpoint.source, str | Path) else None,
        "learning_rate": rate,
        "learning_rate_from": source,
        "recorded": dict(loaded.recorded),
        "sha256": loaded.sha256,
    }


def _weights(held: Mapping[Any, Any], where: str) -> dict[str, Tensor] | None:
    """The dense tensors of a state dict; None if it contains anything else."""
    weights: dict[str, Tensor] = {}
    for name, value in held.items():
        if isinstance(name, str) and name.endswith(EXTRA_STATE):
            continue
        tensor = torch.from_numpy(value) if isinstance(value, np.ndarray) and value.dtype.kind in "biuf" else value
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            return None
        if tensor.is_meta:
            raise InputError(
                f"{where}: weight {name!r} is on the meta device and has no values. Load the weights into memory."
            )
        weights[name] = tensor if tensor.layout == torch.strided else tensor.to_dense()
    return weights or None


def _optimizer(content: Mapping[str, Any]) -> Mapping[str, Any] | None:
    held = next((content[key] for key in OPTIMIZER_KEYS if content.get(key) is not None), None)
    if isinstance(held, list | tuple) and len(held) == 1:  # Lightning saves a list; of several none is THE optimiser
        held = held[0]
    held = held.state_dict() if isinstance(held, torch.optim.Optimizer) else held
    return held if isinstance(held, Mapping) else None


def _differing(paths: list[tuple[str, ...]]) -> list[str]:
    """The shortest ends of `paths` that differ, without a common end; for equal paths the file name."""
    if len(set(paths)) < len(paths):
        return [path[-1] for path in paths]
    while len({path[-1] for path in paths}) == 1 and len(paths) > 1:
        paths = [path[:-1] for path in paths]
    length = 1
    while len({path[-length:] for path in paths}) < len(paths):
        length += 1
    return ["/".join(path[-length:]) for path in paths]

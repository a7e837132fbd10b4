"""Checkpoints: files found in natural order, read as untrusted data, one at a time.

A file is `.pt`/`.pth` (a dict with `model_state_dict`, `state_dict` or `model`, or a bare state dict) or
`.safetensors`. Reading allows tensors, numbers, strings and numpy scalars; nothing a file holds is executed.
"""

import hashlib
import pickle
import re
import struct
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from tracin_func.errors import InputError, UsageError

SUFFIXES = (".pt", ".pth", ".safetensors")
WEIGHT_KEYS = ("model_state_dict", "state_dict", "model")
WRAPPER_PREFIXES = ("module.", "_orig_mod.")

LearningRate = float | Mapping[str, float]
Value = TypeVar("Value")

# What torch's unpickler raises on a file that is cut short or damaged, depending on where.
_DAMAGED = (
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    OSError,
    AssertionError,
    AttributeError,
    TypeError,
    OverflowError,
    MemoryError,
    struct.error,
)

# Trainers put accuracies and losses as numpy scalars beside the weights; their types carry no code.
# numpy 1 and 2 keep the two constructors under different module names, so both are allowed.
_SCALAR, _ARRAY = np.float64(0).__reduce__()[0], np.empty(0).__reduce__()[0]
_NUMPY_SCALARS: list[Any] = [
    np.dtype,
    np.ndarray,
    *((_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *((_ARRAY, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
    *{type(np.dtype(code)) for code in "?bhilqBHILQefdFDSU"},
]


@dataclass(frozen=True)
class Checkpoint:
    """One saved state of the model, read when it is its turn.

    Args:
        source: a state dict, or the path of a checkpoint file.
        learning_rate: η_t, a number or a mapping by parameter name; the file's own when left out.
        name: what outputs call it; the file name, or its position, when left out.
    """

    source: Mapping[str, Tensor] | Path | str
    learning_rate: LearningRate | None = None
    name: str | None = None

    def known_as(self, position: int) -> str:
        """What outputs call it where it is the one at `position`, counted from 1."""
        if self.name is not None:
            return self.name
        return f"checkpoint {position}" if isinstance(self.source, Mapping) else Path(self.source).name

    def __post_init__(self) -> None:
        rates = self.learning_rate
        if rates is None:
            return
        plain = {n: float(rate) for n, rate in rates.items()} if isinstance(rates, Mapping) else float(rates)
        object.__setattr__(self, "learning_rate", plain)  # a tensor or numpy scalar would not go into a record
        for rate in plain.values() if isinstance(plain, dict) else [plain]:
            if not (np.isfinite(rate) and rate >= 0):
                raise UsageError(f"`learning_rate` should be finite and at least 0. Got {rate}.")


@dataclass(frozen=True)
class LoadedCheckpoint:
    """What a checkpoint file holds. `args` are the training's settings, `recorded` its other plain values."""

    name: str
    weights: dict[str, Tensor]
    optimizer: Mapping[str, Any] | None
    args: Mapping[str, Any]
    recorded: Mapping[str, Any]


def load(checkpoint: Checkpoint, position: int) -> LoadedCheckpoint:
    """Read one checkpoint onto the CPU.

    Raises:
        InputError: missing, truncated, holding objects that are refused, or without weights.
    """
    if isinstance(checkpoint.source, Mapping):
        return LoadedCheckpoint(checkpoint.known_as(position), dict(checkpoint.source), None, {}, {})
    path = Path(checkpoint.source)
    return read(path, checkpoint.known_as(position))


def read(path: Path, name: str) -> LoadedCheckpoint:
    """Read the checkpoint file at `path`; see `load`."""
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint file.")
    if path.suffix == ".safetensors":
        return LoadedCheckpoint(name, _read_safetensors(path), None, {}, {})
    content = _read_torch(path)
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: holds a {type(content).__name__}. Expected a dict with {_expected()}.")
    key = next((key for key in WEIGHT_KEYS if isinstance(content.get(key), Mapping)), None)
    weights = dict(content if key is None else content[key])
    if not weights or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in weights.items()):
        keys = ", ".join(map(str, list(content)[:8])) or "nothing"
        raise InputError(f"{path}: no weights found among its keys ({keys}). Expected {_expected()}.")
    if key is None:
        return LoadedCheckpoint(name, weights, None, {}, {})
    args = content.get("args")
    optimizer = content.get("optimizer_state_dict", content.get("optimizer"))
    plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in content.items()}
    return LoadedCheckpoint(
        name,
        weights,
        optimizer if isinstance(optimizer, Mapping) else None,
        args if isinstance(args, Mapping) else {},
        {name: value for name, value in plain.items() if isinstance(value, int | float | str)},
    )


def find_checkpoints(directory: Path, prefix: str = "model_epoch_") -> list[Path]:
    """The checkpoint files `directory/prefix*` in natural order: epoch 2 before epoch 10.

    Raises:
        InputError: no such folder, or no file of that prefix; the message lists what there is.
    """
    if not directory.is_dir():
        what = "not a folder" if directory.exists() else "no such folder"
        raise InputError(f"{directory}: {what}. Expected a folder of checkpoints `{prefix}N.pt`.")
    files = [path for path in directory.iterdir() if path.suffix in SUFFIXES and path.is_file()]
    found = sorted((path for path in files if path.name.startswith(prefix)), key=natural_order)
    if not found:
        names = ", ".join(path.name for path in sorted(files, key=natural_order)[:6]) or "no checkpoint file at all"
        raise InputError(
            f"{directory}: no checkpoint whose name starts with {prefix!r}; there is: {names}. "
            "Give the start of the names with --checkpoint-prefix."
        )
    return found


def natural_order(path: Path) -> list[tuple[int, int | str]]:
    """Sort key that reads digits as numbers."""
    parts = re.split(r"(\d+)", path.name)
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts if part]


def unwrapped(named: Mapping[str, Value], known: Collection[str]) -> dict[str, Value]:
    """`named` without the prefixes that DataParallel and torch.compile put before every name.

    A prefix stays where all names are `known` with it: a model may have a part called `module`.
    """
    names = list(named)
    while not all(name in known for name in names):
        prefix = next((prefix for prefix in WRAPPER_PREFIXES if all(name.startswith(prefix) for name in names)), None)
        if prefix is None:
            break
        names = [name[len(prefix) :] for name in names]
    return dict(zip(names, named.values(), strict=True))


def _read_torch(path: Path) -> Any:
    try:
        with _allowed(_NUMPY_SCALARS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what it refuses a moment later, in words for torch's developers
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL ([\w.]+)|Unsupported (?:global|class) ([\w.]+)", str(error))
        if refused is None:
            raise InputError(f"{path}: not a readable checkpoint (truncated, or not a torch file).") from None
        raise InputError(
            f"{path}: holds an object of {refused.group(1) or refused.group(2)}, which is refused: unpickling it "
            "would run code. Save the state dict alone: torch.save({'model_state_dict': model.state_dict()}, path)."
        ) from None
    except _DAMAGED as error:
        # What else these say is about pickle's machinery: a number, or nothing; or, after a sentence, torch's advice.
        words = str(error).strip().split("\n")[0].split(". ")[0].rstrip(".")
        reason = f": {words}" if isinstance(error, RuntimeError | OSError) else ""
        raise InputError(f"{path}: not a readable checkpoint (truncated, or not a torch file){reason}.") from None


@contextmanager
def _allowed(objects: list[Any]) -> Iterator[None]:
    """What torch may unpickle in the block, besides what the caller has allowed, which stays allowed afterwards."""
    known = torch.serialization.get_safe_globals()
    added = [each for each in objects if each not in known]
    torch.serialization.add_safe_globals(added)
    try:
        yield
    finally:
        left = [each for each in torch.serialization.get_safe_globals() if each not in added]
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(left)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a readable safetensors file: {error}") from None


def _expected() -> str:
    return f"{', '.join(f'`{key}`' for key in WEIGHT_KEYS)} or a bare state dict"


def file_digest(path: str | None) -> str | None:
    """What the file of a checkpoint holds, in 64 signs."""
    if path is None:
        return None
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def description(checkpoint: Checkpoint, loaded: LoadedCheckpoint, rate: LearningRate, source: str) -> dict[str, Any]:
    """What provenance records of a checkpoint; its file is not read again for it."""
    path = None if not isinstance(checkpoint.source, str | Path) else str(Path(checkpoint.source).absolute())
    recorded = dict(loaded.recorded)
    return {
        "name": loaded.name,
        "path": path,
        "learning_rate": rate,
        "learning_rate_from": source,
        "recorded": recorded,
    }

"""Reading checkpoints from disk as untrusted data: files of torch and safetensors, shards, folders.

A file contains a dict with the weights under one of `WEIGHT_KEYS`, or the weights alone. Only tensors, numbers, strings
and numpy scalars are read; no code in a file is executed.
"""

import hashlib
import json
import pickle
import re
import shlex
import struct
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from tracin_func.errors import InputError

SUFFIXES = (".pt", ".pth", ".pth.tar", ".ckpt", ".bin", ".safetensors")
WEIGHT_KEYS = ("model_state_dict", "state_dict", "model")
OPTIMIZER_KEYS = ("optimizer_state_dict", "optimizer", "optimizer_states")
ARGUMENT_KEYS = ("args", "hyper_parameters")
INDEX = ".index.json"  # lists the shards of a large model

# In this order; a folder may contain the same weights twice.
_WEIGHTS_IN_FOLDER = tuple(
    name + end
    for name in ("model.safetensors", "pytorch_model.bin", "adapter_model.safetensors", "adapter_model.bin")
    for end in ("", INDEX)
)
_OPTIMIZER_IN_FOLDER = "optimizer.pt"

# Trainers save accuracies and losses as numpy scalars beside the weights; their types contain no code.
# numpy 1 and 2 have the two constructors under different module names, so both are allowed.
_SCALAR, _ARRAY = np.float64(0).__reduce__()[0], np.empty(0).__reduce__()[0]
_NUMPY_SCALARS: list[Any] = [
    np.dtype,
    np.ndarray,
    *((_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *((_ARRAY, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
    *{type(np.dtype(code)) for code in "?bhilqBHILQefdFDSUMm"},
]
_REFUSED = re.compile(r"GLOBAL ([\w.]+)|Unsupported (?:global|class) ([\w.]+)|but got <class '([\w.]+)'>")


def content_of(path: Path) -> tuple[Any, str]:
    """The content of the file or folder at `path`, and the SHA-256 of the files of its weights as hex.

    A file is hashed before it is unpickled, through the same handle: it is opened once.

    Raises:
        InputError: it is missing or truncated, or contains refused objects.
    """
    digest = hashlib.sha256()
    return _content(path, digest), digest.hexdigest()


def _content(path: Path, digest: Any) -> Any:
    if path.is_dir():
        return _read_folder(path, digest)
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint file. Give an existing one.")
    if path.name.endswith(INDEX):
        return _read_shards(path, digest)
    return _read_safetensors(path, digest) if path.suffix == ".safetensors" else _read_torch(path, digest)


def is_checkpoint(path: Path) -> bool:
    """Whether `path` has the name of a checkpoint file, or is a folder with one."""
    return weights_in(path) is not None if path.is_dir() else path.name.endswith(SUFFIXES)


def weights_in(folder: Path) -> Path | None:
    """The file of weights in the folder of a checkpoint, or None."""
    return next((path for name in _WEIGHTS_IN_FOLDER if (path := folder / name).is_file()), None)


def _read_folder(folder: Path, digest: Any) -> Mapping[str, Any]:
    file = weights_in(folder)
    if file is None:
        names = ", ".join(sorted(each.name for each in folder.iterdir())[:6]) or "nothing"
        raise InputError(f"{folder}: a folder without {' or '.join(_WEIGHTS_IN_FOLDER[::2])}. Got {names}.")
    optimizer = folder / _OPTIMIZER_IN_FOLDER
    content = {WEIGHT_KEYS[0]: _content(file, digest)}
    return content | ({OPTIMIZER_KEYS[0]: _read_torch(optimizer)} if optimizer.is_file() else {})


def _read_shards(index: Path, digest: Any) -> dict[str, Any]:
    """The weights in the files that an index lists."""
    try:
        text = index.read_bytes()
        digest.update(text)
        files = list(dict.fromkeys(json.loads(text)["weight_map"].values()))
        if not all(isinstance(name, str) and Path(name).name == name and name.endswith(SUFFIXES) for name in files):
            raise ValueError("a file elsewhere")
    except (ValueError, LookupError, TypeError, AttributeError, OSError) as error:
        raise InputError(
            f"{index}: not a readable index of shards ({type(error).__name__}). Expected a JSON object with "
            "'weight_map', from names of weights to files beside it."
        ) from None
    weights: dict[str, Any] = {}
    for name in files:
        weights |= _content(index.parent / name, digest)
    return weights


def _read_torch(path: Path, digest: Any = None) -> Any:
    try:
        with open(path, "rb") as file, _allowed(_NUMPY_SCALARS), warnings.catch_warnings():
            if digest is not None:
                hashlib.file_digest(file, lambda: digest)
                file.seek(0)
            warnings.simplefilter("ignore")  # about objects that it refuses a moment later
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        refused = _REFUSED.search(str(error))
        if refused is None:
            raise InputError(f"{path}: not a readable checkpoint (truncated, or not a torch file).") from None
        raise InputError(
            f"{path}: contains an object of {next(filter(None, refused.groups()))}, which is refused: unpickling it "
            f"may run code. If you trust the file, keep only the weights and plain values: {_conversion(path)} (the "
            "original is kept beside it, with the ending .full)."
        ) from None
    except Exception as error:  # any, depending on where the file is cut short or damaged
        # The other errors contain details of pickle only; torch's advice follows after a sentence.
        words = str(error).strip().split("\n")[0].split(". ")[0].rstrip(".")
        reason = f": {words}" if isinstance(error, RuntimeError | OSError) else ""
        raise InputError(f"{path}: not a readable checkpoint (truncated, or not a torch file){reason}.") from None


def _conversion(path: Path) -> str:
    """A command that removes everything unreadable from the file; it accepts several files."""
    names = _strings_in(path)
    kept = [key for key in (*WEIGHT_KEYS, *OPTIMIZER_KEYS) if key in names]
    chosen = f"{{**plain(c), **{{k: c[k] for k in {kept!r}}}}}"
    for key in ARGUMENT_KEYS:
        if key in names:
            chosen = f"{chosen} | {{{key!r}: plain(vars(a) if hasattr(a := c[{key!r}], '__dict__') else a)}}"
    code = (
        "import os, sys, torch; plain = lambda d: {k: v for k, v in d.items() if isinstance(v, (int, float, str))}; "
        "[(c := torch.load(f, weights_only=False), os.rename(f, f + '.full'), "
        f"torch.save({chosen if set(kept) & set(WEIGHT_KEYS) else 'c.state_dict()'}, f)) for f in sys.argv[1:]]"
    )
    return f'python -c "{code}" {shlex.quote(str(path))}'


def _strings_in(path: Path) -> set[str]:
    """The keys of a checkpoint file among the known ones, from its bytes; nothing is unpickled."""
    try:
        with zipfile.ZipFile(path) as archive:
            data = archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
    except (zipfile.BadZipFile, StopIteration, OSError):
        data = path.read_bytes()[: 1 << 24]
    keys = (*WEIGHT_KEYS, *OPTIMIZER_KEYS, *ARGUMENT_KEYS)
    return {key for key in keys if b"X" + struct.pack("<I", len(key)) + key.encode() in data}


@contextmanager
def _allowed(objects: list[Any]) -> Iterator[None]:
    """Allow torch to unpickle `objects` in the block; what the caller has allowed stays so."""
    known = torch.serialization.get_safe_globals()
    added = [each for each in objects if each not in known]
    torch.serialization.add_safe_globals(added)
    try:
        yield
    finally:
        left = [each for each in torch.serialization.get_safe_globals() if each not in added]
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(left)


def _read_safetensors(path: Path, digest: Any) -> dict[str, Tensor]:
    try:
        with open(path, "rb") as file:
            hashlib.file_digest(file, lambda: digest)
        return safetensors.torch.load_file(path)  # maps the file: no second copy in memory
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a readable safetensors file: {error}") from None

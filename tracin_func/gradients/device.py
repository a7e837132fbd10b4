"""The device of a run: its choice, its accumulation dtype, exact products, and the versions of the software."""

import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version

import torch
from torch import Tensor

from tracin_func.errors import UsageError

AUTOMATIC = ("cuda", "mps", "cpu")
_PACKAGES = ("tracin-func", "torch", "numpy")


def resolve_device(device: str | torch.device | None) -> torch.device:
    """`device`, or the first available of cuda, mps and cpu for None or "auto"; UsageError if it is not available."""
    if device is None or device == "auto":
        return torch.device(next(name for name in AUTOMATIC if _is_available(torch.device(name))))
    try:
        resolved = torch.device(device)
    except RuntimeError:
        resolved = None
    if resolved is None or resolved.type not in AUTOMATIC:
        raise UsageError(
            f"`device` should be auto, {', '.join(AUTOMATIC)}, or one of these with an index. Got {device!r}."
        )
    if not _is_available(resolved):
        there = ", ".join(name for name in AUTOMATIC if _is_available(torch.device(name)))
        raise UsageError(
            f"`device` {str(resolved)!r} is not available here (torch {torch.__version__}). Available: {there}."
        )
    return resolved


def wide_type(rows: Tensor) -> torch.dtype:
    """float64, where the device has it (MPS does not)."""
    return torch.float32 if rows.device.type == "mps" else torch.float64


@contextmanager
def exact_products(device: torch.device) -> Iterator[None]:
    """Autocast, inference mode and TF32 on CUDA are off in the block, and restored afterwards."""
    with torch.inference_mode(False), torch.autocast(device.type, enabled=False), _full_float32(device):
        yield


def clock(device: torch.device) -> float:
    """A time in seconds, read once the device has finished all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()


def versions() -> dict[str, str]:
    """Versions of this package, torch, numpy, Python and the operating system."""
    packages = {name: _version(name) for name in _PACKAGES}
    return packages | {"python": platform.python_version(), "platform": platform.platform()}


def _is_available(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()
    return torch.backends.mps.is_available() if device.type == "mps" else True


@contextmanager
def _full_float32(device: torch.device) -> Iterator[None]:
    """TF32 off on CUDA, whose convolutions have it on by default."""
    if device.type != "cuda":
        yield
        return
    matmul, convolution = torch.backends.cuda.matmul, torch.backends.cudnn
    if hasattr(matmul, "fp32_precision"):  # reading the older flags after the newer were set is an error
        places, setting, full = (matmul, convolution.conv), "fp32_precision", "ieee"  # type: ignore[attr-defined]
    else:
        places, setting, full = (matmul, convolution), "allow_tf32", False  # type: ignore[assignment]
    before = [getattr(place, setting) for place in places]
    for place in places:
        setattr(place, setting, full)
    try:
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            setattr(place, setting, value)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # run from a clone that is not installed
        return "not installed"

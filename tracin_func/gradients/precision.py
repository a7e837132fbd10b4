"""Numbers as they are: gradients differ in digits that TF32 and autocast do not keep."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def exact_products(device: torch.device) -> Iterator[None]:
    """No autocast, no inference mode of the caller's, no TF32 on CUDA; all of it as it was afterwards."""
    with torch.inference_mode(False), torch.autocast(device.type, enabled=False), _full_float32(device):
        yield


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

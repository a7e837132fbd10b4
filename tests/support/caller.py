"""What belongs to the caller, and must be as it was after any call of the package."""

import io
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn


@contextmanager
def untouched(module: nn.Module) -> Iterator[None]:
    """Everything of the caller's is equal before and after the block, also where it raises."""
    before = _everything(module)
    try:
        yield
    finally:
        after = _everything(module)
        for name, value in before.items():
            assert after[name] == value, f"{name} changed"


def _everything(module: nn.Module) -> dict[str, Any]:
    parameters = dict(module.named_parameters())
    submodules = dict(module.named_modules())
    return {
        "weights": _bytes(module.state_dict()),
        "buffers": _bytes(dict(module.named_buffers())),
        "places of weights": {name: (id(own), own.data_ptr()) for name, own in parameters.items()},
        "modes": {name: each.training for name, each in submodules.items()},
        "requires_grad": {name: own.requires_grad for name, own in parameters.items()},
        "gradients": {name: None if own.grad is None else _bytes(own.grad) for name, own in parameters.items()},
        "hooks": {name: _hooks(each) for name, each in submodules.items()},
        "attributes": {
            name: {key: id(value) for key, value in vars(each).items()} for name, each in submodules.items()
        },
        "random state of torch": _bytes(torch.get_rng_state()),
        "random state of numpy": str(np.random.get_state()),
        "random state of Python": random.getstate(),
        "allow-list of torch.serialization": _allowed(),
        "sys.path": list(sys.path),
        "default dtype": torch.get_default_dtype(),
        "gradient mode": torch.is_grad_enabled(),
        "precision of products": (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32),
        "determinism": (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic),
        "fast path of attention": torch.backends.mha.get_fastpath_enabled(),
        "threads": torch.get_num_threads(),
    }


def _allowed() -> set[str]:
    """What the caller has allowed; torch adds types of its own when parts of it are first imported."""
    names = map(str, torch.serialization.get_safe_globals())
    return {name for name in names if not name.startswith("<class 'torch.")}


def _hooks(module: nn.Module) -> dict[str, int]:
    return {name: len(value) for name, value in vars(module).items() if name.endswith("_hooks")}


def _bytes(value: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()

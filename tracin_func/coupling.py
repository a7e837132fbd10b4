"""Does the score of an item depend on the items beside it in a batch? And if so, through which operation?

One gradient an item serves every pair only when it does not. The test compares one item's score among two
different sets of companions at EQUAL shapes: comparing a batch with a single item instead would mistake the
different rounding of different kernels for coupling.
"""

import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

Forward = Callable[[Tensor], Tensor]  # positions of units [n] -> their scores in one batch [n]

_LIBRARY = tuple(str(Path(module.__file__).parent) for module in (torch,) if module.__file__)
_PACKAGE = str(Path(__file__).parent)
_MIDDLE = 1  # the item under test stands between two companions: what looks back and what looks ahead shows


def mixing_operation(forward: Forward, count: int) -> str | None:
    """The first operation through which `forward` mixes units, as "name (file:line)"; None when it mixes none.

    A forward that cannot take a batch of three at all also counts as mixing. `forward` runs at most five times,
    on three units each.
    """
    if count < 2:
        return None
    companions = [position % count for position in (1, 2, 3, 4)]
    here, there = (torch.tensor([companions[0], 0, companions[1]]), torch.tensor([companions[2], 0, companions[3]]))
    if count < 5:  # not enough others: two copies of the unit itself are a different set of companions
        there = torch.tensor([0, 0, 0])
    try:
        with torch.no_grad():
            scores, among_others = forward(here), forward(there)
    except (RuntimeError, ValueError, IndexError) as error:
        return f"a forward that fails on a batch: {error}"
    scale = torch.maximum(scores.abs().max(), among_others.abs().max())
    tolerance = 2 * torch.finfo(scores.dtype).eps * scale
    if bool((scores[_MIDDLE] - among_others[_MIDDLE]).abs() <= tolerance):
        return None
    return _name_operation(forward, here, there)


def _name_operation(forward: Forward, here: Tensor, there: Tensor) -> str:
    """An element that changes with the unit AND with its companions has mixed them."""
    other_unit = here.clone()
    other_unit[_MIDDLE] = here[0]
    runs: list[list[tuple[str, Tensor]]] = []
    for batch in (here, there, other_unit):
        with torch.no_grad(), _Recorder() as recorder:
            forward(batch)
        runs.append(recorder.outputs)
    base_run, companions_run, unit_run = runs
    # Not strict: a forward whose operations depend on its data may take another path in another run.
    for (name, base), (_, companions_changed), (_, unit_changed) in zip(
        base_run, companions_run, unit_run, strict=False
    ):
        if base.shape != companions_changed.shape or base.shape != unit_changed.shape:
            continue
        if bool(((base != companions_changed) & (base != unit_changed)).any()):
            return name
    return "an operation outside torch"


class _Recorder(TorchFunctionMode):
    """Copies every floating-point tensor that an operation returns, with the operation's name and place."""

    def __init__(self) -> None:
        super().__init__()
        self.outputs: list[tuple[str, Tensor]] = []

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in pytree.tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.is_floating_point():
                self.outputs.append((f"{func.__name__} ({_place()})", leaf.detach().clone()))
        return result


def _place() -> str:
    """The innermost line that is neither torch's nor ours."""
    for frame in reversed(traceback.extract_stack()):
        if not frame.filename.startswith((*_LIBRARY, _PACKAGE, "<")):
            return f"{Path(frame.filename).name}:{frame.lineno}"
    return "inside torch"

"""Does the score of an item depend on the items beside it in a batch? And if so, through which operation?

One gradient per item serves every pair only when it does not. The test compares one item's score among two
different sets of companions at EQUAL shapes: comparing a batch with a single item instead would mistake the
different rounding of different kernels for coupling.
"""

import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from tracin_func.errors import InputError, UsageError
from tracin_func.task.items import RaggedItemsError

Forward = Callable[[Tensor], Tensor]  # positions of units [n] -> their scores in one batch [n]
_NOT_THEIRS = (str(Path(torch.__file__).parent), str(Path(__file__).parents[1]), "<")  # frames that are not the user's
# Errors of a forward on a batch that does not suit it.
FORWARD_FAULTS = (RuntimeError, TypeError, LookupError, ValueError, AttributeError, AssertionError)
ENOUGH_UNITS = 6  # three to test, and a companion of its own for each


def mixing_operation(forward: Forward, count: int) -> str | None:
    """The first operation through which `forward` mixes units, as "name (file:line)"; None when it mixes none.

    Three units are tried, since a normalisation by the largest does not show on the largest. Errors of the forward on a
    batch of three are raised. Units that cannot be stacked are never mixed.
    """
    scores: dict[tuple[int, ...], Tensor] = {}
    try:
        for here, there, place in _comparisons(count):
            for batch in (here, there):
                if batch not in scores:
                    with torch.no_grad():
                        scores[batch] = forward(torch.tensor(batch))
            if _apart(scores[here], scores[there], place):
                return _name_operation(forward, torch.tensor(here), torch.tensor(there), place)
    except RaggedItemsError:
        pass
    return None


def _comparisons(count: int) -> Iterator[tuple[tuple[int, ...], tuple[int, ...], int]]:
    """Two batches of three with other companions for the same unit, and its place in both."""
    first, middle, last = 0, count // 2, count - 1
    if count >= ENOUGH_UNITS:  # three batches serve three units
        without_last, without_middle, without_first = (
            (first, middle, 1),
            (first, middle - 1, last),
            (last - 1, middle, last),
        )
        yield without_last, without_first, 1
        yield without_last, without_middle, 0
        yield without_middle, without_first, 2
        return
    for unit in sorted({first, middle, last}) if count > 1 else ():
        others = [position % count for position in (unit + 1, unit + 2, unit + 3, unit + 4)]
        # Where there are not enough others, copies of the unit itself are a different set of companions.
        there = (others[2], unit, others[3]) if count > 4 else (unit, unit, unit)
        yield (others[0], unit, others[1]), there, 1


def cause(error: BaseException) -> str:
    """The first line of an error and the module that raised it."""
    lines = str(error).strip().splitlines()
    inside = ""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        owner = frame.f_locals.get("self")
        if isinstance(owner, torch.nn.Module) and not type(owner).__module__.startswith("tracin_func."):
            inside = f" (in {type(owner).__name__})"
    return f"{lines[0] if lines else type(error).__name__}{inside}"


def fault_of(attempt: Callable[[], object]) -> str | None:
    """In one line, the error of a forward on a batch that does not suit it, or None; InputError passes through."""
    try:
        attempt()
    except (InputError, UsageError):
        raise
    except FORWARD_FAULTS as error:
        return cause(error)
    return None


def _apart(scores: Tensor, among_others: Tensor, place: int) -> bool:
    if not bool((scores.isfinite() & among_others.isfinite()).all()):
        return False  # reported as what it is when the scores are used
    scale = torch.maximum(scores.abs().max(), among_others.abs().max())
    tolerance = 2 * torch.finfo(scores.dtype).eps * scale
    return bool((scores[place] - among_others[place]).abs() > tolerance)


def _name_operation(forward: Forward, here: Tensor, there: Tensor, place: int) -> str:
    """The operation with the first element that changes both with the unit at `place` and with its companions."""
    other_unit = here.clone()
    other_unit[place] = here[place - 1]
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
                self.outputs.append((f"{func.__name__} ({place_of_call()})", leaf.detach().clone()))
        return result


def place_of_call() -> str:
    """The innermost line of the user's code."""
    for frame in reversed(traceback.extract_stack()):
        if not frame.filename.startswith(_NOT_THEIRS):
            return f"{Path(frame.filename).name}:{frame.lineno}"
    return "inside torch"

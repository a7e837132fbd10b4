"""Whether an engine can differentiate the units it tried."""

from collections.abc import Callable

from tracin_func.gradients.coupling import fault_of
from tracin_func.gradients.protocol import UnsuitableError


def require_suitable(attempt: Callable[[], object]) -> None:
    """Raise UnsuitableError with the error of a forward or backward that does not suit the engine, in one line."""
    if (fault := fault_of(attempt)) is not None:
        raise UnsuitableError(fault)

"""Whether an engine can differentiate the units it tried, and how long it took."""

import time
from collections.abc import Callable

from tracin_func.gradients.coupling import fault_of
from tracin_func.gradients.protocol import UnsuitableError


def require_suitable(attempt: Callable[[], object]) -> float:
    """The seconds of `attempt`.

    Raises:
        UnsuitableError: in one line, the error of a forward or backward that does not suit the engine.
    """
    start = time.perf_counter()
    if (fault := fault_of(attempt)) is not None:
        raise UnsuitableError(fault)
    return time.perf_counter() - start

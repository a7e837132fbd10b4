"""`tracin-func gradients`: fill a store, score nothing."""

from typing import Any

from tracin_func.cli.errors import guarded, importing
from tracin_func.cli.options import GRADIENTS, takes


@guarded
@takes(*GRADIENTS)
def command(**options: Any) -> None:
    """Compute the gradients of all items once and keep them in a store, for any pairs that are scored later.

    A run that is ended goes on where it was; with --shard I/N, N runs of a job array fill it together.
    """
    with importing():
        from tracin_func.cli.job import run_gradients

    run_gradients(options)

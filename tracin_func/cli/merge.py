"""`tracin-func merge STORE`: what the shards of a run have made, as scores."""

from typing import Any

from tracin_func.cli.errors import guarded, importing
from tracin_func.cli.options import MERGE, takes


@guarded
@takes(*MERGE)
def command(**options: Any) -> None:
    """Score what the shards of `self` or `influence` prepared in a store, with their options, and write the results.

    Run it where the shards were run. Blocks that are missing are named, and nothing is scored.
    """
    with importing():
        from tracin_func.cli.job import run_merge

    run_merge(options)

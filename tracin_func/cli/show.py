"""`tracin-func show FILE`: what a result file holds, ours or another program's."""

from typing import Any

from tracin_func.cli.errors import guarded
from tracin_func.cli.options import SHOW, takes


@guarded
@takes(*SHOW)
def command(**options: Any) -> None:
    """Show a result file: where its scores come from, what is odd about them, the largest, and their distribution.

    By class-pair it tells what to record more of, by item which recordings to listen to. Of influence on several test
    pairs the views sum the columns; --column PART takes one.
    """
    from tracin_func.cli.shown import show_file

    show_file(options)

"""`tracin-func show FILE`: what a result file holds, ours or another program's."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tracin_func.cli.errors import guarded, printing
from tracin_func.cli.options import SHOW, takes
from tracin_func.errors import UsageError

TOP = 10


@guarded
@takes(*SHOW)
def command(**options: Any) -> None:
    """Show a result file: where its scores come from, what is odd about them, the largest, and their distribution.

    By class-pair it tells what to record more of, by item which recordings to listen to. Of influence on several test
    pairs the views sum the columns; --column PART takes one.
    """
    from tracin_func.report.terminal.file import document, print_selection, select
    from tracin_func.results.files.read import read_result
    from tracin_func.results.views import PAIR, SCORE, SORTS, VIEWS

    by, sort, top = options["by"] or PAIR, options["sort"], options["top"] or TOP
    _check("--by", by, VIEWS)
    _check("--sort", sort or SCORE, SORTS)
    if options["top"] is not None and options["top"] < 1:
        raise UsageError(f"--top should be at least 1. Got {options['top']}.")
    selection = select(read_result(Path(options["file"])), options["column"], by)
    with printing():
        if options["json"]:
            print(json.dumps(document(selection, by, sort, top), ensure_ascii=False, indent=2, allow_nan=False))
        else:
            print_selection(selection, by, sort, top, with_histogram=options["histogram"])


def _check(option: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise UsageError(f"{option} should be one of {', '.join(known)}. Got {value!r}.")

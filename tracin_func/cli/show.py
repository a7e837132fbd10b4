"""`tracin-func show FILE`: what a result file holds, ours or another program's."""

import json

from tracin_func.cli.errors import printing
from tracin_func.cli.options import ViewOptions
from tracin_func.cli.view_options import ShowOptions
from tracin_func.report.terminal.file import document, print_selection, select
from tracin_func.results.files.read import read_result
from tracin_func.results.views import PAIR
from tracin_func.sources.options import Options

TOP = 10


def show(options: Options) -> None:
    """Print a result file."""
    own = options[ShowOptions]
    by, top = own.by or PAIR, own.top or TOP
    selection = select(read_result(own.file), own.column, by)
    with printing():
        if options[ViewOptions].json:
            print(json.dumps(document(selection, by, own.sort, top), ensure_ascii=False, indent=2, allow_nan=False))
        else:
            shown = {"with_histogram": own.histogram, "verbose": options[ViewOptions].verbose}
            print_selection(selection, by, own.sort, top, **shown)

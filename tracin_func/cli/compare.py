"""`tracin-func compare FIRST SECOND`: how far two result files put the same pairs in the same order."""

import json

from tracin_func.cli.errors import printing
from tracin_func.cli.options import ViewOptions
from tracin_func.cli.view_options import CompareOptions
from tracin_func.report.terminal.comparison import document, print_comparison, rows_of
from tracin_func.results.comparison import compare as compared
from tracin_func.results.views import PAIR
from tracin_func.sources.options import Options

TOP = 10


def compare(options: Options) -> None:
    """Print the comparison of two result files."""
    own = options[CompareOptions]
    names = own.column or []
    found = compared(own.first, own.second, column=(names[0], names[-1]) if names else None)
    by, top = own.by or PAIR, own.top or TOP
    rows = rows_of(found, by)
    with printing():
        if options[ViewOptions].json:
            print(json.dumps(document(found, rows, by, top), ensure_ascii=False, indent=2, allow_nan=False))
        else:
            print_comparison(found, rows, by, top, verbose=options[ViewOptions].verbose)

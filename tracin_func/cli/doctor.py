"""`tracin-func doctor`: does everything that a run needs work on this machine?"""

from typing import Annotated

import typer

from tracin_func.cli.errors import guarded, importing, printing
from tracin_func.cli.options import TABLE


@guarded
def command(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Tell what is installed and what it can use, and test every engine on every device.

    Versions, devices, optional packages, the cache, variables, and scores of a small random net against a float64
    loop. A few seconds; exit code 1 when an engine computes wrongly. Nothing is written.
    """
    with importing():
        from tracin_func.report.terminal.doctor import examine, require_health

    found = examine({option.environment for option in TABLE.values() if option.environment})
    with printing():
        print(found.json() if as_json else found.text())
    require_health(found)

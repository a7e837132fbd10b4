"""`tracin-func store info|verify FOLDER`: what is in a gradient store, and whether it is as it was written."""

import shlex
import sys

from tracin_func.cli.errors import printing, say
from tracin_func.cli.options import InspectOptions, ViewOptions
from tracin_func.errors import OutputError, UsageError
from tracin_func.gradients.store.inspect import check, drop, inspect
from tracin_func.report.terminal.store import print_findings, print_state
from tracin_func.sources.options import Options


def store(options: Options) -> None:
    """Describe a store, or check it."""
    own, as_json = options[InspectOptions], options[ViewOptions].json
    if own.action == "verify":
        _verify(own, as_json=as_json)
        return
    if own.drop:
        raise UsageError("--drop belongs to verify. Got it with info.")
    state = inspect(own.folder)
    with printing():
        print_state(state, as_json=as_json)


def _verify(own: InspectOptions, *, as_json: bool) -> None:
    state, findings = inspect(own.folder), list(check(own.folder))
    damaged = [found for found in findings if found.block is not None]
    dropped = drop(own.folder, damaged, command=shlex.join(sys.argv)) if damaged and own.drop else 0
    with printing():
        if not as_json:
            for found in findings:
                say(f"warning: {found.problem}.")
        print_findings(state, findings, dropped, as_json=as_json)
    if len(damaged) > dropped:
        raise OutputError(
            f"{own.folder}: {len(damaged)} blocks are damaged. Take them out with `tracin-func store verify "
            f"{own.folder} --drop`, and the next run on the store makes them again."
        )

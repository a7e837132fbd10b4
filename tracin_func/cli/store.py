"""`tracin-func store info|verify FOLDER`: what is in a gradient store, and whether it is as it was written."""

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tracin_func.cli.errors import guarded, importing, printing, say
from tracin_func.cli.options import STORE, takes
from tracin_func.errors import OutputError, UsageError

ACTIONS = ("info", "verify")


@guarded
@takes(*STORE)
def command(**options: Any) -> None:
    """Tell what a gradient store holds (info), or read every block again and compare it with its checksum (verify).

    Exit code 1 where something is damaged; --drop then takes these blocks out, and the next run makes them again.
    """
    with importing():
        from tracin_func.gradients.store.inspect import inspect
        from tracin_func.report.terminal.store import print_state

    action, folder = options["action"], options["folder"]
    if action not in ACTIONS:
        raise UsageError(f"the action should be one of {', '.join(ACTIONS)}. Got {action!r}.")
    if action == "verify":
        _verify(folder, options)
        return
    if options["drop"]:
        raise UsageError("--drop belongs to verify. Got it with info.")
    state = inspect(folder)
    with printing():
        print_state(state, as_json=options["json"])


def _verify(folder: Path, options: Mapping[str, Any]) -> None:
    from tracin_func.gradients.store.inspect import check, drop, inspect
    from tracin_func.report.terminal.store import print_findings

    state, findings = inspect(folder), list(check(folder))
    damaged = [found for found in findings if found.block is not None]
    dropped = 0
    if damaged and options["drop"]:
        dropped = drop(folder, damaged, command=shlex.join(sys.argv))
    with printing():
        if not options["json"]:
            for found in findings:
                say(f"warning: {found.problem}.")
        print_findings(state, findings, dropped, as_json=options["json"])
    if len(damaged) > dropped:
        raise OutputError(
            f"{folder}: {len(damaged)} blocks are damaged. Take them out with `tracin-func store verify {folder} "
            "--drop`, and the next run on the store makes them again."
        )

"""What `tracin-func store` prints."""

import dataclasses
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tracin_func.cli.errors import printing, say
from tracin_func.errors import OutputError, UsageError
from tracin_func.gradients.store.inspect import Finding, StoreState, check, drop, inspect
from tracin_func.report.terminal.tables import new_table, open_console, print_facts

ACTIONS = ("info", "verify")


def show_store(options: Mapping[str, Any]) -> None:
    """Run the action.

    Raises:
        UsageError: no such action. InputError: no store. OutputError: a damaged block that was not dropped.
    """
    action, folder = options["action"], options["folder"]
    if action not in ACTIONS:
        raise UsageError(f"the action should be one of {', '.join(ACTIONS)}. Got {action!r}.")
    if action == "info":
        if options["drop"]:
            raise UsageError("--drop belongs to verify. Got it with info.")
        _print_state(inspect(folder), as_json=options["json"])
        return
    _verify(folder, options)


def _verify(folder: Path, options: Mapping[str, Any]) -> None:
    state, findings = inspect(folder), list(check(folder))
    damaged = [found for found in findings if found.block is not None]
    dropped = 0
    if damaged and options["drop"]:
        dropped = drop(folder, damaged, command=shlex.join(sys.argv))
    with printing():
        _print_findings(state, findings, dropped, as_json=options["json"])
    if len(damaged) > dropped:
        raise OutputError(
            f"{folder}: {len(damaged)} blocks are damaged. Take them out with `tracin-func store verify {folder} "
            "--drop`, and the next run on the store makes them again."
        )


def _print_state(state: StoreState, *, as_json: bool) -> None:
    manifest = state.manifest
    if as_json:
        document = {
            "manifest": manifest.to_json(),
            "checkpoints": [dataclasses.asdict(each) for each in state.checkpoints],
            "at_work": [dataclasses.asdict(each) for each in state.at_work],
        }
        with printing():
            print(json.dumps(document, ensure_ascii=False, indent=2))
        return
    projection = manifest.identity.get("projection")
    words = "none" if not isinstance(projection, dict) else ", ".join(f"{n} {v}" for n, v in projection.items() if v)
    console = open_console()
    with printing():
        print_facts(
            console,
            {
                "store": str(state.path),
                "rows": f"{manifest.units:,} {manifest.unit} of {manifest.width:,} numbers ({manifest.dtype})",
                "projection": words,
                "model": f"{manifest.identity.get('model')}, {len(manifest.identity.get('parameters', {}))} parameters",
                "blocks": f"{manifest.blocks} of {manifest.block} rows, made {manifest.chunk} together",
                "at work": "; ".join(f"{o.command} (process {o.pid} on {o.host})" for o in state.at_work) or "nobody",
            },
        )
        table = new_table(console, "Checkpoints", ["checkpoint", "blocks", "MB"])
        for each in state.checkpoints:
            table.add_row(each.name, f"{each.done} of {each.blocks}", f"{each.bytes / 1e6:,.1f}")
        console.print(table)


def _print_findings(state: StoreState, findings: Sequence[Finding], dropped: int, *, as_json: bool) -> None:
    if as_json:
        listed = [dataclasses.asdict(each) | {"file": str(each.file)} for each in findings]
        print(json.dumps({"findings": listed, "dropped": dropped}, ensure_ascii=False, indent=2))
        return
    done = sum(each.done for each in state.checkpoints)
    for found in findings:
        say(f"warning: {found.problem}.")
    print(
        f"{done} blocks of {len(state.checkpoints)} checkpoints were read: {len(findings)} faults, {dropped} dropped."
    )

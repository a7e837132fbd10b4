"""What a gradient store holds, and what is damaged in it."""

import dataclasses
import json
from collections.abc import Sequence

from tracin_func.gradients.store.inspect import Finding, StoreState
from tracin_func.report.terminal.tables import new_table, open_console, print_facts


def print_state(state: StoreState, *, as_json: bool) -> None:
    """Shape and identity of a store, and how much of each checkpoint is there."""
    manifest = state.manifest
    if as_json:
        document = {
            "manifest": manifest.to_json(),
            "checkpoints": [dataclasses.asdict(each) for each in state.checkpoints],
            "at_work": [dataclasses.asdict(each) for each in state.at_work],
        }
        print(json.dumps(document, ensure_ascii=False, indent=2))
        return
    projection = manifest.identity.get("projection")
    words = "none" if not isinstance(projection, dict) else ", ".join(f"{n} {v}" for n, v in projection.items() if v)
    console = open_console()
    facts = {
        "store": str(state.path),
        "rows": f"{manifest.units:,} {manifest.unit} of {manifest.width:,} numbers ({manifest.dtype})",
        "projection": words,
        "model": f"{manifest.identity.get('model')}, {len(manifest.identity.get('parameters', {}))} parameters",
        "blocks": f"{manifest.blocks} of {manifest.block} rows, made {manifest.chunk} together",
        "at work": "; ".join(f"{o.command} (process {o.pid} on {o.host})" for o in state.at_work) or "nobody",
    }
    print_facts(console, facts)
    table = new_table(console, "Checkpoints", ["checkpoint", "blocks", "MB"])
    for each in state.checkpoints:
        table.add_row(each.name, f"{each.done} of {each.blocks}", f"{each.bytes / 1e6:,.1f}")
    console.print(table)


def print_findings(state: StoreState, findings: Sequence[Finding], dropped: int, *, as_json: bool) -> None:
    """How many blocks were read, found damaged and dropped; as JSON with each finding."""
    if as_json:
        listed = [dataclasses.asdict(each) | {"file": str(each.file)} for each in findings]
        print(json.dumps({"findings": listed, "dropped": dropped}, ensure_ascii=False, indent=2))
        return
    done = sum(each.done for each in state.checkpoints)
    print(
        f"{done} blocks of {len(state.checkpoints)} checkpoints were read: {len(findings)} faults, {dropped} dropped."
    )

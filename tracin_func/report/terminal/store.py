"""What a gradient store holds, and what is damaged in it."""

import dataclasses
import json
from collections.abc import Sequence

from tracin_func.gradients.store.inspect import Finding, StoreState
from tracin_func.report.terminal.tables import Column, open_console, print_facts, print_table, print_words


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
    described = projection if isinstance(projection, dict) and projection.get("kind") != "none" else {}
    done, blocks = (sum(getattr(each, name) for each in state.checkpoints) for name in ("done", "blocks"))
    console, total = open_console(), sum(each.bytes for each in state.checkpoints)
    verdict = "complete" if done == blocks else f"incomplete, {blocks - done} blocks are missing"
    print_words(
        console, f"Store {state.path}: {verdict} ({done} of {blocks} blocks, {total / 1e6:,.1f} MB)", style="bold"
    )
    rows = f"up to {manifest.block} rows each; batch size {manifest.chunk}"
    facts = {
        "gradients": f"{manifest.units:,} {manifest.unit} of {manifest.width:,} dimensions ({manifest.dtype})",
        "projection": ", ".join(f"{name} {value}" for name, value in described.items() if value) or "none (exact)",
        "model": f"{manifest.identity.get('model')}, {len(manifest.identity.get('parameters', {}))} parameters",
        "blocks": f"{manifest.blocks} per checkpoint, {rows}",
        "in use by": "; ".join(f"{o.command} (process {o.pid} on {o.host})" for o in state.at_work) or "no process",
    }
    print_facts(console, facts)
    columns = [
        Column("checkpoint", [each.name for each in state.checkpoints], left=True),
        Column("blocks", [f"{each.done} of {each.blocks}" for each in state.checkpoints]),
        Column("MB", [f"{each.bytes / 1e6:,.1f}" for each in state.checkpoints]),
    ]
    print_table(console, columns)


def print_findings(state: StoreState, findings: Sequence[Finding], dropped: int, *, as_json: bool) -> None:
    """How many blocks were read, found damaged and dropped; as JSON with each finding."""
    if as_json:
        listed = [dataclasses.asdict(each) | {"file": str(each.file)} for each in findings]
        print(json.dumps({"findings": listed, "dropped": dropped}, ensure_ascii=False, indent=2))
        return
    done = sum(each.done for each in state.checkpoints)
    damaged = f"{len(findings)} damaged, {dropped} dropped" if findings else "none damaged"
    print(f"{done} blocks of {len(state.checkpoints)} checkpoints read: {damaged}.")

"""What `--dry-run` prints."""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tracin_func.losses.custom import as_loss
from tracin_func.report.terminal.tables import open_console, print_facts
from tracin_func.results.names import counted
from tracin_func.scoring.forecast import Forecast
from tracin_func.scoring.repeats import PAIR_RUN
from tracin_func.task.pairs import Pairs
from tracin_func.task.task import Task


def print_forecast(
    task: Task, expected: Forecast, files: Iterable[Path], *, as_json: bool, streamed: int | None = None
) -> None:
    """What would be scored, how, and at what cost; the task has the first of the pairs that are `streamed`."""
    if as_json:
        document = _document(task, expected, files)
        document |= {} if streamed is None else {"train_pairs": streamed}
        print(json.dumps(document, ensure_ascii=False, indent=2))
        return
    engine = expected.engine
    seconds = f"{expected.seconds:.1f} s" if expected.seconds < 90 else f"{expected.seconds / 60:.0f} min"
    rows = {
        "items": f"{len(task.items):,}{_classes(task)}",
        "training pairs": _pairs(task.train_pairs) if streamed is None else f"{streamed:,}, read in blocks",
        "test pairs": "none" if task.test is None else _pairs(task.test),
        "loss": ", ".join(f"{name} {value}" for name, value in as_loss(task.loss).describe().items()),
        "checkpoints": str(len(task.checkpoints)),
        "inactive": _inactive(expected),
        "engine": f"{engine['engine']} ({engine['gradients']}): {engine['reason']}",
        "device": f"{engine['device']}, {counted(engine['threads'], 'thread')}, batch size {engine['batch_size']}",
        "gradients": _gradients(expected, streamed),
        "time": f"{seconds} for the gradients, measured on {expected.tried} of {expected.units:,} {expected.over}",
        "memory": f"{expected.bytes / 1e6:,.0f} MB besides the model and the items",
        "writes": ", ".join(map(str, files)),
    }
    print_facts(open_console(), rows)
    print("Ready to run. Nothing was scored and no file was written.")


def _document(task: Task, expected: Forecast, files: Iterable[Path]) -> dict[str, Any]:
    return {
        "dry_run": True,
        "items": len(task.items),
        "train_pairs": len(task.train_pairs),
        "test_pairs": None if task.test is None else len(task.test),
        "loss": as_loss(task.loss).describe(),
        **dataclasses.asdict(expected),
        "files": [str(path) for path in files],
    }


def _pairs(pairs: Pairs) -> str:
    drawn = int(pairs.counts.sum())
    up = int((pairs.target > 0).sum())
    repeats = f" distinct ({drawn:,} drawn)" if drawn != len(pairs) else ""
    return f"{len(pairs):,}{repeats}; the first item is ranked higher in {up / len(pairs):.0%}"


def _classes(task: Task) -> str:
    if task.item_classes is None:
        return ""
    return ": " + ", ".join(f"{name} {count}" for name, count in sorted(Counter(task.item_classes).items()))


def _gradients(expected: Forecast, streamed: int | None) -> str:
    mean = expected.differentiations / max(1, expected.units)
    often = "once" if expected.differentiations == expected.units else f"{mean:.1f} times on average"
    if streamed is not None and expected.differentiations > expected.units:
        often = f"up to {often} for each {PAIR_RUN:,} pairs"
    return f"{expected.units:,} {expected.over}, each differentiated {often} at every checkpoint"


def _inactive(expected: Forecast) -> str:
    shares = [each.inactive for each in expected.evaluations]
    return f"{sum(shares) / len(shares):.0%} of pair-checkpoints have zero gradient"

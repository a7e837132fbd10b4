"""Pair accuracy at the checkpoints: in a line, or in a table of one line per checkpoint."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from tracin_func.report.terminal.tables import Column, print_table
from tracin_func.scoring.accuracy import TEST_NAMES, TRAIN_NAMES, Evaluation, recorded_share

AGREES = 0.02  # difference from the recorded pair accuracy that training and evaluation may have
_SIDES = (("train", TRAIN_NAMES), ("test", TEST_NAMES))
_WIDTH = 8  # of a number


def summary(evaluations: Sequence[Evaluation], pairs: int, as_recorded: bool | None) -> str:
    """The pair accuracy of the last checkpoint, and whether all are as the checkpoints recorded."""
    last, verdict = evaluations[-1], {None: "", True: " as recorded", False: " not as recorded"}[as_recorded]
    shares = [f"{side} {share:.1%}" for side, share, _ in _shares(last) if share is not None]
    count = f"{len(evaluations)} checkpoint{'s' if len(evaluations) > 1 else ''}"
    place = f"last: {', '.join(shares)}" if len(evaluations) > 1 else ", ".join(shares)
    sample = f"; of {last.train_pairs:,} of {pairs:,} training pairs" if last.train_pairs < pairs else ""
    return f"{count}, pair accuracy{verdict} ({place}{sample})"


def agrees(evaluations: Sequence[Evaluation]) -> bool | None:
    """Whether each pair accuracy is the one that its checkpoint recorded; None where nothing is recorded."""
    gaps = [abs(share - recorded) for each in evaluations for share, recorded in _recorded(each)]
    return all(gap <= AGREES for gap in gaps) if gaps else None


def print_checkpoints(
    console: Console, evaluations: Sequence[Evaluation], names: Sequence[str], *, headings: bool = True
) -> None:
    """A line per checkpoint: learning rate, pair accuracy beside the recorded one, inactive pairs and mean loss.

    Columns are as wide for some of the checkpoints as for all `names`, so that lines can be printed one by one.
    """
    width = max(map(len, names))
    columns = [
        Column("checkpoint".ljust(width), [each.name.ljust(width) for each in evaluations], left=True),
        Column("lr".rjust(_WIDTH), [_rate(each.learning_rate) for each in evaluations], drop=2),
    ]
    for place, (side, _) in enumerate(_SIDES):
        both = [_shares(each)[place][1:] for each in evaluations]
        if any(share is not None for share, _ in both):
            known = any(recorded is not None for _, recorded in both)
            heading = f"{side} (recorded)" if known else side.rjust(_WIDTH)
            columns.append(Column(heading, [_beside(*each) for each in both]))
    columns.append(Column("inactive", [f"{each.inactive:.0%}" for each in evaluations], drop=1))
    for side, losses in (
        ("train", [each.train_loss for each in evaluations]),
        ("test", [each.test_loss for each in evaluations]),
    ):
        if None not in losses:
            columns.append(Column(f"{side} loss".rjust(_WIDTH + 2), [f"{loss:.3g}" for loss in losses], drop=3))
    print_table(console, columns, headings=headings)


def _shares(each: Evaluation) -> list[tuple[str, float | None, float | None]]:
    """Side, pair accuracy and recorded pair accuracy."""
    found = (each.train_right, each.test_right)
    return [
        (side, share, recorded_share(each.recorded, names)) for (side, names), share in zip(_SIDES, found, strict=True)
    ]


def _recorded(each: Evaluation) -> list[tuple[float, float]]:
    return [(share, recorded) for _, share, recorded in _shares(each) if share is not None and recorded is not None]


def _beside(share: float | None, recorded: float | None) -> str:
    if share is None:
        return ""
    return f"{share:.1%}" if recorded is None else f"{share:.1%} ({recorded:.1%})"


def _rate(rate: Any) -> str:
    if not isinstance(rate, Mapping):
        return f"{rate:g}"
    values = sorted(set(rate.values()))
    return f"{values[0]:g}" if len(values) == 1 else f"{values[0]:g} to {values[-1]:g}"

"""One line per checkpoint: how many pairs its model ranks right."""

from collections.abc import Mapping
from typing import Any

from tracin_func.scoring.accuracy import TEST_NAMES, TRAIN_NAMES, Evaluation, recorded_share


def line(evaluation: Evaluation, pairs: int) -> str:
    """What one checkpoint is and does, beside what it says of itself."""
    recorded = evaluation.recorded
    sample = f" of {evaluation.train_pairs:,} of {pairs:,} pairs" if evaluation.train_pairs < pairs else ""
    right = [f"train {_beside(evaluation.train_right, recorded_share(recorded, TRAIN_NAMES))}{sample}"]
    loss = [f"train {evaluation.train_loss:.4g}"]
    if evaluation.test_right is not None:
        right.append(f"test {_beside(evaluation.test_right, recorded_share(recorded, TEST_NAMES))}")
        loss.append(f"test {evaluation.test_loss:.4g}")
    return (
        f"{evaluation.name}: rate {_rate(evaluation.learning_rate)} ({evaluation.learning_rate_from}); ranked right "
        f"{', '.join(right)}; mean loss {', '.join(loss)}; inactive {evaluation.inactive:.0%}"
    )


def _beside(share: float, recorded: float | None) -> str:
    return f"{share:.1%}" if recorded is None else f"{share:.1%} (recorded {recorded:.1%})"


def _rate(rate: Any) -> str:
    if not isinstance(rate, Mapping):
        return f"{rate:g}"
    values = sorted(set(rate.values()))
    return f"{values[0]:g}" if len(values) == 1 else f"{values[0]:g} to {values[-1]:g}"

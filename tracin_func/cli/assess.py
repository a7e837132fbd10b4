"""Is this the run that was trained? One line a checkpoint, and a warning where it does not look like it."""

from collections.abc import Callable, Mapping
from typing import Any

from tracin_func.cli.errors import TIE
from tracin_func.scoring.accuracy import Evaluation

GAP = 0.10  # between a share of pairs ranked right and the one the checkpoint recorded
SWAPPED = 0.35  # share of training pairs ranked right below which targets are probably swapped
WHAT_TO_LOOK_AT = "split and seed, classes and takes, front end, normalisation of the model, margin"

# What trainers call the shares of pairs ranked right.
TRAIN_NAMES = ("train_accuracy", "train_acc", "training_accuracy")
TEST_NAMES = ("test_accuracy", "test_acc", "val_accuracy", "val_acc", "validation_accuracy", "accuracy")


class Assessment:
    """Told of every checkpoint's evaluation, it tells the user.

    Args:
        show: called with the line of each checkpoint.
        tell: called with each warning.
        checkpoints: how many there will be.
        pairs: how many training pairs there are.
        contradiction: how options contradict the checkpoints; told after the last one, with what it changes.
    """

    def __init__(
        self,
        show: Callable[[str], None],
        tell: Callable[[str], None],
        checkpoints: int,
        pairs: int,
        contradiction: str | None = None,
    ) -> None:
        self._show = show
        self._tell = tell
        self._checkpoints = checkpoints
        self._pairs = pairs
        self._contradiction = contradiction
        self.evaluations: list[Evaluation] = []

    def __call__(self, evaluation: Evaluation) -> None:
        """One checkpoint."""
        self.evaluations.append(evaluation)
        clauses = line(evaluation, self._pairs).split("; ")
        self._show("; ".join(clause.replace(" ", TIE) for clause in clauses))
        if len(self.evaluations) == self._checkpoints:
            self._warn()

    def _warn(self) -> None:
        gaps = [gap for evaluation in self.evaluations for gap in gaps_of(evaluation)]
        if gaps:
            more = f" (and {len(gaps) - 1} more)" if len(gaps) > 1 else ""
            self._tell(f"warning: {gaps[0]}{more}. Is this the run that was trained? Look at: {WHAT_TO_LOOK_AT}.")
        if (right := self.evaluations[-1].train_right) < SWAPPED:
            self._tell(
                f"warning: the last checkpoint ranks only {right:.0%} of the training pairs right. Are the targets "
                "those of the training (+1: the first item should score higher), and not swapped? Are the items: the "
                "same front end, cut and rate?"
            )
        if self._contradiction is not None:
            self._tell(f"warning: {self._contradiction}{self._changed()}")
        elif all(evaluation.inactive == 1 for evaluation in self.evaluations):
            self._tell(
                f"warning: all {self.evaluations[-1].train_pairs:,} training pairs that were looked at are inactive at "
                "every checkpoint: right by more than the margin, so their scores are 0. Score checkpoints of earlier "
                "epochs, give the margin of the training (--margin), or a loss that does not saturate "
                "(--loss-type logistic)."
            )

    def _changed(self) -> str:
        """What another loss than the trained one changes."""
        own = [evaluation.inactive for evaluation in self.evaluations]
        trained = [share for evaluation in self.evaluations if (share := evaluation.inactive_as_trained) is not None]
        shares = [f"{sum(each) / len(each):.0%}" for each in (own, trained) if each]
        if len(set(shares)) < 2:
            return ""
        return (
            f" Training pairs without gradient (inactive, mean of the checkpoints): {shares[0]}; with the loss of the "
            f"training {shares[1]}."
        )


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


def gaps_of(evaluation: Evaluation) -> list[str]:
    """Where the share ranked right is far from the recorded one."""
    sides = (("training", evaluation.train_right, TRAIN_NAMES), ("test", evaluation.test_right, TEST_NAMES))
    found = []
    for role, share, names in sides:
        recorded = recorded_share(evaluation.recorded, names)
        if share is not None and recorded is not None and abs(share - recorded) > GAP:
            found.append(
                f"{evaluation.name} ranks {share:.0%} of the {role} pairs right, and it recorded {recorded:.0%}"
            )
    return found


def recorded_share(recorded: Mapping[str, Any], names: tuple[str, ...]) -> float | None:
    """A share that a checkpoint recorded under one of these names, as a fraction or in percent."""
    for name in names:
        value = recorded.get(name)
        if isinstance(value, int | float) and 0 <= value <= 100:
            return value if value <= 1 else value / 100
    return None


def _beside(share: float, recorded: float | None) -> str:
    return f"{share:.1%}" if recorded is None else f"{share:.1%} (recorded {recorded:.1%})"


def _rate(rate: Any) -> str:
    if not isinstance(rate, Mapping):
        return f"{rate:g}"
    values = sorted(set(rate.values()))
    return f"{values[0]:g}" if len(values) == 1 else f"{values[0]:g} to {values[-1]:g}"

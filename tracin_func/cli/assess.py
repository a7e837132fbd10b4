"""Is this the run that was trained? One line per checkpoint, and a warning where it does not look like it."""

from collections.abc import Callable

from tracin_func.cli.errors import TIE
from tracin_func.report.terminal.accuracy import line
from tracin_func.scoring.accuracy import Evaluation, gaps_of
from tracin_func.sources.settings import Settings

SWAPPED = 0.35  # share of training pairs ranked right below which targets are probably swapped
WHAT_TO_LOOK_AT = "split and seed, classes and takes, front end, normalisation of the model, margin"


class Assessment:
    """Reports each checkpoint's evaluation to the user, and warns at the last one.

    Args:
        show: called with the line of each checkpoint.
        report: called with each warning.
        checkpoints: how many there will be.
        pairs: how many training pairs there are.
        settings: of the task; how they contradict the checkpoints is reported after the last one, with the effect.
    """

    def __init__(
        self,
        show: Callable[[str], None],
        report: Callable[[str], None],
        checkpoints: int,
        pairs: int,
        settings: Settings,
    ) -> None:
        self._show = show
        self._report = report
        self._checkpoints = checkpoints
        self._pairs = pairs
        self._settings = settings
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
            self._report(f"warning: {gaps[0]}{more}. Is this the run that was trained? Look at: {WHAT_TO_LOOK_AT}.")
        if (right := self.evaluations[-1].train_right) < SWAPPED:
            self._report(
                f"warning: the last checkpoint ranks only {right:.0%} of the training pairs right. Are the targets "
                "those of the training (+1: the first item should score higher), and not swapped? Are the items: the "
                "same front end, cut and rate?"
            )
        if self._settings.differing is not None:
            self._report(f"warning: {self._settings.differing}")
        if self._settings.contradiction is not None:
            self._report(f"warning: {self._settings.contradiction}{self._changed()}")
        elif all(evaluation.inactive == 1 for evaluation in self.evaluations):
            self._report(
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

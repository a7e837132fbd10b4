"""Is this the run that was trained? Its pair accuracy, and a warning where it does not look like it."""

from collections.abc import Callable, Sequence

from tracin_func.cli.errors import say, show
from tracin_func.report.terminal.accuracy import agrees, print_checkpoints, summary
from tracin_func.report.terminal.tables import open_console
from tracin_func.scoring.accuracy import Evaluation, gaps_of
from tracin_func.sources.settings import Settings

SWAPPED = 0.35  # pair accuracy on training pairs below which targets are probably swapped
LOOK_AT = "Check split and seed, classes and takes, front end, normalisation of the model, margin"


class Assessment:
    """Reports the evaluation of the checkpoints after the last one, and warns.

    Args:
        report: called with each warning.
        quiet: whether warnings alone are printed.
        verbose: whether each checkpoint is printed, at once, even if all is as recorded.
        names: of all checkpoints.
        pairs: how many training pairs there are.
        limited: whether these are some of them only, so that the recorded pair accuracy is another one.
        settings: of the task; how they contradict the checkpoints is reported after the last one, with the effect.
    """

    def __init__(
        self,
        report: Callable[[str], None],
        *,
        quiet: bool,
        verbose: bool,
        names: Sequence[str],
        pairs: int,
        limited: bool,
        settings: Settings,
    ) -> None:
        self._report = report
        self._quiet = quiet
        self._verbose = verbose
        self._names = names
        self._pairs = pairs
        self._limited = limited
        self._settings = settings
        self.evaluations: list[Evaluation] = []

    def __call__(self, evaluation: Evaluation) -> None:
        """One checkpoint."""
        self.evaluations.append(evaluation)
        if self._verbose:
            self._print([evaluation], headings=len(self.evaluations) == 1)
        if len(self.evaluations) < len(self._names):
            return
        verdict = None if self._limited else agrees(self.evaluations)
        say(summary(self.evaluations, self._pairs, verdict), quiet=self._quiet)
        if verdict is False and not self._verbose:
            self._print(self.evaluations)
        self._warn()

    def _print(self, evaluations: Sequence[Evaluation], *, headings: bool = True) -> None:
        if self._quiet:
            return
        console = open_console(stderr=True)
        with console.capture() as table:
            print_checkpoints(console, evaluations, self._names, headings=headings)
        show(table.get())

    def _warn(self) -> None:
        gaps = [gap for evaluation in self.evaluations for gap in gaps_of(evaluation)]
        if gaps:
            more = f" (and {len(gaps) - 1} more)" if len(gaps) > 1 else ""
            self._report(f"warning: {gaps[0]}{more}. Is this what was trained? {LOOK_AT}.")
        if (right := self.evaluations[-1].train_right) < SWAPPED:
            self._report(
                f"warning: the last checkpoint has a training pair accuracy of only {right:.0%}. Check that "
                "targets are not swapped (+1: the first item should score higher), and that items are prepared as for "
                "training."
            )
        if self._settings.differing is not None:
            self._report(f"warning: {self._settings.differing}")
        if self._settings.contradiction is not None:
            self._report(f"warning: {self._settings.contradiction}{self._changed()}")
        elif all(evaluation.inactive == 1 for evaluation in self.evaluations):
            self._report(
                f"warning: all {self.evaluations[-1].train_pairs:,} training pairs are inactive at every checkpoint, "
                "so their scores are 0: each is ranked correctly by more than the margin. Score earlier checkpoints, "
                "give the training margin (--margin), or a loss that does not saturate (--loss-type logistic)."
            )

    def _changed(self) -> str:
        """What another loss than the trained one changes."""
        own = [evaluation.inactive for evaluation in self.evaluations]
        trained = [share for evaluation in self.evaluations if (share := evaluation.inactive_as_trained) is not None]
        shares = [f"{sum(each) / len(each):.0%}" for each in (own, trained) if each]
        if len(set(shares)) < 2:
            return ""
        return f" Inactive: {shares[0]} of training pairs, instead of {shares[1]}."

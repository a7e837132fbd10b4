"""Tables, views and files of scores, for all results."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from tracin_func.errors import InputError, UsageError
from tracin_func.results.exclusion_rule import RANKING_PAIR, Rule, Threshold
from tracin_func.results.exclusions import Exclusions, choose
from tracin_func.results.files.format import Sheet
from tracin_func.results.files.registry import format_of
from tracin_func.results.flips import suggested_flips
from tracin_func.results.frame import Frame, PairRecord, to_pandas
from tracin_func.results.listing import Listing, Ranked, ranked
from tracin_func.results.names import SCORE_NAME, counted
from tracin_func.results.partial import Partial, holds
from tracin_func.results.run import Run
from tracin_func.results.score_table import ScoreTable, TrainingPairs
from tracin_func.results.views import CLASS, CLASS_PAIR, ITEM, SCORE, Group, groups, groups_in_order

EVERY = slice(None)


@dataclass(frozen=True)
class Loaded:
    """Scores as a file holds them.

    Args:
        column: their name.
        scores: sums over checkpoints, if the file has no scores of single checkpoints.
        standard_error: of these sums, if they are estimates.
        provenance: the record beside the file; empty if there is none.
    """

    column: str
    scores: Tensor | None
    standard_error: Tensor | None
    provenance: Mapping[str, Any]


class Recorded(Partial):
    """A result with provenance."""

    @property
    def provenance(self) -> dict[str, Any]:
        """How the scores were computed, from what, and how to read them; empty if a file lacks it."""
        return self._record(None, None)

    def _record(self, command: Sequence[str] | None, options: Mapping[str, Any] | None) -> dict[str, Any]:
        raise NotImplementedError


class Scored(Recorded):
    """Tables, views and files of self-influence and influence."""

    KIND: ClassVar[str]
    per_checkpoint: Tensor
    run: Run
    variance: Tensor | None
    loaded: Loaded | None

    @property
    def _pairs(self) -> PairRecord:
        """The training pairs."""
        raise NotImplementedError

    @property
    def _tests(self) -> tuple[str, ...] | None:
        """Names of the test columns; None where there are none."""
        raise NotImplementedError

    @property
    def column(self) -> str:
        """The name of these scores in files and tables; scores of another meaning have another name."""
        raise NotImplementedError

    @property
    def scores(self) -> Tensor:
        """Sum over checkpoints, float64 [pairs] or [train_pairs, test_pairs]."""
        return self._summed(EVERY)[0]

    @property
    def standard_error(self) -> Tensor | None:
        """Standard error of `scores`, estimated from independent projections; None for exact gradients."""
        return self._summed(EVERY)[1]

    @property
    def inactive(self) -> Tensor:
        """Where a training pair's gradient was exactly 0, bool [checkpoints, pairs]."""
        return self._pairs.inactive

    @property
    def ids(self) -> tuple[str, ...]:
        """Names of the training pairs."""
        return self._pairs.ids

    def __len__(self) -> int:
        """The number of training pairs."""
        return len(self.ids)

    def to_arrow(self, *, long: bool = False, per_checkpoint: bool = False) -> Any:
        """A `pyarrow.Table` with one row per training pair: its id, and a column per test pair.

        Args:
            long: one row per score instead, with the names of both items and the pair's loss, margin and weight.
            per_checkpoint: a score per checkpoint instead of their sum.

        Raises:
            InputError: a loaded file lacks the scores of single checkpoints.
        """
        frame = self._frame(self.column, per_checkpoint)
        return frame.long() if long else frame.wide()

    def to_pandas(self, *, long: bool = False, per_checkpoint: bool = False) -> Any:
        """The table of `to_arrow` as a pandas data frame; pair ids are the index unless it is long.

        Raises:
            UsageError: pandas is not installed. InputError: see `to_arrow`.
        """
        return to_pandas(self.to_arrow(long=long, per_checkpoint=per_checkpoint), None if long else "pair")

    def exclusions(
        self,
        *,
        threshold: Threshold | None = None,
        upper_threshold: Threshold | None = None,
        drop: str | None = None,
        max_exclusions: int | None = None,
        min_occurrences: int = 1,
        mode: str = RANKING_PAIR,
        with_mirrors: bool = False,
        classes: Mapping[str, str] | None = None,
    ) -> Exclusions:
        """Training pairs to leave out, the most harmful first, with the reason for each: `ids`, `rows`, `save(path)`.

        A pair is chosen if its influence is below `threshold` in at least `min_occurrences` live test columns. A column
        of equal scores is not live. Self-influence is the other way round: a pair is chosen if it is above
        `upper_threshold`.

        Args:
            threshold: a number, or a quantile of all live scores such as "5%". For influence -5 if none is given.
            upper_threshold: the same for scores above it. For self-influence "95%" if none is given.
            drop: a share of the pairs such as "5%", the most harmful ones: those with the lowest sum of influence, if
                below 0, or with the highest self-influence.
            max_exclusions: largest number of ids; None for no limit.
            min_occurrences: least number of live columns beyond a threshold.
            mode: "ranking_pair" lists pairs, "full_pair" their items.
            with_mirrors: also list (b, a) for (a, b), if it has scores.
            classes: class by item id, none of which may lose all pairs; None for those of the source.

        Raises:
            UsageError: an argument is not allowed, or does not fit the scores.
            InputError: no column is live, or the list would empty a class or the training set.
        """
        given = (threshold, upper_threshold, drop, max_exclusions, min_occurrences, mode, with_mirrors)
        return choose(Rule(*given), score_table(self, classes=classes))

    def flips(self, *, upper_threshold: Threshold | None = None, max_exclusions: int | None = None) -> Exclusions:
        """Training pairs whose label looks inverted, the clearest first: `ids`, `rows`, `save(path)`.

        Of influence: pairs with negative influence on three quarters of the live test columns (at least 3), that the
        model ranks against their label. Where a file does not hold the score margins, the sum of influence has to be an
        outlier instead. Of self-influence: pairs above a threshold that the model ranks against their label.

        Args:
            upper_threshold: of self-influence, a number or a quantile; "95%" if none is given.
            max_exclusions: largest number of pairs; None for no limit.

        Raises:
            UsageError: a threshold is not allowed.
            InputError: fewer than 3 columns are live, or a file of self-influence holds no score margins.
        """
        rule = Rule(upper_threshold=upper_threshold, max_exclusions=max_exclusions)
        return suggested_flips(score_table(self), rule)

    def save(
        self,
        path: str | Path,
        *,
        column: str | None = None,
        per_checkpoint: bool = False,
        command: Sequence[str] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Path:
        """Write the scores to `path`, with provenance beside it, in the format of its ending.

        JSON is merged into an existing file, a column `{column}_{test_id}` per test pair; `.csv` and `.parquet` are
        long tables that replace it.

        Args:
            path: the file.
            column: the name of the scores.
            per_checkpoint: a column (in tables a row) per checkpoint, named after it, instead of the sum.
            command, options: recorded in the provenance.

        Returns:
            The real path of the file.

        Raises:
            UsageError: the ending of `path` is unknown.
            InputError: two pairs have one name, or the existing file does not have the right form.
            OutputError: the file could not be written; the old one is unchanged.
        """
        for names in (self.ids, self._tests or ()):
            _require_distinct(names)
        form, record = format_of(path), self._record(command, options)
        if column is not None and record:
            record[SCORE_NAME] = column
        frame = self._frame(column or self.column, per_checkpoint)
        sheet = Sheet(frame.column, lambda: iter([frame.long()]), frame.rows, self._pairs.swapped, record or None)
        return form.write(Path(path), sheet)

    def _frame(self, column: str, per_checkpoint: bool) -> Frame:
        error = self.standard_error
        if per_checkpoint:
            error = None if self.variance is None else self.variance.sqrt()
        values = self.per_checkpoint if per_checkpoint else self.scores[None]
        shape = (*values.shape[:2], 1 if self._tests is None else len(self._tests))
        checkpoints = tuple(self.run.names) if per_checkpoint else None
        errors = None if error is None else error.reshape(shape)
        return Frame(column, values.reshape(shape), errors, self._pairs, self._tests, checkpoints)

    def _record(self, command: Sequence[str] | None, options: Mapping[str, Any] | None) -> dict[str, Any]:
        if self.loaded is not None:
            return dict(self.loaded.provenance)
        pairs = self._pairs
        counts = {"rows": len(pairs), "drawn": int(pairs.count.sum()), "inactive": int(pairs.inactive.sum())}
        return self.run.provenance(self.KIND, counts, command, options)

    def _by(self, view: str, scores: Tensor, classes: Mapping[str, str] | None) -> Listing[Group]:
        """The groups of a view, largest mean first."""
        if view not in (ITEM, CLASS, CLASS_PAIR):
            raise UsageError(f"`view` should be {ITEM!r}, {CLASS!r} or {CLASS_PAIR!r}. Got {view!r}.")
        items = dict(zip(self.ids, self._pairs.items, strict=True))
        classes = classes or self._pairs.classes or {}
        if view != ITEM and (unknown := {each for both in items.values() for each in both} - classes.keys()):
            more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
            raise InputError(
                f"`classes` is needed for by({view!r}): the class of {min(unknown)!r}{more} is unknown. Set "
                "classes={item: class}."
            )
        values = {pair: value for pair, value in zip(self.ids, scores.tolist(), strict=True) if value == value}
        return Listing(groups_in_order(groups(values, view, items, classes), SCORE))

    def _summed(self, test: int | slice) -> tuple[Tensor, Tensor | None]:
        """Scores and their standard errors, of one test column or of `EVERY` column."""
        if self.loaded is not None and self.loaded.scores is not None:
            error = self.loaded.standard_error
            return self.loaded.scores[..., test], None if error is None else error[..., test]
        # One by one: the order of additions in Tensor.sum depends on the layout, and so would the last bit.
        total = functools.reduce(torch.add, self.per_checkpoint[..., test])
        return total, None if self.variance is None else self.variance[..., test].sum(dim=0).sqrt()

    def _strongest(self, test: int | slice, k: int, sign: int) -> Listing[Ranked]:
        """The k largest scores of a column (smallest if `sign` is −1) without NaN, ties in the order of pairs."""
        if k < 1:
            raise UsageError(f"`k` should be at least 1. Got {k}.")
        scores, errors = self._summed(test)
        order = torch.sort(torch.nan_to_num(sign * scores, nan=-torch.inf), descending=True, stable=True).indices[:k]
        names = [self.ids[place] for place in order.tolist()]
        found = ranked(names, scores[order], None if errors is None else errors[order])
        return Listing(each for each in found if each.score == each.score)

    def _steps(self) -> str:
        """Checkpoints and inactive pairs for `repr`, if the file holds them."""
        words = ""
        if holds(self, "per_checkpoint"):
            words += f", {counted(len(self.per_checkpoint), 'checkpoint')}"
        if holds(self._pairs, "inactive"):
            words += f", {int(self.inactive.all(dim=0).sum())} inactive at all of them"
        return words


def score_table(
    result: Scored,
    words: str = "the training pairs",
    classes: Mapping[str, str] | None = None,
    margins: Mapping[str, float] | None = None,
) -> ScoreTable:
    """The scores of a result, for lists of ids.

    Args:
        result: self-influence or influence.
        words: the result in messages.
        classes: class by item id; None for those of the source.
        margins: score margin of each pair at the last checkpoint; None for those of the run.
    """
    pairs, ids = result._pairs, result.ids
    items = dict(zip(ids, pairs.items, strict=True)) if holds(pairs, "items") else {}
    if margins is None:
        last = pairs.score_margin[-1].tolist() if holds(pairs, "score_margin") else []
        margins = dict(zip(ids, last, strict=False))
    tests, scores = ("",) if result._tests is None else result._tests, result.scores.reshape(len(ids), -1)
    part = TrainingPairs(words, ids, items, classes or pairs.classes or {})
    return ScoreTable((part,), ids, items, tests, scores, result._tests is None, margins)


def _require_distinct(ids: tuple[str, ...]) -> None:
    if len(set(ids)) < len(ids):
        double = next(name for name in ids if ids.count(name) > 1)
        raise InputError(
            f"two pairs have the id {double!r}, and a file holds one value per pair. Merge repeats with `count`, or "
            "give `Pairs` your own ids."
        )

"""Scores with the data to read them: ids, losses, activity, checkpoints and how they were computed."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tracin_func.results.columns import position_of, sides_html, test_ids, zero_columns
from tracin_func.results.frame import PairRecord
from tracin_func.results.listing import Listing, Ranked, html_table, shown
from tracin_func.results.names import INFLUENCE_COLUMNS, SELF_COLUMN, counted
from tracin_func.results.run import Run
from tracin_func.results.scored import EVERY, Loaded, Scored
from tracin_func.results.views import Group


@dataclass(frozen=True, repr=False, eq=False)
class SelfInfluence(Scored):
    """self(p) = Σ_t ‖∇ℓ_p‖²_M, M = diag η_t: large for pairs that are hard for the model.

    Unit: first-order decrease of the loss of p per visit of p by SGD with learning rate η_t; at least 0. With the
    preconditioner `adam`, by Adam's step with fixed moments: M = diag(η_t / (√v̂ + ε)).

    Args:
        per_checkpoint: float64 [checkpoints, pairs].
        pairs: the pairs with their losses.
        run: how the scores were computed.
        variance: of `per_checkpoint` over random projections, of the same shape; None for exact gradients.
        loaded: the content of the file that `tracin_func.load` read.

    Example:
        >>> own = ti.self_influence(task)
        >>> own
        SelfInfluence(4 pairs, 2 checkpoints, 0 inactive at all of them; hardest a_b 0.0772)
        >>> own.hardest(2)
        pair  score
        a_b   0.0772
        c_d   0.0696
        >>> own.by("class-pair")[0].name
        'low–low'
        >>> own.to_pandas().loc["a_b"]
        tracin_self_influence    0.07725
        Name: a_b, dtype: float64
    """

    KIND = "self"

    per_checkpoint: Tensor
    pairs: PairRecord
    run: Run
    variance: Tensor | None = None
    loaded: Loaded | None = None

    @property
    def _pairs(self) -> PairRecord:
        return self.pairs

    @property
    def _tests(self) -> None:
        return None

    @property
    def column(self) -> str:
        return SELF_COLUMN if self.loaded is None else self.loaded.column

    def hardest(self, k: int = 10) -> Listing[Ranked]:
        """The k pairs with the largest scores, ties in the order of pairs."""
        return self._strongest(EVERY, k, 1)

    def by(self, view: str, *, classes: Mapping[str, str] | None = None) -> Listing[Group]:
        """The scores by "item", "class" or "class-pair", the hardest group first; a pair counts in each of its groups.

        Args:
            view: what to group by.
            classes: class by item id; None for those of the source.

        Raises:
            UsageError: the view is unknown. InputError: items or classes are unknown.
        """
        return self._by(view, self.scores, classes)

    def __repr__(self) -> str:
        hardest = "".join(f"; hardest {each.pair} {each.score:.3g}" for each in self.hardest(1))
        return f"SelfInfluence({counted(len(self), 'pair')}{self._steps()}{hardest})"

    def _repr_html_(self) -> str:
        return html_table(repr(self), ("pair", "score"), [(each.pair, shown(each.score)) for each in self.hardest()])


@dataclass(frozen=True, repr=False, eq=False)
class Influence(Scored):
    """influence(p, q) = Σ_t ⟨∇ℓ_p, M_t ∇ℓ_q⟩: positive if training on p lowered the loss of q.

    Unit: first-order decrease of the loss of q per visit of p by SGD with learning rate η_t (by Adam's step with the
    preconditioner `adam`). The true change is about (score × visits of p between checkpoints) / batch size. With the
    test functional `score-margin` ℓ_q is −y (s_a − s_b): positive if training on p raised the score margin of q.
    Aggregated scores have one test column, that of the mean functional of all test pairs.

    Args:
        per_checkpoint: float64 [checkpoints, train_pairs, test_pairs].
        train: the training pairs with their losses.
        test: the test pairs with their losses.
        run: how the scores were computed.
        variance: of `per_checkpoint` over random projections, of the same shape; None for exact gradients.
        self_influence: that of the training pairs, if both were computed.
        loaded: the content of the file that `tracin_func.load` read.

    Example:
        >>> inf = ti.influence(task)
        >>> inf
        Influence(4 training × 3 test pairs, 2 checkpoints, 0 inactive at all of them; strongest a_b on f_b +0.224)
        >>> inf.proponents("f_b", k=2)
        pair  score
        a_b   0.224
        b_c   0.0547
        >>> inf.opponents("f_b")[0].pair
        'c_d'
        >>> list(inf.to_pandas().columns)
        ['e_a', 'f_b', 'a_c']
    """

    KIND = "influence"

    per_checkpoint: Tensor
    train: PairRecord
    test: PairRecord
    run: Run
    variance: Tensor | None = None
    self_influence: SelfInfluence | None = None
    loaded: Loaded | None = None

    @property
    def _pairs(self) -> PairRecord:
        return self.train

    @property
    def _tests(self) -> tuple[str, ...]:
        return self.test_ids

    @property
    def column(self) -> str:
        if self.loaded is not None:
            return self.loaded.column
        return INFLUENCE_COLUMNS[self.run.method.test_functional, self.run.method.normalize]

    @property
    def test_ids(self) -> tuple[str, ...]:
        """Names of the test columns: the test pairs, or `mean`."""
        return self.test.ids if self.loaded is not None else test_ids(self.test, self.run)

    @property
    def zero_columns(self) -> list[int]:
        """Test columns whose gradient is exactly 0 at every checkpoint, so that every influence is 0."""
        return zero_columns(self.test, self.run)

    def proponents(self, test: int | str = 0, k: int = 10) -> Listing[Ranked]:
        """The k training pairs that helped a test pair most: scores above 0, the largest first, ties in their order.

        Args:
            test: position or id of the test pair.
            k: largest number of pairs.

        Raises:
            UsageError: the test pair is not found.
        """
        return self._side(test, k, 1)

    def opponents(self, test: int | str = 0, k: int = 10) -> Listing[Ranked]:
        """The k training pairs that harmed a test pair most: scores below 0, the smallest first; see `proponents`."""
        return self._side(test, k, -1)

    def by(
        self, view: str, *, test: int | str | None = None, classes: Mapping[str, str] | None = None
    ) -> Listing[Group]:
        """The scores by "item", "class" or "class-pair" of the training pairs, the largest mean first.

        Args:
            view: what to group by; a pair counts in each of its groups.
            test: position or id of the test pair; None for the sum over all test pairs.
            classes: class by item id; None for those of the source.

        Raises:
            UsageError: the view or test pair is unknown. InputError: items or classes are unknown.
        """
        scores = self.scores.sum(dim=1) if test is None else self._summed(position_of(test, self.test_ids))[0]
        return self._by(view, scores, classes)

    def _side(self, test: int | str, k: int, sign: int) -> Listing[Ranked]:
        found = self._strongest(position_of(test, self.test_ids), k, sign)
        return Listing(each for each in found if sign * each.score > 0)

    def __repr__(self) -> str:
        scores = torch.nan_to_num(self.scores)
        pair, test = divmod(int(scores.abs().argmax()), scores.shape[1])
        strongest = f"{self.ids[pair]} on {self.test_ids[test]} {float(scores[pair, test]):+.3g}"
        return (
            f"Influence({len(self)} training × {len(self.test_ids)} test pairs{self._steps()}; strongest {strongest})"
        )

    def _repr_html_(self) -> str:
        return sides_html(repr(self), self.test_ids, self.proponents, self.opponents)

"""The strongest pairs of each test pair, and the scores of all pairs of a streamed table."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow
import torch
from torch import Tensor

from tracin_func.losses.terms import PIECE
from tracin_func.results.columns import SIDES, position_of, sides_html, test_ids, zero_columns
from tracin_func.results.files.format import Sheet
from tracin_func.results.files.registry import format_of
from tracin_func.results.frame import PairRecord, array, texts, to_pandas
from tracin_func.results.listing import Listing, Ranked, Score, ranked
from tracin_func.results.names import OWN_NAME, STANDARD_ERROR, counted
from tracin_func.results.partial import Partial, holds
from tracin_func.results.run import Run
from tracin_func.results.scored import Loaded, Recorded
from tracin_func.task.pair_table import PairBlocks

SCORE = "score"


@dataclass(frozen=True, eq=False)
class Winners(Partial):
    """The strongest pairs of one sign for one test pair, strongest first.

    Args:
        rows: row number of the pair in its table, int64 [n].
        scores: Σ_t ⟨∇ℓ_p, M ∇ℓ_q⟩, float64 [n].
        first: position of item a, int64 [n].
        second: position of item b, int64 [n].
        target: +1 or −1, int64 [n].
        derivatives: u = ∂ℓ/∂s_a and v = ∂ℓ/∂s_b at each checkpoint, weights included, float64 [n, checkpoints, 2].
    """

    rows: Tensor
    scores: Tensor
    first: Tensor
    second: Tensor
    target: Tensor
    derivatives: Tensor

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, eq=False)
class Strongest(Partial):
    """The strongest pairs of every test pair.

    Args:
        proponents: of each test pair, scores above 0, largest first.
        opponents: of each test pair, scores below 0, smallest first.
        pairs: number of pairs in the table.
        inactive: share of pairs × checkpoints whose derivatives are both 0.
    """

    proponents: tuple[Winners, ...]
    opponents: tuple[Winners, ...]
    pairs: int
    inactive: float


class _Streamed(Recorded):
    """Scores that are written as blocks of a long table."""

    def blocks(self) -> Iterator[Any]:
        """`pyarrow.Table` blocks, at least one, all of one schema."""
        raise NotImplementedError

    def save(
        self, path: str | Path, *, command: Sequence[str] | None = None, options: Mapping[str, Any] | None = None
    ) -> Path:
        """Write the scores to `path`, `.parquet` or `.csv`, block by block, with provenance beside it.

        Args:
            path: the file, which is replaced.
            command, options: recorded in the provenance.

        Raises:
            UsageError, InputError, OutputError: see `SelfInfluence.save`; the errors of reading the pairs, which leave
                the old file unchanged.
        """
        sheet = Sheet(SCORE, self.blocks, record=self._record(command, options) or None)
        return format_of(path).write(Path(path), sheet)


@dataclass(frozen=True, repr=False, eq=False)
class TopInfluences(_Streamed):
    """The strongest proponents and opponents of each test pair, from pairs that were read in blocks.

    Args:
        strongest: the strongest pairs, by test pair.
        test: the test pairs with their losses.
        run: how the scores were computed.
        item_ids: name of each item, [items].
        pair_ids: the user's own id of each training pair, by its row; None if they have none.
        standard_errors: of each test pair those of its proponents and of its opponents, float64 [n]; None for exact
            gradients.
        loaded: the content of the file that `tracin_func.load` read.
    """

    strongest: Strongest
    test: PairRecord
    run: Run
    item_ids: Sequence[str]
    pair_ids: Sequence[str] | Mapping[int, str] | None = None
    standard_errors: tuple[tuple[Tensor, Tensor], ...] | None = None
    loaded: Loaded | None = None

    @property
    def test_ids(self) -> tuple[str, ...]:
        """Names of the test columns: the test pairs, or `mean`."""
        return test_ids(self.test, self.run)

    @property
    def zero_columns(self) -> list[int]:
        """Test columns whose gradient is exactly 0 at every checkpoint, and which have no strongest pairs."""
        return zero_columns(self.test, self.run)

    def proponents(self, test: int | str = 0, k: int | None = None) -> Listing[Ranked]:
        """The k training pairs that helped a test pair most, the largest score first.

        Args:
            test: position or id of the test pair.
            k: largest number of pairs; None for all that were kept.

        Raises:
            UsageError: the test pair is not found.
        """
        return self._side(test, k, 0)

    def opponents(self, test: int | str = 0, k: int | None = None) -> Listing[Ranked]:
        """The k training pairs that harmed a test pair most, the smallest score first; see `proponents`."""
        return self._side(test, k, 1)

    def to_arrow(self) -> Any:
        """A `pyarrow.Table` with one row per strongest pair and test pair.

        'pair' is the row number of the pair in its table, from 0; 'id' is its own id, if pairs have own ids.
        """
        every = [winners for test in range(len(self.test_ids)) for winners in self._sides(test)]
        both = [(test, side) for test in self.test_ids for side in SIDES]
        sizes = [len(winners) for winners in every]
        ranks = [torch.arange(1, size + 1) for size in sizes]
        rows = torch.cat([winners.rows for winners in every])
        columns = {"pair": array(rows)}
        if self.pair_ids is not None:
            columns[OWN_NAME] = texts(self.pair_ids[row] for row in rows.tolist())
        for name in ("first", "second"):
            places = torch.cat([getattr(winners, name) for winners in every]).tolist()
            columns[name] = texts(self.item_ids[place] for place in places)
        for name, labels in zip(("test_pair", "side"), zip(*both, strict=True), strict=True):
            columns[name] = texts(label for label, size in zip(labels, sizes, strict=True) for _ in range(size))
        columns |= {"rank": array(torch.cat(ranks)), SCORE: array(torch.cat([winners.scores for winners in every]))}
        if self.standard_errors is not None:
            columns[STANDARD_ERROR] = array(torch.cat([error for errors in self.standard_errors for error in errors]))
        return pyarrow.table(columns)

    def to_pandas(self) -> Any:
        """The table of `to_arrow` as a pandas data frame.

        Raises:
            UsageError: pandas is not installed.
        """
        return to_pandas(self.to_arrow())

    def blocks(self) -> Iterator[Any]:
        """The table of `to_arrow` as one block."""
        yield self.to_arrow()

    def __len__(self) -> int:
        """The number of training pairs that were scored."""
        return self.strongest.pairs

    def __repr__(self) -> str:
        kept = sum(map(len, (*self.strongest.proponents, *self.strongest.opponents)))
        among = f"{len(self):,} " if holds(self.strongest, "pairs") else ""
        axes = f"{among}training × {counted(len(self.test_ids), 'test pair')}"
        steps = f", {counted(len(self.run.checkpoints), 'checkpoint')}" if holds(self.run, "checkpoints") else ""
        return f"TopInfluences({kept:,} strongest of {axes}{steps})"

    def _repr_html_(self) -> str:
        return sides_html(repr(self), self.test_ids, self.proponents, self.opponents)

    def _record(self, command: Sequence[str] | None, options: Mapping[str, Any] | None) -> dict[str, Any]:
        if self.loaded is not None:
            return dict(self.loaded.provenance)
        asked = {"rows": self.strongest.pairs, "inactive_share": self.strongest.inactive}
        return self.run.provenance("influence", asked, command, options)

    def _sides(self, test: int) -> tuple[Winners, Winners]:
        return self.strongest.proponents[test], self.strongest.opponents[test]

    def _side(self, test: int | str, k: int | None, side: int) -> Listing[Ranked]:
        place = position_of(test, self.test_ids)
        winners = self._sides(place)[side]
        if self.pair_ids is not None:
            names = [self.pair_ids[row] for row in winners.rows.tolist()]
        else:
            both = zip(winners.first.tolist(), winners.second.tolist(), strict=True)
            names = [f"{self.item_ids[first]}_{self.item_ids[second]}" for first, second in both]
        errors = None if self.standard_errors is None else self.standard_errors[place][side]
        return Listing(ranked(names, winners.scores, errors)[:k])


@dataclass(frozen=True, repr=False, eq=False)
class StreamedSelfInfluence(_Streamed):
    """Self-influence of each pair of a table that is read in blocks.

    Args:
        scores: Σ_t ‖∇ℓ_p‖²_M in the order of the table, float64 [pairs].
        pairs: the table.
        run: how the scores were computed.
        item_ids: name of each item, [items].
    """

    scores: Tensor
    pairs: PairBlocks
    run: Run
    item_ids: Sequence[str]

    def hardest(self, k: int = 10) -> Listing[Ranked]:
        """The k hardest pairs, named `first_second` by item id; the table is read again for the names."""
        rows = torch.sort(self.scores, descending=True, stable=True).indices[:k].tolist()
        names: dict[int, str] = {}
        for start, first, second, scores in self._read(PIECE):
            for row in rows:
                if start <= row < start + len(scores):
                    both = int(first[row - start]), int(second[row - start])
                    names[row] = "_".join(self.item_ids[place] for place in both)
        return Listing(Score(names[row], float(self.scores[row])) for row in rows)

    def blocks(self, size: int = PIECE) -> Iterator[Any]:
        """`pyarrow.Table` blocks of at most `size` pairs: row number, names of both items, and score."""
        ids = texts(self.item_ids)
        for start, first, second, scores in self._read(size):
            yield pyarrow.table(
                {
                    "pair": array(torch.arange(start, start + len(scores))),
                    "first": ids.take(first.numpy()),
                    "second": ids.take(second.numpy()),
                    SCORE: array(scores),
                }
            )

    def __len__(self) -> int:
        return len(self.scores)

    def __repr__(self) -> str:
        checkpoints = counted(len(self.run.checkpoints), "checkpoint")
        return f"StreamedSelfInfluence({counted(len(self), 'pair')}, {checkpoints})"

    def _record(self, command: Sequence[str] | None, options: Mapping[str, Any] | None) -> dict[str, Any]:
        return self.run.provenance("self", {"rows": len(self.scores)}, command, options)

    def _read(self, size: int) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
        """Row number of the first pair, positions of items a and b, and scores, each [pairs of the block]."""
        for start, block in self.pairs.blocks(size):
            yield start, block.first, block.second, self.scores[start : start + len(block)]

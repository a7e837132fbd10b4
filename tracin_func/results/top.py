"""The strongest pairs of each test pair, and a score for each pair of a streamed table, with their run."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tracin_func.losses.terms import PIECE
from tracin_func.results.files.table import write_table
from tracin_func.results.files.table_stream import SCORE, SIDES, write_self, write_strongest
from tracin_func.results.frame import PairRecord
from tracin_func.results.names import MEAN, STANDARD_ERROR
from tracin_func.results.run import Run
from tracin_func.task.pairs import PairBlocks


@dataclass(frozen=True, eq=False)
class Winners:
    """The strongest pairs of one sign for one test pair, strongest first.

    Args:
        rows: number of the pair in its table, int64 [n].
        scores: Σ_t ⟨∇ℓ_p, M ∇ℓ_q⟩, float64 [n].
        first: position of item a, int64 [n].
        second: position of item b, int64 [n].
        target: +1 or −1, int64 [n].
    """

    rows: Tensor
    scores: Tensor
    first: Tensor
    second: Tensor
    target: Tensor

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, eq=False)
class Strongest:
    """The answer to a query.

    Args:
        proponents: of each test pair, scores above 0, largest first.
        opponents: of each test pair, scores below 0, smallest first.
        pairs: how many pairs were asked.
        inactive: share of pairs × checkpoints whose slopes are both 0.
    """

    proponents: tuple[Winners, ...]
    opponents: tuple[Winners, ...]
    pairs: int
    inactive: float


@dataclass(frozen=True, eq=False)
class Queried:
    """The strongest proponents and opponents of each test pair; see `querying.query`.

    Args:
        strongest: the winners, by test pair.
        test: what the loss saw of the test pairs.
        run: how the scores were computed.
        item_ids: name of each item, [items].
        pair_ids: name of each training pair where they have names of their own, [pairs].
        standard_errors: of each test pair those of its proponents and of its opponents, float64 [n]; None where
            gradients are exact.
    """

    strongest: Strongest
    test: PairRecord
    run: Run
    item_ids: Sequence[str]
    pair_ids: Sequence[str] | None = None
    standard_errors: tuple[tuple[Tensor, Tensor], ...] | None = None

    @property
    def test_ids(self) -> tuple[str, ...]:
        """Names of the test columns: the test pairs, or `mean`."""
        return self.test.ids if self.run.method.aggregate is None else (MEAN,)

    @property
    def zero_columns(self) -> list[int]:
        """Test columns whose gradient is exactly 0 at every checkpoint, and which have no winners therefore."""
        zero = self.test.inactive.all(dim=0)
        return (zero if self.run.method.aggregate is None else zero.all()[None]).nonzero()[:, 0].tolist()

    def sides(self, test: int) -> tuple[Winners, Winners]:
        """Proponents and opponents of one test pair."""
        return self.strongest.proponents[test], self.strongest.opponents[test]

    def names(self, winners: Winners) -> list[str]:
        """The names of pairs: their own, or `first_second` by item id."""
        if self.pair_ids is not None:
            return [self.pair_ids[row] for row in winners.rows.tolist()]
        columns = winners.first.tolist(), winners.second.tolist()
        return [f"{self.item_ids[first]}_{self.item_ids[second]}" for first, second in zip(*columns, strict=True)]

    def to_table(self) -> dict[str, list[Any]]:
        """One row a winner, ready for a data frame; `pair` is the number of the pair in its table, 0 the first."""
        names = ("pair", "first", "second", "test_pair", "side", "rank", SCORE)
        estimated = () if self.standard_errors is None else (STANDARD_ERROR,)
        table: dict[str, list[Any]] = {name: [] for name in (*names, *estimated)}
        for column, test in enumerate(self.test_ids):
            for number, winners in enumerate(self.sides(column)):
                table["pair"] += winners.rows.tolist()
                table["first"] += [self.item_ids[place] for place in winners.first.tolist()]
                table["second"] += [self.item_ids[place] for place in winners.second.tolist()]
                table["test_pair"] += [test] * len(winners)
                table["side"] += [SIDES[number]] * len(winners)
                table["rank"] += range(1, len(winners) + 1)
                table[SCORE] += winners.scores.tolist()
                if self.standard_errors is not None:
                    table[STANDARD_ERROR] += self.standard_errors[column][number].tolist()
        return table

    def save(
        self, path: str | Path, *, command: Sequence[str] | None = None, options: Mapping[str, Any] | None = None
    ) -> Path:
        """Write the winners to `path`, `.parquet` or `.csv`, with provenance beside it.

        Args:
            path: the file, replaced whole.
            command, options: what is recorded of how the run was started.

        Raises:
            UsageError, InputError, OutputError: as `table_file.write_table`.
        """
        asked = {"rows": self.strongest.pairs, "inactive_share": self.strongest.inactive}
        record = self.run.provenance("influence", asked, command, options)
        if Path(path).suffix != ".parquet":
            return write_table(path, self.to_table(), provenance={SCORE: record})
        return write_strongest(
            path,
            self.strongest.proponents,
            self.strongest.opponents,
            item_ids=self.item_ids,
            test_ids=self.test_ids,
            provenance=record,
            standard_errors=self.standard_errors,
        )


@dataclass(frozen=True, eq=False)
class QueriedSelf:
    """Self-influence of each pair of a table; see `querying.query_self`.

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

    def top(self, k: int = 10) -> list[tuple[str, float]]:
        """The k hardest pairs, as `first_second` by item id, and their scores; the table is read again for them."""
        rows = torch.sort(self.scores, descending=True, stable=True).indices[:k].tolist()
        names: dict[int, str] = {}
        for start, first, second, scores in self.blocks():
            for row in rows:
                if start <= row < start + len(scores):
                    both = int(first[row - start]), int(second[row - start])
                    names[row] = "_".join(self.item_ids[place] for place in both)
        return [(names[row], float(self.scores[row])) for row in rows]

    def blocks(self, size: int = PIECE) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
        """Number of the first pair, positions of items a and b, and scores, each [pairs of the block]."""
        for start, block in self.pairs.blocks(size):
            yield start, block.first, block.second, self.scores[start : start + len(block)]

    def save(
        self, path: str | Path, *, command: Sequence[str] | None = None, options: Mapping[str, Any] | None = None
    ) -> Path:
        """Write the scores to `path`, a `.parquet` file, block by block, with provenance beside it; see `Queried.save`.

        Raises:
            UsageError, InputError, OutputError: as `table_file.write_table`.
        """
        asked = {"rows": len(self.scores)}
        record = self.run.provenance("self", asked, command, options)
        return write_self(path, self.blocks(), item_ids=self.item_ids, provenance=record)

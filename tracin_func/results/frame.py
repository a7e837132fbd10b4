"""Pairs with their losses, and scores of pairs as Arrow tables."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow
import torch
from torch import Tensor

from tracin_func.errors import UsageError
from tracin_func.results.names import STANDARD_ERROR
from tracin_func.results.partial import Partial, holds


@dataclass(frozen=True, repr=False, eq=False)
class PairRecord(Partial):
    """A table of pairs with their losses: `ids` [pairs], the rest [checkpoints, pairs].

    `loss` is without weights, `score_margin` is y (s_a − s_b) (above 0 if the pair is in the right order), `weight` is
    that of the loss times that of the pair, `inactive` is True where the gradient is exactly 0, and `bin` is the GHM
    bin (−1 for none), None with another loss. `target` [pairs] is +1 or −1, `count` [pairs] is how often a pair was
    drawn, and `items` has the names of its two items. `swapped` maps an id ID1_ID2 to ID2_ID1, which a file may use
    instead; it is empty for the user's own ids. `classes` is the class by item, None if unknown. A loaded file holds
    only names.
    """

    ids: tuple[str, ...]
    items: tuple[tuple[str, str], ...]
    swapped: Mapping[str, str]
    target: Tensor
    count: Tensor
    bin: Tensor | None
    loss: Tensor
    score_margin: Tensor
    weight: Tensor
    inactive: Tensor
    classes: Mapping[str, str] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"PairRecord({len(self)} pairs)"

    def facts(self, position: int) -> dict[str, Tensor]:
        """Values of each pair at one checkpoint, by heading; none of a loaded file."""
        if not holds(self, "loss"):
            return {}
        facts = {
            "target": self.target,
            "loss": self.loss[position],
            "score_margin": self.score_margin[position],
            "active_share": (~self.inactive).double().mean(dim=0),
            "count": self.count,
            "weight": self.weight[position],
        }
        return facts if self.bin is None else facts | {"ghm_bin": self.bin[position]}


@dataclass(frozen=True)
class Frame:
    """Scores of pairs along their axes.

    Args:
        column: name of the scores.
        values: float64 [steps, pairs, tests]; a step is a checkpoint, or the only one is the sum of all.
        errors: their standard errors, of the same shape; None for exact gradients.
        pairs: the training pairs.
        tests: names of the test columns; None for self-influence, which has one without a name.
        checkpoints: names of the steps; None for the sum.
    """

    column: str
    values: Tensor
    errors: Tensor | None
    pairs: PairRecord
    tests: tuple[str, ...] | None
    checkpoints: tuple[str, ...] | None

    def long(self) -> Any:
        """One row per pair, test column and step, with losses at that checkpoint, or at the last one for the sum."""
        return pyarrow.concat_tables(self._step(step) for step in range(len(self.values)))

    def wide(self) -> Any:
        """One row per pair: `pair`, and a column of scores per test column and step, named after these."""
        named = self._columns(self.values, self.column if self.tests is None and self.checkpoints is None else "")
        names, columns = zip(*named, strict=True)
        return pyarrow.table([texts(self.pairs.ids), *map(array, columns)], names=["pair", *names])

    def rows(self) -> dict[str, dict[str, float]]:
        """Scores by column by pair id, in columns whose names begin with that of the scores; NaN is left out."""
        columns = self._columns(self.values, self.column)
        if self.errors is not None:
            columns += self._columns(self.errors, f"{STANDARD_ERROR}_{self.column}")
        rows = zip(*(values.tolist() for _, values in columns), strict=True)
        return {
            pair: {name: value for (name, _), value in zip(columns, row, strict=True) if value == value}
            for pair, row in zip(self.pairs.ids, rows, strict=True)
        }

    def _columns(self, values: Tensor, start: str) -> list[tuple[str, Tensor]]:
        """Name and values of each column."""
        return [
            ("_".join(filter(None, (start, test, step))), values[t, :, j])
            for j, test in enumerate(self.tests or ("",))
            for t, step in enumerate(self.checkpoints or ("",))
        ]

    def _step(self, step: int) -> Any:
        """The long table of one step."""
        pairs, (_, count, tests) = self.pairs, self.values.shape
        of_pair = torch.arange(count).repeat_interleave(tests).numpy()
        columns = {"pair": texts(pairs.ids).take(of_pair)}
        if holds(pairs, "items"):
            for place, name in enumerate(("first", "second")):
                columns[name] = texts(both[place] for both in pairs.items).take(of_pair)
        if self.tests is not None:
            columns["test_pair"] = texts(self.tests).take(torch.arange(tests).repeat(count).numpy())
        if self.checkpoints is not None:
            columns["checkpoint"] = texts([self.checkpoints[step]]).take(torch.zeros(count * tests).long().numpy())
        columns[self.column] = array(self.values[step].flatten())
        if self.errors is not None:
            columns[STANDARD_ERROR] = array(self.errors[step].flatten())
        facts = pairs.facts(-1 if self.checkpoints is None else step)
        return pyarrow.table(columns | {name: array(each).take(of_pair) for name, each in facts.items()})


def array(values: Tensor) -> Any:
    """Numbers as an Arrow array of int64 or float64; NaN, a missing score of a loaded file, is null."""
    return pyarrow.array((values.double() if values.is_floating_point() else values.long()).numpy(), from_pandas=True)


def texts(values: Iterable[str]) -> Any:
    """Names as an Arrow array, each stored once. A lone surrogate of a file name is replaced by its escape."""
    found = (text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8") for text in values)
    return pyarrow.array(found, pyarrow.string()).dictionary_encode()


def to_pandas(table: Any, index: str | None = None) -> Any:
    """A pandas data frame of an Arrow table.

    Raises:
        UsageError: pandas is not installed.
    """
    plain = [
        column.cast(pyarrow.string()) if pyarrow.types.is_dictionary(column.type) else column
        for column in table.columns
    ]
    try:
        frame = pyarrow.table(plain, names=table.column_names).to_pandas()
    except ImportError as error:
        raise UsageError("to_pandas needs pandas. Install it with `pip install pandas`, or use to_arrow.") from error
    return frame if index is None else frame.set_index(index)

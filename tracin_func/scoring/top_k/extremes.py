"""The strongest scores of each sign in columns that are added piece by piece."""

import torch
from torch import Tensor

_MANY = 4  # times k: from here on the best k are cut out before they are sorted


class Extremes:
    """The k largest positive and the k smallest negative scores of each column, of all that was added so far.

    Exact, and independent of how the rows are cut into pieces: of equal scores the one that was added first wins.
    Scores of 0 are never among them.

    Args:
        k: the number kept of each sign and column.
        columns: the number of columns.
        fields: the number of fields of the record that is kept with a score.
    """

    def __init__(self, k: int, columns: int, fields: int) -> None:
        self._k = k
        self._scores = [[torch.empty(0, dtype=torch.float64) for _ in range(columns)] for _ in range(2)]
        self._records = [[torch.empty(0, fields, dtype=torch.float64) for _ in range(columns)] for _ in range(2)]
        self._last = torch.zeros(2, columns, dtype=torch.float64)

    @property
    def thresholds(self) -> Tensor:
        """The magnitude that a score has to exceed, float64 [2, columns]: positive, then negative; 0 below k.

        A tensor that was returned is not changed afterwards.
        """
        return self._last

    def add(self, records: Tensor, scores: Tensor) -> None:
        """Add rows: `records` float64 [rows, fields] and `scores` float64 [rows, columns]."""
        last = self._last.clone()
        for sign in range(2):
            magnitude = -scores if sign else scores
            for column in range(scores.shape[1]):
                last[sign, column] = self._add(sign, column, records, magnitude[:, column])
        self._last = last

    def of(self, column: int, sign: int) -> tuple[Tensor, Tensor]:
        """Records [n, fields] and scores [n], n ≤ k, strongest first; `sign` 0 for positive and 1 for negative ones."""
        scores = self._scores[sign][column]
        return self._records[sign][column], -scores if sign else scores

    def _add(self, sign: int, column: int, records: Tensor, magnitude: Tensor) -> float:
        """Sort one column in; its new threshold."""
        rows = (magnitude > self._last[sign, column]).nonzero()[:, 0]
        if len(rows) > _MANY * self._k:
            cut = magnitude[rows].topk(self._k, sorted=False).values.min()
            rows = rows[magnitude[rows] >= cut]
        scores = torch.cat([self._scores[sign][column], magnitude[rows]])
        order = torch.sort(scores, descending=True, stable=True).indices[: self._k]
        self._scores[sign][column] = scores[order]
        self._records[sign][column] = torch.cat([self._records[sign][column], records[rows]])[order]
        return float(scores[order[-1]]) if len(order) == self._k else 0.0

"""Lists displayed as tables."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, NamedTuple, TypeVar

from torch import Tensor

Row = TypeVar("Row", bound=tuple[Any, ...])


class Score(NamedTuple):
    """A pair and its score."""

    pair: str
    score: float


class Estimate(NamedTuple):
    """A pair and its score estimated from projected gradients."""

    pair: str
    score: float
    standard_error: float


Ranked = Score | Estimate


class Listing(list[Row]):
    """A list of named tuples, displayed as a table of one line per entry.

    Example:
        >>> Listing([Score("a_b", 0.25), Score("c_d", 1 / 3)])
        pair  score
        a_b   0.25
        c_d   0.333
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        super().__init__(rows)

    def _cells(self) -> list[Sequence[str]]:
        headings = getattr(type(self[0]), "_fields", ()) if self else ()
        return [headings, *([shown(value) for value in row] for row in self)]

    def __repr__(self) -> str:
        if not self:
            return "[]"
        cells = self._cells()
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)
        return "\n".join(map(str.rstrip, lines))

    def _repr_html_(self) -> str:
        head, *rows = self._cells()
        return html_table("", head, rows)


def ranked(pairs: Sequence[str], scores: Tensor, errors: Tensor | None) -> Listing[Ranked]:
    """Scores by pair, with their standard errors if they are estimates."""
    if errors is None:
        return Listing(map(Score, pairs, scores.tolist()))
    return Listing(map(Estimate, pairs, scores.tolist(), errors.tolist()))


def html_table(caption: str, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in HTML, its texts escaped."""
    lines = [("th", headings), *(("td", row) for row in rows)]
    body = "".join(f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in row)}</tr>" for tag, row in lines if row)
    return f"<table><caption>{escape(caption)}</caption>{body}</table>"


def shown(value: Any, sign: bool = False) -> str:
    """A cell of a table: numbers to three significant digits."""
    return format(value, "+.3g" if sign and value else ".3g") if isinstance(value, float) else str(value)

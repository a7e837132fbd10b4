"""The test pairs of influence as columns: their names and positions, and both sides of each."""

import difflib
from collections.abc import Callable, Sequence

from tracin_func.errors import UsageError
from tracin_func.results.frame import PairRecord
from tracin_func.results.listing import Listing, Ranked, html_table, shown
from tracin_func.results.names import MEAN
from tracin_func.results.run import Run

SIDES = ("proponent", "opponent")
_SHOWN = 3  # number of test pairs, and of pairs of each, in a notebook


def test_ids(test: PairRecord, run: Run) -> tuple[str, ...]:
    """Names of the test columns of a run."""
    return test.ids if run.method.aggregate is None else (MEAN,)


def zero_columns(test: PairRecord, run: Run) -> list[int]:
    """Test columns of a run whose gradient is exactly 0 at every checkpoint."""
    zero = test.inactive.all(dim=0)
    return (zero if run.method.aggregate is None else zero.all()[None]).nonzero()[:, 0].tolist()


def position_of(test: int | str, ids: Sequence[str]) -> int:
    """The position of a test column.

    Raises:
        UsageError: not found; the message lists similar ids.
    """
    if isinstance(test, str):
        if test in ids:
            return ids.index(test)
        near = difflib.get_close_matches(test, ids, n=3, cutoff=0.4) or ids[:3]
        raise UsageError(f"`test` {test!r} not found among {len(ids)} test pairs, such as {', '.join(near)}.")
    if not -len(ids) <= test < len(ids):
        raise UsageError(f"`test` should be a position below {len(ids)}, or an id. Got {test}.")
    return test % len(ids)


def sides_html(caption: str, tests: Sequence[str], *sides: Callable[[int, int], Listing[Ranked]]) -> str:
    """Proponents and opponents of the first test pairs, as HTML."""
    rows = [
        (test, side, pair, shown(score, sign=True))
        for position, test in enumerate(tests[:_SHOWN])
        for side, found in zip(SIDES, sides, strict=True)
        for pair, score, *_ in found(position, _SHOWN)
    ]
    return html_table(caption, ("test pair", "side", "training pair", "influence"), rows)

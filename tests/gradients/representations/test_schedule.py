"""Rows that do not fit are computed in an order that serves every pair once, and few of them twice."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.support.graphs import GRAPHS
from tracin_func.gradients.protocol import Combination
from tracin_func.gradients.representations.rows import Rows, for_columns, for_norms
from tracin_func.gradients.representations.schedule import Step, schedule, sizes


@st.composite
def pair_lists(draw: st.DrawFn) -> Tensor:
    """Pairs of a few units, repeated, swapped and of one unit with itself too."""
    units = draw(st.integers(1, 14))
    unit = st.integers(0, units - 1)
    pairs = draw(st.lists(st.tuples(unit, unit), min_size=1, max_size=60))
    return torch.tensor(pairs)


class Followed:
    """What a schedule does, step by step: rows computed, rows kept and pairs served."""

    def __init__(self, index: Tensor, rows: int) -> None:
        self.steps: list[Step] = schedule(index, rows)
        self.computed: list[int] = []
        self.served: list[int] = []
        kept: dict[int, int] = {}
        keep, group = sizes(rows)
        to_come = set(range(len(index)))
        for step in self.steps:
            units = step.units.tolist()
            assert set(units) <= set(index[sorted(to_come)].flatten().tolist())
            to_come -= set(step.pairs.tolist())
            assert len(set(units)) == len(units) <= group
            for pair in step.pairs.tolist():
                ends = set(index[pair].tolist())
                assert ends <= set(units) | set(kept.values())
                assert ends & set(units)
            for position, place in zip(step.stay.tolist(), step.places.tolist(), strict=True):
                assert place < keep
                kept[place] = units[position]
            self.computed += units
            self.served += step.pairs.tolist()


@given(pair_lists(), st.integers(2, 20))
def test_every_pair_is_served_once_where_both_rows_are(index: Tensor, rows: int) -> None:
    followed = Followed(index, rows)
    assert sorted(followed.served) == list(range(len(index)))
    assert sorted(set(followed.computed)) == index.unique().tolist()
    distinct = index.sort(dim=1).values.unique(dim=0)
    assert len(followed.computed) <= 2 * len(distinct)


@given(pair_lists(), st.integers(2, 20))
def test_the_same_pairs_give_the_same_steps(index: Tensor, rows: int) -> None:
    for one, two in zip(schedule(index, rows), schedule(index.clone(), rows), strict=True):
        assert all(torch.equal(getattr(one, name), getattr(two, name)) for name in ("units", "pairs", "stay", "places"))


# name -> rows that fit -> rows computed for the pairs of 60 units
ONCE = {"path": 4, "star": 2, "cliques of six": 8, "bipartite with a side of six": 10}


@pytest.mark.parametrize(("graph", "rows"), ONCE.items())
def test_each_row_is_computed_once_where_few_wait(graph: str, rows: int) -> None:
    """The units are numbered at random."""
    index = GRAPHS[graph]()
    assert len(Followed(index, rows).computed) == len(index.unique())


@pytest.mark.parametrize(
    ("graph", "rows", "most"), [("complete", 8, 54), ("complete", 2, 277), ("random", 8, 32), ("random", 2, 75)]
)
def test_few_rows_are_computed_twice(graph: str, rows: int, most: int) -> None:
    """24 units, all 276 pairs or 72 random ones. Any two blocks of four together take 24 · 7 / 2 = 84 rows."""
    assert len(Followed(GRAPHS[graph](), rows).computed) <= most


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("block", [1, 2, 5, 17])
def test_norms_are_those_of_rows_that_are_counted(graph: str, block: int) -> None:
    """No more rows are in memory than two blocks."""
    index, sizes_seen = GRAPHS[graph](), []
    units = int(index.max()) + 1
    torch.manual_seed(0)
    gradients, coefficient = torch.randn(units, 40, dtype=torch.float64), torch.randn(len(index), 2).double()

    def fetch(some: Tensor) -> tuple[Tensor, Tensor]:
        sizes_seen.append(len(some))
        return gradients[some], torch.zeros(len(some))

    rows = Rows(units, fetch, block, lambda: torch.zeros(units), lambda unit, _: str(unit), exact=False)
    found = rows.squared_norm(Combination(index, coefficient))
    right = (coefficient[:, :1] * gradients[index[:, 0]] + coefficient[:, 1:] * gradients[index[:, 1]]).square().sum(1)
    torch.testing.assert_close(found, right, rtol=1e-11, atol=0)
    assert sum(sizes_seen) == for_norms(index, units, block)
    assert max(sizes_seen) <= max(1, block // 2)
    sizes_seen.clear()
    few = Combination(index[:7], coefficient[:7])
    torch.testing.assert_close(rows.columns(few)[:, 0], gradients @ (coefficient[:1].T * gradients[index[0]]).sum(0))
    assert sum(sizes_seen) == for_columns(few.index, units, block, exact=False)

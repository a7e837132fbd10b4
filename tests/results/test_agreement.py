"""Rank correlation, overlap at the top and changes of rank, against definitions written out."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracin_func.results.agreement import Agreement, agreement, correlation_of, ranked
from tracin_func.results.views import items_of_ids

COLUMNS = ("a", "b")
numbers = st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=2, max_size=12)


def of(first: dict[str, float], second: dict[str, float], *, signed: bool = False) -> Agreement:
    return agreement("", COLUMNS, first, second, items_of_ids([*first, *second]), signed=signed)


def columns(*values: list[float]) -> list[dict[str, float]]:
    return [{f"p{place}_q{place}": value for place, value in enumerate(each)} for each in values]


def rank(values: list[float], place: int) -> float:
    """The mean rank of a value over all orders of the ties: those above, and the middle of those that are equal."""
    return sum(each > values[place] for each in values) + (1 + sum(each == values[place] for each in values)) / 2


@given(numbers)
def test_ranks_and_correlation_are_those_of_the_definition(both: list[tuple[int, int]]) -> None:
    sides = [[float(each[place]) for each in both] for place in (0, 1)]
    ranks = [[rank(side, place) for place in range(len(side))] for side in sides]
    assert [ranked(side) for side in sides] == ranks
    found = correlation_of(*sides)
    if any(len(set(side)) == 1 for side in sides):
        assert found is None
    else:
        assert found == pytest.approx(float(np.corrcoef(*ranks)[0, 1]), abs=1e-12)
        assert correlation_of(sides[1], sides[0]) == pytest.approx(found)
        assert correlation_of([-value for value in sides[0]], sides[1]) == pytest.approx(-found)
        assert correlation_of([math.exp(value) for value in sides[0]], sides[1]) == pytest.approx(found)


def test_equal_and_opposite_orders() -> None:
    assert correlation_of([1, 2, 3], [10, 20, 400]) == 1
    assert correlation_of([1, 2, 3], [3, 2, 1]) == -1
    assert correlation_of([1.0], [1.0]) is None


@given(st.permutations(range(40)), st.permutations(range(40)))
def test_the_overlap_at_the_top_is_counted(first: list[int], second: list[int]) -> None:
    found = of(*columns(list(map(float, first)), list(map(float, second))), signed=True)
    assert [(each.asked, each.top) for each in found.highest] == [("5%", 2), ("10%", 4), ("10", 10)]
    for overlaps, sign in ((found.highest, -1), (found.lowest, 1)):
        for each in overlaps:
            tops = [set(np.argsort(sign * np.array(side))[: each.top]) for side in (first, second)]
            assert each.shared == len(tops[0] & tops[1])
            assert each.chance == pytest.approx(each.top**2 / 40)


def test_chance_is_the_mean_over_independent_orders() -> None:
    orders = list(itertools.permutations(range(5)))
    shared = [len({*order[:2]} & {0, 1}) for order in orders]
    assert sum(shared) / len(shared) == pytest.approx(2 * 2 / 5)


def test_ties_at_the_border_count_in_part() -> None:
    first = [9.0, 8, 7, 6, 5, 4, 3, 2, 1, *[0.0] * 10]
    found = of(*columns(first, first))
    assert [each.shared for each in found.highest] == [each.top for each in found.highest]  # equal columns share all
    other = [9.0, 8, 7, 6, 5, 4, 3, 2, *[0.0] * 9, 0.5, 0.5]  # its ninth and tenth are tied in the first
    first = [9.0, 8, 7, 6, 5, 4, 3, 2, *[0.0] * 11]
    (ten,) = (each for each in of(*columns(first, other)).highest if each.asked == "10")
    assert ten.shared == pytest.approx(8 + 2 * 2 / 11)  # eleven tied pairs share the two places that are left


def test_pairs_in_one_column_only_are_counted_and_left_out() -> None:
    found = of({"a_b": 3.0, "c_d": 2.0, "x_y": 9.0}, {"c_d": 1.0, "a_b": 5.0, "u_v": 7.0, "s_t": 7.0})
    assert (found.pairs, found.only) == (("a_b", "c_d"), (1, 2))
    assert found.ranks == ((1, 2), (1, 2))
    assert (found.correlation, found.identical) == (1, False)
    assert found.moves() == []


def test_a_pair_in_the_other_order_is_the_same_pair_unless_both_are_there() -> None:
    found = of({"a_b": 3.0, "c_d": 2.0}, {"b_a": 1.0, "c_d": 5.0})
    assert (found.pairs, found.swapped, found.only) == (("a_b", "c_d"), 1, (0, 0))
    assert found.scores == ((3.0, 2.0), (1.0, 5.0))
    found = of({"a_b": 3.0, "b_a": 2.0}, {"b_a": 1.0})
    assert (found.pairs, found.swapped, found.only) == (("b_a",), 0, (1, 0))


def test_moves_are_sorted_by_size_and_name_ranks_and_scores() -> None:
    found = of(*columns([5.0, 4, 3, 2, 1], [0.1, 0.4, 0.3, 0.2, 0.9]))
    assert found.moves()[0]._asdict() == {
        "pair": "p0_q0",
        "first_rank": 1,
        "second_rank": 5,
        "change": -4,
        "first_score": 5.0,
        "second_score": 0.1,
    }
    assert [move.change for move in found.moves()] == [-4, 4]


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ([1.0, 1, 1], [1.0, 2, 3], "all 3 scores of the first are equal (1)"),
        ([1.0, 2, 3], [0.0, 0, 0], "all 3 scores of the second are equal (0)"),
        ([2.0, 2], [0.0, 0], "all 2 scores of the first and of the second are equal (2)"),
        ([2.0], [0.0], "1 common pair"),
        ([], [], "no common pairs"),
    ],
)
def test_an_undefined_correlation_has_a_reason(first: list[float], second: list[float], words: str) -> None:
    found = of(*columns(first, second))
    assert (found.correlation, found.undefined) == (None, words)


def test_groups_have_mean_ranks_and_a_correlation_of_their_own() -> None:
    first = {"a_x": 6.0, "a_y": 5.0, "a_z": 4.0, "b_x": 3.0, "b_y": 2.0, "b_z": 1.0}
    second = {"a_x": 1.0, "a_y": 2.0, "a_z": 3.0, "b_x": 6.0, "b_y": 5.0, "b_z": 4.0}
    found = of(first, second)
    shifts = {shift.name: shift for shift in found.by("item", items_of_ids(first), {})}
    assert shifts["a"]._asdict() == {
        "name": "a",
        "pairs": 3,
        "first_rank": 2,
        "second_rank": 5,
        "change": -3,
        "correlation": -1,
    }
    assert (shifts["b"].change, shifts["b"].correlation) == (3, 1)
    assert (shifts["x"].first_rank, shifts["x"].second_rank, shifts["x"].change) == (2.5, 3.5, -1)  # 1 and 4, 6 and 1
    classes = {name: "high" if name in "ab" else "low" for name in "abxyz"}
    (group,) = found.by("class-pair", items_of_ids(first), classes)
    assert (group.name, group.pairs, group.change) == ("high–low", 6, 0)

"""Views of scores by item and class, statistics and histograms, and the flags of odd columns."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.places import DATA
from tracin_func.results.names import common_start, meaning_of
from tracin_func.results.views import (
    CONSTANT_RUNS,
    NOT_NUMBERS,
    REPEATED_VALUES,
    ZERO_COLUMN,
    Flag,
    ends,
    flags,
    groups,
    groups_in_order,
    histogram,
    in_order,
    items_named,
    items_of_ids,
    members_of,
    number,
    numbers,
    summary,
)
from tracin_func.sources.registry import classes_of_ids

ITEMS = {"ab": ("a", "b"), "ac": ("a", "c"), "ba": ("b", "a"), "cd": ("c", "d"), "aa": ("a", "a")}
CLASSES = {"a": "low", "b": "high", "c": "low"}
VALUES = {"ab": 1.0, "ac": -4.0, "ba": 3.0, "cd": 0.0, "aa": 0.5, "unknown": 9.0}


def column_of_lab(name: str, column: str) -> dict[str, Any]:
    """One column of an excerpt, its nested values unwrapped."""
    table = json.loads((DATA / name).read_text())
    values = {pair: row[column] for pair, row in table.items()}
    return {pair: value["tracin_influence"] if isinstance(value, dict) else value for pair, value in values.items()}


def kinds(column: dict[str, Any]) -> list[str]:
    return [flag.kind for flag in flags(column, items_of_ids(column))]


def test_ids_tell_items_and_classes() -> None:
    pair = "plastic_deg036_500hz_04_plastic_deg180_500hz_08"
    both = ("plastic_deg036_500hz_04", "plastic_deg180_500hz_08")
    assert items_of_ids([pair, "0_1", "a_b_c", "one"]) == {pair: both, "0_1": ("0", "1")}
    assert items_named({"x": both}) == set(both)
    assert classes_of_ids([*both, "0", "deg1_deg2", "degree"]) == {both[0]: "deg036", both[1]: "deg180"}


def test_groups_by_item_count_each_pair_once_an_item() -> None:
    assert members_of("aa", "item", ITEMS, {}) == ["a"]
    found = {group.name: group for group in groups(VALUES, "item", ITEMS, {})}
    assert list(found) == ["a", "b", "c", "d"]
    a = found["a"]
    assert (a.pairs, a.active, a.sum, a.mean, a.mean_abs) == (4, 4, 0.5, 0.125, 8.5 / 4)
    assert (a.largest, a.largest_pair) == (-4.0, "ac")
    assert (found["d"].pairs, found["d"].active, found["d"].largest_pair) == (1, 0, "cd")


def test_groups_by_class_and_pair_of_classes() -> None:
    found = {group.name: (group.pairs, group.sum) for group in groups(VALUES, "class", ITEMS, CLASSES)}
    assert found == {"high": (2, 4.0), "low": (4, 0.5)}  # cd has an item without a class
    found = {group.name: (group.pairs, group.sum) for group in groups(VALUES, "class-pair", ITEMS, CLASSES)}
    assert found == {"high–low": (2, 4.0), "low–low": (2, -3.5)}


def test_orders_and_ends() -> None:
    assert in_order(VALUES, "score")[:2] == ["unknown", "ba"]
    assert in_order(VALUES, "abs")[:2] == ["unknown", "ac"]
    assert in_order(VALUES, "id") == sorted(VALUES)
    found = groups(VALUES, "item", ITEMS, {})
    assert [group.name for group in groups_in_order(found, "score")] == ["b", "a", "d", "c"]
    assert [group.name for group in groups_in_order(found, "abs")] == ["a", "b", "c", "d"]
    assert [group.name for group in groups_in_order(found[::-1], "id")] == ["a", "b", "c", "d"]
    assert ends(range(7), 2, both=True) == [0, 1, 5, 6]
    assert ends(range(4), 2, both=True) == [0, 1, 2, 3]
    assert ends(range(7), 2, both=False) == [0, 1]


def test_numbers_are_finite_numbers_only() -> None:
    odd = [True, None, "1.0", math.nan, math.inf, 10**400, [1], {"a": 1}]
    assert [number(value) for value in odd] == [None] * len(odd)
    assert numbers({"a": 1, "b": None, "c": -0.5}) == {"a": 1.0, "c": -0.5}


@given(st.lists(st.floats(-1e12, 1e12), min_size=1, max_size=50))
def test_statistics_are_those_of_numpy(values: list[float]) -> None:
    found = summary(values)
    expected = np.quantile(values, [0, 0.25, 0.5, 0.75, 1])
    quartiles = found.minimum, found.lower_quartile, found.median, found.upper_quartile, found.maximum
    assert quartiles == pytest.approx(expected, rel=1e-9, abs=1e-3)
    assert found.mean == pytest.approx(np.mean(values), rel=1e-9, abs=1e-3)
    assert (found.count, found.zero_share) == (len(values), np.mean(np.array(values) == 0))
    assert found.negative_share == np.mean(np.array(values) < 0)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=50))
def test_histograms_hold_every_value(values: list[float]) -> None:
    found = histogram(values)
    assert sum(found.counts) == len(values)
    assert len(found.edges) == len(found.counts) + 1
    assert found.edges == tuple(sorted(found.edges))
    if len(found.counts) > 1:
        rounding = 1e-9 * (found.edges[-1] - found.edges[0])
        assert found.edges[0] <= min(values) + rounding
        assert found.edges[-1] >= max(values) - rounding
        assert len(found.counts) <= 12
        assert found.counts[0] > 0 or found.counts[1] > 0


def test_histogram_has_round_edges_and_one_at_zero() -> None:
    found = histogram([-3.0, -0.1, 0.0, 0.2, 6.9])
    assert found.edges == (-3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7)
    assert found.counts == (1, 0, 1, 2, 0, 0, 0, 0, 0, 1)
    assert histogram([2.0, 2.0]).counts == (2,)
    assert histogram([0.0, 1.0]).edges[-1] == 1.0  # the largest is in the last bin, not in one of its own


# Flags


def test_batch_averages_of_the_lab_are_constant_runs() -> None:
    column = column_of_lab("plastic_1000hz_runs_metadata.json", "tracin_self_influence")
    runs, repeated = flags(column, items_of_ids(column))
    assert (runs.kind, repeated.kind) == (CONSTANT_RUNS, REPEATED_VALUES)
    assert runs.most == 6
    assert list(column.values()).count(6.892110509448685) == 6 == repeated.most


def test_the_last_batch_of_the_lab_is_a_repeated_value_without_runs() -> None:
    name = "tracin_influence_plastic_deg072_1000hz_01_plastic_deg000_1000hz_01"
    column = column_of_lab("plastic_1000hz_runs_metadata.json", name)
    first = "plastic_deg180_1000hz_07_plastic_deg000_1000hz_00"
    (found,) = flags(column, items_of_ids(column))
    assert found == Flag(REPEATED_VALUES, 6, 1, 6, -408.42820269366104, first)


def test_a_zero_column() -> None:
    name = "tracin_influence_plastic_deg072_500hz_01_plastic_deg000_500hz_01"
    column = column_of_lab("plastic_500hz_influence_metadata.json", name)
    assert [flag.kind for flag in flags(column, {})] == [ZERO_COLUMN]
    assert kinds(column | {"a_b": 1e-30}) == []


def test_what_is_right_is_not_flagged() -> None:
    inactive = {f"a{i}_b{i}": 0.0 for i in range(20)} | {"a_b": 1.0}
    assert kinds(inactive) == []
    both_orders = {"a_b": 2.0, "b_a": 2.0, "a_c": 3.0, "c_a": 3.0}
    assert kinds(both_orders) == []
    assert kinds({"a_b": 2.0, "b_a": 2.0, "a_c": 2.0}) == []  # two different pairs, not three
    assert kinds({"a_b": 2.0, "b_a": 2.0, "a_c": 2.0, "a_d": 2.0}) == [CONSTANT_RUNS]
    apart = {f"a{i}_b{i}": float(i // 2) if i % 2 else 7.0 for i in range(8)}
    assert kinds(apart) == []
    assert kinds(apart | {"x_y": 7.0}) == [REPEATED_VALUES]


def test_what_is_no_number_is_flagged_and_left_out() -> None:
    column = {"a_b": 1.0, "a_c": None, "a_d": "high", "b_c": math.nan, "b_d": None, "c_d": 2.0}
    assert flags(column, {}) == [Flag(NOT_NUMBERS, 4, 3, 2, None, "a_c")]
    assert kinds({"a_b": None, "a_c": 0.0}) == [ZERO_COLUMN, NOT_NUMBERS]


def test_names_of_columns() -> None:
    assert meaning_of("tracin_self_influence_model_epoch_10.pt") == "self"
    assert meaning_of("tracin_influence_a_b") == "loss"
    assert meaning_of("tracin_score_margin_influence_a_b") == "score-margin"
    assert meaning_of("loss") is None
    assert common_start(["tracin_influence_a1_b", "tracin_influence_a2_b"]) == "tracin_influence_"
    assert common_start(["tracin_influence_box_1", "tracin_influence_box_2"]) == "tracin_influence_"
    assert common_start(["mine_x_1", "mine_x_2"]) == "mine_x_"
    assert common_start(["mine_x", "mine_x_2"]) == "mine_"
    assert common_start(["alone_x"]) == common_start(["a", "b"]) == ""

"""Two results side by side: which columns and pairs belong together, whatever the files are."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import tracin_func as ti
from tests.support.scored import small_scores, small_self, small_task
from tracin_func.results.agreement import correlation_of

SELF, INFLUENCE, MARGIN = "tracin_self_influence", "tracin_influence", "tracin_score_margin_influence"
LETTERS = list("abcdef")


def written(path: Path, columns: dict[str, dict[str, float]]) -> Path:
    """A file of columns by name, without provenance."""
    rows: dict[str, dict[str, float]] = {}
    for name, column in columns.items():
        for pair, score in column.items():
            rows.setdefault(pair, {})[name] = score
    path.write_text(json.dumps(rows))
    return path


def influence(**method: Any) -> ti.Influence:
    how = ti.Compute(device="cpu", engine="item", batch_size=6)
    return ti.influence(small_task(item_ids=LETTERS), method=ti.Method(**method), compute=how)


@pytest.mark.parametrize("ending", ["json", "csv", "parquet"])
def test_scores_in_memory_and_in_files_of_any_format_are_compared_alike(tmp_path: Path, ending: str) -> None:
    first, second = influence(), influence(test_functional="score-margin")
    files = first.save(tmp_path / f"first.{ending}"), second.save(tmp_path / f"second.{ending}")
    in_memory, in_files, mixed = ti.compare(first, second), ti.compare(*files), ti.compare(first, str(files[1]))
    assert [each.name for each in in_memory.agreements] == list(first.test_ids)
    for found in (in_memory, in_files, mixed):
        assert found.total is not None
        assert found.total.correlation == correlation_of(
            first.scores.sum(dim=1).tolist(), second.scores.sum(dim=1).tolist()
        )
        for place, each in enumerate(found.agreements):
            assert each.columns == tuple(f"{name}_{first.test_ids[place]}" for name in (INFLUENCE, MARGIN))
            assert each.correlation == correlation_of(first.scores[:, place].tolist(), second.scores[:, place].tolist())
            assert each.signed
        assert found.by("class-pair", classes=in_memory.classes) == in_memory.by("class-pair")
    loaded = ti.compare(ti.load(files[0]), ti.load(files[1]))  # type: ignore[arg-type]
    assert loaded.total is not None
    assert loaded.total.correlation == in_memory.total.correlation  # type: ignore[union-attr]


def test_a_comparison_in_one_line() -> None:
    own = small_self()
    assert repr(ti.compare(own, own)) == "Comparison(4 common pairs, rank correlation 1)"
    assert ti.compare(own, own).identical
    both = small_scores()
    assert repr(ti.compare(both, both)) == "Comparison(4 common pairs, rank correlation of sum (3 columns) 1)"


def test_self_influence_is_compared_where_both_have_it(tmp_path: Path) -> None:
    pairs = {"a_b": 1.0, "c_d": 2.0}
    first = written(tmp_path / "first.json", {f"{INFLUENCE}_e_f": pairs, SELF: pairs})
    second = written(tmp_path / "second.json", {SELF: pairs})
    found = ti.compare(first, second)
    assert [each.columns for each in found.agreements] == [(SELF, SELF)]
    assert (found.only, found.total, found.agreements[0].signed) == (((), ()), None, False)
    with pytest.raises(ti.InputError, match="have no column in common: tracin_influence_e_f in the first, tracin_self"):
        ti.compare(written(tmp_path / "third.json", {f"{INFLUENCE}_e_f": pairs}), second)


def test_columns_that_only_one_has_are_listed(tmp_path: Path) -> None:
    pairs = {"a_b": 1.0, "c_d": 2.0}
    first = written(tmp_path / "1.json", {f"{INFLUENCE}_e_f": pairs, f"{INFLUENCE}_g_h": pairs})
    second = written(tmp_path / "2.json", {f"{MARGIN}_g_h": pairs, f"{MARGIN}_k_l": pairs})
    found = ti.compare(first, second)
    assert [each.columns for each in found.agreements] == [(f"{INFLUENCE}_g_h", f"{MARGIN}_g_h")]
    assert found.only == ((f"{INFLUENCE}_e_f",), (f"{MARGIN}_k_l",))
    assert not found.identical


def test_equal_names_belong_together_before_columns_of_one_test_pair(tmp_path: Path) -> None:
    low, high = {"a_b": 1.0, "c_d": 2.0}, {"a_b": 2.0, "c_d": 1.0}
    first = written(tmp_path / "1.json", {f"{MARGIN}_e_f": low, f"{INFLUENCE}_e_f": high})
    second = written(tmp_path / "2.json", {f"{INFLUENCE}_e_f": high})
    found = ti.compare(first, second)
    assert [each.columns for each in found.agreements] == [(f"{INFLUENCE}_e_f", f"{INFLUENCE}_e_f")]


def test_two_columns_of_one_file(tmp_path: Path) -> None:
    own = small_self()
    path = tmp_path / "scores.json"
    own.save(path, column="margin_10")
    replace(own, per_checkpoint=-own.per_checkpoint).save(path, column="margin_1")
    found = ti.compare(path, path, column=("margin_10", "margin_1"))
    assert [each.columns for each in found.agreements] == [("margin_10", "margin_1")]
    assert found.agreements[0].correlation == -1
    for name, functional in (("ten", "loss"), ("one", "score-margin")):  # columns of a recorded name are a kind
        influence(test_functional=functional).save(path, column=name, options={"score_name": name})
    found = ti.compare(path, path, column=("ten", "one"))
    assert [each.name for each in found.agreements] == list(influence().test_ids)


def test_unknown_columns_are_compared_where_there_is_one_of_each(tmp_path: Path) -> None:
    first = written(tmp_path / "1.json", {"mine": {"a_b": 1.0, "c_d": 2.0}})
    second = written(tmp_path / "2.json", {"yours": {"a_b": 1.0, "c_d": -2.0}})
    found = ti.compare(first, second)
    assert (found.agreements[0].columns, found.agreements[0].signed) == (("mine", "yours"), True)


def test_columns_without_a_meaningful_sum_have_none(tmp_path: Path) -> None:
    pairs = {"a_b": 1.0, "c_d": 2.0}
    both = written(tmp_path / "1.json", {SELF: pairs, f"{INFLUENCE}_e_f": pairs})
    found = ti.compare(both, both, column="all")
    assert (len(found.agreements), found.total, found.whole) == (2, None, None)
    with pytest.raises(ti.InputError, match="no meaningful sum"):
        found.by("item")


def test_the_sum_is_over_pairs_with_a_score_in_each_column(tmp_path: Path) -> None:
    first = {f"{INFLUENCE}_e_f": {"a_b": 1.0, "c_d": 2.0, "k_l": 3.0}, f"{INFLUENCE}_g_h": {"a_b": 5.0, "c_d": 1.0}}
    path = written(tmp_path / "1.json", first)
    found = ti.compare(path, path)
    assert found.total is not None
    assert found.total.pairs == ("a_b", "c_d")
    assert found.total.scores[0] == (6.0, 3.0)


def test_nothing_in_common_is_an_error(tmp_path: Path) -> None:
    first = written(tmp_path / "1.json", {SELF: {"a_b": 1.0}})
    second = written(tmp_path / "2.json", {SELF: {"x_y": 1.0}})
    with pytest.raises(ti.InputError, match="no pair in common: 'a_b' is a pair of the first, 'x_y' of the second"):
        ti.compare(first, second)


def test_the_strongest_pairs_are_compared_without_their_ranks(tmp_path: Path) -> None:
    task = small_task(item_ids=LETTERS)
    top = ti.top_influences(task, k=4, compute=ti.Compute(device="cpu", engine="item", batch_size=6))
    path = top.save(tmp_path / "top.parquet")
    found = ti.compare(path, path)
    assert [each.name for each in found.agreements] == list(top.test_ids)
    assert found.first.strongest


def test_other_arguments_are_refused() -> None:
    own = small_self()
    with pytest.raises(ti.UsageError, match="the second result should be a result file"):
        ti.compare(own, torch.ones(3))  # type: ignore[arg-type]
    with pytest.raises(ti.UsageError, match="`column` should be one name, or one for each"):
        ti.compare(own, own, column=("a", "b", "c"))  # type: ignore[arg-type]
    with pytest.raises(ti.UsageError, match="the first result is no file"):
        ti.compare(own, own, column="a")
    with pytest.raises(ti.UsageError, match="`view` should be"):
        ti.compare(own, own).by("pair")

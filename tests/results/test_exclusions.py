"""Lists of pairs to leave out or to flip: counts on files of the lab, order, modes, limits, refusals, and files."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import torch
from torch import Tensor

import tracin_func as ti
from tests.support.lab_files import SEED, TONES, influence_file
from tests.support.scored import small_task
from tracin_func.files import read_lines
from tracin_func.results.exclusion_rule import Rule, parsed
from tracin_func.results.exclusions import choose, counts
from tracin_func.results.flips import suggested_flips
from tracin_func.results.score_table import ScoreTable, TrainingPairs, joined

COUNTS = {
    "500hz": {1: [268, 228, 201], 2: [98, 85, 71], 3: [0, 0, 0]},
    "1000hz": {1: [222, 182, 163], 2: [36, 6, 0], 3: [0, 0, 0]},
}


def table(scores: Any, *, of_self: bool = False, ids: list[str] | None = None, **more: Any) -> ScoreTable:
    """Scores of pairs `a_b`, `b_a`, `a_c`, `c_d`, `d_b` ... of items in two classes."""
    values = torch.tensor(scores, dtype=torch.float64)
    names = (ids or ["a_b", "b_a", "a_c", "c_d", "d_b", "d_a"])[: len(values)]
    items = {name: (name[0], name[2]) for name in names}
    values = values.reshape(len(names), -1)
    tests = ("",) if of_self else tuple(f"q{column}" for column in range(values.shape[1]))
    part = TrainingPairs("`file`", tuple(names), items, more.pop("classes", {}))
    return ScoreTable((part,), tuple(names), items, tests, values, of_self, more.pop("margins", {}))


def chosen(scores: Any, of_self: bool = False, **rule: Any) -> list[str]:
    return choose(Rule(**rule), table(scores, of_self=of_self)).ids


# Counts


def both_forms(tone: str, folder: Path) -> list[Path]:
    """The file as made of its pairs and scores, and where it lies beside the repository, itself."""
    whole = SEED / f"plastic_{tone}_influence_metadata.json"
    return [influence_file(tone, folder), *([whole] if whole.exists() else [])]


@pytest.mark.parametrize("tone", TONES)
def test_counts_on_the_files_of_the_lab_equal_a_direct_count(tone: str, tmp_path: Path) -> None:
    for path in both_forms(tone, tmp_path):
        rows: dict[str, dict[str, float]] = json.loads(path.read_text())
        columns = {name: {row[name] for row in rows.values()} for name in next(iter(rows.values()))}
        live = [name for name, values in columns.items() if len(values) > 1]
        found = ti.load(path)
        assert isinstance(found, ti.Influence)
        assert (len(rows), len(columns), len(live)) == (441, 5, {"500hz": 2, "1000hz": 5}[tone])
        for least, expected in COUNTS[tone].items():
            for threshold, count in zip((-5, -10, -15), expected, strict=True):
                direct = {pair for pair, row in rows.items() if sum(row[name] < threshold for name in live) >= least}
                listed = found.exclusions(threshold=threshold, min_occurrences=least)
                assert len(direct) == len(listed) == count
                assert set(listed.ids) == direct
                assert int((~listed.kept).sum()) == count


@pytest.mark.parametrize("tone", TONES)
def test_items_of_all_chosen_pairs_would_empty_the_training_and_are_refused(tone: str, tmp_path: Path) -> None:
    for path in both_forms(tone, tmp_path):
        rows: dict[str, dict[str, float]] = json.loads(path.read_text())
        items, hit = (
            {"_".join(pair.split("_")[start : start + 4]) for pair in pairs for start in (0, 4)}
            for pairs in (rows, [pair for pair, row in rows.items() if min(row.values()) < -5])
        )
        assert len(items) == len(hit) == 37
        found = ti.load(path)
        assert isinstance(found, ti.Influence)
        with pytest.raises(ti.InputError, match=r'`mode="full_pair"` excludes all 37 training items'):
            found.exclusions(mode="full_pair")
        assert len(found.exclusions(mode="full_pair", max_exclusions=3)) == 3


def test_constant_columns_do_not_count() -> None:
    scores = [[-9.0, -9.0, 0.0], [-9.0, 1.0, 0.0], [-9.0, 2.0, 0.0]]
    assert table(scores).live == [1]
    assert chosen(scores) == ["a_b"]
    assert chosen(scores, min_occurrences=2) == []
    with pytest.raises(ti.InputError, match="2 columns without two different scores"):
        chosen([[0.0, -9.0], [0.0, -9.0]])


def test_thresholds_are_strict_and_missing_scores_count_nowhere() -> None:
    assert chosen([[-5.0], [-5.1], [torch.nan], [7.0]]) == ["b_a"]
    assert chosen([[-1.0], [2.0], [torch.nan], [7.0]], upper_threshold=2) == ["c_d"]
    assert chosen([[-9.0], [2.0], [3.0], [7.0]], threshold=-5, upper_threshold="90%") == ["a_b", "c_d"]


def test_counts_by_threshold_and_occurrences() -> None:
    scores = table([[-9.0, -6.0], [-7.0, 1.0], [0.0, 2.0], [1.0, 3.0]])
    assert counts(scores, Rule(), (1, 2, 3)) == [2, 1, 0]
    assert counts(scores, Rule(threshold=-8), (1, 2)) == [1, 0]
    assert counts(scores, Rule(mode="full_pair"), (1, 2)) == [2, 2]


@pytest.mark.parametrize("share", ["5%", "37.5%", "90%"])
def test_a_quantile_is_that_of_all_live_scores(share: str) -> None:
    values = torch.randn(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    values[:, 1], values[3, 2] = 4.0, torch.nan
    ids = [f"{chr(97 + row)}_z" for row in range(20)]
    lower, upper = Rule(threshold=share).limits(table(values.tolist(), ids=ids))
    live = values[:, [0, 2]]
    assert upper is None
    assert lower == pytest.approx(np.quantile(live[~live.isnan()].numpy(), float(share[:-1]) / 100), rel=1e-12)


# Order, modes, limits


def test_the_most_harmful_come_first() -> None:
    assert chosen([[-6.0, 9.0], [-7.0, -1.0], [-20.0, 5.0], [1.0, 1.0]]) == ["a_c", "b_a", "a_b"]
    assert chosen([[-6.0, 9.0], [-7.0, -1.0], [-20.0, 5.0], [1.0, 1.0]], max_exclusions=2) == ["a_c", "b_a"]


def test_a_share_is_of_the_pairs_and_takes_none_that_helped() -> None:
    scores = [[-1.0], [-3.0], [2.0], [-2.0], [5.0], [1.0]]
    assert chosen(scores, drop="50%") == ["b_a", "c_d", "a_b"]
    assert chosen(scores, drop="34%") == ["b_a", "c_d"]
    assert chosen(scores, drop="100%") == ["b_a", "c_d", "a_b"]
    assert chosen(scores, drop="50%", max_exclusions=1) == ["b_a"]


def test_self_influence_is_excluded_above_a_threshold_and_never_below_one() -> None:
    scores = [[1.0], [8.0], [2.0], [9.0], [0.0], [3.0]]
    assert chosen(scores, of_self=True) == ["c_d"]  # above the quantile 95%
    assert chosen(scores, of_self=True, upper_threshold=7) == ["c_d", "b_a"]
    assert chosen(scores, of_self=True, drop="34%") == ["c_d", "b_a"]
    with pytest.raises(ti.UsageError, match="Set `upper_threshold`, which excludes the hard pairs above it"):
        chosen(scores, of_self=True, threshold=-5)


def test_mirrors_are_listed_if_asked_for_and_counted_otherwise() -> None:
    scores = table([[-9.0], [1.0], [2.0], [-7.0], [3.0]])
    found = choose(Rule(), scores)
    assert (found.ids, found.mirrored) == (["a_b", "c_d"], 1)
    both = choose(Rule(with_mirrors=True), scores)
    assert (both.ids, both.mirrored) == (["a_b", "b_a", "c_d"], 0)
    assert both.rows[1].reason == "the other order of a_b"
    assert choose(Rule(with_mirrors=True, max_exclusions=1), scores).ids == ["c_d"]  # two lines do not fit


def test_full_pair_lists_items_and_all_their_pairs_go() -> None:
    found = choose(Rule(mode="full_pair"), table([[-9.0], [1.0], [2.0], [3.0], [4.0], [5.0]]))
    assert found.ids == ["a", "b"]
    assert found.kept.tolist() == [False, False, False, True, False, False]
    assert repr(found) == "Exclusions(2 items, 5 of 6 pairs; first a)"
    assert "in 1 chosen pair; first a_b: influence below -5 on 1 of 1 live test pair" in found.rows[0].reason
    unnamed = replace(table([[-9.0], [1.0]]), items={})
    with pytest.raises(ti.InputError, match="needs pair ids of the form ID1_ID2"):
        choose(Rule(mode="full_pair"), unnamed)


def test_a_list_that_empties_a_class_or_the_training_is_refused() -> None:
    with pytest.raises(ti.InputError, match="excludes all 2 training pairs"):
        chosen([[-9.0], [-8.0]])
    classes = {"a": "low", "b": "low", "c": "mid", "d": "high"}
    scores = table([[-9.0], [1.0], [-8.0], [-7.0], [3.0]], classes=classes)
    with pytest.raises(ti.InputError, match=r"excludes all 2 pairs of class mid\. Expected some of each class"):
        choose(Rule(), scores)
    assert choose(Rule(max_exclusions=2), scores).ids == ["a_b", "a_c"]
    # the other order of a listed pair goes too when the list is applied
    with pytest.raises(ti.InputError, match="excludes all 2 training pairs"):
        chosen([[-9.0], [1.0]])


# Several results


def test_several_results_are_one_table_whose_parts_are_kept_from_emptying() -> None:
    first, second = table([[-9.0], [1.0], [2.0]]), table([[-6.0], [4.0]], ids=["x_y", "x_z"])
    both = joined([first, second])
    assert choose(Rule(), both).ids == ["a_b", "x_y"]
    with pytest.raises(ti.InputError, match="excludes all 2 training pairs"):
        choose(Rule(upper_threshold=3, threshold=-5), both)
    other = replace(table([[-8.0], [-6.0], [3.0]]), tests=("q9",))
    assert choose(Rule(min_occurrences=2), joined([first, other])).ids == ["a_b"]
    assert joined([first, first]).scores.equal(first.scores)


def test_results_that_contradict_each_other_are_refused() -> None:
    first = table([[-9.0], [1.0]])
    with pytest.raises(ti.InputError, match="has another score of pair 'b_a' on test pair 'q0'"):
        joined([first, table([[-9.0], [2.0]])])
    with pytest.raises(ti.InputError, match="holds influence and `file` self-influence"):
        joined([first, table([[9.0], [2.0]], of_self=True)])


# Flips


def margins(*wrong: str) -> dict[str, float]:
    return {name: -1.0 if name in wrong else 1.0 for name in ("a_b", "b_a", "a_c", "c_d", "d_b", "d_a")}


def test_flips_by_influence_are_opponents_of_most_test_pairs_that_are_misranked() -> None:
    scores = [[-1.0, -2.0, -1.0, 3.0], [-4.0, -2.0, 1.0, 3.0], [-1.0, -1.0, -1.0, -1.0], [1.0, 2.0, 3.0, 4.0]]
    found = suggested_flips(table(scores, margins=margins("a_b", "b_a", "c_d")), Rule())
    assert found.ids == ["a_b"]  # b_a is negative on half of them, a_c ranked correctly
    assert found.rows[0].reason.startswith(
        "label looks inverted: influence negative on 3 of 4 live test pairs, sum -1;"
    )
    assert repr(found) == "Flips(1 pair of 4; first a_b)"
    with pytest.raises(ti.InputError, match="2 live test columns, too few"):
        suggested_flips(table([row[:2] for row in scores]), Rule())
    with pytest.raises(ti.UsageError, match="has no effect on flips by influence"):
        suggested_flips(table(scores), Rule(upper_threshold=1))


def test_flips_without_margins_are_outliers() -> None:
    scores = [[-90.0] * 3, [-1.0] * 3, [0.5, 1.0, 1.0], [1.0] * 3, [1.0, 2.0, 1.0], [2.0] * 3]
    assert suggested_flips(table(scores), Rule()).ids == ["a_b"]


def test_flips_by_self_influence_need_margins() -> None:
    scores = [[1.0], [8.0], [2.0], [9.0], [0.0], [3.0]]
    found = suggested_flips(table(scores, of_self=True, margins=margins("b_a", "a_b")), Rule(upper_threshold=7))
    assert found.ids == ["b_a"]
    with pytest.raises(ti.InputError, match="JSON files do not hold whether the model ranks"):
        suggested_flips(table(scores, of_self=True), Rule())


def test_planted_flips_are_found(embedded_500hz: object) -> None:
    task = ti.sources.demo(num_test=40)
    rows = torch.randperm(len(task.train_pairs), generator=torch.Generator().manual_seed(0))[:22]
    pairs = task.train_pairs
    target = pairs.target.clone()
    target[rows] *= -1
    flipped = ti.Pairs(pairs.first, pairs.second, target, count=pairs.count)
    job = replace(task, train=flipped, loss=ti.MarginRankingLoss(10.0))  # GHM weights hide wrong labels
    ids = job.all_item_ids
    planted = {f"{ids[int(pairs.first[row])]}_{ids[int(pairs.second[row])]}" for row in rows}
    for found in (ti.influence(job).flips(), ti.self_influence(job).flips()):
        right = sum(pair in planted for pair in found.ids)
        assert right >= 12
        assert right >= 0.8 * len(found)


# Python, rules and files


def test_results_and_their_files_give_the_same_list(tmp_path: Path) -> None:
    task = small_task(item_ids=list("abcdef"))
    for result in (ti.influence(task), ti.self_influence(task)):
        given: dict[str, Any] = {"drop": "50%"}
        expected = result.exclusions(**given)
        assert len(expected)
        for ending in ("json", "csv", "parquet"):
            found = ti.load(result.save(tmp_path / f"{result.KIND}.{ending}"))
            assert isinstance(found, ti.Influence | ti.SelfInfluence)
            assert found.exclusions(**given).rows == expected.rows


@pytest.mark.parametrize("wrong", ["five", "", "nan", "inf", "0%", "100%", "-5%", "5 %%"])
def test_a_threshold_that_is_none_is_refused(wrong: str) -> None:
    with pytest.raises(ti.UsageError, match="`threshold` should be a"):
        parsed(wrong, "threshold")


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"drop": "5"}, "`drop` should be a percentage such as 5%"),
        ({"drop": "0%"}, "`drop` should be above 0%"),
        ({"drop": "5%", "threshold": -5}, "`drop` cannot be combined"),
        ({"drop": "5%", "min_occurrences": 2}, "`drop` cannot be combined"),
        ({"max_exclusions": 0}, "`max_exclusions` should be at least 1"),
        ({"min_occurrences": 0}, "`min_occurrences` should be at least 1"),
        ({"mode": "both"}, "`mode` should be 'ranking_pair' or 'full_pair'. Got 'both'"),
    ],
)
def test_rules_that_are_wrong_in_themselves(rule: dict[str, Any], words: str) -> None:
    with pytest.raises(ti.UsageError, match=re.escape(words)):
        Rule(**rule)


def test_a_text_file_has_one_id_per_line_and_the_reason_above_it(tmp_path: Path) -> None:
    found = choose(Rule(), table([[-9.0], [1.0], [2.0], [-7.0]]))
    path = found.save(tmp_path / "list.txt")
    assert path.read_text() == (
        "# tracin-func exclude: 2 pairs to exclude, of 4 training pairs\n"
        "# influence below -5 on 1 of 1 live test pair; lowest -9, sum -9\na_b\n"
        "# influence below -5 on 1 of 1 live test pair; lowest -7, sum -7\nc_d\n"
    )
    assert read_lines(path) == found.ids


def test_a_table_and_a_mask(tmp_path: Path) -> None:
    found = choose(Rule(), table([[-9.0], [1.0], [2.0], [-7.0]]))
    rows = pyarrow.parquet.read_table(found.save(tmp_path / "list.parquet")).to_pylist()
    assert [(row["id"], row["kind"], row["score"]) for row in rows] == [("a_b", "pair", -9), ("c_d", "pair", -7)]
    mask = np.load(found.save(tmp_path / "list.npy"))
    assert mask.tolist() == [False, True, True, False]
    assert np.load(found.save(tmp_path / "other", format="mask")).tolist() == mask.tolist()
    with pytest.raises(ti.UsageError, match="`format` should be one of text, parquet, mask"):
        found.save(tmp_path / "list", format="xml")


@pytest.mark.parametrize("ending", ["txt", "parquet", "npy"])
def test_an_earlier_list_is_replaced_and_no_other_file(tmp_path: Path, ending: str) -> None:
    path, found = tmp_path / f"list.{ending}", choose(Rule(), table([[-9.0], [1.0], [2.0]]))
    found.save(path)
    before = path.read_bytes()
    choose(Rule(threshold=-20), table([[-9.0], [1.0], [2.0]])).save(path)
    assert path.read_bytes() != before
    if ending == "parquet":
        pyarrow.parquet.write_table(pyarrow.table({"first": ["a"]}), path)
    elif ending == "npy":
        np.save(path, np.zeros(3))
    else:
        path.write_text("clip_1\n")
    before = path.read_bytes()
    with pytest.raises(ti.InputError, match="exists and is not a list that tracin-func has written"):
        found.save(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["#_b", " _b", "a_\n"])
def test_an_id_that_is_no_line_is_not_written_as_text(tmp_path: Path, name: str) -> None:
    found = choose(Rule(), table([[-9.0], [1.0], [2.0]], ids=[name, "b_a", "a_c"]))
    with pytest.raises(ti.InputError, match="cannot be a line of a text file"):
        found.save(tmp_path / "list.txt")
    assert [row["id"] for row in pyarrow.parquet.read_table(found.save(tmp_path / "l.parquet")).to_pylist()] == [name]
    assert not (tmp_path / "list.txt").exists()


def test_a_tensor_of_100_000_pairs_takes_seconds() -> None:
    values: Tensor = torch.randn(100_000, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ids = tuple(f"a{row}_b{row}" for row in range(len(values)))
    items = {name: (f"a{row}", f"b{row}") for row, name in enumerate(ids)}
    big = ScoreTable((TrainingPairs("`f`", ids, items, {}),), ids, items, tuple("12345"), values, False, {})
    found = choose(Rule(threshold="1%", min_occurrences=2), big)
    low = np.quantile(values.numpy(), 0.01)
    assert len(found) == int(((values < low).sum(dim=1) >= 2).sum())

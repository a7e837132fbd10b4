"""Saved scores come back as the class that was saved; what a file does not hold is an error and never invented."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import tracin_func as ti
from tests.support.places import DATA
from tests.support.scored import both_scores, small_scores, small_self
from tracin_func.results.frame import PairRecord
from tracin_func.results.partial import held
from tracin_func.results.run import Run
from tracin_func.results.scored import Loaded

SUFFIXES = ["json", "csv", "parquet"]
SELF = "tracin_self_influence"
SJLT = ti.Projection("sjlt", 2)


def written(path: Path, document: Any) -> Path:
    path.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
    return path


@pytest.mark.parametrize("projection", [None, SJLT], ids=["exact", "projected"])
@pytest.mark.parametrize("per_checkpoint", [False, True])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_both_kinds_come_back(
    suffix: str, per_checkpoint: bool, projection: ti.Projection | None, tmp_path: Path
) -> None:
    both = both_scores(projection)
    for saved in (both.self_influence, both.influence):
        assert saved is not None
        path = saved.save(tmp_path / f"{saved.KIND}.{suffix}", per_checkpoint=per_checkpoint)
        found = ti.load(path)
        assert type(found) is type(saved)
        assert (found.ids, len(found)) == (saved.ids, 4)
        if per_checkpoint:
            assert torch.equal(found.per_checkpoint, saved.per_checkpoint)
        assert torch.equal(found.scores, saved.scores)
        assert (found.standard_error is None) == (projection is None)
        if saved.standard_error is not None:
            torch.testing.assert_close(found.standard_error, saved.standard_error)
        assert found.provenance == saved.provenance | {"source": {}}
        assert found.by("item") == saved.by("item")
        again = found.save(tmp_path / f"again.{suffix}", per_checkpoint=per_checkpoint)
        assert torch.equal(ti.load(again).scores, found.scores)
        again.unlink()
        if suffix == "json":
            found.save(again, per_checkpoint=per_checkpoint)
            assert again.read_bytes() == path.read_bytes()
            again.unlink()


def test_both_orders_of_a_pair_are_merged_under_the_key_that_is_there(tmp_path: Path) -> None:
    path = small_self().save(tmp_path / "own.json")
    other = written(tmp_path / "other.json", {"é1_é0": {"note": "mine"}})
    ti.load(path).save(other)
    assert json.loads(other.read_text())["é1_é0"] == {"note": "mine", SELF: float(small_self().scores[0])}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_not_there_says_so(suffix: str, tmp_path: Path) -> None:
    found = ti.load(small_scores().save(tmp_path / f"scores.{suffix}"))
    assert isinstance(found, ti.Influence)
    asked = {
        "per_checkpoint": lambda: found.to_pandas(per_checkpoint=True),
        "inactive": lambda: found.inactive,
        "loss": lambda: found.train.loss,
    }
    for name, ask in asked.items():
        with pytest.raises(ti.InputError, match=rf"scores.{suffix}` lacks '{name}'. Recompute"):
            ask()
    with pytest.raises(ti.InputError, match="'per_checkpoint'"):
        found.save(tmp_path / f"more.{suffix}", per_checkpoint=True)
    assert "checkpoint" not in repr(found)
    assert found.self_influence is None
    assert not hasattr(found, "per_checkpoint")
    assert not hasattr(found.train, "loss")
    assert not hasattr(found, "inactive")
    assert hasattr(found, "scores")


def test_names_of_ones_own(tmp_path: Path) -> None:
    both = both_scores()
    assert both.self_influence is not None
    assert both.influence is not None
    own = ti.load(both.self_influence.save(tmp_path / "own.json", column="mine"))
    assert (type(own), own.column) == (ti.SelfInfluence, "mine")
    path = both.influence.save(tmp_path / "cross.json", column="mine")
    named = ti.load(path)
    assert isinstance(named, ti.Influence)
    assert (named.column, named.test_ids) == ("mine", both.influence.test_ids)
    assert ti.load(named.save(tmp_path / "again.json", column="theirs")).column == "theirs"
    record = json.loads((tmp_path / "cross.json.provenance.json").read_text())
    for origin in record["columns"].values():  # as command lines have recorded it before
        origin["options"] = {"score_name": origin.pop("score_name")}
    written(tmp_path / "cross.json.provenance.json", record)
    assert ti.load(path).column == "mine"
    (tmp_path / "cross.json.provenance.json").unlink()
    with pytest.raises(ti.InputError, match=r"holds scores of unknown meaning: mine_é4_é0, .* name with `column`\."):
        ti.load(path)
    again = ti.load(path, column="mine")
    assert isinstance(again, ti.Influence)
    assert again.test_ids == both.influence.test_ids
    with pytest.raises(ti.InputError, match=r'`column="yours"` not found in `.*`\. Names of its scores: mine_é4_é0, '):
        ti.load(path, column="yours")
    assert ti.load(both.influence.save(tmp_path / "cross.csv", column="mine")).column == "mine"


def test_items_named_by_numbers_are_not_taken_for_checkpoints(tmp_path: Path) -> None:
    scores = {f"0_{test}": float(test) for test in (2, 3)}
    path = written(tmp_path / "x.json", {"0_1": {f"tracin_influence_{test}": score for test, score in scores.items()}})
    origin = {"score": "influence", "checkpoints": [{"name": "2"}, {"name": "3"}]}
    written(
        tmp_path / "x.json.provenance.json",
        {"format": 1, "columns": {f"tracin_influence_{test}": origin for test in scores}},
    )
    found = ti.load(path)
    assert isinstance(found, ti.Influence)
    assert (found.test_ids, found.scores.tolist()) == (("0_2", "0_3"), [[2.0, 3.0]])


@pytest.mark.parametrize("name", ["plastic_500hz_influence", "plastic_1000hz_influence", "plastic_1000hz"])
def test_files_of_the_lab(name: str, tmp_path: Path) -> None:
    path = Path(shutil.copy(DATA / f"{name}_metadata.json", tmp_path))
    found, table = ti.load(path), json.loads(path.read_text())
    assert isinstance(found, ti.Influence)
    assert (found.ids, found.provenance) == (tuple(table), {})
    columns = table[found.ids[0]]
    assert len(found.test_ids) == len(columns) - (SELF in columns)
    for place, test in enumerate(found.test_ids):
        values = [row[f"tracin_influence_{test}"] for row in table.values()]
        plain = [value["tracin_influence"] if isinstance(value, dict) else value for value in values]
        assert found.scores[:, place].tolist() == plain
    own = [row[SELF] for row in table.values() if SELF in row]
    assert (found.self_influence is None) == (not own)
    if found.self_influence is not None:
        assert found.self_influence.scores.tolist() == own
    assert len(found.by("item", test=0)) == len({item for pair in found.train.items for item in pair})
    assert ti.load(found.save(tmp_path / "again.csv")).scores.tolist() == found.scores.tolist()
    assert found.save(path) == path.resolve()  # into the nested values, whose neighbours stay
    assert json.loads(path.read_text()) == table


def test_values_that_are_no_numbers_are_missing(tmp_path: Path) -> None:
    path = written(
        tmp_path / "x.json",
        '{"a_b": {"tracin_influence_c_d": 1.5, "tracin_influence_e_f": null}, "odd": {"tracin_influence_c_d": "high"}, '
        '"b_c": {"tracin_influence_c_d": NaN, "tracin_influence_e_f": -2}}',
    )
    found = ti.load(path)
    assert isinstance(found, ti.Influence)
    assert found.ids == ("a_b", "b_c")
    assert [[math.isnan(score) for score in row] for row in found.scores.tolist()] == [[False, True], [True, False]]
    assert (found.proponents("c_d"), found.opponents("c_d")) == ([("a_b", 1.5)], [])
    assert found.opponents("e_f") == [("b_c", -2.0)]
    assert found.to_pandas().isna().sum().tolist() == [1, 1]
    saved = json.loads(found.save(tmp_path / "y.json").read_text())
    assert saved == {"a_b": {"tracin_influence_c_d": 1.5}, "b_c": {"tracin_influence_e_f": -2.0}}
    assert found.save(tmp_path / "y.csv").read_text().splitlines()[2] == "a_b,a,b,e_f,"


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"a_b": {"x": 1.0}}, "holds scores of unknown meaning: x"),
        (
            {"a_b": {"tracin_influence_c_d": 1.0, "tracin_cosine_influence_c_d": 1.0}},
            "holds scores of several names: tracin_influence, tracin_cosine_influence",
        ),
        ({"a_b": {"x": "high"}}, "holds no scores"),
    ],
)
def test_what_cannot_be_known(document: Any, words: str, tmp_path: Path) -> None:
    path = written(tmp_path / "x.json", document)
    with pytest.raises(ti.InputError, match=words):
        ti.load(path)
    if "no scores" not in words:
        assert len(ti.load(path, column=next(iter(document["a_b"])).removesuffix("_c_d"))) == 1


def test_a_table_without_provenance(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", "pair,mine\na_b,1.5\n")
    with pytest.raises(ti.InputError, match="holds scores of unknown meaning: mine"):
        ti.load(path)
    assert ti.load(path, column="mine").scores.tolist() == [1.5]
    path = written(tmp_path / "y.csv", "first,second,test_pair,tracin_score_margin_influence\na,b,c_d,-1\n")
    found = ti.load(path)
    assert isinstance(found, ti.Influence)
    assert found.opponents("c_d") == [("a_b", -1.0)]


def test_sums_over_checkpoints_are_equal_to_the_last_bit(tmp_path: Path) -> None:
    steps, pairs, tests = [f"step_{number}" for number in range(9)], range(40), ["a_b", "c_d", "e_f"]
    single = torch.randn(9, 40, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    origin = {"score": "influence", "checkpoints": [{"name": step} for step in steps]}
    train, test = (held(PairRecord, tmp_path, ids=ids, swapped={}) for ids in (tuple(map(str, pairs)), tuple(tests)))
    loaded = Loaded("tracin_influence", None, None, origin)
    run = Run((*origin["checkpoints"],), {}, {}, {}, ())
    saved = ti.Influence(single, train, test, run, loaded=loaded)
    found = ti.load(saved.save(tmp_path / "x.json", per_checkpoint=True))
    assert torch.equal(found.scores, saved.scores)
    for place, name in enumerate(tests):
        best = saved.proponents(name, 1)[0]
        assert best.score == float(saved.scores[:, place].max())


def test_classes_are_those_that_the_record_names_in_ids(tmp_path: Path) -> None:
    path = written(tmp_path / "x.json", {"box_low_1_box_high_2": {SELF: 2.0}, "box_low_1_box_mid_3": {SELF: 1.0}})
    with pytest.raises(ti.InputError, match=r"`classes` is needed for by\('class'\): the class of 'box_high_2' and 2"):
        ti.load(path).by("class")
    origin = {"score": "self", "source": {"kind": "tones", "classes": ["low", "mid", "high"]}}
    written(tmp_path / "x.json.provenance.json", {"format": 1, "columns": {SELF: origin}})
    assert [(each.name, each.mean) for each in ti.load(path).by("class")] == [("high", 2.0), ("low", 1.5), ("mid", 1.0)]

"""The record of a column: complete, writable as JSON, and read with the right sign."""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

import tracin_func as ti
from tracin_func.gradients.device import versions
from tracin_func.results.run import COSINE_UNIT, SIGN, UNIFORM_UNIT, UNIT, Run

PARTS: dict[str, Any] = {
    "source": {"kind": "embedded", "split": {"seed": 42}, "front_end": {"n_fft": 2048}},
    "checkpoints": ({"name": "model_epoch_2.pt", "learning_rate": 0.01},),
    "loss": {"name": "standard", "margin": 1.0},
    "engine": {"name": "item", "chunk": 16},
}
PAIRS = {"drawn": 566, "distinct": 441}
COMMAND = ("tracin-func", "self")


def provenance(score: str, notices: tuple[str, ...] = (), **method: Any) -> dict[str, Any]:
    return Run(**PARTS, notices=notices, method=ti.Method(**method)).provenance(score, PAIRS, COMMAND)


@pytest.mark.parametrize("score", ["self", "influence"])
def test_record_is_json_and_complete(score: str) -> None:
    record = provenance(score)
    assert json.loads(json.dumps(record)) == record
    parts = json.loads(json.dumps({**PARTS, "pairs": PAIRS, "command": COMMAND}))
    assert {name: record[name] for name in parts} == parts
    meaning = "loss" if score == "influence" else "self"
    assert (record["score"], record["sign"], record["unit"]) == (score, SIGN[meaning], UNIT[meaning])
    assert ("test_functional" in record) == (score == "influence")


def test_sign_sentences_say_what_larger_means() -> None:
    assert "larger = harder" in SIGN["self"]
    assert "positive: training on p lowered the loss of q" in SIGN["loss"]
    assert "positive: training on p raised the score margin of q" in SIGN["score-margin"]
    assert "first-order change of the score margin" in UNIT["score-margin"]


def test_a_score_margin_is_said_to_be_one() -> None:
    record = provenance("influence", test_functional="score-margin", weight_test_pairs=True)
    assert (record["sign"], record["unit"]) == (SIGN["score-margin"], UNIT["score-margin"])
    assert (record["test_functional"], record["weight_test_pairs"]) == ("score-margin", True)


def test_other_units_are_said_to_be_others() -> None:
    assert provenance("self", checkpoint_weights="uniform")["unit"] == UNIFORM_UNIT
    assert provenance("influence", normalize="cosine")["unit"] == COSINE_UNIT
    assert "normalize" not in provenance("self", normalize="cosine")


def test_where_it_ran_is_recorded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRACIN_FUNC_MARGIN", "3")
    monkeypatch.chdir(tmp_path)
    record = provenance("self", ("one",))
    assert record["environment"]["TRACIN_FUNC_MARGIN"] == "3"
    assert record["working_folder"] == str(tmp_path)
    assert record["notices"] == ["one"]
    tmp_path.rmdir()
    assert provenance("self")["working_folder"] is None


def test_called_from_python_there_is_no_command() -> None:
    assert Run(**PARTS, notices=()).provenance("self", PAIRS)["command"] is None


def test_versions_are_those_installed() -> None:
    found = versions()
    assert list(found) == ["tracin-func", "torch", "numpy", "python", "platform"]
    assert (found["torch"], found["numpy"]) == (version("torch"), version("numpy"))


def test_unknown_score_is_refused() -> None:
    with pytest.raises(ValueError, match="`score` should be one of 'self', 'influence'. Got 'both'."):
        provenance("both")

"""Marks of excluded pairs in a result file: set, changed and taken back, and nothing else in the file with them."""

import json
from pathlib import Path
from typing import Any

import pytest

from tracin_func.errors import InputError, OutputError
from tracin_func.results.files.marks import mark_excluded
from tracin_func.results.files.read import read_result
from tracin_func.results.files.registry import format_of

TEXT = """{
  "a_b": {
    "tracin_influence_c_d": -9.10,
    "notes": "hum at 50 Hz",
    "tracin_info": {
      "by": "another"
    },
    "angle": 1e2
  },
  "b_a": {
    "tracin_influence_c_d": 1.0,
    "excluded": "maybe"
  },
  "a_c": {
    "tracin_influence_c_d": 2
  }
}"""
FACTS = {"kind": "pair", "score": -9.1}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "scores.json"
    path.write_text(TEXT)
    return path


def mark(path: Path, **reasons: str) -> dict[str, dict[str, Any]]:
    mark_excluded([(path, {pair: FACTS | {"reason": reason} for pair, reason in reasons.items()})])
    found: dict[str, dict[str, Any]] = json.loads(path.read_text())
    return found


def test_marks_are_beside_the_scores_and_foreign_values_stay(path: Path) -> None:
    found = mark(path, a_b="low", b_a="lower")
    assert found["a_b"] == {
        "tracin_influence_c_d": -9.1,
        "angle": 100.0,
        "excluded": True,
        "notes": "hum at 50 Hz; low",
        "tracin_info": {"by": "another", "exclusion": FACTS | {"note": "low"}},
    }
    assert found["b_a"]["excluded"] is True
    assert found["b_a"]["tracin_info"]["exclusion"]["before"] == "maybe"
    assert found["a_c"] == {"tracin_influence_c_d": 2}
    assert "-9.10" in path.read_text()
    assert "1e2" in path.read_text()


def test_a_second_list_replaces_the_marks_of_the_first(path: Path) -> None:
    mark(path, a_b="low", a_c="low")
    found = mark(path, a_b="other")
    assert found["a_b"]["notes"] == "hum at 50 Hz; other"
    assert found["a_c"] == {"tracin_influence_c_d": 2}
    once = path.read_bytes()
    assert mark(path, a_b="other")
    assert path.read_bytes() == once


def test_an_empty_list_gives_the_file_back(path: Path) -> None:
    mark(path, a_b="low", b_a="low", a_c="low")
    assert mark(path) == json.loads(TEXT)


def test_a_note_that_was_edited_since_stays(path: Path) -> None:
    found = mark(path, a_b="low")
    found["a_b"]["notes"] += ", heard on Monday"
    path.write_text(json.dumps(found))
    assert mark(path)["a_b"]["notes"] == "hum at 50 Hz; low, heard on Monday"


@pytest.mark.parametrize(("field", "value"), [("notes", 3), ("notes", ["a"]), ("tracin_info", "text")])
def test_a_field_of_another_form_is_refused_before_any_file_is_changed(path: Path, field: str, value: Any) -> None:
    other = path.with_name("other.json")
    other.write_text(json.dumps({"a_b": {"x": 1.0, field: value}}))
    before = path.read_bytes(), other.read_bytes()
    with pytest.raises(InputError, match=f"`{other}`: '{field}' of pair 'a_b' is"):
        mark_excluded([(path, {"a_b": FACTS | {"reason": "low"}}), (other, {})])
    assert (path.read_bytes(), other.read_bytes()) == before


def test_a_read_only_file_is_refused_before_any_file_is_changed(path: Path) -> None:
    other = path.with_name("other.json")
    other.write_text(TEXT)
    other.chmod(0o444)
    with pytest.raises(OutputError, match="is read-only"):
        mark_excluded([(path, {"a_b": FACTS | {"reason": "low"}}), (other, {})])
    assert path.read_text() == TEXT


def test_marks_are_no_scores_and_no_foreign_columns(path: Path) -> None:
    mark(path, a_b="low")
    found = read_result(path)
    assert list(found.columns) == ["tracin_influence_c_d", "angle"]
    # a column of unknown origin would keep scores of the embedded example out
    assert not {"excluded", "notes", "tracin_info"} & set(format_of(path).columns(path, ()))

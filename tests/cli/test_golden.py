"""The embedded default names exactly the pairs of the lab's own result files, and merges into such files."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.support.lab_files import lab_names
from tests.support.places import DATA
from tracin_func.cli.app import app

ONE = ("--checkpoints", "last:1")  # what survives in a file depends on no number of checkpoints

# Another tone is trained for its rows alone.
of_tones = pytest.mark.parametrize("frequency", ["500hz", pytest.param("1000hz", marks=pytest.mark.thorough)])


@of_tones
def test_influence_has_the_labs_keys_and_columns_in_order(
    frequency: str, embedded_500hz: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["influence", "--num-test", "5", "--frequency", frequency])
    assert result.exit_code == 0, result.output
    scores = json.loads((tmp_path / f"metadata/plastic_{frequency}_influence_metadata.json").read_text())
    keys, columns = lab_names(frequency)
    assert len(keys) == 441
    assert list(scores) == keys
    assert all(list(values) == columns for values in scores.values())
    active = [any(values[column] != 0 for values in scores.values()) for column in columns]
    assert sum(active) >= 4


@of_tones
def test_merged_into_the_labs_influence_file_other_columns_survive(
    frequency: str, embedded_500hz: object, tmp_path: Path
) -> None:
    path = tmp_path / f"plastic_{frequency}_influence_metadata.json"
    # The excerpt is of the 500hz file; the lab's 1000hz file has the same pairs by the other tone.
    excerpt = (DATA / "plastic_500hz_influence_metadata.json").read_text()
    path.write_text(excerpt.replace("500hz", frequency))
    before = json.loads(path.read_text())
    arguments = ["influence", "--num-test", "3", "--frequency", frequency, "--metadata-dir", str(tmp_path), *ONE]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    after = json.loads(path.read_text())
    keys, columns = lab_names(frequency)
    assert list(after)[: len(before)] == list(before)
    assert set(after) == {*before, *keys}
    for pair, values in before.items():
        assert list(after[pair]) == list(values)
        assert all(after[pair][column] == values[column] for column in columns[3:])
        assert any(after[pair][column] != values[column] for column in columns[:3])


@of_tones
def test_merged_into_the_labs_self_file_nested_values_survive(
    frequency: str, embedded_500hz: object, tmp_path: Path
) -> None:
    path = tmp_path / f"plastic_{frequency}_metadata.json"
    # The excerpt is of the 1000hz file; the lab's 500hz file has the same pairs by the other tone.
    path.write_text((DATA / "plastic_1000hz_metadata.json").read_text().replace("1000hz", frequency))
    before = json.loads(path.read_text())
    arguments = ["self", "--frequency", frequency, "--metadata-dir", str(tmp_path), *ONE]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    after = json.loads(path.read_text())
    assert list(after)[: len(before)] == list(before)
    for pair, values in before.items():
        own = "tracin_self_influence"
        assert after[pair][own] != values[own]
        assert {**after[pair], own: values[own]} == values

"""A format of one's own is a module and a line of the registry: results are saved, loaded and shown through it."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch
from typer.testing import CliRunner

import tracin_func as ti
from tests.support.lab import Lab, refused, run
from tests.support.scored import small_scores
from tracin_func.cli.app import app
from tracin_func.results.files.registry import FORMATS
from tracin_func.results.files.table import table_format


def write(stream: BinaryIO, blocks: Iterator[Any], metadata: Mapping[str, str]) -> None:
    """A line of JSON per row."""
    assert {"sign", "unit", "provenance"} <= metadata.keys()
    for block in blocks:
        for row in block.to_pylist():
            stream.write(f"{json.dumps(row)}\n".encode())


def read(path: Path) -> dict[str, list[Any]]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {name: [row[name] for row in rows] for name in rows[0]}


@pytest.fixture
def jsonl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMATS, "jsonl", table_format("jsonl", "JSON lines", write, read))


@pytest.mark.usefixtures("jsonl")
def test_a_toy_format_saves_and_loads(tmp_path: Path) -> None:
    scores = small_scores()
    path = scores.save(tmp_path / "scores.jsonl", per_checkpoint=True)
    found = ti.load(path)
    assert isinstance(found, ti.Influence)
    assert torch.equal(found.per_checkpoint, scores.per_checkpoint)
    assert found.provenance == json.loads(Path(f"{path}.provenance.json").read_text())["columns"]["tracin_influence"]


@pytest.mark.usefixtures("jsonl")
def test_a_toy_format_is_written_and_shown_by_the_commands(lab: Lab) -> None:
    code, _, stderr = run("self", lab, "--format", "jsonl")
    assert code == 0, stderr
    path = lab.results / "box_500hz_metadata.jsonl"
    shown = CliRunner().invoke(app, ["show", str(path)])
    assert shown.exit_code == 0, shown.output
    assert "(JSON lines)" in shown.stdout
    hardest = ti.load(path).hardest(1)[0]  # type: ignore[union-attr]
    assert hardest.pair.replace("_box", "  box") in shown.stdout
    assert "--format should be one of json, csv, parquet, jsonl. Got 'x'." in refused(
        "self", lab, "--format", "x", code=2
    )


def test_without_its_line_the_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ti.UsageError, match=r"`path` should end in .json, .csv or .parquet. Got .*scores.jsonl"):
        small_scores().save(tmp_path / "scores.jsonl")
    assert not list(tmp_path.iterdir())

"""A source of one's own, added through the registry alone, is asked for by its option and runs through the commands."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import nn
from typer.testing import CliRunner, Result

import tracin_func as ti
from tracin_func.cli.app import make_app
from tracin_func.sources.options import DATA, Options, option
from tracin_func.sources.registry import SOURCES, Entry, classes_of_ids, task_from
from tracin_func.sources.settings import Settings
from tracin_func.sources.source import Job, Listener, Source


@dataclass(frozen=True)
class LineOptions:
    """How many points."""

    panel: ClassVar[str] = DATA
    points: int | None = option("Points on a line, the larger the higher.", least=2)


@dataclass(frozen=True)
class Line(Source):
    """Points on a line: each is to score above the one before it."""

    brings: ClassVar[str] = "--points names points on a line"
    unused: ClassVar[Sequence[str]] = ("seed",)
    stem = "line"

    @staticmethod
    def asked(options: Options) -> bool:
        return options[LineOptions].points is not None

    def job(self, listener: Listener, *, with_test: bool = True, streamed: bool = False) -> Job:
        count = self.options[LineOptions].points or 2
        torch.manual_seed(0)
        scorer, settings = nn.Linear(1, 1), Settings(self.options.values)
        rows = range(count - 1)
        pairs = ti.Pairs([row + 1 for row in rows], list(rows), [1] * (count - 1))
        listener.report(f"note: {count} points.")
        task = ti.Task(
            *(scorer, torch.arange(count)[:, None].float(), pairs, [ti.Checkpoint(scorer.state_dict(), 0.5)]),
            loss=settings.loss(),
            test=pairs if with_test else None,
            item_ids=[f"at{row}" for row in range(count)],
            describe={"kind": "line"},
        )
        return Job(task, settings)


def classes(ids: Sequence[str]) -> dict[str, str]:
    return {name: ("even", "odd")[int(name[2:]) % 2] for name in ids if name.startswith("at")}


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOURCES, "line", Entry(LineOptions, f"{__name__}:Line", classes))


def run(*words: str) -> Result:
    return CliRunner().invoke(make_app(), list(words))


def test_its_option_is_in_help_and_starts_it(tmp_path: Path) -> None:
    assert "--points" in run("self", "--help").stdout
    result = run("self", "--points", "4", "--margin", "30", "--metadata-dir", str(tmp_path))
    assert result.exit_code == 0, result.output
    assert "note: 4 points." in result.stderr
    scores = json.loads((tmp_path / "line_metadata.json").read_text())
    assert list(scores) == ["at1_at0", "at2_at1", "at3_at2"]
    record = json.loads((tmp_path / "line_metadata.json.provenance.json").read_text())["columns"]
    assert record["tracin_self_influence"]["source"]["kind"] == "line"
    assert record["tracin_self_influence"]["options"]["points"] == 4
    assert record["tracin_self_influence"]["loss"] == {"loss_type": "standard", "margin": 30.0}
    shown = run("show", str(tmp_path / "line_metadata.json"), "--by", "class", "--json")
    assert shown.exit_code == 0, shown.output
    assert "even" in shown.stdout
    repeated = run("self", "--from", str(tmp_path / "line_metadata.json.provenance.json"))
    assert repeated.exit_code == 0, repeated.output


def test_its_options_are_checked_and_are_no_other_sources(tmp_path: Path) -> None:
    refused = {
        ("--points", "1"): "error: --points should be at least 2. Got 1.",
        ("--points", "3", "--seed", "1"): "--seed cannot be used here: --points names points on a line.",
        ("--points", "3", "--task", "x.py:x"): "--points cannot be used here: --task brings its own data",
    }
    for words, line in refused.items():
        result = run("self", *words, "--metadata-dir", str(tmp_path))
        assert result.exit_code == 2
        assert line in result.stderr
    with pytest.raises(ti.UsageError, match="`pionts` is not an option of line"):
        task_from("line", {"pionts": 3})


def test_it_makes_tasks_in_python_and_knows_the_classes_of_its_ids() -> None:
    assert len(task_from("line", {"points": 5}).items) == 5
    assert classes_of_ids(["at2", "at3", "box_deg036_1"]) == {"at2": "even", "at3": "odd", "box_deg036_1": "deg036"}


def test_its_items_can_be_queried(tmp_path: Path) -> None:
    result = run("influence", "--points", "4", "--query", "at3,at0,1", "--metadata-dir", str(tmp_path))
    assert result.exit_code == 0, result.output
    scores = json.loads((tmp_path / "line_influence_metadata.json").read_text())
    assert list(scores["at1_at0"]) == ["tracin_influence_at3_at0"]
    result = run("influence", "--points", "4", "--query-audio", "a.wav", "b.wav", "--metadata-dir", str(tmp_path))
    assert (result.exit_code, "--query-audio needs recordings" in result.stderr) == (2, True)
    test = task_from("line", {"points": 4, "query": ["at3,at0", "at0,at3"]}).test
    assert test is not None
    assert sorted(test.target.tolist()) == [-1, 1]


def test_the_example_takes_no_data_of_others() -> None:
    with pytest.raises(ti.UsageError, match="`checkpoint_dir` was given, and the embedded example brings its own"):
        ti.sources.demo(checkpoint_dir="elsewhere")


def test_the_module_lists_its_functions_only() -> None:
    assert dir(ti.sources) == ["demo", "python", "recordings"]

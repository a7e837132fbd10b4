"""`tracin-func doctor`: what it tells of a machine, and that an engine that computes wrongly does not pass."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from tests.support.places import ROOT
from tracin_func.cli.app import app
from tracin_func.files import CACHE_VARIABLE
from tracin_func.gradients.compute import Compute
from tracin_func.gradients.engines.ghost.engine import GhostEngine
from tracin_func.gradients.engines.registry import engine_names
from tracin_func.gradients.factors import Contribution
from tracin_func.gradients.protocol import Differentiate
from tracin_func.report.terminal import doctor as health
from tracin_func.results.influence import Influence, SelfInfluence
from tracin_func.results.verification import TOLERANCE, Entry, Verification
from tracin_func.scoring import selftest
from tracin_func.scoring.observer import LOG, Observer
from tracin_func.scoring.verify import Verifying


def doctor(*options: str, **environment: str) -> tuple[int, str, str]:
    result = CliRunner(env=environment).invoke(app, ["doctor", *options])
    assert "Traceback" not in result.stderr
    return result.exit_code, result.stdout, result.stderr


def spoil(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    """The engine ghost takes gradients of a wrong length."""
    right = GhostEngine.differentiate

    def longer(part: Contribution) -> Contribution:
        return part * factor if isinstance(part, Tensor) else replace(part, rows=part.rows * factor)

    def wrong(*arguments: Any) -> Differentiate:
        differentiate = right(*arguments)

        def spoilt(batch: Any, index: Tensor) -> tuple[dict[str, Contribution], Tensor]:
            gradients, values = differentiate(batch, index)
            return {name: longer(part) for name, part in gradients.items()}, values

        return spoilt

    monkeypatch.setattr(GhostEngine, "differentiate", wrong)


@pytest.fixture(scope="module")
def examined(cache_of_the_tests: None) -> health.Health:
    return health.examine()


@pytest.fixture
def untested(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the self-test, which takes the time."""
    monkeypatch.setattr(health, "selftest", lambda engines, devices: [])


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_machine_that_is_well(width: int, examined: health.Health) -> None:
    health.require_health(examined)
    lines = examined.text(width).splitlines()
    assert width * 0.6 < max(map(len, lines)) <= width
    assert f"  torch        {version('torch')}" in lines
    for engine in engine_names()[1:]:
        (line,) = [line for line in lines if line.split()[:2] == ["cpu", engine]]
        assert line.endswith("  ok")
    assert any(line.startswith("  auto  uses ") for line in lines)
    assert lines[-1].startswith("passed: all ")


def test_it_is_as_wide_as_the_terminal(untested: None) -> None:
    widths = [max(map(len, doctor(COLUMNS=columns)[1].splitlines())) for columns in ("60", "120")]
    assert widths[0] <= 60 < widths[1] <= 120


def test_json_is_one_document() -> None:
    code, stdout, stderr = doctor("--json", TRACIN_FUNC_MARGIN="10")
    assert (code, stderr) == (0, "")
    found = json.loads(stdout)
    assert list(found) == ["passed", "versions", "devices", "auto", "packages", "cache", "environment", "selftest"]
    assert found["passed"] is True
    assert found["environment"]["TRACIN_FUNC_MARGIN"] == "10"
    assert found["cache"] == {"folder": f"{os.environ[CACHE_VARIABLE]}/embedded", "writable": True}
    tested = found["selftest"]["outcomes"]
    assert {outcome["engine"] for outcome in tested if outcome["device"] == "cpu"} == set(engine_names()[1:])
    assert all(0 < outcome["deviation"] < 1e-5 for outcome in tested), "float32 is not float64"


def test_a_wrong_engine_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, 1 + TOLERANCE)
    code, stdout, stderr = doctor()
    assert code == 1
    verdicts = {line.split()[1]: line.split()[-1] for line in stdout.splitlines() if line.startswith("  cpu     ")}
    assert verdicts == {"ghost": "FAILED", "item": "ok", "pair": "ok", "loop": "ok"}
    assert stderr.startswith("error: the self-test FAILED: ghost on cpu. Scores from there would be wrong.")
    assert stderr.count("\n") == 1


@pytest.mark.parametrize("wrong", ["self_influence", "influence"])
def test_one_wrong_score_of_either_kind_shows(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = Verifying.compare

    def compare(verifying: Verifying, own: SelfInfluence | None, influence: Influence | None) -> Verification:
        found = {"self_influence": own, "influence": influence}
        result: Any = found[wrong]
        values = result.per_checkpoint.clone()
        values.flatten()[-1] *= 1.01
        found[wrong] = replace(result, per_checkpoint=values)
        return right(verifying, *found.values())  # type: ignore[arg-type]

    assert all(outcome.passed for outcome in selftest.selftest(["item"], ["cpu"]))
    monkeypatch.setattr(Verifying, "compare", compare)
    (outcome,) = selftest.selftest(["item"], ["cpu"])
    assert outcome.deviation is not None
    assert outcome.deviation > TOLERANCE


@pytest.mark.parametrize("deviation", [float("nan"), float("inf")])
def test_scores_that_are_nan_fail(deviation: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Entry, "deviation", deviation)
    code, stdout, _ = doctor("--json")
    assert code == 1
    found = json.loads(stdout, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert found["passed"] is False
    assert {outcome["deviation"] for outcome in found["selftest"]["outcomes"]} == {None}


def test_an_engine_that_breaks_is_told_and_the_others_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no kernel image is available\nand more")

    monkeypatch.setattr(GhostEngine, "differentiate", broken)
    code, stdout, stderr = doctor()
    assert code == 1
    assert "    RuntimeError: no kernel image is available\n" in stdout
    assert "and more" not in stdout
    assert stdout.count("  ok\n") == len(engine_names()) - 2
    assert "ghost on cpu" in stderr


def test_a_device_that_is_left_for_another_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = selftest._scores

    def on_the_cpu(task: Any, compute: Compute, observer: Observer = LOG) -> Any:
        observer.notice("mps: gradients differ from the CPU's by 3.0e-02; continuing on the CPU.")
        return plain(task, Compute(compute.engine, "cpu", compute.dtype, compute.batch_size))

    monkeypatch.setattr(selftest, "_scores", on_the_cpu)
    monkeypatch.setattr(health, "_usable", lambda: ["mps"])
    code, stdout, stderr = doctor()
    assert code == 1
    assert "    continued on cpu: gradients on mps deviate too far\n" in stdout
    assert "  mps, ghost: mps: gradients differ from the CPU's by 3.0e-02" in stdout
    assert "ghost on mps, item on mps" in stderr


def test_cards_are_named_with_their_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda name: f"Card {name}")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (60 * 10**9, 80 * 10**9))
    assert health._usable()[:3] == ["cpu", "cuda:0", "cuda:1"]
    found = health._devices()
    assert found["cuda:1"] == "Card cuda:1; 60.0 of 80.0 GB free"
    assert "cuda" not in found


def test_optional_packages(monkeypatch: pytest.MonkeyPatch, untested: None) -> None:
    monkeypatch.setattr(health, "_version", lambda package: "3.1.1" if package == "pandas" else None)
    stdout = doctor(COLUMNS="120")[1]
    assert "  pandas  3.1.1; for to_pandas of results\n" in stdout
    assert "captum" not in stdout, "of use in benchmarks/ only"
    monkeypatch.setattr(health, "_version", lambda package: "0.9" if package == "captum" else None)
    stdout = doctor(COLUMNS="120")[1]
    assert "  captum  0.9; for comparisons in benchmarks/\n" in stdout
    assert '  pandas  not installed: pip install "tracin-func[pandas]"; for to_pandas of results\n' in stdout


def test_variables(monkeypatch: pytest.MonkeyPatch, untested: None) -> None:
    monkeypatch.delenv(CACHE_VARIABLE)
    assert "  no variable TRACIN_FUNC_* is set\n" in doctor(COLUMNS="80", HOME=os.environ.get("HOME", "/"))[1]
    stdout = doctor(TRACIN_FUNC_MARGIN="10", TRACIN_FUNC_DATAROOT="x", **{CACHE_VARIABLE: "/tmp"})[1]
    facts = {line.split()[0]: line for line in stdout.splitlines() if line.startswith("  TRACIN_FUNC_")}
    assert [name for name, line in facts.items() if "not a variable of any option" in line] == ["TRACIN_FUNC_DATAROOT"]
    assert len(facts) == 3


def test_the_cache_is_looked_at_and_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, untested: None) -> None:
    folder = tmp_path / "new" / "cache"
    assert f"{folder}/embedded (writable)" in doctor(COLUMNS="200", **{CACHE_VARIABLE: str(folder)})[1]
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    code, stdout, _ = doctor(COLUMNS="200", **{CACHE_VARIABLE: str(tmp_path / "file" / "cache")})
    assert code == 0, "a folder for temporary files is used"
    assert "cache/embedded is NOT writable; a folder for temporary files is used instead." in stdout
    monkeypatch.setattr(health, "cache_dir", lambda: None)
    assert "no home folder; a folder for temporary files is used instead." in doctor(COLUMNS="200")[1]


def test_random_numbers_are_its_own() -> None:
    before = torch.get_rng_state()
    first, second = ([outcome.deviation for outcome in selftest.selftest(["loop"], ["cpu"])] for _ in range(2))
    assert first == second
    assert torch.equal(torch.get_rng_state(), before)


def test_as_a_process_whose_reader_leaves() -> None:
    command = f"{sys.executable} cli.py doctor | head -n 1"
    folder = ROOT
    result = subprocess.run(command, cwd=folder, shell=True, capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == ("Versions\n", "")

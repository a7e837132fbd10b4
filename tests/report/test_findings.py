"""What a report says first and last: findings, warnings, queries, and commands that do what their sentence says."""

import html
import json
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.support.lab import Lab
from tests.support.places import DATA
from tracin_func.cli.app import app
from tracin_func.report.content.analysis import Analysis, analyse
from tracin_func.report.content.candidates import candidates
from tracin_func.report.content.evidence import from_files
from tracin_func.report.content.sentences import commands, findings, parts_of, warnings
from tracin_func.report.languages.registry import sayer
from tracin_func.results.comparison import compare

SAY = sayer("en")
OLDER = sorted(DATA.glob("plastic_*_metadata.json"))
SELF, TEST = "tracin_self_influence", "tracin_influence_"
CLASSES = (0, 36, 72, 108)


@pytest.fixture
def scored(tmp_path: Path) -> Path:
    """Self-influence and influence on two test pairs, one of which no pair explains, of 120 pairs of four classes."""
    items = [f"box_deg{CLASSES[n % 4]:03}_500hz_{n:02}" for n in range(18)]
    pairs = [f"{a}_{b}" for place, a in enumerate(items) for b in items[place + 1 :] if a[:10] != b[:10]][:120]
    tests = [f"{TEST}box_deg000_500hz_{n}_box_deg036_500hz_{n}" for n in (30, 31, 32)]
    document = {
        pair: {
            SELF: float(min(90, n * 37 % 101)),
            tests[0]: {"tracin_influence": (n * 29 % 103 - 30) / 2},
            tests[1]: {"tracin_influence": (n * 53 % 107 - 40) / 4},
            tests[2]: {"tracin_influence": 0.0},
        }
        for n, pair in enumerate(pairs)
    }
    path = tmp_path / "box_500hz_metadata.json"
    path.write_text(json.dumps(document))
    return path


def of(*paths: Path) -> Analysis:
    return analyse(from_files(paths))


def plain(sentence: str) -> str:
    return "".join(part for part, _ in parts_of(sentence))


def test_a_list_of_exclusions_has_as_many_pairs_as_the_report_says(scored: Path) -> None:
    found = candidates(from_files([scored]))
    assert [each.kind for each in found] == ["drop", "threshold"]
    for each in found:
        result = CliRunner().invoke(app, [*shlex.split(each.line)[1:], "--json"])
        assert result.exit_code == 0, result.output
        assert len(json.loads(result.stdout)["rows"]) == each.listed


def test_self_influence_alone_lists_the_hardest_pairs(scored: Path) -> None:
    document = {pair: {SELF: n * 37 % 101} for n, pair in enumerate(json.loads(scored.read_text()))}
    scored.write_text(json.dumps(document))
    (found,) = candidates(from_files([scored]))
    result = CliRunner().invoke(app, [*shlex.split(found.line)[1:], "--json"])
    assert (found.kind, len(json.loads(result.stdout)["rows"])) == ("hard", found.listed)


def test_thresholds_count_as_they_are_counted_by_hand(scored: Path) -> None:
    below = 0
    for columns in json.loads(scored.read_text()).values():
        below += min(each["tracin_influence"] for name, each in columns.items() if name != SELF) < -5
    (found,) = [each for each in candidates(from_files([scored])) if each.kind == "threshold"]
    assert (found.listed, found.pairs) == (below, 120)
    (why,) = [each.why for each in commands(of(scored), SAY, with_media=False) if each.line == found.line]
    assert f"({below} of 120 pairs)" in why


def test_a_list_that_would_empty_a_class_is_not_proposed(tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    path.write_text(json.dumps({f"deg000_a{n}_deg036_b{n}": {f"{TEST}deg000_x_deg036_y": -9.0 - n} for n in range(9)}))
    assert candidates(from_files([path])) == []


def test_the_hardest_pair_is_said_to_be_tied(scored: Path) -> None:
    scores = [columns[SELF] for columns in json.loads(scored.read_text()).values()]
    first, second, third = map(plain, findings(of(scored), SAY))
    assert first.startswith(f"{scores.count(90.0)} training pairs share the highest self-influence, 90.0, which is")
    assert second.startswith("The model confuses deg")
    assert third.startswith("Training on box_deg")


@pytest.mark.parametrize("path", OLDER, ids=lambda path: path.stem)
def test_there_are_three_findings(path: Path) -> None:
    assert len(findings(of(path), SAY)) == 3


def test_values_that_are_not_numbers_are_warned_about(tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    own = "tracin_self_influence"
    path.write_text(json.dumps({"a_b": {own: "high"}, "a_c": {own: 2}, "b_c": {own: None}, "c_b": {own: 1.5}}))
    (found,) = warnings(of(path), SAY)
    assert found.what == "2 values are not numbers and are left out, such as 'high'."


def test_a_query_is_shown_as_such(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(lab.folder)
    asked = "box_deg000_500hz_00,box_deg036_500hz_00"
    words = lab.arguments("--query", asked, "--query", "box_deg036_500hz_01,box_deg000_500hz_02,1")
    result = CliRunner().invoke(app, ["report", *words])
    assert result.exit_code == 0, result.output
    scored = lab.results / "box_500hz_influence_metadata.json"
    CliRunner().invoke(app, ["report", str(scored), "--output", "again.html"])
    for name in ("tracin_report.html", "again.html"):
        text = html.unescape((lab.folder / name).read_text(encoding="utf-8"))
        assert re.findall(r"<h3>(Query \d|Test pair \d)</h3>", text) == ["Query 1", "Query 2"]
    first = html.unescape((lab.folder / "tracin_report.html").read_text(encoding="utf-8"))
    assert first.count("the model's own ranking, right or wrong") == 1
    assert first.count("asked for with --query") == 2


@pytest.mark.parametrize("form", ["html", "markdown"])
def test_what_changed_is_shown(scored: Path, tmp_path: Path, form: str) -> None:
    document, other, output = json.loads(scored.read_text()), tmp_path / "new.json", tmp_path / "out"
    pairs = list(document)
    values = [document[pair][SELF] for pair in pairs]
    other.write_text(json.dumps({pair: {SELF: value} for pair, value in zip(pairs[1:], values[:0:-1], strict=True)}))
    words = ["report", str(scored), "--compare", str(other), "--output", str(output), "--format", form]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    text = html.unescape(output.read_text(encoding="utf-8"))
    found = compare(scored, other)
    assert found.whole is not None
    assert found.whole.correlation is not None
    assert "119 pairs are in both; 1 are here only, 0 in the other file only." in text
    assert f"The rank correlation (Spearman) is {found.whole.correlation:+.2f}".replace("-", "−") in text
    first, second = found.items[found.whole.moves()[0].pair]
    moved = text[text.index("Pairs whose rank changed most") :]
    assert moved.index(first) < moved.index(second) < moved.index("Pairs of classes whose mean rank changed most")


def test_files_without_a_common_column_are_not_compared(scored: Path, tmp_path: Path) -> None:
    other = tmp_path / "new.json"
    other.write_text(json.dumps({"a_b": {f"{TEST}c_d": 1.5}}))
    words = ["report", str(scored), "--compare", str(other), "--output", str(tmp_path / "out.html")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 3
    assert "no column in common" in result.stderr
    assert "Compare scores of the same kind." in result.stderr
    assert not (tmp_path / "out.html").exists()

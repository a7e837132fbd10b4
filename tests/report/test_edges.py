"""Reports of files that hold little, much, or something unusual."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import tracin_func as ti
from tests.support.scored import small_task
from tracin_func.cli.app import app
from tracin_func.report.content.analysis import analyse
from tracin_func.report.content.evidence import from_files
from tracin_func.task.item_view import as_view

S, T = "tracin_self_influence", "tracin_influence_deg000_a_deg036_b"
MARGIN = "tracin_score_margin_influence_deg000_a_deg036_b"


def alike(count: int, **columns: Any) -> dict[str, dict[str, Any]]:
    """Pairs of two classes, whose columns are functions of their place."""
    names = {"own": S, "test": T, "margin": MARGIN}
    return {
        f"deg000_a{place}_deg036_b{place}": {names[name]: value(place) for name, value in columns.items()}
        for place in range(count)
    }


FILES: dict[str, dict[str, dict[str, Any]]] = {
    "one pair": {"deg000_a_deg036_b": {S: 1.5}},
    "zeros": alike(5, own=lambda place: 0, test=lambda place: 0),
    "huge": alike(5, own=lambda place: 1e300 * place, test=lambda place: -1e300 * place),
    "tiny": alike(5, own=lambda place: 1e-300 * place, test=lambda place: -1e-12 * place),
    "one score": alike(9, own=lambda place: 3.25, test=lambda place: 3.25),
    "two kinds of influence": alike(5, margin=float, test=lambda place: -place),
    "pairs without items": {f"pair{place}": {S: place, T: -place} for place in range(5)},
    "one class": {f"deg000_a{place}_deg000_b{place}": {S: place} for place in range(5)},
    "no numbers": {"deg000_a_deg036_b": {S: "high"}, "deg000_a_deg036_c": {S: 2, T: None}},
    "signs": {"deg000_\ud800_deg036_b": {S: 1.5}, "deg000_</script>_deg036_|`*": {S: 2.5}},
    "many classes": {f"deg{place:03}_a_deg{place + 1:03}_b": {S: place / 7} for place in range(60)},
    "many test pairs": {
        f"deg000_a{place}_deg036_b{place}": {
            f"tracin_influence_deg000_x{test}_deg036_y": (place * test) % 5 - 2.0 for test in range(30)
        }
        for place in range(9)
    },
}


@pytest.mark.parametrize("form", ["html", "markdown"])
@pytest.mark.parametrize("name", FILES)
def test_it_is_written(tmp_path: Path, name: str, form: str) -> None:
    path, output = tmp_path / "scores.json", tmp_path / "out"
    path.write_text(json.dumps(FILES[name]))
    result = CliRunner().invoke(app, ["report", str(path), "--output", str(output), "--format", form])
    assert result.exit_code == 0, result.output
    text = output.read_text(encoding="utf-8")
    assert not re.search(r">\s*(nan|inf|None|undefined)\s*<|\| (nan|inf|None) \|", text)
    if form == "html":
        assert text.count("<script") == text.count("</script>") == 4
        assert len(re.findall('<details class="test"', text)) <= 20


def test_scores_of_unknown_meaning_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    path.write_text('{"a_b": {"accuracy": 1}}')
    result = CliRunner().invoke(app, ["report", str(path), "--output", str(tmp_path / "out.html")])
    assert result.exit_code == 3
    assert "unknown meaning: accuracy. Expected columns such as 'tracin_self_influence'" in result.stderr


def test_the_strongest_pairs_alone_are_said_to_be_that(tmp_path: Path) -> None:
    path = ti.top_influences(small_task(item_ids=list("abcdef")), k=2).save(tmp_path / "strongest.parquet")
    found = from_files([path])
    assert found.strongest
    assert all(len(test.proponents) <= 2 for test in analyse(found).tests)
    output = tmp_path / "out.html"
    CliRunner().invoke(app, ["report", str(path), "--output", str(output)])
    assert "Only the strongest pairs of each test pair were kept." in output.read_text(encoding="utf-8")


def test_scores_by_checkpoint_are_read_beside_their_sums(tmp_path: Path) -> None:
    own = ti.self_influence(small_task(item_ids=list("abcdef")))
    paths = own.save(tmp_path / "own.json"), own.save(tmp_path / "steps.json", per_checkpoint=True)
    found = analyse(from_files(paths)).own
    assert found is not None
    assert [each.name for each in found.steps] == own.run.names


def test_estimates_have_their_standard_error(tmp_path: Path) -> None:
    task = small_task(item_ids=list("abcdef"))
    own = ti.self_influence(task, method=ti.Method(projection=ti.Projection("rademacher", dim=4)))
    assert own.standard_error is not None
    found = from_files([own.save(tmp_path / "own.json")])
    assert found.facts["standard_error"] == pytest.approx(dict(zip(own.ids, own.standard_error.tolist(), strict=True)))


@pytest.mark.parametrize(
    ("given", "words"),
    [(3, "Got int"), (b"no picture", "should be the content of a file"), (Path("missing.png"), "cannot be read")],
)
def test_what_cannot_be_shown_of_an_item(given: Any, words: str) -> None:
    with pytest.raises(ti.InputError, match=words):
        as_view(given)

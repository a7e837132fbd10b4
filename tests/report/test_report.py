"""`tracin-func report`: what it writes from files and from runs, what it refuses, and that ids remain text."""

import json
import re
import string
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.support.lab import Lab
from tests.support.places import DATA
from tests.support.text_task import written
from tracin_func.cli.app import app
from tracin_func.report.content.charts import DARK, LIGHT
from tracin_func.report.languages.registry import LANGUAGES

OLDER = sorted(DATA.glob("plastic_*_metadata.json"))


def report(*words: str | Path) -> str:
    result = CliRunner().invoke(app, ["report", *map(str, words)])
    assert result.exit_code == 0, result.output
    return result.stdout


def error_of(code: int, *words: str | Path) -> str:
    result = CliRunner().invoke(app, ["report", *map(str, words)])
    assert result.exit_code == code, result.output
    assert result.stderr.startswith("error: ")
    return result.stderr


def data_of(page: str) -> dict[str, object]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page)
    assert found is not None
    data: dict[str, object] = json.loads(found[1])
    return data


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("form", ["html", "markdown"])
@pytest.mark.parametrize("path", OLDER, ids=lambda path: path.stem)
def test_a_report_of_an_older_file(tmp_path: Path, path: Path, form: str, lang: str) -> None:
    output = tmp_path / "out"
    assert f"Written  {output}" in report(path, "--output", output, "--format", form, "--lang", lang)
    text = output.read_text(encoding="utf-8")
    assert LANGUAGES[lang]["guide_zero"] in text
    assert LANGUAGES[lang]["no_origin"] in text
    for word in ("nan", "None", "undefined"):
        assert not re.search(rf">\s*{word}\s*<|\| {word} \|", text)


def test_the_table_holds_every_pair_and_score(tmp_path: Path) -> None:
    path = DATA / "plastic_1000hz_metadata.json"
    report(path, "--output", tmp_path / "out.html")
    data = data_of((tmp_path / "out.html").read_text(encoding="utf-8"))
    items, columns = data["items"], data["columns"]
    assert isinstance(items, list)
    assert isinstance(columns, list)
    both = zip(data["first"], data["second"], columns[0]["values"], strict=True)  # type: ignore[call-overload]
    found = {f"{items[first]}_{items[second]}": value for first, second, value in both}
    document = json.loads(path.read_text())
    assert found.keys() == document.keys()
    for pair, value in found.items():
        assert value == pytest.approx(document[pair]["tracin_self_influence"], rel=1e-4)


def test_a_run_is_scored_and_reported_with_its_recordings(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(lab.folder)
    words = ["--data-root", lab.data, "--checkpoint-dir", lab.checkpoints, "--material", "box", "--num-test", "2"]
    printed = report(*words, "--metadata-dir", lab.results)
    assert "tracin_report.html" in printed
    assert (lab.results / "box_500hz_metadata.json").exists()
    assert (lab.results / "box_500hz_influence_metadata.json").exists()
    text = (lab.folder / "tracin_report.html").read_text(encoding="utf-8")
    assert text.count("data:image/png;base64,") > 4
    assert text.count("data:audio/flac;base64,") > 4
    assert "rank by loss" in text
    assert "`preconditioner" not in text  # settings are named as options
    assert "http://" not in text
    assert "https://" not in text


def test_recordings_of_an_older_file_are_found_by_their_folder(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    path.write_text('{"box_deg000_500hz_00_box_deg036_500hz_01": {"tracin_self_influence": 1.5}}')
    report(path, "--output", tmp_path / "without.html")
    report(path, "--output", tmp_path / "with.html", "--data-root", lab.data)
    assert "data:audio" not in (tmp_path / "without.html").read_text(encoding="utf-8")
    assert (tmp_path / "with.html").read_text(encoding="utf-8").count("data:audio/flac") == 2


@pytest.mark.parametrize("form", ["html", "markdown"])
def test_texts_and_ids_remain_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    monkeypatch.chdir(tmp_path)
    output = tmp_path / "out"
    printed = report("--task", written(tmp_path), "--output", output, "--format", form)
    text = output.read_text(encoding="utf-8")
    shown = text if form == "html" else re.sub(r"`[^`]*`", "", text)  # code is shown as it is
    for mark in ("<script>document", "<b>one</b>"):
        assert mark not in shown
    assert "document.title" in text
    assert "[bold]" in text.replace("\\", "")
    assert "Written" in printed


def test_pictures_of_markdown_are_files_that_exist(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(lab.folder)
    words = ["--data-root", lab.data, "--checkpoint-dir", lab.checkpoints, "--material", "box", "--num-test", "2"]
    report(*words, "--format", "markdown")
    text = (lab.folder / "tracin_analysis_report.md").read_text(encoding="utf-8")
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)
    assert {Path(each).suffix for each in pictures} == {".svg", ".png"}
    for each in pictures:
        assert (lab.folder / each).stat().st_size > 100
    assert "## Reading guide" in text


def test_a_file_that_is_no_report_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "notes.html"
    path.write_text("<p>my notes</p>")
    assert "is no report of tracin-func" in error_of(1, OLDER[0], "--output", path)
    assert path.read_text() == "<p>my notes</p>"


def test_an_older_report_is_replaced(tmp_path: Path) -> None:
    for lang in ("en", "zh-TW"):
        report(OLDER[0], "--output", tmp_path / "out.html", "--lang", lang)
    assert '<html lang="zh-TW">' in (tmp_path / "out.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["--lang", "de"], 2, "--lang should be one of en, zh-TW. Got 'de'."),
        (["--seed", "3"], 2, "--seed changes a run, and files are reported as they are."),
        (["--format", "pdf"], 2, "--format should be one of html, markdown. Got 'pdf'."),
    ],
)
def test_options_that_do_not_fit(words: list[str], code: int, sentence: str) -> None:
    assert sentence in error_of(code, OLDER[0], *words)


def test_a_missing_file(tmp_path: Path) -> None:
    assert "file not found" in error_of(3, tmp_path / "missing.json")
    assert not (tmp_path / "tracin_report.html").exists()


def test_variables_of_runs_do_not_disturb_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACIN_FUNC_SEED", "3")
    monkeypatch.setenv("TRACIN_FUNC_FORMAT", "parquet")
    report(OLDER[0], "--output", tmp_path / "out.html")


def test_all_languages_have_the_same_sentences_with_the_same_values() -> None:
    def places(sentence: str) -> set[str]:
        return {name for _, name, _, _ in string.Formatter().parse(sentence) if name}

    english = {key: places(sentence) for key, sentence in LANGUAGES["en"].items()}
    for table in LANGUAGES.values():
        assert {key: places(sentence) for key, sentence in table.items()} == english


def luminance(colour: str) -> float:
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [each / 12.92 if each <= 0.03928 else ((each + 0.055) / 1.055) ** 2.4 for each in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize(("scheme", "page"), [(LIGHT, "#f4f6f9"), (DARK, "#11161d")], ids=["light", "dark"])
@pytest.mark.parametrize("name", ["ink", "muted", "accent", "good", "bad"])
def test_text_has_contrast(scheme: str, page: str, name: str) -> None:
    colours = dict(each.removeprefix("--").split(":") for each in scheme.split(";"))
    for ground in (page, colours["card"]):
        low, high = sorted((luminance(ground), luminance(colours[name])))
        assert (high + 0.05) / (low + 0.05) >= 4.5

"""The page in a real browser: nothing is fetched, nothing fails, and everything that can be used works."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.support.browser import Browser, missing, started
from tests.support.lab import Lab
from tests.support.places import DATA
from tests.support.text_task import written
from tracin_func.cli.app import app

pytestmark = pytest.mark.skipif(missing() is not None, reason=f"needs a browser: {missing()}")

OLDER = sorted(DATA.glob("plastic_*_metadata.json"))
WIDTHS = (1280, *(pytest.param(width, marks=pytest.mark.thorough) for width in (960, 320)), 400)
CELLS = "return [...document.querySelectorAll('#pairs tbody tr')].map(row => row.cells[1].textContent)"
RANGE = "return document.getElementById('range').textContent"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with started(tmp_path_factory.mktemp("browser")) as found:
        yield found


def made(path: Path, *words: str | Path) -> Path:
    result = CliRunner().invoke(app, ["report", *map(str, words), "--output", str(path)])
    assert result.exit_code == 0, result.output
    return path


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run on a small folder of recordings."""
    lab = Lab(tmp_path_factory.mktemp("lab"))
    words = ["--data-root", lab.data, "--checkpoint-dir", lab.checkpoints, "--material", "box", "--num-test", "3"]
    return made(lab.folder / "page.html", *words, "--metadata-dir", lab.results)


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a result file of 120 pairs."""
    folder, numbers = tmp_path_factory.mktemp("scored"), random.Random(0)
    items = [f"box_deg{36 * (n % 6):03}_500hz_{n:02}" for n in range(16)]
    pairs = [f"{a}_{b}" for a in items for b in items if a < b]
    scores = {pair: {"tracin_self_influence": numbers.lognormvariate(0, 1)} for pair in pairs}
    path = folder / "many.json"
    path.write_text(json.dumps(scores))
    return made(folder / "page.html", path)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run on texts, whose ids look like markup."""
    folder = tmp_path_factory.mktemp("texts")
    return made(folder / "page.html", "--task", written(folder), "--metadata-dir", folder)


def opened(browser: Browser, path: Path, width: int = 1280, scheme: str = "light") -> None:
    """Show a page alone, and require that it asks for itself only and complains of nothing."""
    browser.resize(width)
    browser.prefer(scheme)
    browser.messages(), browser.requests()
    browser.open(path)
    ready = "const wait = () => document.documentElement.dataset.ready ? done(true) : setTimeout(wait, 20); wait();"
    assert browser.later(ready)
    assert browser.messages() == []
    assert browser.requests() == [path.absolute().as_uri()]


def check_layout(browser: Browser, width: int) -> None:
    """No scrolling sideways, no scroll bar within the page, and no text of a chart outside of it."""
    assert browser.run("return document.documentElement.scrollWidth") <= width
    inner = """return [...document.querySelectorAll('body *')].filter(each => {
        const style = getComputedStyle(each);
        return ['auto', 'scroll'].includes(style.overflowY) || ['auto', 'scroll'].includes(style.overflowX);
    }).map(each => each.tagName)"""
    assert set(browser.run(inner)) <= {"INPUT", "SELECT"}
    outside = """return [...document.querySelectorAll('details[open] svg.chart text, section > .grid svg.chart text')]
        .filter(each => {
            const box = each.getBoundingClientRect(), chart = each.ownerSVGElement.getBoundingClientRect();
            return box.width && (box.left < chart.left - 2 || box.right > chart.right + 2);
        }).map(each => each.textContent)"""
    assert browser.run(outside) == []
    wider = """return [...document.querySelectorAll('.card, section > table')]
        .filter(each => each.scrollWidth > each.clientWidth + 1).map(each => each.textContent.slice(0, 60))"""
    assert browser.run(wider) == []
    split = """return [...document.querySelectorAll('.single td code')]
        .filter(each => innerWidth > 1000 && each.getClientRects().length > 1 && each.textContent.length < 40)
        .map(each => each.textContent)"""
    assert browser.run(split) == []


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_of_a_run_with_recordings(browser: Browser, recorded: Path, width: int, scheme: str) -> None:
    opened(browser, recorded, width, scheme)
    check_layout(browser, width)
    ground = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(17, 22, 29)") == (scheme == "dark")


@pytest.mark.parametrize("lang", ["en", "zh-TW"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("path", OLDER, ids=lambda path: path.stem)
def test_of_older_files(browser: Browser, tmp_path: Path, path: Path, width: int, lang: str) -> None:
    opened(browser, made(tmp_path / "page.html", path, "--lang", lang), width)
    check_layout(browser, width)
    assert browser.run("return document.documentElement.lang") == lang


@pytest.mark.parametrize("width", WIDTHS)
def test_of_texts_that_look_like_markup(browser: Browser, texts: Path, width: int) -> None:
    opened(browser, texts, width)
    check_layout(browser, width)
    shown = browser.run("return document.body.innerText")
    for text in ("<script>document.title = 'broken'</script>", "[bold]second[/bold]", "<b>one</b>", "[red]two[/red]"):
        assert text in shown
    assert "broken" not in browser.run("return document.title")
    assert browser.run("return document.querySelectorAll('main b, main script').length") == browser.run(
        "return document.querySelectorAll('.fact b').length"
    )


@pytest.mark.parametrize("width", WIDTHS)
def test_of_a_comparison(browser: Browser, scored: Path, tmp_path: Path, width: int) -> None:
    path, numbers = scored.parent / "many.json", random.Random(1)
    other = tmp_path / "other.json"
    other.write_text(
        json.dumps({pair: {"tracin_self_influence": numbers.random()} for pair in json.loads(path.read_text())})
    )
    opened(browser, made(tmp_path / "page.html", path, "--compare", other), width)
    check_layout(browser, width)
    assert browser.run("return document.querySelectorAll('#compare table').length") == 3
    assert browser.run("return document.querySelector('nav a[href=\"#compare\"]').textContent") == "What changed"


def test_sound_plays_and_stops(browser: Browser, recorded: Path) -> None:
    opened(browser, recorded)
    lengths = """
        const sounds = JSON.parse(document.getElementById("sounds").textContent);
        const audio = new Audio(sounds[0]);
        audio.onloadedmetadata = () => done(audio.duration);
        audio.onerror = () => done(String(audio.error && audio.error.message));"""
    assert browser.later(lengths) == pytest.approx(0.1, abs=0.01)
    state = "return [...document.querySelectorAll('.play')].map(each => each.getAttribute('aria-pressed'))"
    browser.click(".play")
    assert browser.later("setTimeout(() => done(true), 700)")
    assert set(browser.run(state)) == {"false"}  # a tenth of a second has ended
    assert browser.messages() == []


def test_pictures_have_a_size(browser: Browser, recorded: Path) -> None:
    opened(browser, recorded)
    widths = "return [...document.querySelectorAll('section#self .shot use')].map(each => each.getBBox().width)"
    found = browser.run(widths)
    assert found
    assert set(found) == {128}


def test_sorting(browser: Browser, scored: Path) -> None:
    opened(browser, scored)
    falling = [float(each) for each in browser.run(CELLS)]
    assert falling == sorted(falling, reverse=True)
    browser.click('#pairs th button[data-column="0"]')
    rising = [float(each) for each in browser.run(CELLS)]
    assert rising == sorted(rising)
    assert rising[0] < falling[-1]
    assert browser.run("return document.querySelector('#pairs th[aria-sort]').ariaSort") == "ascending"
    browser.click('#pairs th button[data-column="0"]')
    assert [float(each) for each in browser.run(CELLS)] == falling
    browser.click('#pairs th button[data-column="ids"]')
    ids = browser.run("return [...document.querySelectorAll('#pairs td.ids')].map(each => each.innerText)")
    assert ids == sorted(ids)


def test_searching(browser: Browser, scored: Path) -> None:
    opened(browser, scored)
    assert browser.run(RANGE) == "1 – 50 of 120"
    browser.write("#search", "deg036 500hz_15")
    ids = browser.run("return [...document.querySelectorAll('#pairs td.ids')].map(each => each.innerText)")
    assert ids
    assert all("deg036" in each and "500hz_15" in each for each in ids)
    browser.write("#search", " nothing-of-this-name")
    assert "No pair fits" in browser.run("return document.getElementById('pairs').innerText")


def test_pages_of_the_table(browser: Browser, scored: Path) -> None:
    opened(browser, scored)
    seen = list(browser.run(CELLS))
    for shown in ("51 – 100 of 120", "101 – 120 of 120"):
        browser.click("#next")
        assert browser.run(RANGE) == shown
        seen += browser.run(CELLS)
    assert len(seen) == 120
    assert browser.run("return document.getElementById('next').disabled")


def test_the_keyboard_reaches_everything(browser: Browser, scored: Path) -> None:
    opened(browser, scored)
    browser.press("\ue004")  # tab
    assert browser.run("return document.activeElement.className") == "skip"
    browser.press("\ue004", "\ue007")  # tab, enter
    assert browser.run("return document.documentElement.dataset.theme") == "dark"
    reached = "return [...document.querySelectorAll('button, a, summary, select')].every(each => each.tabIndex >= 0)"
    assert browser.run(reached)
    nameless = """return [...document.querySelectorAll('button, a, input, select, svg[role=img]')].filter(each =>
        !(each.getAttribute('aria-label') || each.textContent.trim() || each.labels?.length)).length"""
    assert browser.run(nameless) == 0


def test_printed_everything_is_open_and_light(browser: Browser, recorded: Path) -> None:
    opened(browser, recorded, scheme="dark")
    assert browser.printed().startswith(b"%PDF")
    assert browser.run("return [...document.querySelectorAll('details')].every(each => each.open)")
    browser.tools("Emulation.setEmulatedMedia", media="print")
    try:
        assert browser.run("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert browser.run("return getComputedStyle(document.body).color") == "rgb(28, 36, 48)"
        assert browser.run("return getComputedStyle(document.querySelector('nav')).display") == "none"
    finally:
        browser.tools("Emulation.setEmulatedMedia", media="")


def test_many_pairs_remain_usable(browser: Browser, tmp_path: Path) -> None:
    numbers = random.Random(0)
    items = [f"clip_deg{18 * (n % 11):03}_{n:04}" for n in range(400)]
    pairs = [f"{a}_{b}" for a in items for b in items if a < b][:60_000]
    path = tmp_path / "many.json"
    path.write_text(json.dumps({pair: {"tracin_self_influence": numbers.random()} for pair in pairs}))
    page = made(tmp_path / "page.html", path)
    assert page.stat().st_size < 600_000
    opened(browser, page)
    largest = max(each["tracin_self_influence"] for each in json.loads(path.read_text()).values())
    assert float(browser.run(CELLS)[0]) == pytest.approx(largest, rel=5e-3)
    assert browser.run(RANGE) == "1 – 50 of 60,000"
    script = """const start = performance.now();
        document.querySelector('#pairs th button[data-column="0"]').click();
        const field = document.getElementById('search');
        field.value = 'deg090'; field.dispatchEvent(new Event('input'));
        done(performance.now() - start);"""
    assert browser.later(script) < 5000
    assert browser.run("return document.querySelectorAll('#pairs tbody tr').length") == 50

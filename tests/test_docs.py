"""What the documentation says is so: options, commands and links, in both languages."""

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import tracin_func
from docs import make_api, make_options
from tests.support.places import ROOT
from tracin_func.cli.app import app
from tracin_func.cli.older import OLDER_BOTH, OLDER_FILE, OLDER_INFLUENCE, OLDER_SELF

READMES = (ROOT / "README.md", ROOT / "README.zh-TW.md")
PAGES = (*READMES, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
OTHER_PROGRAMS = ("pytest", "pip", "ruff", "python", "torchrun", "srun", "#SBATCH")  # whose options are not ours

_COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of one language, in order."""
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def commands(page: Path) -> Iterator[list[str]]:
    """Every command of ours that a page shows as a block, as words."""
    for line in "".join(blocks(page, "sh") + blocks(page, "text")).splitlines():
        for part in line.split("&&"):
            if part.split()[:1] == ["tracin-func"]:
                yield shlex.split(part)[1:]


def anchors(page: Path) -> set[str]:
    """The places in a page that a link can name, as GitHub makes them of its headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    names = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
    return {f"{name}-{before}" if (before := names[:row].count(name)) else name for row, name in enumerate(names)}


@pytest.mark.parametrize("made", [make_options, make_api], ids=["options", "api"])
def test_a_page_that_is_made_of_the_code_is_up_to_date(made: Any) -> None:
    assert made.PAGE.read_text(encoding="utf-8") == made.page(), f"run: python docs/{Path(made.__file__).name}"


def test_the_page_of_the_api_has_every_public_name() -> None:
    shown = {name.partition(".")[0] for names in make_api.SECTIONS.values() for name in names}
    assert sorted(shown) == tracin_func.__all__


def test_the_page_of_options_has_every_option_of_every_command() -> None:
    rows = [line.strip("| ").split(" | ") for line in make_options.page().splitlines() if line.startswith("| `-")]
    for name, command in _COMMANDS.items():
        own = [each for each in command.params if each.param_type_name == "option"]
        shown = [flag for row in rows if name in row[-1].split(", ") for flag in re.findall(r"--[a-z-]+", row[0])]
        assert sorted(shown) == sorted(flag for each in own for flag in (*each.opts, *each.secondary_opts))


@pytest.mark.parametrize("language", ["sh", "python"])
def test_both_languages_hold_the_same_commands(language: str) -> None:
    english, chinese = (blocks(page, language) for page in READMES)
    assert english
    assert chinese == english


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_option_that_is_named_exists(page: Path) -> None:
    known = {
        flag for command in _COMMANDS.values() for each in command.params for flag in (*each.opts, *each.secondary_opts)
    }
    text = re.sub(
        rf"(?:`|^)(?:{'|'.join(OTHER_PROGRAMS)}) (?:\\\n|[^`\n])*",
        "",
        page.read_text(encoding="utf-8"),
        flags=re.MULTILINE,
    )
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", text))
    assert named <= known | {"--help", "--version", OLDER_SELF, OLDER_INFLUENCE, OLDER_FILE, OLDER_BOTH}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_is_shown_can_be_given(page: Path) -> None:
    for name, *arguments in commands(page):
        _COMMANDS[name].make_context(name, arguments)  # raises where an option or its value is wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    for place, _, anchor in (link.partition("#") for link in links if "://" not in link):
        target = page if not place else Path(os.path.normpath(page.parent / place))
        assert target.is_file(), place
        assert not anchor or anchor in anchors(target), f"{place}#{anchor}"


@pytest.mark.parametrize("readme", READMES, ids=lambda page: page.name)
def test_a_readme_leads_to_every_page(readme: Path) -> None:
    text = readme.read_text(encoding="utf-8")
    other = "migrating.md" if "zh-TW" in readme.name else "migrating.zh-TW.md"  # the same page in the other language
    assert [page.name for page in (ROOT / "docs").glob("*.md") if f"(docs/{page.name}" not in text] == [other]


def test_pictures_are_small_and_fit_both_modes() -> None:
    """Each names its colours of dark mode, and is shown on some page."""
    shown = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    for picture in (ROOT / "docs").glob("*.svg"):
        assert picture.name in shown
        assert picture.stat().st_size < 60_000
        if not picture.name.startswith("screen-"):
            assert "prefers-color-scheme: dark" in picture.read_text(encoding="utf-8")


@pytest.mark.parametrize("page", READMES, ids=lambda page: page.name)
def test_the_screen_is_shown_in_the_reader_s_mode(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert '<source media="(prefers-color-scheme: dark)" srcset="docs/screen-dark.svg">' in text
    assert 'src="docs/screen-light.svg"' in text


def test_the_citation_is_of_this_version_and_names_the_paper() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    version = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert version is not None
    assert f"\nversion: {version[1]}\n" in citation
    assert "https://arxiv.org/abs/2002.08484" in citation

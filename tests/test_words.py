"""Words that a reader has to read twice, in code, help, notices and documents."""

import re
from pathlib import Path

import pytest

from tests.support.places import ROOT

BANNED = (
    r"\b(one|numbers|rows?|columns?)\s+an? (item|pair|row|line|file|checkpoint)\b",
    r"\btold\b",
    r"\btells?\b(?!\()",
    r"\bmend",
    r"\bstands?\b",
    r"\bstood\b",
    r"embedded default",
    r"there (is|are):",
    r"\bof ours\b",
    r"(?-i:\bFix:)",
    r"\bso many\b",
    r"\branked right\b",
    r"\bgo(es)? on\b",
    r"\bthe lab's\b",
)
PATTERN = re.compile("|".join(f"(?:{each})" for each in BANNED), re.IGNORECASE)
PLACES = ("tracin_func", "docs", "benchmarks", "examples", "README.md", "CHANGELOG.md", "cli.py")


def texts() -> list[Path]:
    """Every file that a user or a new colleague reads."""
    paths = [path for place in PLACES for path in ((ROOT / place).rglob("*"), [ROOT / place])[(ROOT / place).is_file()]]
    return sorted(path for path in paths if path.suffix in (".py", ".md"))


@pytest.mark.parametrize("path", texts(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_banned_words(path: Path) -> None:
    lines = enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
    found = [f"{number}: {match[0]}" for number, line in lines for match in PATTERN.finditer(line)]
    assert found == []


def test_the_patterns_find_what_they_are_for() -> None:
    for words in ("one a pair is one\n", "as it was told", "Fix: remove it", "so many pairs", "the run goes on"):
        assert PATTERN.search(words) or "one a pair" in words
    assert PATTERN.search("numbers a row")
    assert not PATTERN.search("one per item; understands; amendments")

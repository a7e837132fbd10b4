"""The examples in docstrings of public names give what they show."""

import doctest
from importlib import import_module
from pathlib import Path

import pytest

import tracin_func as ti
from tests.support.scored import small_task

MODULES = (
    "results.comparison",
    "results.exclusions",
    "results.influence",
    "results.listing",
    "results.load",
    "scoring.queries",
    "training.run",
)


@pytest.mark.parametrize("module", MODULES)
def test_examples(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = {"ti": ti, "task": small_task(item_ids=list("abcdef"))}
    found = doctest.testmod(import_module(f"tracin_func.{module}"), extraglobs=names)
    assert found.attempted > 0
    assert found.failed == 0

"""Files of the user's own are imported as Python would run them, and where that fails the error says what to do."""

import sys
from pathlib import Path

import pytest
from torch import nn

import tracin_func as ti
from tracin_func.sources.python.loading import load_model, load_object

NET = "from torch import nn\n\n\nclass Net(nn.Linear):\n    def __init__(self):\n        super().__init__(2, 1)\n"


@pytest.fixture(autouse=True)
def own_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    """`sys.path` and `sys.modules` are as before after the test."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_file_in_a_package_that_imports_relatively(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("outer_pack", "outer_pack/inner"):
        written(tmp_path / folder / "__init__.py", "")
    written(tmp_path / "outer_pack" / "layers.py", NET)
    path = written(tmp_path / "outer_pack" / "inner" / "ranker.py", "from ..layers import Net\n")
    with pytest.raises(ti.InputError, match=r"relative import.*with outer_pack\.inner\.ranker:Name instead") as error:
        load_model(f"{path}:Net", {})
    assert f"Run from {tmp_path.resolve()}" in str(error.value)
    monkeypatch.chdir(tmp_path)
    assert isinstance(load_model("outer_pack.inner.ranker:Net", {}), nn.Module)


def test_a_file_in_no_package_that_imports_relatively(tmp_path: Path) -> None:
    written(tmp_path / "layers_beside.py", NET)
    path = written(tmp_path / "ranker_beside.py", "from .layers_beside import Net\n")
    with pytest.raises(ti.InputError, match=r"instead of `from \.layers import"):
        load_model(f"{path}:Net", {})
    path.write_text("from layers_beside import Net\n")
    assert isinstance(load_model(f"{path}:Net", {}), nn.Module)


@pytest.mark.parametrize("text", ["import sys\nsys.exit(3)\n", "raise SystemExit('usage: train.py DIR')\n"])
def test_a_file_that_ends_the_process(tmp_path: Path, text: str) -> None:
    path = written(tmp_path / "ending.py", text)
    with pytest.raises(
        ti.InputError,
        match=r"SystemExit: (3|usage: train.py DIR).*Move code that parses the command line under if __name__ ==",
    ):
        load_model(f"{path}:Net", {})


def test_words_of_the_command_line_are_not_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "words.py", f"import sys\n\n{NET}\n\nWORDS = list(sys.argv)\n")
    monkeypatch.setattr(sys, "argv", ["tracin-func", "self", "--model", str(path)])
    load_model(f"{path}:Net", {})
    assert [str(path)] == sys.modules["words"].WORDS
    assert sys.argv[0] == "tracin-func"


def test_a_file_named_like_a_module_replaces_it_nowhere(tmp_path: Path) -> None:
    import statistics

    path = written(tmp_path / "statistics.py", NET)
    assert isinstance(load_model(f"{path}:Net", {}), nn.Module)
    assert sys.modules["statistics"] is statistics


def test_a_file_read_twice_is_read_anew(tmp_path: Path) -> None:
    path = written(tmp_path / "changing.py", "def first(): pass\n")
    load_object(f"{path}:first", "task")
    path.write_text("def second_one(): pass\n")
    found = load_object(f"{path}:second_one", "task")
    assert sys.modules["changing"].second_one is found

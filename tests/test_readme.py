"""The commands and examples of the README and of the pages beside it are run as they are, and show what they print."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tracin_func as ti
from docs.make_screens import ENGLISH, PAGES, STYLE, blocks, ran
from tests.support.places import ROOT
from tests.support.prepared import start
from tracin_func.scoring.accuracy import TRAIN_NAMES, recorded_share
from tracin_func.sources.demo.cache import EmbeddedDemo
from tracin_func.task.checkpoints import read
from tracin_func.task.learning_rates import learning_rates

README = blocks(ENGLISH)
SHELL = [block.code for block in README if block.language == "sh"]
COMMANDS = ["tracin-func self", *(line for block in SHELL[2:] for line in block.splitlines())]
OF_A_FOLDER = [command for command in COMMANDS if "example/" in command or command.endswith(" example")]


def shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """`command` as a reader types it, with the commands of this environment."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        command, shell=True, cwd=folder, env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A folder as a reader sees it who has a copy of the repository."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    return tmp_path


def words(text: str) -> set[str]:
    """Ids, headings and words, whatever their digits, the device and whether there is one of a thing."""
    found = (re.sub(r"\d+", "0", word.strip(".,:;()[]$")).removesuffix("s") for word in STYLE.sub("", text).split())
    return {word for word in found if len(re.findall(r"[^\W\d_]", word)) >= 3 and word != "cpu"}


def test_the_two_first_commands_install_run_and_test() -> None:
    install, test = SHELL[:2]
    assert install == "pip install . && tracin-func self\n"
    assert test == 'pip install -e ".[dev]" && pytest\n'


def test_a_reader_sees_output_before_line_40() -> None:
    lines = ENGLISH.read_text(encoding="utf-8").splitlines()
    assert lines.index("<!-- output -->") < 38
    assert lines[lines.index("<!-- output -->") + 2].strip()


def test_the_commands_on_the_embedded_example_and_the_table_run(copy: Path, embedded_500hz: object) -> None:
    """In prepared processes; `ran` below starts those that show their output as a reader does."""
    for command in (command for command in COMMANDS if command not in OF_A_FOLDER):
        name, *arguments = shlex.split(command)
        if name == "python":
            result = shell(command, copy)
            assert (result.returncode, result.stderr) == (0, "")
            continue
        done = start(tuple(arguments), copy / "log", folder=copy).end()
        assert (name, done.code) == ("tracin-func", 0), (command, done.stderr)
        assert done.stdout
    written = {str(path.relative_to(copy)) for path in copy.glob("*/*_metadata.json")}
    assert written == {
        "metadata/plastic_500hz_metadata.json",
        "metadata/plastic_500hz_influence_metadata.json",
        "metadata/plastic_500hz_per_checkpoint_metadata.json",
        "metadata/tabular_task_metadata.json",
        "metadata/tabular_task_influence_metadata.json",
    }
    planted = set((copy / "tabular" / "planted.txt").read_text().split())
    assert len(planted) == 30
    found = ti.load(copy / "metadata" / "tabular_task_metadata.json")
    assert isinstance(found, ti.SelfInfluence)
    assert sum(score.pair in planted for score in found.hardest(30)) >= 20


def test_a_command_on_the_example_folder_runs(tmp_path: Path, embedded_500hz: EmbeddedDemo) -> None:
    """The folder holds here what `demo example`, which trains two more rankers, would put there for one tone."""
    demo, command = OF_A_FOLDER
    assert demo == "tracin-func demo example"
    shutil.copytree(embedded_500hz.data_root, tmp_path / "example/data")
    shutil.copytree(embedded_500hz.checkpoint_dir, tmp_path / "example/checkpoints/500hz")
    done = start(tuple(shlex.split(command)[1:]), tmp_path / "log", folder=tmp_path).end()
    assert done.code == 0, done.stderr
    assert (tmp_path / "results/plastic_500hz_metadata.json").exists()


@pytest.mark.thorough
def test_the_commands_run(copy: Path, embedded_500hz: object) -> None:
    assert len(COMMANDS) == 13
    for command in COMMANDS:
        result = shell(command, copy)
        assert result.returncode == 0, (command, result.stderr)
        assert result.stdout
    assert (copy / "results/plastic_500hz_metadata.json").exists()


WITH_COMMANDS = [
    page for page in PAGES if page.stem in ("tutorial", "reading", "excluding", "training")
]  # of some minutes in all
OTHERS = [page for page in PAGES if page.parent != ROOT and page not in WITH_COMMANDS]


@pytest.mark.parametrize(
    "page", [ENGLISH, *OTHERS, *(pytest.param(page, marks=pytest.mark.thorough) for page in WITH_COMMANDS)]
)
def test_outputs_that_are_shown_are_those_of_the_commands(page: Path, embedded_500hz: object) -> None:
    """Of the embedded example, ids, headings and words are compared, since figures differ from CPU to CPU."""
    for block, printed in zip(blocks(page), ran(page), strict=True):
        if block.output is not None:
            assert printed is not None
            same = block.output == printed if page in OTHERS else words(block.output) <= words(printed)
            assert same, f"{block.code}run: python docs/make_screens.py"


def test_both_readmes_show_the_same_outputs() -> None:
    english, chinese = (blocks(page) for page in (ENGLISH, ROOT / "README.zh-TW.md"))
    assert chinese == english


def test_checkpoints_saved_as_shown_hold_what_a_run_takes_from_them() -> None:
    names: dict[str, Any] = {}
    code = "".join(block.code for block in blocks(ROOT / "docs" / "your-data.md") if block.language == "python")
    exec(compile(code, "your-data.md", "exec"), names)
    for step in (1, 2):
        found = read(Path(names["folder"]) / f"model_epoch_{step}.pt", str(step))
        assert found.weights.keys() == names["model"].state_dict().keys()
        assert learning_rates(found, dict(names["model"].named_parameters()), None) == (1e-3, "optimizer")
        assert found.args == {"seed": 42, "loss_type": "standard", "margin": 1.0}
        assert recorded_share(found.recorded, TRAIN_NAMES) == 0.93

"""The table of faults: each kind of bad input through the real command line, and the one line that answers it.

A row spoils a small data set or its options, runs a command, and states the exit code and a part of the line printed.
Nothing is written where a row is refused. Faults of moments, not of inputs, stand elsewhere: Ctrl-C and SIGKILL in
test_interrupts.py, test_commands.py and results/files/test_scores_json.py, with two processes that merge at once; a
stdout that is full or closed in test_commands.py.
"""

import contextlib
import fcntl
import json
import os
import pty
import re
import resource
import shlex
import shutil
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from tests.support.lab import Harmful, Lab
from tests.support.places import ROOT
from tracin_func.cli.app import app
from tracin_func.files import CACHE_VARIABLE
from tracin_func.sources.demo.cache import EmbeddedDemo
from tracin_func.sources.demo.ranker import AngleRanker

Spoil = Callable[[Lab], Sequence[str]]


@dataclass(frozen=True)
class Row:
    """One fault.

    Args:
        name: what is wrong.
        spoil: makes it so; returns the words after the command.
        code: the exit code.
        words: a part of the one line on stderr; of the error, or, where the run goes on, of a note or a warning.
        command: the command.
        limit: bytes that a file may have, in a process of its own.
    """

    name: str
    spoil: Spoil
    code: int
    words: str
    command: str = "self"
    limit: int | None = field(default=None, kw_only=True)


# Ways to spoil


def given(*more: str) -> Spoil:
    """These options; `{folder}` in them is the folder of everything."""
    return lambda lab: lab.arguments(*(word.replace("{folder}", str(lab.folder)) for word in more))


def words(*own: str) -> Spoil:
    """These words and no others; `{folder}` in them is the folder of everything."""
    return lambda lab: [word.replace("{folder}", str(lab.folder)) for word in own]


def recordings(*more: str) -> Spoil:
    """The recordings and checkpoints, for a command that writes no results."""
    return words("--data-root", "{folder}/data", "--checkpoint-dir", "{folder}/checkpoints", "--material", "box", *more)


def clip(lab: Lab) -> Path:
    return lab.data / "deg036/box/box_deg036_500hz_02.wav"


def clip_holds(content: bytes | Callable[[bytes], bytes], *more: str) -> Spoil:
    def spoil(lab: Lab) -> list[str]:
        path = clip(lab)
        path.write_bytes(content(path.read_bytes()) if callable(content) else content)
        return lab.arguments(*more)

    return spoil


def clip_sounds(samples: np.ndarray, rate: int = 48000) -> Spoil:
    def spoil(lab: Lab) -> list[str]:
        soundfile.write(clip(lab), samples, rate, subtype="FLOAT")
        return lab.arguments()

    return spoil


def every_clip_is_called(name: Callable[[str], str], *more: str) -> Spoil:
    def spoil(lab: Lab) -> list[str]:
        for path in list(lab.data.rglob("*.wav")):
            path.rename(path.with_name(name(path.name)))
        return lab.arguments(*more)

    return spoil


def one_more(name: str) -> Spoil:
    """A copy of a clip, of another name."""

    def spoil(lab: Lab) -> list[str]:
        shutil.copy(clip(lab), clip(lab).with_name(name))
        return lab.arguments()

    return spoil


def in_folders_beyond_ascii(lab: Lab) -> list[str]:
    root = lab.folder / "Aufnahmen für 錄音"
    lab.data.rename(root)
    lab.checkpoints.rename(root / "模型")
    lab.results = root / "結果"
    return ["--data-root", str(root), "--checkpoint-dir", str(root / "模型"), "--material", "box",
            "--metadata-dir", str(lab.results)]  # fmt: skip


def without_classes(lab: Lab) -> list[str]:
    shutil.rmtree(lab.data)
    lab.data.mkdir()
    return lab.arguments()


def checkpoint_holds(content: Callable[[dict[str, torch.Tensor]], object]) -> Spoil:
    def spoil(lab: Lab) -> list[str]:
        torch.save(content(AngleRanker().state_dict()), lab.checkpoints / "model_epoch_10.pt")
        return lab.arguments()

    return spoil


def checkpoint_weighs(change: Callable[[dict[str, torch.Tensor]], object]) -> Spoil:
    def spoil(lab: Lab) -> list[str]:
        weights = AngleRanker().state_dict()
        change(weights)
        lab.save(10, weights)
        return lab.arguments()

    return spoil


def checkpoint_is_cut(lab: Lab) -> list[str]:
    path = lab.checkpoints / "model_epoch_10.pt"
    path.write_bytes(path.read_bytes()[:2000])
    return lab.arguments()


def rates_of_zero(lab: Lab) -> list[str]:
    weights = AngleRanker().state_dict()
    for epoch in (2, 10):
        optimizer = {"state": {}, "param_groups": [{"lr": 0.0, "params": list(range(16))}]}
        path = lab.checkpoints / f"model_epoch_{epoch}.pt"
        torch.save({"model_state_dict": weights, "optimizer_state_dict": optimizer, "args": {"margin": 10.0}}, path)
    return lab.arguments()


def model(source: str, *more: str) -> Spoil:
    """A model class `Mine` of one's own."""

    def spoil(lab: Lab) -> list[str]:
        path = lab.folder / "mine.py"
        path.write_text("import torch\nfrom tracin_func.sources.demo.ranker import AngleRanker\n" + source)
        return lab.arguments("--model", f"{path}:Mine", *more)

    return spoil


def task(changes: str) -> Spoil:
    """A task of one's own on items a, b, c, d with these arguments more."""

    def spoil(lab: Lab) -> list[str]:
        path = lab.folder / "job.py"
        path.write_text(
            "import torch, tracin_func as ti\n"
            "def job():\n"
            "    torch.manual_seed(0)\n"
            "    scorer = torch.nn.Linear(3, 1)\n"
            "    checkpoint = ti.Checkpoint(scorer.state_dict(), learning_rate=0.1)\n"
            "    arguments = dict(scorer=scorer, items=torch.randn(4, 3), checkpoints=[checkpoint],\n"
            "        train=ti.Pairs([0, 1], [1, 2], [1, -1]), test=ti.Pairs([0], [3], [1]))\n"
            f"    return ti.Task(**(arguments | dict({changes})))\n"
        )
        return ["--task", f"{path}:job", "--metadata-dir", str(lab.results)]

    return spoil


def pairs(*rows: str, heading: str = "first,second,target") -> Spoil:
    def spoil(lab: Lab) -> list[str]:
        path = lab.folder / "pairs.csv"
        path.write_text("".join(f"{row}\n" for row in (heading, *rows) if row))
        return lab.arguments("--pairs", str(path))

    return spoil


def result_holds(content: str, *, mode: int = 0o644) -> Spoil:
    def spoil(lab: Lab) -> list[str]:
        lab.results.mkdir()
        path = lab.results / "box_500hz_metadata.json"
        path.write_text(content)
        path.chmod(mode)
        return lab.arguments()

    return spoil


def result_links_to(place: str, content: str | None) -> Spoil:
    def spoil(lab: Lab) -> list[str]:
        lab.results.mkdir()
        if content is not None:
            (lab.folder / place).write_text(content)
        (lab.results / "box_500hz_metadata.json").symlink_to(lab.folder / place)
        return lab.arguments()

    return spoil


def results_cannot_be_written(lab: Lab) -> list[str]:
    if os.geteuid() == 0:  # whom permissions do not bind
        return lab.arguments("--metadata-dir", "/proc/there")
    lab.results.mkdir()
    lab.results.chmod(0o555)
    return lab.arguments()


def results_are_a_file(lab: Lab) -> list[str]:
    (lab.folder / "file").write_text("")
    return lab.arguments("--metadata-dir", str(lab.folder / "file" / "there"))


A, B, C = (f"box_deg{degree:03}_500hz_00" for degree in (0, 36, 72))
SWAPPED = [f"{A[:-2]}{i:02},{C[:-2]}{j:02},1" for i in range(4) for j in range(4)]  # that the last checkpoint orders
TEN_MEGABYTES = json.dumps({f"pair_{i}": {f"column_{j}": i / (j + 1) for j in range(20)} for i in range(12000)})

TABLE = (
    # recordings
    Row("no data root", given("--data-root", "{folder}/nowhere"), 3, "nowhere"),
    Row("a data root without classes", without_classes, 3, "no class folder"),
    Row(
        "a data root that is a file",
        given("--data-root", "{folder}/checkpoints/model_epoch_2.pt"),
        3,
        "not a folder",
    ),
    Row("no such material", given("--material", "wood"), 3, "--material wood not found"),
    Row("no such tone", given("--frequency", "3khz"), 3, "--frequency 3khz not found"),
    Row("no such class", given("--classes", "deg000,deg099"), 3, "Available: deg000, deg036, deg072"),
    Row("no such take", given("--takes", "0,9"), 3, "--takes 9 not found"),
    Row("fewer than two classes", given("--classes", "deg000"), 3, "compare at least two"),
    Row("an empty clip", clip_holds(b""), 3, "box_deg036_500hz_02.wav is empty"),
    Row("a truncated clip", clip_holds(lambda content: content[:500]), 3, "box_deg036_500hz_02.wav is truncated"),
    Row(
        "a clip that is no WAV",
        clip_holds(b"ID3\x04 of another kind" * 99),
        3,
        "box_deg036_500hz_02.wav is not a readable WAV file",
    ),
    Row("a clip of no samples", clip_sounds(np.zeros(0)), 3, "box_deg036_500hz_02.wav holds 0 samples"),
    Row("a silent clip", clip_sounds(np.zeros(4800)), 3, "box_deg036_500hz_02.wav: the clip is silent"),
    Row("a clip that holds NaN", clip_sounds(np.full(4800, np.nan)), 3, "box_deg036_500hz_02.wav holds NaN"),
    Row("a clip of another length", clip_sounds(np.ones(4000) / 2), 3, "has 4000 samples"),
    Row("a clip of another rate", clip_sounds(np.ones(4800) / 2, 44100), 3, "--sample-rate 44100"),
    Row("bad clips left out", clip_holds(b"", "--skip-bad-audio"), 0, "note: 1 of 12 recordings cannot be used"),
    Row(
        "names of no pattern",
        every_clip_is_called(lambda name: f"take-{name}"),
        3,
        "none of the 12 names follows ROOT/",
    ),
    Row("one name of no pattern", one_more("box-36-500hz-02.wav"), 0, "note: left out 1 file"),
    Row("two recordings of one id", one_more("box_deg036_500hz_2.wav"), 3, "are the same take"),
    Row("names of mixed case", every_clip_is_called(str.title), 3, "such as deg000/box/Box_Deg000_500Hz_00.Wav"),
    Row("no names for all tones", every_clip_is_called(str.title, "--frequency", "all"), 3, "in lower case"),
    Row(
        "endings of mixed case",
        every_clip_is_called(lambda name: name.replace(".wav", ".WaV")),
        0,
        "2 checkpoints, pair accuracy",
    ),
    Row("folders beyond ASCII", in_folders_beyond_ascii, 0, "2 checkpoints, pair accuracy"),
    # checkpoints
    Row("no checkpoints", given("--checkpoint-dir", "{folder}/none"), 3, "--checkpoint-dir: folder not found: "),
    Row("no checkpoint of the prefix", given("--checkpoint-prefix", "epoch"), 3, "Available: model_epoch_2.pt"),
    Row("a truncated checkpoint", checkpoint_is_cut, 3, "model_epoch_10.pt: not a readable checkpoint"),
    Row("a pickled object", checkpoint_holds(lambda own: {"model_state_dict": own, "a": Harmful()}), 3, "exec"),
    Row("a whole pickled model", checkpoint_holds(lambda own: torch.nn.Linear(2, 1)), 3, "c.state_dict()"),
    Row("a checkpoint of no weights", checkpoint_holds(lambda own: [1, 2]), 3, "model_epoch_10.pt: contains a list"),
    Row("wrong keys", checkpoint_weighs(lambda own: own.update(x=own.pop("head.1.bias"))), 3, "missing head.1.bias"),
    Row("wrong shapes", checkpoint_weighs(lambda own: own.update({"head.1.bias": torch.ones(3)})), 3, "wrong shape"),
    Row("NaN in the weights", checkpoint_weighs(lambda own: own["head.1.bias"].fill_(np.nan)), 3, "holds NaN"),
    Row("one without a rate", checkpoint_holds(lambda own: own), 3, "model_epoch_10.pt: records no learning rate"),
    Row("rates of 0", rates_of_zero, 3, "--learning-rate is 0 at every checkpoint"),
    Row("a rate of 0 given", given("--learning-rate", "0"), 3, "--learning-rate is 0 at every checkpoint"),
    # models
    Row("no such model file", given("--model", "{folder}/none.py:Mine"), 3, "none.py. It should be FILE.py:Name"),
    Row("a model file that fails", model("import nothing_there"), 3, "No module named 'nothing_there'"),
    Row("a model file of no Python", model("class Mine(:"), 3, "SyntaxError"),
    Row("a model file without the class", model("class Other: pass"), 3, "'Mine' not found in"),
    Row(
        "a model that needs arguments",
        model("class Mine(AngleRanker):\n    def __init__(self, w): pass"),
        3,
        "--model-arg",
    ),
    Row(
        "a model that takes none",
        model("class Mine(AngleRanker): pass", "--model-arg", "z=3"),
        3,
        "It was called as Mine(z=3)",
    ),
    Row(
        "a model that fails",
        model("class Mine(AngleRanker):\n    def forward(self, x): return x.nothing"),
        3,
        "cannot be run on a single item",
    ),
    Row(
        "two outputs",
        model("class Mine(AngleRanker):\n    def forward(self, x): return x, x"),
        3,
        "should return one tensor",
    ),
    Row(
        "many scores an item",
        model("class Mine(AngleRanker):\n    def forward(self, x): return x"),
        3,
        "of shape (1, 1, 1025, 19)",
    ),
    Row(
        "NaN scores",
        model("class Mine(AngleRanker):\n    def forward(self, x): return super().forward(x) * torch.nan"),
        1,
        "is NaN or infinite",
    ),
    Row(
        "all parameters frozen",
        model("def Mine(): return AngleRanker().requires_grad_(False)"),
        3,
        "AngleRanker has frozen parameters only",
    ),
    # result files
    Row("a result that is no JSON", result_holds("{"), 3, "box_500hz_metadata.json` is not JSON"),
    Row("a result that is empty", result_holds(""), 3, "box_500hz_metadata.json` is not JSON"),
    Row("a result that is no object", result_holds("[1, 2]"), 3, "Expected an object of pairs"),
    Row("a key twice", result_holds('{"a_b": {}, "a_b": {}}'), 3, "the key 'a_b' a second time"),
    Row("a read-only result", result_holds("{}", mode=0o444), 1, "box_500hz_metadata.json` is read-only"),
    Row("a result of 10 MB", result_holds(TEN_MEGABYTES), 0, "2 checkpoints, pair accuracy"),
    Row(
        "a result that is a link",
        result_links_to("real.json", '{"a_b": {"x": 1.5}}'),
        0,
        "2 checkpoints, pair accuracy",
    ),
    Row("a link to itself", result_links_to("results/box_500hz_metadata.json", None), 1, "box_500hz_metadata.json` "),
    Row("a folder that cannot be written", results_cannot_be_written, 1, "not be written"),
    Row("a folder below a file", results_are_a_file, 1, "file` is not a folder"),
    Row("a full disk", given(), 1, "Its former content is unchanged", limit=300),
    Row("a full disk for a table", given("--format", "csv"), 1, "Its former content is unchanged", limit=300),
    # items and pairs
    Row("two items of one id", task("item_ids=['a', 'b', 'a', 'd']"), 3, "two items have the id 'a'"),
    Row(
        "ids whose join is ambiguous",
        task("item_ids=['a', 'b_c', 'a_b', 'c'], train=ti.Pairs([0, 2], [1, 3], [1, 1])"),
        3,
        "two pairs have the id 'a_b_c'",
    ),
    Row(
        "one pair with two targets",
        task("train=ti.Pairs([0, 0], [1, 1], [1, -1])"),
        3,
        "two pairs have the id '0_1'",
    ),
    Row(
        "a pair of an item with itself",
        task("train=ti.Pairs([0, 1], [0, 2], [1, 1])"),
        3,
        "'second' is 0; expected another item than 'first'",
    ),
    Row("a tie in a task", task("train=ti.Pairs([0, 1], [1, 2], [1, 0])"), 3, "a tie cannot be ranked"),
    Row(
        "a position of no item",
        task("train=ti.Pairs([0, 1], [1, 9], [1, 1])"),
        3,
        "train pair 1: 'second' is 9; expected the position of an item, below",
    ),
    Row("a task without test pairs", task("test=None"), 3, "`test` is missing in the task", "influence"),
    Row("a tie among test pairs", given("--test-pairs", f"{C}_box_deg072_500hz_01"), 3, "of one class", "influence"),
    Row("a test pair of no items", given("--test-pairs", "a_b"), 3, "does not name two items", "influence"),
    Row("more test pairs than there are", given("--num-test", "500"), 3, "--num-test 500 is more than", "influence"),
    Row("no pairs file", given("--pairs", "{folder}/none.csv"), 3, "file not found"),
    Row("an empty pairs file", pairs(heading=""), 3, "pairs.csv is empty"),
    Row("a pairs file of a heading", pairs(), 3, "pairs.csv has no training pair"),
    Row("a pairs file without a column", pairs(f"{A},{B}", heading="first,second"), 3, "Missing: target"),
    Row("a target of no number", pairs(f"{A},{B},more"), 3, "line 2: 'target' is 'more'"),
    Row("a target of 0", pairs(f"{A},{B},0"), 3, "line 2: 'target' is '0'"),
    Row("a row that is too short", pairs(f"{A},{B},1", f"{A}"), 3, "line 3: 1 fields"),
    Row(
        "a weight of no number",
        pairs(f"{A},{B},1,x", heading="first,second,target,weight"),
        3,
        "line 2: 'weight' is 'x'",
    ),
    Row(
        "a split of another name",
        pairs(f"{A},{B},1,x", heading="first,second,target,split"),
        3,
        "line 2: 'split' is 'x'",
    ),
    Row("unknown ids", pairs(f"{A},box_deg099_500hz_00,1"), 3, "which is no item"),
    Row("an item with itself", pairs(f"{A},{A},1"), 3, "expected another item than 'first'"),
    Row("two targets", pairs(f"{B},{A},1", f"{B},{A},-1"), 3, "repeats the pair of line 2"),
    Row(
        "targets that are swapped",
        pairs(*SWAPPED),
        0,
        "warning: the last checkpoint has a training pair accuracy of only",
    ),
    Row(
        "a pairs file that is no text",
        given("--pairs", "{folder}/checkpoints/model_epoch_2.pt"),
        3,
        "is not UTF-8 text",
    ),
    Row("a pairs file that is a folder", given("--pairs", "{folder}"), 3, "Is a directory"),
    Row(
        "exclusions that are no file",
        given("--exclusions-file", "{folder}/none.txt"),
        3,
        "--exclusions-file: file not found: ",
    ),
    Row(
        "exclusions that are no text",
        given("--exclusions-file", "{folder}/checkpoints/model_epoch_2.pt"),
        3,
        "is not UTF-8 text",
    ),
    # options
    Row(
        "a margin for another loss",
        given("--loss-type", "logistic", "--margin", "2"),
        0,
        "warning: --margin: no effect",
    ),
    Row(
        "a rate that is not used",
        given("--checkpoint-weights", "uniform", "--learning-rate", "1"),
        2,
        "ignores learning rates",
    ),
    Row(
        "test pairs and their number",
        given("--test-pairs", "a_b", "--num-test", "2"),
        2,
        "cannot be combined",
        "influence",
    ),
    Row("a projection that is none", given("--projection", "srp"), 2, "--projection should be one of none, auto, "),
    Row("numbers of no projection", given("--proj-dim", "64"), 2, "--proj-dim was given without --projection"),
    Row("a seed of no projection", given("--projection-seed", "1"), 2, "--projection-seed was given without"),
    Row(
        "a dimension of none",
        given("--store", "{folder}/store", "--projection", "none", "--proj-dim", "64"),
        2,
        "--proj-dim was given with --projection none",
    ),
    Row(
        "a store of exact gradients out of proportion",
        given("--store", "{folder}/store", "--proj-dim", "64"),
        3,
        "store would take 38.3 MB for exact gradients of 398,793 dimensions; projected to 64 they take 6.14 kB",
    ),
    Row("one number", given("--projection", "sjlt", "--proj-dim", "1"), 2, "--proj-dim should be at least 2. Got 1"),
    Row("a shard beyond the last", given("--store", "{folder}/store", "--shard", "3/2"), 2, "I from 1 to N"),
    Row("a shard that is none", given("--store", "{folder}/store", "--shard", "1"), 2, "--shard should be I/N"),
    Row(
        "a shard that is only told of",
        given("--store", "{folder}/store", "--shard", "1/2", "--dry-run"),
        2,
        "--dry-run was given with --shard, which scores nothing",
    ),
    Row(
        "a shard that is verified",
        given("--store", "{folder}/store", "--shard", "1/2", "--verify", "3"),
        2,
        "--verify was given with --shard, which scores nothing",
    ),
    Row(
        "one store for all tones",
        given("--store", "{folder}/store", "--frequency", "all"),
        2,
        "--frequency all keeps a store for each run. Expected {frequency} in --store",
    ),
    Row("a shard of no store", given("--shard", "1/2"), 2, "--shard was given without --store"),
    Row("a type of no store", given("--store-dtype", "float16"), 2, "--store-dtype was given without --store"),
    Row(
        "no type of rows", given("--store", "{folder}/store", "--store-dtype", "int8"), 2, "float32, float16, bfloat16"
    ),
    Row("no threads", given("--threads", "0"), 2, "--threads should be at least 1. Got 0"),
    Row("gradients for nothing", recordings(), 2, "Expected --store FOLDER", "gradients"),
    Row("a store that is a file", given("--store", "{folder}/checkpoints/model_epoch_2.pt"), 3, "model_epoch_2.pt"),
    Row("a store of other files", given("--store", "{folder}/checkpoints"), 3, "is no gradient store and not empty"),
    Row("gradients to other files", recordings("--store", "{folder}/data"), 3, "is no gradient store", "gradients"),
    Row("store: no such action", words("look", "{folder}"), 2, "should be one of info, verify. Got 'look'", "store"),
    Row("store: no store", words("info", "{folder}"), 3, "is no gradient store: it has no manifest.json", "store"),
    Row("store: no folder", words("verify", "{folder}/none"), 3, "is no gradient store", "store"),
    Row("store: to drop nothing", words("info", "{folder}", "--drop"), 2, "--drop belongs to verify", "store"),
    Row("merge: no store", words("{folder}/data"), 3, "is no gradient store", "merge"),
    Row("a model argument alone", given("--model-arg", "a=1"), 2, "without --model"),
    Row("a task and data", given("--task", "x.py:job"), 2, "cannot be used here"),
    Row("a folder for all tones of no place", given("--checkpoint-dir", "{frequenzy}"), 2, "placeholder"),
    Row(
        "a record that is none",
        given("--from", "{folder}/checkpoints/model_epoch_2.pt"),
        3,
        "Name the FILE.provenance.json",
    ),
    Row("no such record", given("--from", "{folder}/none.json"), 3, "none.json: no such file"),
    Row("show: no such file", lambda lab: [str(lab.folder / "none.json")], 3, "none.json`: file not found", "show"),
    Row("show: a checkpoint", lambda lab: [str(lab.checkpoints / "model_epoch_2.pt")], 3, "is not UTF-8 text", "show"),
    Row("demo: a folder in use", lambda lab: [str(lab.data)], 2, "not an empty folder", "demo"),
)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name.replace(" ", "-"))
def test_every_fault_is_one_line(row: Row, lab: Lab) -> None:
    command = [row.command, *row.spoil(lab)]
    before = lab.files()
    if row.limit is None:
        result = CliRunner().invoke(app, command)
        code, stdout, stderr = result.exit_code, result.stdout, result.stderr
    else:
        done = subprocess.run(
            [sys.executable, "-m", "tracin_func", *command], capture_output=True, text=True, check=False,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (row.limit, row.limit)),
        )  # fmt: skip
        code, stdout, stderr = done.returncode, done.stdout, done.stderr
    errors = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert code == row.code, stderr
    assert "Traceback" not in stdout + stderr
    assert "fault inside" not in stderr
    assert len(errors) == (code != 0), stderr
    assert any(row.words in line for line in errors or stderr.splitlines()), stderr
    if code:
        assert stderr.splitlines()[-1] == errors[0]
        assert lab.files() == before


# What needs a process, a terminal, or another environment


def in_terminal(lab: Lab, *words: str, columns: int = 60, **environment: str) -> tuple[int, str]:
    """Exit code and everything shown of a command whose streams are a terminal."""
    own, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    variables = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS")}
    process = subprocess.Popen(
        [sys.executable, "-m", "tracin_func", *words],
        stdin=terminal, stdout=terminal, stderr=terminal, cwd=lab.folder,
        env=variables | {"TERM": "xterm-256color"} | environment,
    )  # fmt: skip
    os.close(terminal)
    shown = b""
    with contextlib.suppress(OSError), open(own, "rb", buffering=0) as stream:  # Linux ends a terminal with an error
        while chunk := stream.read(1 << 16):
            shown += chunk
    return process.wait(), shown.decode()


@pytest.fixture
def scored(lab: Lab) -> Lab:
    """A lab whose scores of both kinds are in their files."""
    result = CliRunner().invoke(app, ["influence", *lab.arguments("--with-self", "--num-test", "2")])
    assert result.exit_code == 0, result.stderr
    return lab


def test_a_terminal_of_sixty_columns_without_color(scored: Lab) -> None:
    """Whatever is shown: NO_COLOR leaves no escape sequence but those that a progress bar moves the cursor with."""
    results = [str(scored.results / name) for name in ("box_500hz_metadata.json", "box_500hz_influence_metadata.json")]
    paths = (str(scored.folder),)
    commands = (["show", results[0]], ["show", results[1]], ["self", *scored.arguments()], ["self", "--help"])
    for words in (*commands, ["show", "nowhere"]):
        code, shown = in_terminal(scored, *words, NO_COLOR="1")
        assert code == (3 if words[-1] == "nowhere" else 0), shown
        assert "Traceback" not in shown
        assert not re.search(r"\x1b\[[\d;]*m", shown), words
        lines = re.sub(r"\x1b\[[?\d]*[A-Za-z]", "\n", shown).splitlines()
        tables = [line for line in lines if re.search("[│─╭╰━█]|  box_deg|_box_deg", line)]
        assert bool(tables) == (words[-1] != "nowhere")
        assert all(len(line) <= 60 for line in tables if not any(name in line for name in paths)), shown
    code, shown = in_terminal(scored, "show", results[0])
    assert "\x1b[" in shown, "without NO_COLOR there is color, so that the above says something"


def test_a_reader_of_few_lines(scored: Lab) -> None:
    before = scored.files()
    for words in (["show", str(scored.results / "box_500hz_influence_metadata.json")], ["--help"], ["self", "--help"]):
        command = f"{shlex.join([sys.executable, '-m', 'tracin_func', *words])} | head -n 1; exit ${{PIPESTATUS[0]}}"
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
    assert scored.files() == before


@pytest.fixture
def finished_cache(embedded_500hz: EmbeddedDemo, tmp_path: Path) -> Path:
    """A copy of the embedded default as a cache, or as the spare of a cache, would hold it."""
    source = embedded_500hz.data_root.parent
    shutil.copytree(source, tmp_path / "embedded" / source.name)
    return tmp_path


def embedded_run(folder: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """The embedded default, with nothing of this environment but paths, threads and what is given."""
    (folder / "work").mkdir()
    return subprocess.run(
        [sys.executable, "-m", "tracin_func", "self", "--limit", "3"], capture_output=True, text=True, check=False,
        cwd=folder / "work",
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
    )  # fmt: skip


def test_without_a_home_folder(finished_cache: Path) -> None:
    """No HOME that could be written, no XDG: what a folder for temporary files holds serves, and the log says so."""
    spare = finished_cache / f"tracin-func-{os.getuid()}"
    spare.mkdir(mode=0o700)
    (finished_cache / "embedded").rename(spare / "embedded")
    nowhere = finished_cache / "file"
    nowhere.touch()
    done = embedded_run(finished_cache, {"HOME": str(nowhere / "home"), "TMPDIR": str(finished_cache)})
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert f"{nowhere / 'home'}/" in done.stderr
    assert (
        f"cannot be written (Not a directory): the embedded example is cached in {spare / 'embedded'}." in done.stderr
    )
    assert len(json.loads((finished_cache / "work/metadata/plastic_500hz_metadata.json").read_text())) == 3


def test_a_cache_that_cannot_be_written_and_is_whole(finished_cache: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (finished_cache / "embedded").rglob("*")}
    (finished_cache / "embedded").chmod(0o555)
    try:
        done = embedded_run(finished_cache, {"HOME": "/", CACHE_VARIABLE: str(finished_cache)})
    finally:
        (finished_cache / "embedded").chmod(0o755)
    assert done.returncode == 0, done.stderr
    assert "cannot be written" not in done.stderr
    assert before == {path: path.stat().st_mtime_ns for path in (finished_cache / "embedded").rglob("*")}


def test_a_result_of_ten_megabytes_and_a_link_keep_what_they_held(lab: Lab) -> None:
    path = lab.results / "box_500hz_metadata.json"
    for spoil, real in (
        (result_holds(TEN_MEGABYTES), path),
        (result_links_to("real.json", "{}"), lab.folder / "real.json"),
    ):
        shutil.rmtree(lab.results, ignore_errors=True)
        words = spoil(lab)
        before = json.loads(real.read_text())
        assert CliRunner().invoke(app, ["self", *words]).exit_code == 0
        after = json.loads(real.read_text())
        assert {pair: after[pair] for pair in before} == before
        assert len(after) > len(before)
        assert path.is_symlink() == (real != path)

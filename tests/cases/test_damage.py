"""Files with random bytes changed: what reads them works or says in one line what is wrong, and what is there stays."""

import json
import random
import shutil
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

import tracin_func as ti
from tests.support import calls
from tests.support.cases.audio import HEADERS, TAG
from tests.support.cases.damage import damaged
from tests.support.cases.modules import perceptron
from tests.support.cases.reference import copied, noise, seeded
from tests.support.cases.tables import LETTER_IDS, write_parquet
from tracin_func.cli.options import INFLUENCE
from tracin_func.cli.processes import record_job, recorded_job
from tracin_func.cli.repeat import recorded_options
from tracin_func.errors import InputError, NumericalError, UsageError
from tracin_func.files import read_lines
from tracin_func.gradients.store.inspect import check, inspect
from tracin_func.report.terminal.file import document, print_selection, select
from tracin_func.results.files.read import read_result
from tracin_func.results.files.scores_json import JSON
from tracin_func.results.files.scores_parquet import PARQUET
from tracin_func.results.names import SELF_COLUMN
from tracin_func.results.views import PAIR
from tracin_func.sources.options import Options, groups_of
from tracin_func.sources.recordings.wav import read_wav
from tracin_func.task.pair_files import read_pairs

CLEAR = (InputError, UsageError, NumericalError)
ITEMS = noise(6, 5)
TRAIN = ti.Pairs([0, 1, 2, 3], [1, 2, 3, 4], [1, -1, 1, 1])
TEST = ti.Pairs([5], [0], [1])
GROUPS = groups_of(INFLUENCE)
OPTIONS = {
    "data_root": "data",
    "seed": 1,
    "margin": 0.5,
    "model_arg": ["a=1"],
    "model": "a.py:A",
    "skip_bad_audio": True,
}


def task_at(source: Any, rate: float | None = None) -> ti.Task:
    return ti.Task(perceptron(), ITEMS, TRAIN, [ti.Checkpoint(source, rate)], TEST, ti.LogisticLoss())


def scored(source: Any, rate: float | None = None, **compute: Any) -> calls.Scores:
    compute = {"device": "cpu", "engine": "item", "batch_size": 6, "notice": lambda _: None} | compute
    return calls.score(task_at(source, rate), calls.how(**compute), influence=True)


RIGHT = scored(copied(seeded(perceptron).state_dict()), 0.1)


# What is written, one folder per kind; the first files are damaged, the others lie beside them.


def recording(folder: Path) -> list[Path]:
    samples = np.random.default_rng(0).integers(-3000, 3000, 300, dtype=np.int16)
    (folder / "plain.wav").write_bytes(HEADERS["another chunk of odd length"](samples))
    (folder / "long.wav").write_bytes(TAG + HEADERS["RF64"](samples))
    return [folder / "plain.wav", folder / "long.wav"]


def checkpoint(folder: Path) -> list[Path]:
    module = seeded(perceptron)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.1)
    module(ITEMS).sum().backward()
    optimizer.step()
    content = {
        "model_state_dict": copied(seeded(perceptron).state_dict()),
        "optimizer_state_dict": optimizer.state_dict(),
        "epoch": 3,
        "args": {"margin": 10.0, "seed": 3, "loss_type": "ghm", "lr": 0.1},
    }
    torch.save(content, folder / "a.pt")
    return [folder / "a.pt"]


def tensors(folder: Path) -> list[Path]:
    safetensors.torch.save_file(copied(seeded(perceptron).state_dict()), folder / "a.safetensors")
    return [folder / "a.safetensors"]


def pairs_csv(folder: Path) -> list[Path]:
    rows = [
        f"d{a},d{b},{1 - 2 * (a % 2)},{'test' if a == 3 else 'train'},{a / 2}\n" for a, b in ((0, 1), (1, 2), (3, 4))
    ]
    (folder / "pairs.csv").write_text("first,second,target,split,weight\n" + "".join(rows))
    (folder / "out.txt").write_text("# left out\nd0\nd1_d2\n")
    return [folder / "pairs.csv", folder / "out.txt"]


def pairs_parquet(folder: Path) -> list[Path]:
    write_parquet(folder / "ids.parquet", split=["train", "test"], weight=[0.5, None])
    write_parquet(folder / "positions.parquet", first=[0, 1], second=[1, 2], count=[1, 2])
    return [folder / "ids.parquet", folder / "positions.parquet"]


def results(suffix: str) -> Callable[[Path], list[Path]]:
    def write(folder: Path) -> list[Path]:
        assert RIGHT.self_influence is not None
        assert RIGHT.influence is not None
        for name, result in (("own", RIGHT.self_influence), ("influence", RIGHT.influence)):
            result.save(folder / f"{name}.{suffix}", command=["tracin-func", "self"], options=OPTIONS)
        return [folder / f"own.{suffix}", folder / f"influence.{suffix}"]

    return write


def provenance(folder: Path) -> list[Path]:
    return [path.with_name(f"{path.name}.provenance.json") for path in results("json")(folder)]


def store(folder: Path) -> list[Path]:
    scored(copied(seeded(perceptron).state_dict()), 0.1, store=folder / "store")
    record_job(folder / "store", "self", OPTIONS, (1, 2))
    return []


def store_blocks(folder: Path) -> list[Path]:
    store(folder)
    (home,) = (folder / "store").glob("001-*")
    return [home / "rows.bin", home / "values.bin", home / "done/0.json"]


def store_records(folder: Path) -> list[Path]:
    store(folder)
    (home,) = (folder / "store").glob("001-*")
    return [folder / "store/manifest.json", home / "checkpoint.json", folder / "store/job.json"]


# What reads them


def read_recording(path: Path) -> None:
    read_wav(path)


def read_checkpoint(path: Path) -> None:
    scored(path, None if path.suffix == ".pt" else 0.1)


def read_checkpoint_with_adam(path: Path) -> None:
    scored(path, preconditioner="adam")


def read_table(path: Path) -> None:
    if path.suffix == ".txt":
        read_lines(path)
    else:
        read_pairs(path, LETTER_IDS)


def show(path: Path) -> None:
    found = read_result(path.with_name(path.name.removesuffix(".provenance.json")))
    ti.load(found.path)
    selection = select(found, None, PAIR)
    json.dumps(document(selection, PAIR, None, 5), allow_nan=False)
    with redirect_stdout(StringIO()):
        print_selection(selection, PAIR, None, 5, with_histogram=True, verbose=True)


def merge(path: Path) -> None:
    """Own results go into a JSON file beside what is in it, or in the place of a table."""
    path = path.with_name(path.name.removesuffix(".provenance.json"))
    before = path.read_bytes()
    assert RIGHT.self_influence is not None
    if path.suffix == ".json":
        JSON.check(path)
        JSON.conflict(path, False)
    else:
        PARQUET.conflict(path, False)
    RIGHT.self_influence.save(path)
    if path.suffix == ".json":
        old, new = (json.loads(text, parse_float=str, parse_int=str) for text in (before, path.read_bytes()))
        own = set(RIGHT.self_influence.ids)
        for pair, columns in old.items():
            kept = {name: value for name, value in columns.items() if name != SELF_COLUMN or pair not in own}
            assert kept.items() <= new[pair].items()


def repeat(path: Path) -> None:
    threads = torch.get_num_threads()
    try:
        recorded_options("influence" if "influence" in path.name else "self", Options(GROUPS, {"repeat": path}))
    finally:
        torch.set_num_threads(threads)


def use_store(path: Path) -> None:
    folder = next(parent for parent in path.parents if parent.name == "store")
    found = scored(copied(seeded(perceptron).state_dict()), 0.1, store=folder)
    assert found.self_influence is not None
    assert RIGHT.self_influence is not None
    assert torch.allclose(found.self_influence.scores, RIGHT.self_influence.scores, rtol=1e-6, atol=0)


def describe_store(path: Path) -> None:
    folder = next(parent for parent in path.parents if parent.name == "store")
    inspect(folder)
    list(check(folder))
    _, options = recorded_job(folder)
    Options(GROUPS, options).checked()


@dataclass(frozen=True)
class Kind:
    """Files of a kind, what reads one, how many damaged ones are tried, and whether a checkpoint may be added."""

    write: Callable[[Path], list[Path]]
    read: Callable[[Path], None]
    count: int = 300
    adds: bool = False


KINDS = {
    "recordings": Kind(recording, read_recording),
    "checkpoints": Kind(checkpoint, read_checkpoint, 100),
    "checkpoints, Adam": Kind(checkpoint, read_checkpoint_with_adam, 50),
    "safetensors": Kind(tensors, read_checkpoint, 100),
    "pairs in CSV": Kind(pairs_csv, read_table),
    "pairs in Parquet": Kind(pairs_parquet, read_table),
    "results in JSON": Kind(results("json"), show, 100),
    "results in CSV": Kind(results("csv"), show, 100),
    "results in Parquet": Kind(results("parquet"), show, 200),
    "results in JSON, merged": Kind(results("json"), merge, 100),
    "results in Parquet, replaced": Kind(results("parquet"), merge, 10),
    "provenance, shown": Kind(provenance, show, 50),
    "provenance, merged": Kind(provenance, merge, 100),
    "provenance, repeated": Kind(provenance, repeat),
    "blocks of a store": Kind(store_blocks, use_store, 30),
    "blocks of a store, described": Kind(store_blocks, describe_store),
    "records of a store": Kind(store_records, use_store, 50, adds=True),  # where a record names another checkpoint
    "records of a store, described": Kind(store_records, describe_store),
}


def tries(kind: Kind, request: pytest.FixtureRequest) -> int:
    """How many damaged files are tried."""
    return kind.count * (10 if request.config.getoption("--thorough", default=False) else 1)


def contents(folder: Path) -> dict[Path, bytes]:
    """What is in every file but the locks."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"}


def attempt(kind: Kind, folder: Path, path: Path, content: bytes, whole: dict[Path, bytes]) -> None:
    """Read the damaged file: a refusal is a sentence and leaves all files as they were; nothing is left half done."""
    path.write_bytes(content)
    about = f"{path.name}: {content!r}"
    refused = None
    try:
        kind.read(path)
    except CLEAR as error:
        refused = str(error)
    except Exception as error:
        raise AssertionError(about) from error
    left = contents(folder)
    added = left.keys() - whole.keys()
    assert whole.keys() <= left.keys(), about
    assert kind.adds or not added, about
    tops = {folder / Path(*each.relative_to(folder).parts[:2]) for each in added}  # store/002-NAME
    assert all((top / "checkpoint.json") in added for top in tops), about
    if refused is not None:
        assert len(refused) > 20, about
        assert left == whole | {path: content}, about
    for top in tops:
        shutil.rmtree(top)
    for each, text in whole.items():
        if left[each] != text:
            each.write_bytes(text)


@pytest.mark.parametrize("name", KINDS)
def test_damaged_files(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    kind, rng = KINDS[name], random.Random(name)
    files = kind.write(tmp_path)
    whole = contents(tmp_path)
    for number in range(tries(kind, request)):
        path = files[number % len(files)]
        attempt(kind, tmp_path, path, damaged(whole[path], rng), whole)


@pytest.mark.parametrize(
    ("name", "file", "old", "new"),
    [
        ("pairs in Parquet", "positions.parquet", "target", "targ\x80t"),
        ("pairs in Parquet", "ids.parquet", "d0", "d\x80"),
        ("pairs in Parquet", "ids.parquet", "train", "trai\x80"),
        ("results in Parquet", "own.parquet", "first", "firs\x80"),
        ("results in Parquet", "own.parquet", "0_1", "0_\x80"),
        ("records of a store", "manifest.json", '"block": ', '"block": ' + "9" * 30),
        ("records of a store", "checkpoint.json", '"checkpoint 1"', "[]"),
        ("records of a store", "checkpoint.json", '"checkpoint 1"', "{}"),
        ("records of a store, described", "job.json", '"seed"', '"sead"'),
        ("provenance, repeated", "own.json.provenance.json", '"threads": 1', '"threads": -1'),
        ("provenance, repeated", "own.json.provenance.json", '"threads": 1', '"threads": "x"'),
        ("provenance, shown", "influence.json.provenance.json", '"test_functional": "loss"', '"test_functional": []'),
    ],
)
def test_damage_that_was_found(name: str, file: str, old: str, new: str, tmp_path: Path) -> None:
    """Each once ended in an error of Python."""
    kind = KINDS[name]
    (path,) = (path for path in kind.write(tmp_path) if path.name == file)
    whole = contents(tmp_path)
    assert old.encode() in whole[path]
    attempt(kind, tmp_path, path, whole[path].replace(old.encode(), new.encode("latin-1")), whole)

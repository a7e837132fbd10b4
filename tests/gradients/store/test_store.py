"""The gradient store: round trips, runs that end early, disks that fill, bytes that change, several processes."""

import contextlib
import dataclasses
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.prepared import PREPARED, await_end
from tests.support.series import several
from tracin_func.errors import InputError, NumericalError, OutputError
from tracin_func.gradients.store.blocks import CheckpointRecord
from tracin_func.gradients.store.encoding import ROW_DTYPES, decode, encode
from tracin_func.gradients.store.identity import Manifest, items_digest, weights_digest
from tracin_func.gradients.store.inspect import check, drop, inspect
from tracin_func.gradients.store.locks import preparing
from tracin_func.gradients.store.store import Store, open_store

MANIFEST = Manifest("items", 23, 7, "float32", 4, 2, {"model": "Ranker", "projection": {"seed": 1}}, {"torch": "2.6"})
RECORDS = (CheckpointRecord("epoch 1", "a" * 64, 0.1), CheckpointRecord("epoch/2", "b" * 64, {"w": 0.1}, "float64"))
ROUNDING = {"float32": 0.0, "float16": 2.0**-11, "bfloat16": 2.0**-8}


def block_of(checkpoint: str, start: int, stop: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows and values of units, the same whoever asks."""
    generator = torch.Generator().manual_seed(len(checkpoint) + 10 * start)
    return torch.randn(stop - start, width, generator=generator), torch.randn(stop - start, generator=generator)


@contextlib.contextmanager
def opened(
    folder: Path, manifest: Manifest = MANIFEST, checkpoints: Sequence[CheckpointRecord] = RECORDS, **settings: Any
) -> Iterator[Store]:
    with open_store(folder, manifest, **{"command": "self --limit 3", **settings}) as store:
        for record in checkpoints:
            store.admit(record)
        yield store


def fill(store: Store, pause: float = 0.0) -> int:
    """Write what is missing; how many blocks that were."""
    count = 0
    for record in RECORDS:
        for block in store.missing(record.name):
            start, stop = store.manifest.range(block)
            store.write(record.name, block, *block_of(record.name, start, stop, store.manifest.width))
            count += 1
            time.sleep(pause)
    return count


def filled(folder: Path, manifest: Manifest = MANIFEST) -> Path:
    with opened(folder, manifest) as store:
        fill(store)
    return folder


def expected(checkpoint: str, manifest: Manifest) -> tuple[torch.Tensor, torch.Tensor]:
    parts = [block_of(checkpoint, *manifest.range(block), manifest.width) for block in range(manifest.blocks)]
    return torch.cat([rows for rows, _ in parts]), torch.cat([values for _, values in parts])


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a store that lasts."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def said(work: Callable[..., str], *arguments: object) -> str:
    """What `work` returns in a process of its own."""
    own, others = PREPARED.Pipe(duplex=False)
    child = PREPARED.Process(target=_say, args=(others, work, arguments))
    child.start()
    others.close()
    with own:
        text = str(own.recv())
    child.join()
    assert child.exitcode == 0
    return text


def _say(place: Connection, work: Callable[..., str], arguments: tuple[object, ...]) -> None:
    place.send(work(*arguments))


def fill_slowly(folder: Path) -> None:
    with opened(folder) as store:
        fill(store, pause=0.01)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a store holds that was filled in one go."""
    return contents(filled(tmp_path_factory.mktemp("undisturbed") / "store"))


# Rows


@pytest.mark.parametrize("dtype", ROW_DTYPES)
def test_rows_and_values_come_back(tmp_path: Path, dtype: str) -> None:
    manifest = dataclasses.replace(MANIFEST, dtype=dtype)
    filled(tmp_path / "store", manifest)
    with opened(tmp_path / "store", manifest) as store:
        for record in RECORDS:
            rows, values = expected(record.name, manifest)
            read = store.read_rows(record.name, slice(None))
            assert read.dtype == torch.float32
            torch.testing.assert_close(read, rows, rtol=ROUNDING[dtype], atol=0)
            torch.testing.assert_close(store.read_values(record.name), values.to(getattr(torch, record.values)))
            index = torch.tensor([22, 3, 4, 5, 5, 0])
            assert torch.equal(store.read_rows(record.name, index), read[index])
            assert torch.equal(store.read_rows(record.name, slice(3, 20, 5)), read[3:20:5])
            assert store.read_rows(record.name, torch.tensor([], dtype=torch.int64)).shape == (0, manifest.width)


def halves(rows: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    stored, scales = encode(rows, dtype)
    assert scales is not None
    return stored, scales


@given(
    st.lists(
        st.lists(st.floats(-3.4028234663852886e38, 3.4028234663852886e38, width=32), min_size=3, max_size=3),
        min_size=1, max_size=4,
    ),
    st.sampled_from(["float16", "bfloat16"]),
)  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_half_precision_keeps_rows_of_any_magnitude(rows: list[list[float]], dtype: str) -> None:
    exact = torch.tensor(rows, dtype=torch.float32)
    stored, scales = halves(exact, ROW_DTYPES[dtype])
    read = decode(stored, scales, torch.empty_like(exact))
    assert torch.isfinite(stored).all()
    assert torch.isfinite(read).all()
    largest = exact.double().abs().amax(dim=1, keepdim=True)
    # An entry is rounded at its own size; far below the largest of its row it may vanish, as may a subnormal one.
    allowed = exact.double().abs() * ROUNDING[dtype] + largest * 2.0**-38 + 2.0**-149
    assert ((read.double() - exact.double()).abs() <= allowed).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_powers_of_two_are_stored_exactly(dtype: torch.dtype) -> None:
    powers = 2.0 ** torch.arange(-149, 128, dtype=torch.float64)
    rows = torch.stack([powers, -powers, 0 * powers], dim=1).float()
    assert torch.equal(decode(*halves(rows, dtype), torch.empty_like(rows)), rows)


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (float("nan"), "gradient of unit 5 is NaN or infinite. Finished"),
        (float("-inf"), "gradient of unit 5 is NaN or infinite. Finished"),
        (1e39, "gradient of unit 5 is too large for float32"),
    ],
)
@pytest.mark.parametrize("dtype", ROW_DTYPES)
def test_rows_that_are_not_finite_are_refused(tmp_path: Path, dtype: str, number: float, message: str) -> None:
    with opened(tmp_path / "store", dataclasses.replace(MANIFEST, dtype=dtype)) as store:
        rows = torch.ones(4, 7, dtype=torch.float64)
        rows[1, 3] = number
        with pytest.raises(NumericalError, match=message):
            store.write("epoch 1", 1, rows, torch.ones(4))
        assert 1 in store.missing("epoch 1")
        store.write("epoch 1", 1, torch.ones(4, 7), torch.full((4,), 1e300, dtype=torch.float64))
        with pytest.raises(NumericalError, match="score of unit 7 is NaN or infinite"):
            store.write("epoch 1", 1, torch.ones(4, 7), torch.tensor([0.0, 0.0, 0.0, float("nan")]))


def test_a_unit_that_is_missing_is_not_read_as_zeros(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        store.write("epoch 1", 1, torch.ones(4, 7), torch.ones(4))
        assert store.missing("epoch 1") == [0, 2, 3, 4, 5]
        assert torch.equal(store.read_rows("epoch 1", slice(4, 8)), torch.ones(4, 7))
        with pytest.raises(InputError, match="has no block 2 of checkpoint 'epoch 1' yet"):
            store.read_rows("epoch 1", torch.tensor([4, 8]))
        with pytest.raises(InputError, match=r"block 0 of .* \(5 are missing\)"):
            store.read_values("epoch 1")


@pytest.mark.parametrize("index", [torch.tensor([0, 23]), torch.tensor([-1])])
def test_a_unit_that_is_none_is_refused(tmp_path: Path, index: torch.Tensor) -> None:
    filled(tmp_path / "store")
    with opened(tmp_path / "store") as store, pytest.raises(AssertionError):
        store.read_rows("epoch 1", index)


def test_what_does_not_fit_a_block_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        for block, rows, values in ((5, (4, 7), (4,)), (5, (3, 7), (3, 1)), (6, (4, 7), (4,))):
            with pytest.raises(AssertionError):
                store.write("epoch 1", block, torch.ones(rows), torch.ones(values))
        assert store.missing("epoch 1") == list(range(6))


# Going on


def test_a_run_makes_only_what_is_missing(tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    with opened(tmp_path / "store") as store:
        store.write("epoch 1", 3, *block_of("epoch 1", 12, 16, 7))
    with opened(tmp_path / "store") as store:
        assert fill(store) == 11
    with opened(tmp_path / "store") as store:
        assert fill(store) == 0
    assert contents(tmp_path / "store") == undisturbed


def test_block_and_chunk_of_the_store_win(tmp_path: Path) -> None:
    filled(tmp_path / "store")
    with opened(tmp_path / "store", dataclasses.replace(MANIFEST, block=5, chunk=9)) as store:
        assert (store.manifest.block, store.manifest.chunk, store.manifest.blocks) == (4, 2, 6)
        assert fill(store) == 0


def test_checkpoints_are_added_and_others_stay(tmp_path: Path) -> None:
    filled(tmp_path / "store")
    more = CheckpointRecord("epoch 3", "c" * 64, 0.1)
    with opened(tmp_path / "store", checkpoints=[more]) as store:
        assert store.missing("epoch 3") == list(range(6))
    states = inspect(tmp_path / "store").checkpoints
    assert [(state.name, state.done) for state in states] == [("epoch 1", 6), ("epoch/2", 6), ("epoch 3", 0)]
    assert [state.folder for state in states] == ["001-epoch_1", "002-epoch_2", "003-epoch_3"]


@pytest.mark.parametrize("seed", range(several(8, 20)))
def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path: Path, seed: int, undisturbed: dict[str, bytes]) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    child = PREPARED.Process(target=fill_slowly, args=(folder,))
    child.start()
    while not any(folder.iterdir()):
        assert child.is_alive(), "it ended before it opened the store"
    # The first five while they open the store, the others while they write.
    time.sleep(random.Random(seed).uniform(*((0, 0.02) if seed < 5 else (0.05, 0.4))))
    pid = child.pid
    assert pid is not None
    child.kill()
    child.join()
    child.close()
    await_end(pid)
    with FileLock(folder / "run.lock", timeout=5):  # the system may close files of a killed process a moment later
        pass
    filled(folder)
    assert list(check(folder)) == []
    assert contents(folder) == undisturbed


# Disks and permissions


def fill_up_to_a_limit(folder: Path) -> str:
    with opened(folder) as store:
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
        try:
            fill(store)
        except OutputError as error:
            return str(error)
    return "filled"


def test_a_file_size_limit_ends_a_write_in_one_line(tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    out = said(fill_up_to_a_limit, tmp_path / "store")
    assert "\n" not in out
    assert f"`store` {tmp_path / 'store'} cannot grow: File too large; 144 bytes were needed" in out
    assert "Its finished blocks are kept." in out
    assert inspect(tmp_path / "store").checkpoints[0].done == 4  # rows of 4 blocks are 448 bytes
    filled(tmp_path / "store")
    assert contents(tmp_path / "store") == undisturbed


def open_below_a_limit(folder: Path) -> str:
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))
    return open_or_say(folder)


def open_or_say(folder: Path) -> str:
    try:
        with opened(folder):
            return "opened"
    except OutputError as error:
        return str(error)


def test_a_file_size_limit_shows_before_the_first_row(tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    out = said(open_below_a_limit, tmp_path / "store")
    assert out.startswith(f"`store` {tmp_path / 'store'} cannot grow: File too large; 828 bytes were needed")
    filled(tmp_path / "store")
    assert contents(tmp_path / "store") == undisturbed


def test_a_full_disk_shows_before_the_first_row(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("this user may not mount a tmpfs")
    try:
        with opened(disk / "store") as store:
            fill(store)
        rows = CheckpointRecord("large", "d" * 64, 0.1)
        with pytest.raises(OutputError, match="No space left on device; .* bytes were needed, .* are free"), opened(
            disk / "other", dataclasses.replace(MANIFEST, width=20_000), checkpoints=[rows]
        ):  # fmt: skip
            pass
        assert inspect(disk / "store").checkpoints[0].done == 6
        assert list(check(disk / "store")) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def open_as_nobody(folder: Path) -> str:
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    return open_or_say(folder)


def test_a_read_only_folder_is_refused_in_one_line() -> None:
    """Not below the tests' own folder, which other users may not enter."""
    folder = Path(tempfile.mkdtemp())
    try:
        filled(folder / "store")
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        out = said(open_as_nobody, folder / "store")
        assert out.startswith(f"{folder / 'store'}")
        assert "could not be written: Permission denied" in out
        assert "\n" not in out
    finally:
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o755)
        shutil.rmtree(folder)


# Damage


@pytest.mark.parametrize("name", ["rows.bin", "scales.bin", "values.bin"])
def test_a_flipped_bit_is_found_and_its_block_made_again(tmp_path: Path, name: str) -> None:
    manifest = dataclasses.replace(MANIFEST, dtype="float16")
    folder = filled(tmp_path / "store", manifest)
    whole = contents(folder)
    path = folder / "002-epoch_2" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"block 2 \(units 8 to 11\) in .*002-epoch_2.*verify --drop"), opened(
        folder, manifest
    ):  # fmt: skip
        pass
    findings = list(check(folder))
    assert [(finding.checkpoint, finding.block) for finding in findings] == [("epoch/2", 2)]
    assert drop(folder, findings, command="store verify") == 1
    with opened(folder, manifest) as store:
        assert fill(store) == 1
    assert contents(folder) == whole


@pytest.mark.parametrize("name", ["rows.bin", "values.bin"])
def test_a_truncated_file_is_found_and_made_again(tmp_path: Path, name: str, undisturbed: dict[str, bytes]) -> None:
    folder = filled(tmp_path / "store")
    path = folder / "001-epoch_1" / name
    os.truncate(path, path.stat().st_size // 2)
    with (
        pytest.raises(InputError, match=f"{path} is truncated: .* bytes, block 2 ends at .*verify --drop"),
        opened(folder),
    ):
        pass
    findings = list(check(folder))
    assert [finding.block for finding in findings] == [2, 3, 4, 5, None]
    drop(folder, findings, command="store verify")
    assert contents(filled(folder)) == undisturbed


def test_a_file_truncated_under_a_run_is_found_when_it_is_read(tmp_path: Path) -> None:
    folder = filled(tmp_path / "store")
    with opened(folder) as store:
        os.truncate(folder / "001-epoch_1" / "rows.bin", 100)
        with pytest.raises(InputError, match="rows.bin is truncated: it ends before byte"):
            store.read_rows("epoch 1", slice(None))


def test_check_finds_strange_markers_and_what_a_kill_left(tmp_path: Path) -> None:
    folder = filled(tmp_path / "store")
    done = folder / "001-epoch_1" / "done"
    (done / "9.json").write_bytes((done / "0.json").read_bytes())
    (done / "1.json").write_bytes((done / "0.json").read_bytes())
    (done / "2.json").write_text("{")
    (done / ".3.json.tmp").write_text("")
    (folder / "003-begun").mkdir()
    with (folder / "001-epoch_1" / "values.bin").open("ab") as stream:
        stream.write(b"more")
    problems = {finding.block: finding.problem for finding in check(folder) if finding.block is not None}
    assert "is of units 0 to 4, not of 4 to 8" in problems[1]
    assert "marker of block 2 is damaged" in problems[2]
    assert "not in the store, which has 6" in problems[9]
    others = [finding.problem for finding in check(folder) if finding.block is None]
    assert len(others) == 3
    assert "has 188 bytes. Expected 184" in others[0]
    assert all("left by a run that stopped early" in other for other in others[1:])
    assert drop(folder, list(check(folder)), command="store verify") == 3
    with opened(folder) as store:
        assert store.missing("epoch 1") == [1, 2]


# Other models, other data


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"unit": "differences"}, 'another .unit.: "items"; this run has "differences"'),
        ({"units": 24}, "another 'units': 23; this run has 24"),
        ({"width": 8}, "another 'width': 7; this run has 8"),
        ({"dtype": "bfloat16"}, 'another .dtype.: "float32"; this run has "bfloat16"'),
        ({"identity": {"model": "New", "projection": {"seed": 1}}}, 'another .model.: "Ranker"; this run has "New"'),
        ({"identity": {"model": "Ranker", "projection": {"seed": 2}}}, "another 'projection.seed': 1; this run has 2"),
        ({"identity": {"model": "Ranker"}}, r'another .projection.: {"seed": 1}; this run has null'),
        ({"identity": {"model": "A", "projection": 3}}, r"'model': .*\(also 'projection'\)"),
        ({"identity": {**MANIFEST.identity, "items": "f" * 64}}, f'another .items.: null; this run has "{"f" * 64}"'),
    ],
)  # fmt: skip
def test_a_store_of_something_else_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    filled(tmp_path / "store")
    with pytest.raises(InputError, match=message + r".* Choose another folder for `store`"), opened(
        tmp_path / "store", dataclasses.replace(MANIFEST, **change)
    ):  # fmt: skip
        pass
    assert inspect(tmp_path / "store").manifest.width == 7


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (["a", "b"], ["a", "c"], r'another .names\[1\].: "b"; this run has "c"'),
        (["a"], ["a", "c"], "another 'names': 1 values; this run has 2 values"),
        ("x" * 500 + "old", "x" * 500 + "new", r'another .names.: …x+old"; this run has …x+new"'),
        ("o" + "x" * 500, "n" + "x" * 500, 'another .names.: "ox+…; this run has "nx+…'),
    ],
)
def test_a_long_value_is_cut_to_where_it_differs(tmp_path: Path, old: Any, new: Any, message: str) -> None:
    filled(tmp_path / "store", dataclasses.replace(MANIFEST, identity={"names": old}))
    with pytest.raises(InputError, match=message) as refusal, opened(
        tmp_path / "store", dataclasses.replace(MANIFEST, identity={"names": new})
    ):  # fmt: skip
        pass
    assert len(str(refusal.value)) < 450 + len(str(tmp_path))


def test_tuples_and_lists_are_one(tmp_path: Path) -> None:
    filled(tmp_path / "store", dataclasses.replace(MANIFEST, identity={"shape": [3, 4]}))
    with opened(tmp_path / "store", dataclasses.replace(MANIFEST, identity={"shape": (3, 4)})) as store:
        assert fill(store) == 0


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (CheckpointRecord("epoch 1", "z" * 64, 0.1), "other weights: a+; this run has z+"),
        (CheckpointRecord("epoch 1", "a" * 64, 0.2), "other learning rates: 0.1; this run has 0.2"),
        (CheckpointRecord("epoch 1", "a" * 64, 0.1, "float64"), "other values: float32; this run has float64"),
    ],
)
def test_another_checkpoint_of_the_same_name_is_refused(tmp_path: Path, record: CheckpointRecord, message: str) -> None:
    filled(tmp_path / "store")
    with pytest.raises(InputError, match=message), opened(tmp_path / "store", checkpoints=[record]):
        pass


def test_notes_that_differ_are_told(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        assert store.warnings == ()
    with opened(tmp_path / "store", dataclasses.replace(MANIFEST, notes={"torch": "3.0"})) as store:
        (warning,) = store.warnings
    assert 'was begun with another \'torch\': "2.6"; this run has "3.0"' in warning
    assert inspect(tmp_path / "store").manifest.notes == {"torch": "2.6"}


def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="no gradient store and not empty: it contains letter.txt"), opened(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]
    with pytest.raises(InputError, match="cannot be read: Not a directory"), opened(tmp_path / "letter.txt"):
        pass
    with pytest.raises(InputError, match=r"no gradient store: it has no manifest.json"):
        inspect(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2, "written_by": "9.1"}, "format version 2, written by tracin-func 9.1. Expected version 1"),
        ({"format": "other"}, "is not the manifest of a tracin-func store"),
        ({"width": None}, "is damaged: 'width' should be a whole number"),
        ({"dtype": "int8"}, "is damaged: 'dtype' should be one of float32, float16, bfloat16"),
        ({"identity": 3}, "is damaged: 'identity' should be values by name"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = filled(tmp_path / "store") / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=message), opened(tmp_path / "store"):
        pass


def test_a_damaged_manifest_or_record_is_named(tmp_path: Path) -> None:
    folder = filled(tmp_path / "store")
    record = folder / "001-epoch_1" / "checkpoint.json"
    record.unlink()
    with pytest.raises(InputError, match=r"001-epoch_1/checkpoint.json is missing or damaged"), opened(folder):
        pass
    record.write_text('{"name": "epoch 1"')
    with pytest.raises(InputError, match=r"001-epoch_1/checkpoint.json` is not JSON"), opened(folder):
        pass
    (folder / "manifest.json").write_text('{"format": "tracin-func store", "version": 1}')
    with pytest.raises(InputError, match="manifest.json is damaged: it has no 'unit'"), opened(folder):
        pass
    (folder / "manifest.json").write_bytes(b"\x00\xff")
    with pytest.raises(InputError, match="manifest.json` is not"), opened(folder):
        pass


# Several processes


@dataclasses.dataclass
class Other:
    """Another process that opens the store, and keeps it open until it is killed."""

    process: BaseProcess
    is_open: Event

    @property
    def pid(self) -> int | None:
        return self.process.pid

    def require_open(self) -> None:
        while not self.is_open.wait(0.01):
            assert self.process.is_alive()

    def kill(self) -> None:
        self.process.kill()
        self.process.join()


def keep_open(folder: Path, shard: tuple[int, int] | None, is_open: Event) -> None:
    with opened(folder, shard=shard, command="the first one"):
        is_open.set()
        signal.pause()


@contextlib.contextmanager
def coming(folder: Path, shard: tuple[int, int] | None = None) -> Iterator[Other]:
    """Another process that opens the store, until the context ends."""
    is_open = PREPARED.Event()
    child = Other(PREPARED.Process(target=keep_open, args=(folder, shard, is_open)), is_open)
    child.process.start()
    try:
        yield child
    finally:
        child.kill()


@contextlib.contextmanager
def at_work(folder: Path, shard: tuple[int, int] | None = None) -> Iterator[Other]:
    """Another process that has the store open."""
    with coming(folder, shard) as child:
        child.require_open()
        yield child


def test_a_second_run_names_the_first(tmp_path: Path) -> None:
    folder = filled(tmp_path / "store")
    with at_work(folder) as child:
        message = f"in use: process {child.pid} on .* since 20.*, 'the first one'"
        for shard in (None, (1, 2)):
            with pytest.raises(InputError, match=message), opened(folder, shard=shard):
                pass
        with pytest.raises(InputError, match=message):
            drop(folder, [], command="store verify")
        (occupant,) = inspect(folder).at_work
        assert (occupant.pid, occupant.command, occupant.shard) == (child.pid, "the first one", "")
        child.kill()
        assert child.pid is not None
        await_end(child.pid)
        assert inspect(folder).at_work == ()
        with opened(folder) as store:
            assert store.missing("epoch 1") == []
    assert not (folder / "run.json").exists()


def test_shards_share_a_store(tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    folder = tmp_path / "store"
    with at_work(folder, (2, 3)) as child:
        with opened(folder, shard=(1, 3)) as store:
            assert fill(store) == 12
            assert [occupant.shard for occupant in inspect(folder).at_work] == ["1/3", "2/3"]
        message = f"in use by shard 2/3: process {child.pid} on "
        for shard in ((2, 3), (1, 2), (1, 4), None):
            with pytest.raises(InputError, match=message), opened(folder, shard=shard):
                pass
    with opened(folder, shard=(1, 2)) as store:
        assert store.missing("epoch 1") == []
    assert contents(folder) == undisturbed


def fill_shard(folder: Path, shard: int) -> None:
    with opened(folder, shard=(shard, 3)) as store:
        for record in RECORDS:
            for block in store.missing(record.name):
                if block % 3 == shard - 1:
                    start, stop = store.manifest.range(block)
                    store.write(record.name, block, *block_of(record.name, start, stop, 7))


def test_shards_fill_a_store_together(tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    children = [PREPARED.Process(target=fill_shard, args=(tmp_path / "store", shard)) for shard in (1, 2, 3)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0, 0]
    assert contents(tmp_path / "store") == undisturbed


def test_one_shard_makes_the_files_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    with coming(folder, (2, 3)) as child:
        with preparing(folder):
            while not (folder / "shard-2-of-3.json").exists():
                assert child.process.is_alive()
            time.sleep(0.3)
            assert not (folder / "manifest.json").exists()
        child.require_open()
        assert (folder / "manifest.json").exists()


def test_the_other_processes_of_a_job_take_no_lock(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no gradient store"), opened(tmp_path / "store", rank=1):
        pass
    with opened(tmp_path / "store") as first, opened(tmp_path / "store", rank=1) as second:
        second.write("epoch 1", 1, torch.ones(4, 7), torch.ones(4))
        assert first.missing("epoch 1") == [0, 2, 3, 4, 5]
        assert torch.equal(first.read_rows("epoch 1", slice(4, 8)), torch.ones(4, 7))
        with pytest.raises(InputError, match="has no checkpoint 'epoch 3' yet"), opened(
            tmp_path / "store", rank=1, checkpoints=[CheckpointRecord("epoch 3", "c" * 64, 0.1)]
        ):  # fmt: skip
            pass


# Digests


def test_a_digest_of_weights_sees_every_change() -> None:
    weights = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(1.0), "c": torch.zeros(0)}
    same = {"c": torch.zeros(0), "b": torch.tensor(1.0), "a": torch.arange(6.0).reshape(3, 2).reshape(2, 3)}
    assert weights_digest(weights) == weights_digest(same)
    assert weights_digest({"a": weights["a"].T.contiguous().T}) == weights_digest({"a": weights["a"]})
    others = [
        weights | {"a": weights["a"].reshape(3, 2)},
        weights | {"a": weights["a"].to(torch.int32).view(torch.float32)},
        weights | {"a": weights["a"].view(torch.int32)},
        weights | {"a": weights["a"].T.contiguous().T.roll(1)},
        weights | {"b": torch.tensor(-1.0)},
        {**weights, "d": torch.zeros(0)},
        {"a": weights["a"], "x": weights["b"], "c": weights["c"]},
    ]
    assert len({weights_digest(other) for other in [weights, *others]}) == 8


def test_a_digest_of_items_reads_tensors_whole() -> None:
    items = {"x": torch.zeros(1000, 2), "mask": torch.ones(1000, dtype=torch.bool)}
    changed = {"x": items["x"].clone(), "mask": items["mask"]}
    changed["x"][501, 1] = 1e-30
    assert items_digest(items) != items_digest(changed)
    assert items_digest(items) == items_digest(dict(reversed(items.items())))
    assert items_digest(items, ["a"]) != items_digest(items, ["b"])
    assert items_digest((items["x"],)) != items_digest(items["x"])


class Counting(torch.utils.data.Dataset[Any]):
    """A dataset that knows which of its items were read."""

    def __init__(self, length: int, last: float = 0.0) -> None:
        self.read: list[int] = []
        self.length, self.last = length, last

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, position: int) -> Any:
        self.read.append(position)
        value = self.last if position == self.length - 1 else float(position)
        return {"x": torch.tensor([value]), "y": (np.float32(value), "word", None, b"raw")}


def test_a_digest_of_a_dataset_reads_a_spread_of_it() -> None:
    long = Counting(100_000)
    digest = items_digest(long)
    assert (len(long.read), long.read[0], long.read[-1]) == (256, 0, 99_999)
    assert digest == items_digest(Counting(100_000))
    assert digest != items_digest(Counting(100_000, last=1.0))
    assert digest != items_digest(Counting(100_001))
    assert digest != items_digest(long, ids=["a"])
    short = Counting(3)
    items_digest(short)
    assert short.read == [0, 1, 2]
    with pytest.raises(InputError, match=r"Got set in 'items\[0\]\['x'\]'"):
        items_digest([{"x": {1, 2}}])

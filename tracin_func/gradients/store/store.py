"""A store that a run works on: which blocks are missing, writing one, reading rows again."""

import contextlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from tracin_func.errors import InputError, NumericalError
from tracin_func.gradients.store import identity as manifests
from tracin_func.gradients.store.blocks import (
    VALUE_DTYPES,
    CheckpointFolder,
    CheckpointRecord,
    add_checkpoint,
    checkpoint_folders,
    length,
    require_same,
)
from tracin_func.gradients.store.disk import MAKE_AGAIN, TEMPORARY, read_runs, runs, write_json, writing
from tracin_func.gradients.store.encoding import ROW_DTYPES, decode, encode, unfit
from tracin_func.gradients.store.identity import Manifest, read_manifest
from tracin_func.gradients.store.locks import OWN_FILES, Shard, occupied, preparing

_PART = 1 << 18  # numbers of half precision decoded at once


@dataclass(frozen=True, eq=False)
class Store:
    """Rows of gradients by checkpoint and unit; opened by `open_store`.

    Attributes:
        manifest: as the store has it, its block and chunk too.
        warnings: a sentence for each note in which this run differs from the first.
        rank: of this process; see `open_store`.
        folders: where the rows of each checkpoint are that was admitted.
    """

    path: Path
    manifest: Manifest
    warnings: Sequence[str]
    rank: int = 0
    folders: dict[str, CheckpointFolder] = field(default_factory=dict)
    _done: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))  # blocks that are finished

    def admit(self, *records: CheckpointRecord) -> None:
        """Be ready for checkpoints of this run, which the store may have or not. Their room is claimed at once, and
        every finished block of them is compared with its checksum, which reads their files whole.

        Of a job with several processes the first admits a checkpoint before the others do.

        Raises:
            InputError: a checkpoint of this name has other weights or rates, or is damaged.
            OutputError: the disk is full or refuses.
        """
        records = tuple(record for record in records if record.name not in self.folders)
        if not self.rank:
            with preparing(self.path):
                _claim(self.path, self.manifest, records)
        known = {found.record.name: found for found in checkpoint_folders(self.path, self.manifest)}
        if absent := [record.name for record in records if record.name not in known]:
            raise InputError(
                f"The store `{self.path}` has no checkpoint `{absent[0]}` yet. Expected the first process of the job "
                "to have opened it. Fix: let the others wait for it."
            )
        for record in records:
            folder = require_same(known[record.name], record)
            for block in sorted(folder.finished()):
                if damage := folder.damage(block):
                    raise InputError(f"The store is damaged: {damage}. {MAKE_AGAIN}")
            self.folders[record.name] = folder

    def missing(self, checkpoint: str) -> list[int]:
        """Blocks of a checkpoint that nobody has finished yet, ascending; looked up on the disk each time."""
        finished = self._look(self._folder(checkpoint))
        return [block for block in range(self.manifest.blocks) if block not in finished]

    def first_block(self, checkpoint: str) -> int:
        """The number of its first block among the blocks of all checkpoints, in the order of their folders."""
        return self._folder(checkpoint).first_block

    def write(self, checkpoint: str, block: int, rows: Tensor, values: Tensor) -> None:
        """Write one block: rows [n, width] and values [n] of its units; it is finished when this returns.

        Rows in half precision are scaled each by a power of two of its own, so that none overflows. A block that
        was finished before is written anew.

        Raises:
            InputError: shapes that are not those of the block.
            NumericalError: a row or value is NaN, infinite or too large for float32; names checkpoint and unit.
            OutputError: the disk is full or refuses; the block then counts as missing.
        """
        folder = self._folder(checkpoint)
        start, stop = self.manifest.range(block)
        expected = (stop - start, self.manifest.width)
        if tuple(rows.shape) != expected or tuple(values.shape) != expected[:1]:
            raise InputError(
                f"Block {block} should have rows {list(expected)} and values [{expected[0]}]. "
                f"Got {list(rows.shape)} and {list(values.shape)}."
            )
        rows, values = rows.detach().cpu(), values.detach().to("cpu", torch.float64)
        for what, tensor, dtype in (("gradient", rows, torch.float32), ("value", values, torch.float64)):
            if wrong := unfit(tensor, dtype):
                raise NumericalError(
                    f"The {what} of unit {start + wrong[0]} at checkpoint `{checkpoint}` {wrong[1]}. Expected finite "
                    "numbers; the blocks before it are kept. Fix: look at that unit of the data, or leave it out."
                )
        stored, scales = encode(rows.to(torch.float32), ROW_DTYPES[self.manifest.dtype])
        data = {folder.rows: stored, folder.values: values} | ({} if scales is None else {folder.scales: scales})
        with writing(self.path, sum(tensor.nbytes for tensor in data.values())):
            folder.write(block, data)

    def read_rows(self, checkpoint: str, index: Tensor | slice) -> Tensor:
        """Rows [n, width] of units, as float32, in the order of `index` [n]; units may repeat.

        Each run of consecutive units is one read. Bytes are not checked against their checksum (see `open_store`).

        Raises:
            InputError: a unit that is not in the store or not finished, or a file that ends before it.
        """
        folder = self._folder(checkpoint)
        wanted = self._require_finished(folder, index)
        rows = torch.empty(len(wanted), self.manifest.width)
        if self.manifest.dtype == "float32":
            read_runs(folder.rows, rows, runs(wanted))
            return rows
        # By parts that stay in the cache between reading and decoding.
        step = max(1, _PART // self.manifest.width)
        for out, part in zip(rows.split(step), wanted.split(step), strict=True):
            stored, scales = torch.empty(out.shape, dtype=ROW_DTYPES[self.manifest.dtype]), torch.empty(len(part))
            parts = list(runs(part))
            read_runs(folder.rows, stored, parts)
            read_runs(folder.scales, scales, parts)
            decode(stored, scales, out)
        return rows

    def read_values(self, checkpoint: str, index: slice = slice(None)) -> Tensor:
        """The values of a checkpoint's units, of all by default, in the dtype in which they were computed.

        Raises:
            InputError: a unit is not finished, or the file ends before it.
        """
        folder = self._folder(checkpoint)
        wanted = self._require_finished(folder, index)
        values = torch.empty(len(wanted), dtype=torch.float64)
        read_runs(folder.values, values, runs(wanted))
        return values.to(VALUE_DTYPES[folder.record.values])

    def _folder(self, checkpoint: str) -> CheckpointFolder:
        if checkpoint not in self.folders:
            raise InputError(f"`{checkpoint}` is none of the checkpoints of this run: {', '.join(self.folders)}.")
        return self.folders[checkpoint]

    def _look(self, folder: CheckpointFolder) -> set[int]:
        self._done[folder.record.name] = folder.finished()
        return self._done[folder.record.name]

    def _require_finished(self, folder: CheckpointFolder, index: Tensor | slice) -> Tensor:
        """The units of an index [n], all of them finished."""
        if isinstance(index, slice):
            index = torch.arange(*index.indices(self.manifest.units))
        wanted = index.detach().to("cpu", torch.int64)
        if len(wanted) and not 0 <= int(wanted.min()) <= int(wanted.max()) < self.manifest.units:
            raise InputError(
                f"`index` should hold units from 0 to {self.manifest.units - 1}. "
                f"Got {int(wanted.min())} to {int(wanted.max())}."
            )
        blocks = set(torch.unique(wanted.div(self.manifest.block, rounding_mode="floor")).tolist())
        # Finished blocks stay finished; those of other shards appear while this one is at work.
        if not blocks <= self._done[folder.record.name] and (left := sorted(blocks - self._look(folder))):
            raise InputError(
                f"Block {left[0]} of checkpoint `{folder.record.name}` is not in the store `{self.path}` yet "
                f"({len(left)} are not). Fix: let the run that fills it end first."
            )
        return wanted


@contextlib.contextmanager
def open_store(
    path: str | Path,
    manifest: Manifest,
    *,
    checkpoints: Sequence[CheckpointRecord] = (),
    command: str,
    shard: Shard | None = None,
    rank: int = 0,
) -> Iterator[Store]:
    """Make a store, or go on with one, and be at work on it for as long as the context lasts.

    Args:
        path: its folder; it may be missing or empty.
        manifest: what this run computes. Of a store that exists block and chunk are kept: read them from the result.
        checkpoints: those of this run that are known by now; see `Store.admit`. A store may have more.
        command: how a second run names this one.
        shard: (i, n), i from 1 to n: one of n runs that fill a store together, each process holding its own lock.
        rank: number of this process in a job that shares one lock. The first, 0, takes it and makes the folder; the
            others open after it and lock nothing, for which the caller waits.

    Raises:
        InputError: the folder is no store, is of another model or other data, is in use, or is damaged.
        OutputError: the disk is full or refuses.
    """
    names = [record.name for record in checkpoints]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"Two checkpoints have the name `{twice}`. Expected one each. Fix: rename one of them.")
    folder = Path(path).absolute()
    _require_store_or_nothing(folder)
    if rank:
        stored, warnings = manifests.agree(read_manifest(folder), manifest, folder)
        store = Store(folder, stored, warnings, rank)
        store.admit(*checkpoints)
        yield store
        return
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with occupied(folder, command, shard):
        with preparing(folder):
            stored, warnings = _prepared(folder, manifest)
        store = Store(folder, stored, warnings)
        store.admit(*checkpoints)
        yield store


def _require_store_or_nothing(folder: Path) -> None:
    try:
        names = sorted(child.name for child in folder.iterdir())
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"`{folder}` cannot be read: {error.strerror}. Expected a folder for a store.") from error
    ours = {manifests.NAME, f".{manifests.NAME}{TEMPORARY}"}
    foreign = [name for name in names if name not in ours and not OWN_FILES.fullmatch(name)]
    if foreign and manifests.NAME not in names:
        raise InputError(
            f"`{folder}` is no gradient store and not empty: it has `{foreign[0]}`. Expected a store, or a folder "
            "that is empty or missing. Fix: name another folder with --store."
        )


def _prepared(folder: Path, manifest: Manifest) -> tuple[Manifest, tuple[str, ...]]:
    """The manifest of the store, written where there is none."""
    if (folder / manifests.NAME).exists():
        return manifests.agree(read_manifest(folder), manifest, folder)
    with writing(folder):
        write_json(folder / manifests.NAME, manifest.to_json())
    return manifest, ()


def _claim(folder: Path, manifest: Manifest, checkpoints: Sequence[CheckpointRecord]) -> None:
    """Make the folders of checkpoints that are missing, and claim the room for all of their rows."""
    known = {found.record.name: found for found in checkpoint_folders(folder, manifest)}
    same = {record.name: require_same(known[record.name], record) for record in checkpoints if record.name in known}
    with writing(folder):
        for record in checkpoints:
            if record.name not in same:
                same[record.name] = add_checkpoint(folder, manifest, record)
    for found in same.values():
        _require_whole(found)
    with writing(folder, sum(found.missing_bytes() for found in same.values())):
        for found in same.values():
            found.allocate()


def _require_whole(folder: CheckpointFolder) -> None:
    """Refuse a file that ends before the last of its finished blocks."""
    last = max((block for block in folder.finished() if block < folder.manifest.blocks), default=None)
    if last is None:
        return
    for path, size in folder.files().items():
        needed = folder.manifest.range(last)[1] * size
        if length(path) < needed:
            raise InputError(f"`{path}` is truncated: {length(path)} bytes, its blocks need {needed}. {MAKE_AGAIN}")

"""A store that a run works on: which blocks are missing, how one is written, how rows are read."""

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
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
    require_same,
)
from tracin_func.gradients.store.disk import RECOMPUTE, TEMPORARY, read_runs, runs, write_json, writing
from tracin_func.gradients.store.encoding import ROW_DTYPES, decode, encode, unfit
from tracin_func.gradients.store.identity import Manifest, read_manifest
from tracin_func.gradients.store.locks import OWN_FILES, Shard, occupied, preparing

_PART = 1 << 18  # entries of half precision decoded at once


@dataclass(frozen=True, eq=False)
class Store:
    """Rows of gradients by checkpoint and unit; opened by `open_store`.

    Attributes:
        manifest: as in the store, with the store's block and chunk.
        warnings: a sentence for each note in which this run differs from the first.
        rank: of this process; see `open_store`.
        folders: where the rows of each admitted checkpoint are.
    """

    path: Path
    manifest: Manifest
    warnings: Sequence[str]
    rank: int = 0
    folders: dict[str, CheckpointFolder] = field(default_factory=dict)
    _done: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))  # finished blocks

    def admit(self, record: CheckpointRecord) -> None:
        """Prepare for a checkpoint of this run, new or known. Its room on the disk is claimed at once.

        Every finished block is compared with its checksum, which reads its files whole. In a job of several processes
        the first one admits a checkpoint before the others do.

        Raises:
            InputError: a checkpoint of this name has other weights or learning rates, or is damaged.
            OutputError: the disk is full or cannot be written.
        """
        if record.name in self.folders:
            return
        with contextlib.nullcontext() if self.rank else preparing(self.path):
            folders = checkpoint_folders(self.path, self.manifest)
            found = next((each for each in folders if each.record.name == record.name), None)
            if found is None and self.rank:
                raise InputError(
                    f"`store` {self.path} has no checkpoint {record.name!r} yet. The first process of the job adds it; "
                    "start the others later."
                )
            with writing(self.path):
                folder = add_checkpoint(self.path, self.manifest, record) if found is None else found
        folder = require_same(folder, record)
        for block in sorted(folder.finished()):
            if damage := folder.damage(block):
                raise InputError(f"`store` is damaged: {damage}. {RECOMPUTE}")
        if not self.rank:
            with preparing(self.path), writing(self.path, folder.missing_bytes()):
                folder.allocate()
        self.folders[record.name] = folder

    def missing(self, checkpoint: str) -> list[int]:
        """Unfinished blocks of a checkpoint, ascending; looked up on the disk each time."""
        finished = self._done[checkpoint] = self.folders[checkpoint].finished()
        return [block for block in range(self.manifest.blocks) if block not in finished]

    def write(
        self, checkpoint: str, block: int, rows: Tensor, values: Tensor, label: Callable[[int], str] = "unit {}".format
    ) -> None:
        """Write one block: rows [n, width] and values [n] of its units; it is finished when this returns.

        Rows in half precision are each scaled by a power of two of their own, so that none overflows. A finished
        block is written anew. `label` names a unit in errors.

        Raises:
            NumericalError: a row or value is NaN, infinite or too large for float32; names checkpoint and unit.
            OutputError: the disk is full or cannot be written; the block then counts as missing.
        """
        folder = self.folders[checkpoint]
        start, stop = self.manifest.range(block)
        assert tuple(rows.shape) == (stop - start, self.manifest.width)
        assert tuple(values.shape) == (stop - start,)
        rows, values = rows.detach().cpu(), values.detach().to("cpu", torch.float64)
        for what, tensor, dtype in (("score", values, torch.float64), ("gradient", rows, torch.float32)):
            if wrong := unfit(tensor, dtype):
                raise NumericalError(
                    f"the {what} of {label(start + wrong[0])} {wrong[1]}. Finished blocks stay in the store. Check it "
                    "in the data, or leave it out."
                )
        stored, scales = encode(rows.to(torch.float32), ROW_DTYPES[self.manifest.dtype])
        data = {folder.rows: stored, folder.values: values} | ({} if scales is None else {folder.scales: scales})
        with writing(self.path, sum(tensor.nbytes for tensor in data.values())):
            folder.write(block, data)

    def read_rows(self, checkpoint: str, index: Tensor | slice) -> Tensor:
        """Rows [n, width] of units, as float32, in the order of `index` [n]; units may repeat.

        Each run of consecutive units is one read. Bytes are not compared with their checksum (see `admit`).

        Raises:
            InputError: a unit is not in the store or not finished, or a file ends before it.
        """
        folder, wanted = self.folders[checkpoint], self._finished(checkpoint, index)
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
        folder, wanted = self.folders[checkpoint], self._finished(checkpoint, index)
        values = torch.empty(len(wanted), dtype=torch.float64)
        read_runs(folder.values, values, runs(wanted))
        return values.to(VALUE_DTYPES[folder.record.values])

    def _finished(self, checkpoint: str, index: Tensor | slice) -> Tensor:
        """The units of an index [n], all of them finished."""
        if isinstance(index, slice):
            index = torch.arange(*index.indices(self.manifest.units))
        wanted = index.detach().to("cpu", torch.int64)
        assert not len(wanted) or 0 <= int(wanted.min()) <= int(wanted.max()) < self.manifest.units
        blocks = set(torch.unique(wanted.div(self.manifest.block, rounding_mode="floor")).tolist())
        # Finished blocks stay finished; those of other shards appear while this one works.
        if not blocks <= self._done[checkpoint] and (left := blocks.intersection(self.missing(checkpoint))):
            raise InputError(
                f"`store` {self.path} has no block {min(left)} of checkpoint {checkpoint!r} yet ({len(left)} are "
                "missing). Let the run that fills it finish first."
            )
        return wanted


@contextlib.contextmanager
def open_store(
    path: str | Path, manifest: Manifest, *, command: str, shard: Shard | None = None, rank: int = 0
) -> Iterator[Store]:
    """Create a store, or continue with one, and hold its lock for as long as the context lasts.

    Args:
        path: its folder; it may be missing or empty.
        manifest: what this run computes. An existing store keeps its block and chunk: read them from the result.
        command: how a second run names this one.
        shard: (i, n), i from 1 to n: one of n runs that fill a store together, each process with its own lock.
        rank: number of this process in a job that shares one lock. The first, 0, takes it and creates the folder; the
            others open after it, for which the caller waits, and lock nothing.

    Raises:
        InputError: the folder is no store, is of another model or other data, is in use, or is damaged.
        OutputError: the disk is full or cannot be written.
    """
    folder = Path(path).absolute()
    _require_store_or_nothing(folder)
    with contextlib.ExitStack() as stack:
        if not rank:
            with writing(folder):
                folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(occupied(folder, command, shard))
            with preparing(folder), writing(folder):
                if not (folder / manifests.NAME).exists():
                    write_json(folder / manifests.NAME, manifest.to_json())
        yield Store(folder, *manifests.agree(read_manifest(folder), manifest, folder), rank)


def _require_store_or_nothing(folder: Path) -> None:
    try:
        names = sorted(child.name for child in folder.iterdir())
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"`store` {folder} cannot be read: {error.strerror}. Choose another folder.") from error
    ours = {manifests.NAME, f".{manifests.NAME}{TEMPORARY}"}
    foreign = [name for name in names if name not in ours and not OWN_FILES.fullmatch(name)]
    if foreign and manifests.NAME not in names:
        raise InputError(
            f"`store` {folder} is no gradient store and not empty: it contains {foreign[0]}. Expected a store, or a "
            "folder that is empty or missing. Choose another folder."
        )

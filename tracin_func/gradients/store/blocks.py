"""The folder of one checkpoint in a store, and the files in it."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from tracin_func.errors import InputError
from tracin_func.files import read_object
from tracin_func.gradients.store.disk import TEMPORARY, allocate, bytes_of, read_runs, sync_folder, write_at, write_json
from tracin_func.gradients.store.encoding import ROW_DTYPES
from tracin_func.gradients.store.identity import ELSEWHERE, Manifest, plain

VALUE_DTYPES = {name: getattr(torch, name) for name in ("float16", "bfloat16", "float32", "float64")}
_FOLDER = re.compile(r"\d{3,}-.*")
_RECORD = "checkpoint.json"
_DAMAGED = "Restore it from a copy, or remove the folder of this checkpoint; the next run fills it again."


@dataclass(frozen=True)
class CheckpointRecord:
    """What a store records of a checkpoint.

    Attributes:
        name: the key of its rows.
        weights: see `weights_digest`.
        learning_rates: a JSON value: a number, or numbers by parameter name.
        values: dtype in which the values of its units were computed.
    """

    name: str
    weights: str
    learning_rates: Any
    values: str = "float32"

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not isinstance(self.weights, str):
            raise InputError(f"'name' and 'weights' should be texts. Got {self.name!r} and {self.weights!r}.")
        if self.values not in VALUE_DTYPES:
            raise InputError(f"'values' should be one of {', '.join(VALUE_DTYPES)}. Got {self.values!r}.")


@dataclass(frozen=True)
class CheckpointFolder:
    """The folder with the rows of one checkpoint."""

    path: Path
    record: CheckpointRecord
    manifest: Manifest

    @property
    def done(self) -> Path:
        return self.path / "done"

    @property
    def first_block(self) -> int:
        """Blocks of the checkpoints whose folders have smaller numbers."""
        return (int(self.path.name.partition("-")[0]) - 1) * self.manifest.blocks

    def marker(self, block: int) -> Path:
        """The file that exists once a block is finished."""
        return self.done / f"{block}.json"

    def files(self) -> dict[Path, int]:
        """Each file of data, in the order in which checksums take them, and its bytes per unit."""
        item = ROW_DTYPES[self.manifest.dtype].itemsize
        scales = {} if self.manifest.dtype == "float32" else {self.scales: 4}
        return {self.rows: self.manifest.width * item, **scales, self.values: 8}

    @property
    def rows(self) -> Path:
        return self.path / "rows.bin"

    @property
    def scales(self) -> Path:
        return self.path / "scales.bin"

    @property
    def values(self) -> Path:
        return self.path / "values.bin"

    def finished(self) -> set[int]:
        """The blocks that have a marker, those out of range too."""
        if not self.done.is_dir():
            return set()
        return {int(path.stem) for path in self.done.glob("*.json") if path.stem.isdecimal()}

    def missing_bytes(self) -> int:
        return sum(max(0, self.manifest.units * size - length(path)) for path, size in self.files().items())

    def allocate(self) -> None:
        """Claim the room for every row, so that a full disk is reported now."""
        self.done.mkdir(exist_ok=True)
        for path, size in self.files().items():
            allocate(path, self.manifest.units * size)
        sync_folder(self.path)

    def write(self, block: int, data: Mapping[Path, torch.Tensor]) -> None:
        """Write the data of a block to its files and then, once the disk has them, its marker."""
        start, stop = self.manifest.range(block)
        self.unmark(block)
        digest = hashlib.sha256()
        for path, size in self.files().items():
            view = bytes_of(data[path])
            digest.update(view)
            write_at(path, view, start * size)
        write_json(self.marker(block), {"start": start, "stop": stop, "sha256": digest.hexdigest()})

    def unmark(self, block: int) -> None:
        """Remove the marker of a block, which is to be recomputed."""
        if self.marker(block).exists():
            self.marker(block).unlink()
            sync_folder(self.done)

    def damage(self, block: int) -> str | None:
        """What is wrong with a finished block, after reading it; None where it is as it was written."""
        marker = self.marker(block)
        if block >= self.manifest.blocks:
            return f"{marker} marks a block that is not in the store, which has {self.manifest.blocks}"
        start, stop = self.manifest.range(block)
        try:
            recorded = read_object(marker, number=None)
        except InputError as error:
            return f"the marker of block {block} is damaged: {error}"
        if (recorded.get("start"), recorded.get("stop")) != (start, stop):
            return f"{marker} is of units {recorded.get('start')} to {recorded.get('stop')}, not of {start} to {stop}"
        digest = hashlib.sha256()
        for path, size in self.files().items():
            if length(path) < stop * size:
                return f"{path} is truncated: {length(path)} bytes, block {block} ends at {stop * size}"
            content = torch.empty(stop - start, size, dtype=torch.uint8)
            read_runs(path, content, [(0, start, stop - start)])
            digest.update(bytes_of(content))
        if digest.hexdigest() != recorded.get("sha256"):
            return f"block {block} (units {start} to {stop - 1}) in {self.path} does not match its checksum"
        return None


def length(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def checkpoint_folders(folder: Path, manifest: Manifest) -> Iterator[CheckpointFolder]:
    """Every checkpoint of a store, in the order in which they were added; InputError for a damaged record."""
    begun_only = begun(folder)
    for path in _folders(folder):
        if path in begun_only:
            continue
        values = read_object(path / _RECORD, number=None, remedy=_DAMAGED)
        try:
            record = CheckpointRecord(**values)
        except (TypeError, InputError) as error:
            raise InputError(f"{path / _RECORD} is missing or damaged: {error}. {_DAMAGED}") from error
        yield CheckpointFolder(path, record, manifest)


def begun(folder: Path) -> list[Path]:
    """The folders of checkpoints, still empty, whose run stopped before their record was in place."""
    return [path for path in _folders(folder) if all(child.name.endswith(TEMPORARY) for child in path.iterdir())]


def add_checkpoint(folder: Path, manifest: Manifest, record: CheckpointRecord) -> CheckpointFolder:
    """Create the folder of a checkpoint, with its record and no data."""
    for path in begun(folder):
        for child in path.iterdir():
            child.unlink()
        path.rmdir()
    taken = [int(path.name.partition("-")[0]) for path in _folders(folder)]
    number = max(taken, default=0) + 1
    safe = re.sub(r"[^A-Za-z0-9._-]", "_", record.name)[:60]
    path = folder / f"{number:03d}-{safe}"
    path.mkdir()
    write_json(path / _RECORD, plain(asdict(record)))
    sync_folder(folder)
    return CheckpointFolder(path, record, manifest)


def require_same(found: CheckpointFolder, wanted: CheckpointRecord) -> CheckpointFolder:
    """The folder of a checkpoint, with the record of this run; InputError for other weights, rates or dtype."""
    old, new = plain(asdict(found.record)), plain(asdict(wanted))
    if name := next((name for name in new if old[name] != new[name]), None):
        raise InputError(
            f"{found.path / _RECORD} has a checkpoint {wanted.name!r} with other {name.replace('_', ' ')}: "
            f"{old[name]!s:.80}; this run has {new[name]!s:.80}. {ELSEWHERE}"
        )
    return replace(found, record=wanted)


def _folders(folder: Path) -> list[Path]:
    found = [path for path in folder.iterdir() if _FOLDER.fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=lambda path: int(path.name.partition("-")[0]))

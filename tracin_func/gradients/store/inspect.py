"""What is in a store, and whether it is as it was written."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tracin_func.gradients.store.blocks import begun, checkpoint_folders, length
from tracin_func.gradients.store.disk import TEMPORARY, writing
from tracin_func.gradients.store.identity import Manifest, read_manifest
from tracin_func.gradients.store.locks import Occupant, occupants, occupied


@dataclass(frozen=True)
class CheckpointState:
    """How far one checkpoint is, and the bytes its files of data have."""

    name: str
    folder: str
    done: int
    blocks: int
    bytes: int


@dataclass(frozen=True)
class StoreState:
    """What is in a store, and who is at work on it."""

    path: Path
    manifest: Manifest
    checkpoints: tuple[CheckpointState, ...]
    at_work: tuple[Occupant, ...]


@dataclass(frozen=True)
class Finding:
    """Something in a store that is not as it should be.

    Attributes:
        file: where.
        problem: what, in a sentence.
        checkpoint: of which, empty for the store itself.
        block: that can be dropped and made again; None where there is no such block.
    """

    file: Path
    problem: str
    checkpoint: str = ""
    block: int | None = None


def inspect(path: str | Path) -> StoreState:
    """The manifest of a store, how far each checkpoint is, and who is at work.

    Raises:
        InputError: no store, or one whose manifest or records are damaged.
    """
    folder = Path(path).absolute()
    manifest = read_manifest(folder)
    blocks = manifest.blocks
    states = tuple(
        CheckpointState(
            *(found.record.name, found.path.name, sum(block < blocks for block in found.finished()), blocks),
            bytes=sum(map(length, found.files())),
        )
        for found in checkpoint_folders(folder, manifest)
    )
    return StoreState(folder, manifest, states, tuple(occupants(folder)))


def check(path: str | Path) -> Iterator[Finding]:
    """Read every finished block of a store again, some MB at a time, and give what is wrong as it is found.

    Raises:
        InputError: no store, or one whose manifest or records are damaged.
    """
    folder = Path(path).absolute()
    manifest = read_manifest(folder)
    for found in checkpoint_folders(folder, manifest):
        for block in sorted(found.finished()):
            if damage := found.damage(block):
                yield Finding(found.marker(block), damage, found.record.name, block)
        for file, size in found.files().items():
            if length(file) != manifest.units * size:
                problem = f"`{file}` has {length(file)} bytes. Expected {manifest.units * size}"
                yield Finding(file, problem, found.record.name)
    if not occupants(folder):  # else these may be files that are being written
        for file in sorted([*folder.rglob(f".*{TEMPORARY}"), *begun(folder)]):
            yield Finding(file, f"`{file}` was left by a run that was ended; the next run does without it")


def drop(path: str | Path, findings: Sequence[Finding], *, command: str) -> int:
    """Take the markers of damaged blocks away, so that the next run makes them again; their number.

    Raises:
        InputError: a run is at work on the store.
        OutputError: a marker cannot be removed.
    """
    folder = Path(path).absolute()
    manifest = read_manifest(folder)
    damaged = {(found.checkpoint, found.block) for found in findings if found.block is not None}
    with occupied(folder, command), writing(folder):
        folders = {found.record.name: found for found in checkpoint_folders(folder, manifest)}
        for checkpoint, block in sorted(damaged):
            folders[checkpoint].unmark(block)
    return len(damaged)

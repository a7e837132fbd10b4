"""The content of a store, and whether it is damaged."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tracin_func.gradients.store.blocks import begun, checkpoint_folders, length
from tracin_func.gradients.store.disk import TEMPORARY, writing
from tracin_func.gradients.store.identity import Manifest, read_manifest
from tracin_func.gradients.store.locks import Occupant, occupants, occupied


@dataclass(frozen=True)
class CheckpointState:
    """Finished blocks of one checkpoint, and the size of its data files."""

    name: str
    folder: str
    done: int
    blocks: int
    bytes: int


@dataclass(frozen=True)
class StoreState:
    """The content of a store, and the processes at work on it."""

    path: Path
    manifest: Manifest
    checkpoints: tuple[CheckpointState, ...]
    at_work: tuple[Occupant, ...]


@dataclass(frozen=True)
class Finding:
    """Damage in a store.

    Attributes:
        file: where.
        problem: what, in a sentence.
        checkpoint: its checkpoint, empty for the store itself.
        block: the block that can be dropped and recomputed; None where there is none.
    """

    file: Path
    problem: str
    checkpoint: str = ""
    block: int | None = None


def inspect(path: str | Path) -> StoreState:
    """What is in the store at `path`; InputError for no store, or a damaged manifest or record."""
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
    """Compare every finished block with its checksum, and yield damage as it is found; errors as `inspect`."""
    folder = Path(path).absolute()
    manifest = read_manifest(folder)
    for found in checkpoint_folders(folder, manifest):
        for block in sorted(found.finished()):
            if damage := found.damage(block):
                yield Finding(found.marker(block), damage, found.record.name, block)
        for file, size in found.files().items():
            if length(file) != manifest.units * size:
                problem = f"{file} has {length(file)} bytes. Expected {manifest.units * size}"
                yield Finding(file, problem, found.record.name)
    if not occupants(folder):  # else these may be files that are being written
        for file in sorted([*folder.rglob(f".*{TEMPORARY}"), *begun(folder)]):
            yield Finding(file, f"{file} was left by a run that stopped early; the next run ignores it")


def drop(path: str | Path, findings: Sequence[Finding], *, command: str) -> int:
    """Remove the markers of damaged blocks, so that the next run recomputes them; returns how many.

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

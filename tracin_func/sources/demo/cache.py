"""The embedded default: SYNTHETIC tones and a ranker really trained on them, made on first use and kept.

Nothing here was recorded. The tones come from `synthesis`, the checkpoints from `training` on the lab's split
and drawing with seed 42. Each tone and material has its own folder in the cache, made whole or not at all:
it is built beside its place and renamed into it, under a lock.
"""

import getpass
import hashlib
import inspect
import logging
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import platformdirs
import soundfile
import torch
from filelock import FileLock, Timeout

from tracin_func.errors import OutputError, UsageError
from tracin_func.losses import ghm, margin
from tracin_func.sources.demo import ranker, synthesis
from tracin_func.sources.demo.synthesis import FREQUENCIES, MATERIALS, write_tones
from tracin_func.sources.recordings import drawing, frontend
from tracin_func.sources.recordings.drawing import draw_pairs, split_items
from tracin_func.sources.recordings.frontend import FrontEnd
from tracin_func.sources.recordings.tree import find_clips, load_items
from tracin_func.training import fit
from tracin_func.training.fit import EpochReport, TrainingSettings, train

CACHE_VARIABLE = "TRACIN_FUNC_CACHE_DIR"
COMMANDS_FILE = "COMMANDS.md"
SYNTHETIC_NOTICE = "The embedded default is SYNTHETIC: computed tones, no recordings."

Progress = Callable[[str], None]


def _ignore(line: str) -> None:
    pass


_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EmbeddedDemo:
    """Where the embedded default of one tone and material lies."""

    data_root: Path
    checkpoint_dir: Path


def embedded(frequency: str = "500hz", material: str = "plastic", *, progress: Progress = _ignore) -> EmbeddedDemo:
    """SYNTHETIC tones of one frequency and material and checkpoints trained on them, made on first use.

    The first use of a tone takes about 15 seconds. It is safe to kill, and for several processes
    to ask for the same tone at once: one makes it, the others wait. Where the cache cannot be written, a
    folder for temporary files serves, and the log says so.

    Args:
        frequency: of `FREQUENCIES`.
        material: of `MATERIALS`.
        progress: called with one line of text at each step.

    Raises:
        UsageError: the embedded default has no such frequency or material.
        OutputError: it could not be written, in a folder that seemed writable.
    """
    _require("frequency", frequency, FREQUENCIES)
    _require("material", material, tuple(MATERIALS))
    name = f"{material}_{frequency}-{_recipe_key()}"
    cache = cache_dir()
    if cache is not None and _is_made(demo := _demo_at(cache / name)):
        return demo
    folder = _writable_cache_dir(cache)
    try:
        with _locked(folder / f"{name}.lock", progress):
            demo = _demo_at(folder / name)
            if not _is_made(demo):
                _make_whole(folder / name, frequency, material, progress)
    except (OSError, OutputError, soundfile.SoundFileError) as error:
        raise OutputError(
            f"the embedded default could not be written to {folder}: {error}. Free some space there, or set "
            f"{CACHE_VARIABLE} to another folder."
        ) from error
    return demo


def write_demo(
    directory: str | Path, *, frequencies: Sequence[str] = FREQUENCIES, progress: Progress = _ignore
) -> Path:
    """Write SYNTHETIC data, checkpoints and the commands to run on them into a new folder.

    `data/` holds the tones of all materials in the lab's layout, `checkpoints/{frequency}/` those of the
    embedded default (plastic), `COMMANDS.md` the exact commands; the last is written last.

    Args:
        directory: a folder that is empty or does not exist yet.
        frequencies: tones to write, of `FREQUENCIES`.
        progress: called with one line of text at each step.

    Returns:
        Path of `COMMANDS.md`.

    Raises:
        UsageError: the folder has something in it, or is a file.
        OutputError: it could not be written.
    """
    directory = Path(directory).absolute()
    for frequency in frequencies:
        _require("frequency", frequency, FREQUENCIES)
    try:
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            raise UsageError(
                f"{directory} is not an empty folder; nothing was written. Name a folder that does not exist "
                "yet, or empty this one."
            )
        directory.mkdir(parents=True, exist_ok=True)
        for frequency in frequencies:
            made = embedded(frequency, progress=progress)
            shutil.copytree(made.checkpoint_dir, directory / "checkpoints" / frequency)
        progress(f"writing tones to {directory / 'data'}")
        write_tones(directory / "data", frequencies=frequencies)
        commands = directory / COMMANDS_FILE
        commands.write_text(_commands(directory, frequencies), encoding="utf-8")
    except OutputError:
        raise
    except (OSError, soundfile.SoundFileError) as error:
        raise OutputError(
            f"the demo could not be written to {directory}: {error}. What is there is incomplete; remove it."
        ) from error
    return commands


def cache_dir() -> Path | None:
    """Folder of the cache: of TRACIN_FUNC_CACHE_DIR, else of the platform. Not made here.

    None without a home folder: older platformdirs then answer with a relative path, newer ones raise.
    """
    own = os.environ.get(CACHE_VARIABLE)
    if own:
        return Path(own).absolute() / "embedded"
    try:
        folder = platformdirs.user_cache_path("tracin-func")
    except RuntimeError:
        return None
    return folder / "embedded" if folder.is_absolute() else None


def _writable_cache_dir(folder: Path | None) -> Path:
    """`folder`, made; a folder for temporary files when it cannot be written."""
    try:
        if folder is None:
            raise OSError("there is no home folder")
        _require_writable(folder)
    except OSError as error:
        spare = _temporary_cache_dir()
        _log.warning(
            "%s cannot be written (%s): the embedded default is kept in %s. Set %s to a folder of your own.",
            *(folder or "The cache", error.strerror or error, spare, CACHE_VARIABLE),
        )
        return spare
    return folder


def _temporary_cache_dir() -> Path:
    """A folder for temporary files that stays the same from run to run, where that is possible."""
    try:
        folder = Path(tempfile.gettempdir()) / f"tracin-func-{_user()}" / "embedded"
        folder.parent.mkdir(mode=0o700, exist_ok=True)
        if hasattr(os, "getuid") and folder.parent.stat().st_uid != os.getuid():
            raise OSError("the folder belongs to another user")
        _require_writable(folder)
    except OSError:
        return Path(tempfile.mkdtemp(prefix="tracin-func-"))
    return folder


def _require_writable(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    # By trying: os.access answers for permissions only, not for a read-only file system.
    with tempfile.TemporaryFile(dir=folder):
        pass


def _user() -> str:
    return str(os.getuid()) if hasattr(os, "getuid") else getpass.getuser()


@contextmanager
def _locked(path: Path, progress: Progress) -> Iterator[None]:
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        progress("another process is making the embedded default; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _make_whole(place: Path, frequency: str, material: str, progress: Progress) -> None:
    """Build at a name of its own, then rename: a kill leaves nothing at `place`. Call it under the lock."""
    making = place.with_name(f".{place.name}.making")
    shutil.rmtree(making, ignore_errors=True)  # what a killed process left; nobody else holds the lock
    try:
        _make(_demo_at(making), frequency, material, progress)
        making.rename(place)
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _make(demo: EmbeddedDemo, frequency: str, material: str, progress: Progress) -> None:
    """Tones, the lab's split and drawing, and a training on them."""
    progress(f"{SYNTHETIC_NOTICE} Making {material} at {frequency}, once, and keeping it.")
    write_tones(demo.data_root, materials=[material], frequencies=[frequency])
    clips = find_clips(demo.data_root, material=material, frequency=frequency)
    items = load_items(clips, FrontEnd())
    settings = TrainingSettings(frequency=frequency, material=material)
    train_positions, test_positions = split_items(len(clips), settings.seed)
    classes, rng = torch.tensor([clip.degree for clip in clips]), np.random.RandomState(settings.seed)
    train_pairs = draw_pairs(train_positions, classes, rng)
    test_pairs = draw_pairs(test_positions, classes, rng)

    def report(epoch: EpochReport) -> None:
        progress(
            f"training the ranker, epoch {epoch.epoch} of {epoch.epochs}: "
            f"{epoch.test_accuracy:.1%} of unseen test pairs in the right order"
        )

    model = ranker.AngleRanker.seeded(settings.seed)
    train(model, items, train_pairs, test_pairs, settings, demo.checkpoint_dir, on_epoch=report)


def _demo_at(folder: Path) -> EmbeddedDemo:
    return EmbeddedDemo(folder / "data", folder / "checkpoints")


def _is_made(demo: EmbeddedDemo) -> bool:
    # os.path, not Path: False also where the folder may not be looked into.
    return os.path.isdir(demo.checkpoint_dir)


def _recipe_key() -> str:
    """Names the recipe: a change to anything the data or checkpoints come from asks for new ones."""
    recipe = (drawing, frontend, fit, ghm, margin, ranker, synthesis, sys.modules[__name__])
    sources = [inspect.getsource(module) for module in recipe]
    return hashlib.sha256("".join(sources).encode()).hexdigest()[:12]


def _commands(directory: Path, frequencies: Sequence[str]) -> str:
    """Text of the file with the commands to run."""
    lines = [
        "# Demo of tracin-func",
        "",
        "Everything here is SYNTHETIC: computed tones, no recordings (`tracin_func/sources/demo/synthesis.py`).",
        "`data/` holds them in the lab's layout, `checkpoints/` a ranker trained on the plastic tones of each",
        "frequency; the box tones are there to train on. The commands write their results to `metadata/`.",
    ]
    for frequency in frequencies:
        options = [
            f"--data-root {_quoted(directory / 'data')}",
            f"--checkpoint-dir {_quoted(directory / 'checkpoints' / frequency)}",
            f"--frequency {frequency}",
            "--material plastic",
            f"--metadata-dir {_quoted(directory / 'metadata')}",
        ]
        lines += ["", f"## {frequency}", "", "```sh"]
        lines += [f"tracin-func {command} {' '.join(options)}" for command in ("self", "influence --num-test 5")]
        lines += ["```"]
    return "\n".join(lines) + "\n"


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def _require(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise UsageError(
            f"`{name}` of the embedded default should be one of {', '.join(allowed)}. Got {value!r}. For "
            "other tones, name your own --data-root and --checkpoint-dir."
        )

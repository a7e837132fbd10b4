"""The embedded example: synthetic tones and a ranker trained on them, created on first use and cached.

Nothing here was recorded. The tones come from `synthesis`, the checkpoints from `training` on the split and drawing of
seed 42. Each tone and material has its own folder in the cache. It is built under another name and renamed, under a
lock, so that it is complete or missing.
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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
import torch
from filelock import FileLock, Timeout

from tracin_func.errors import OutputError, UsageError
from tracin_func.files import CACHE_VARIABLE, cache_folder
from tracin_func.losses import ghm, margin
from tracin_func.sources.demo import ranker, synthesis
from tracin_func.sources.demo.synthesis import FREQUENCIES, MATERIALS, write_tones
from tracin_func.sources.recordings import drawing, frontend
from tracin_func.sources.recordings.drawing import draw_sequence, merge_repeats, split_items
from tracin_func.sources.recordings.frontend import FrontEnd
from tracin_func.sources.recordings.tree import find_clips, load_items
from tracin_func.training import fit, ranking, settings, state
from tracin_func.training.checkpoint import save_content
from tracin_func.training.fit import EpochReport
from tracin_func.training.settings import TrainingSettings

COMMANDS_FILE = "COMMANDS.md"
SETTINGS = TrainingSettings(
    epochs=8,
    checkpoint_interval=(1, 2, 3, 4, 6, 8),
    learning_rate=1e-4,
    weight_decay=0.0,
    drop_last=False,
    plateau=None,
)
TRAINED_LOSS = ghm.GHMRankingLoss(margin=10.0)
SYNTHETIC_NOTICE = "Example data: synthetic tones. For yours: `data_root`, `checkpoint_dir`."

Progress = Callable[[str], None]


def _ignore(line: str) -> None:
    pass


_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EmbeddedDemo:
    """The folders of the embedded example of one tone and material."""

    data_root: Path
    checkpoint_dir: Path

    @classmethod
    def at(cls, folder: Path) -> "EmbeddedDemo":
        return cls(folder / "data", folder / "checkpoints")

    @property
    def is_complete(self) -> bool:
        return os.path.isdir(self.checkpoint_dir)  # unlike Path.is_dir False in a folder without permission


def embedded(frequency: str = "500hz", material: str = "plastic", *, progress: Progress = _ignore) -> EmbeddedDemo:
    """Synthetic tones of one frequency and material and checkpoints trained on them, created on first use.

    Creating a tone takes about 15 seconds. The process may be killed, and several processes may ask for the same tone
    at once: one creates it, the others wait. If the cache cannot be written, a temporary folder is used, with a
    warning in the log. `progress` is called with one line of text at each step.

    Raises:
        UsageError: the embedded example has no such frequency or material.
        OutputError: it cannot be written.
    """
    _require("frequency", frequency, FREQUENCIES)
    _require("material", material, tuple(MATERIALS))
    name = f"{material}_{frequency}-{_recipe_key()}"
    cache = cache_dir()
    if cache is not None and (demo := EmbeddedDemo.at(cache / name)).is_complete:
        return demo
    folder = _writable_cache_dir(cache)
    try:
        lock = FileLock(folder / f"{name}.lock")
        try:
            held = lock.acquire(timeout=0)
        except Timeout:
            progress("another process is creating the embedded example; waiting for it")
            held = lock.acquire()
        with held:
            demo = EmbeddedDemo.at(folder / name)
            if not demo.is_complete:
                _create(folder / name, frequency, material, progress)
    except (OSError, OutputError, soundfile.SoundFileError) as error:
        raise OutputError(
            f"the embedded example could not be written to {folder}: {error}. Free some space there, or set "
            f"{CACHE_VARIABLE} to another folder."
        ) from error
    return demo


def write_demo(
    directory: str | Path, *, frequencies: Sequence[str] = FREQUENCIES, progress: Progress = _ignore
) -> Path:
    """Write synthetic data, checkpoints and the commands to run on them into a new folder.

    `data/` holds the tones of all materials, `checkpoints/{frequency}/` the checkpoints of the embedded example
    (plastic), and `COMMANDS.md`, written last, whose path is returned, the exact commands.

    Raises:
        UsageError: the folder is not empty, or is a file.
        OutputError: it cannot be written.
    """
    directory = Path(directory).absolute()
    for frequency in frequencies:
        _require("frequency", frequency, FREQUENCIES)
    try:
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            raise UsageError(f"{directory} is not an empty folder; nothing was written. Name a new or empty folder.")
        directory.mkdir(parents=True, exist_ok=True)
        for frequency in frequencies:
            made = embedded(frequency, progress=progress)
            shutil.copytree(made.checkpoint_dir, directory / "checkpoints" / frequency)
        progress(f"writing tones to {directory / 'data'}")
        write_tones(directory / "data", frequencies=frequencies)
        commands = directory / COMMANDS_FILE
        commands.write_text(_commands(directory, frequencies), encoding="utf-8")
    except (OSError, soundfile.SoundFileError) as error:
        raise OutputError(
            f"the demo could not be written to {directory}: {error}. The folder is incomplete; remove it."
        ) from error
    return commands


def cache_dir() -> Path | None:
    """Folder of the examples in the cache. It is not created here; None without a home folder."""
    folder = cache_folder()
    return None if folder is None else folder / "embedded"


def _writable_cache_dir(folder: Path | None) -> Path:
    """`folder`, created; a temporary folder if it cannot be written."""
    try:
        if folder is None:
            raise OSError("no home folder")
        _require_writable(folder)
    except OSError as error:
        spare = _temporary_cache_dir()
        _log.warning(
            "%s cannot be written (%s): the embedded example is cached in %s. Set %s to another folder.",
            *(folder or "The cache", error.strerror or error, spare, CACHE_VARIABLE),
        )
        return spare
    return folder


def _temporary_cache_dir() -> Path:
    """A temporary folder, the same in each run if possible."""
    try:
        user = str(os.getuid()) if hasattr(os, "getuid") else getpass.getuser()
        folder = Path(tempfile.gettempdir()) / f"tracin-func-{user}" / "embedded"
        folder.parent.mkdir(mode=0o700, exist_ok=True)
        if hasattr(os, "getuid") and folder.parent.stat().st_uid != os.getuid():
            raise OSError("the folder belongs to another user")
        _require_writable(folder)
    except OSError:
        return Path(tempfile.mkdtemp(prefix="tracin-func-"))
    return folder


def _require_writable(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    # By trying: os.access considers permissions only, not a read-only file system.
    with tempfile.TemporaryFile(dir=folder):
        pass


def _create(place: Path, frequency: str, material: str, progress: Progress) -> None:
    """Build under another name, then rename: a kill leaves nothing at `place`. Call it under the lock."""
    building = place.with_name(f".{place.name}.making")
    shutil.rmtree(building, ignore_errors=True)  # left by a killed process; nobody else holds the lock
    try:
        _make(EmbeddedDemo.at(building), frequency, material, progress)
        building.rename(place)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _make(demo: EmbeddedDemo, frequency: str, material: str, progress: Progress) -> None:
    """Write the tones and train on their split and drawing."""
    cache = str(demo.data_root.parents[2]).replace(os.path.expanduser("~"), "~", 1)
    progress(f"Creating the synthetic example (once, under a minute); cached in {cache}.")
    write_tones(demo.data_root, materials=[material], frequencies=[frequency])
    clips = find_clips(demo.data_root, material=material, frequency=frequency)
    items = load_items(clips, FrontEnd())
    classes, rng = torch.tensor([clip.degree for clip in clips]), np.random.RandomState(SETTINGS.seed)
    train_pairs, test_pairs = (
        merge_repeats(draw_sequence(positions, classes, rng)) for positions in split_items(len(clips), SETTINGS.seed)
    )

    def report(epoch: EpochReport) -> None:
        progress(
            f"training the ranker, epoch {epoch.epoch} of {epoch.epochs}: pair accuracy {epoch.test_accuracy:.1%} "
            "on test pairs"
        )

    args = {"frequency": frequency, "material": material, "exclusions_file": None, "synthetic": True}
    save, model = partial(save_content, demo.checkpoint_dir), ranker.AngleRanker.seeded(SETTINGS.seed)
    fit.fit(
        model, items, train_pairs, TRAINED_LOSS, SETTINGS, held_out=test_pairs, args=args, save=save, on_epoch=report
    )


def _recipe_key() -> str:
    """A digest of everything that data and checkpoints depend on: after a change they are created anew."""
    recipe = (drawing, frontend, fit, ghm, margin, ranker, ranking, settings, state, synthesis, sys.modules[__name__])
    sources = [inspect.getsource(module) for module in recipe]
    return hashlib.sha256("".join(sources).encode()).hexdigest()[:12]


def _commands(directory: Path, frequencies: Sequence[str]) -> str:
    """Text of the file with the commands to run."""
    data, checkpoints, results = (shlex.quote(str(directory / name)) for name in ("data", "checkpoints", "metadata"))
    lines = [
        "# Demo of tracin-func",
        "",
        "The data are synthetic: computed tones, no recordings (`tracin_func/sources/demo/synthesis.py`).",
        "`data/` holds the tones of all materials, `checkpoints/` a ranker trained on the plastic tones of each",
        "frequency. Train your own on the box tones. The commands write their results to `metadata/`.",
    ]
    for frequency in frequencies:
        options = (
            f"--data-root {data} --checkpoint-dir {checkpoints}/{frequency} --frequency {frequency} "
            f"--material plastic --metadata-dir {results}"
        )
        commands = [f"tracin-func {command} {options}" for command in ("self", "influence --num-test 5")]
        lines += ["", f"## {frequency}", "", "```sh", *commands, "```"]
    return "\n".join(lines) + "\n"


def _require(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise UsageError(
            f"`{name}` of the embedded example should be one of {', '.join(allowed)}. Got {value!r}. For other tones "
            "set `data_root` and `checkpoint_dir`."
        )

"""The tree of recordings: finding the clips of one material and tone, and loading them as items.

A clip is `ROOT/deg036/plastic/plastic_deg036_500hz_04.wav`: class (an angle in degrees), material, tone and take. Its
id is the file name without the ending.
"""

import itertools
import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from tracin_func.errors import InputError, UsageError
from tracin_func.files import one_form, present
from tracin_func.results.names import counted
from tracin_func.sources.options import setting
from tracin_func.sources.recordings.frontend import FrontEnd
from tracin_func.sources.recordings.wav import read_wav

LAYOUT = "ROOT/deg036/plastic/plastic_deg036_500hz_04.wav"

_CLASS = re.compile(r"deg(\d+)", re.ASCII)
_TONE_AND_TAKE = re.compile(r"(\d+hz)_(\d+)(?i:\.wav)", re.ASCII)
_Name = TypeVar("_Name", str, int)
_Loaded = tuple[int, Tensor] | str  # samples and spectrogram, or what is wrong


@dataclass(frozen=True)
class Clip:
    """One recording: `degree_class` is the folder's name (deg036), `degree` its number (36)."""

    id: str
    path: Path
    degree_class: str
    degree: int
    material: str
    frequency: str
    take: int


def find_clips(
    root: str | Path,
    material: str,
    frequency: str,
    *,
    classes: Sequence[str] | None = None,
    takes: Sequence[int] | None = None,
    notice: Callable[[str], None] = lambda sentence: None,
) -> list[Clip]:
    """The clips of one material and tone, ordered by class (by angle), then by take.

    Only given classes (`deg036`) and takes are used; a class need not have each take. Files whose names do not follow
    the layout are left out; `notice` receives how many.

    Raises:
        InputError: the root or its class folders are missing; the material, the tone, a class or a take is not found;
            no name follows the layout; fewer than two classes are left; two files are the same take; or an entry
            with a name of the layout is not a file or folder.
    """
    root = Path(root)
    try:
        clips = _clips_of_material(root, material, notice)
    except OSError as error:
        raise InputError(f"{error.filename} cannot be read: {error.strerror}. Check its permissions.") from None
    place = f"for {material} in {root}"
    _require_present("frequency", [frequency], {clip.frequency for clip in clips}, place)
    clips = [clip for clip in clips if clip.frequency == frequency]
    place = f"for {frequency} {place}"
    if classes is not None:
        _require_present("classes", classes, {clip.degree_class for clip in clips}, place)
        clips = [clip for clip in clips if clip.degree_class in classes]
    if takes is not None:
        _require_present("takes", takes, {clip.take for clip in clips}, place)
        clips = [clip for clip in clips if clip.take in takes]
    clips.sort(key=lambda clip: (clip.degree, clip.take, clip.path.name))
    for clip, following in itertools.pairwise(clips):
        if (clip.degree, clip.take) == (following.degree, following.take):
            raise InputError(f"{clip.path} and {following.path} are the same take. Remove one of them.")
    for clip in clips:
        if not os.path.isfile(clip.path):
            raise _unfit(clip.path, "recording", "file")
    present = sorted({clip.degree for clip in clips})
    if len(present) < 2:
        raise InputError(
            f"{len(present)} class found {place} (degrees: {_listed(present)}). Pairs compare at least two. Add "
            "recordings or more `classes`."
        )
    return clips


def find_tones(root: str | Path, material: str) -> list[str]:
    """The tones of a material, the lowest first.

    Raises:
        InputError: the tree does not fit; see `find_clips`.
    """
    found = {clip.frequency for clip in _clips_of_material(Path(root), material, lambda sentence: None)}
    return sorted(found, key=lambda tone: int(tone.removesuffix("hz")))


def load_items(
    clips: Sequence[Clip],
    front_end: FrontEnd,
    *,
    sample_rate: int = 48000,
    clip_seconds: float | None = None,
    workers: int = 0,
    progress: Callable[[int], None] | None = None,
    bad: dict[str, str] | None = None,
) -> Tensor:
    """Spectrograms of clips of one length, float32 [items, 1, frequencies, frames], computed in float64.

    Args:
        clips: clips to read, [items].
        front_end: computes a spectrogram from a waveform.
        sample_rate: required sample rate of all files; nothing is resampled.
        clip_seconds: seconds to use from the start of each clip; None for the whole clip.
        workers: number of threads that read; 0 reads in this one. The result does not depend on it.
        progress: called in this thread with the number of clips finished.
        bad: if given, it receives the id and fault of each clip that cannot be used, whose row is then 0; no error.

    Raises:
        InputError: a file does not fit (see `read_wav` and `FrontEnd`), is shorter than `clip_seconds`, or
            has another length than the first clip.
        UsageError: `clip_seconds` or `workers` is out of range.
    """
    if clip_seconds is not None and not 0 < clip_seconds < math.inf:
        raise UsageError(f"`clip_seconds` should be above 0. Got {clip_seconds}.")
    if workers < 0:
        raise UsageError(f"`workers` should be 0 or more. Got {workers}.")
    if not clips:
        raise InputError("no clips to load. Check `classes` and `takes`.")

    def load(clip: Clip) -> _Loaded:
        try:
            return load_one(clip)
        except InputError as error:
            if bad is None:
                raise
            return str(error)

    def load_one(clip: Clip) -> tuple[int, Tensor]:
        waveform = torch.from_numpy(read_wav(clip.path, sample_rate=sample_rate))
        if clip_seconds is not None:
            waveform = _cropped(waveform, clip, clip_seconds, sample_rate)
        try:
            return len(waveform), front_end(waveform).float()
        except InputError as error:
            raise InputError(f"{clip.path}: {error}") from None

    if workers == 0:
        return _stacked(clips, map(load, clips), sample_rate, progress, bad)
    with ThreadPoolExecutor(workers) as pool:
        return _stacked(clips, pool.map(load, clips), sample_rate, progress, bad)


def _clips_of_material(root: Path, material: str, notice: Callable[[str], None]) -> list[Clip]:
    root = present(root)
    if not root.is_dir():
        what = "not a folder" if root.exists() else "folder not found"
        raise InputError(f"`data_root`: {what}: {root}. It should be ROOT of a tree such as {LAYOUT}.")
    folders = [folder for folder in root.iterdir() if _CLASS.fullmatch(folder.name) and _is_folder(folder, "class")]
    if not folders:
        raise InputError(f"`data_root`: no class folder in {root}. It should be ROOT of a tree such as {LAYOUT}.")
    materials = {one_form(entry.name) for folder in folders for entry in folder.iterdir() if entry.is_dir()}
    _require_present("material", [one_form(material)], materials, f"in {root}")
    clips, ignored = [], []
    for folder in folders:
        home = present(folder / material)
        if not _is_folder(home, "material"):
            continue
        for path in home.iterdir():
            clip = _clip(path, folder.name, material)
            if clip is None:
                ignored.append(path)
            else:
                clips.append(clip)
    some = min(ignored, default=None)
    example = "" if some is None else f", such as {some.parent.parent.name}/{material}/{some.name}"
    if not clips:
        raise InputError(
            f"no recording of {material!r} found in {root}: none of the {len(ignored)} names follows "
            f"{LAYOUT}{example}. Rename them, in lower case, or choose another `material`."
        )
    if ignored:
        notice(
            f"left out {counted(len(ignored), 'file')} for {material} in {root} with names unlike {LAYOUT}{example}."
        )
    return clips


def _clip(path: Path, degree_class: str, material: str) -> Clip | None:
    """The clip at `path`; None if the name does not follow the layout."""
    prefix, name = one_form(f"{material}_{degree_class}_"), one_form(path.name)
    match = _TONE_AND_TAKE.fullmatch(name.removeprefix(prefix))
    if not name.startswith(prefix) or match is None:
        return None
    degree = int(degree_class.removeprefix("deg"))
    return Clip(path.stem, path, degree_class, degree, material, match[1], int(match[2]))


def _is_folder(path: Path, kind: str) -> bool:
    """Whether the folder exists; anything else of that name is an error, since recordings would be dropped silently."""
    if os.path.lexists(path) and not path.is_dir():
        raise _unfit(path, kind, "folder")
    return path.is_dir()


def _unfit(path: Path, kind: str, expected: str) -> InputError:
    what = "a broken link" if not path.exists() else f"not a {expected}"
    return InputError(f"{path} has the name of a {kind} and is {what}. Fix or remove it.")


def _require_present(name: str, wanted: Iterable[_Name], present: set[_Name], place: str) -> None:
    for value in wanted:
        if value not in present:
            raise InputError(f"{setting(name, value)} not found {place}. Available: {_listed(sorted(present))}.")


def _listed(names: Sequence[str] | Sequence[int]) -> str:
    return ", ".join(str(name) for name in names) or "none"


def _cropped(waveform: Tensor, clip: Clip, clip_seconds: float, sample_rate: int) -> Tensor:
    wanted = round(clip_seconds * sample_rate)
    if len(waveform) < wanted:
        raise InputError(
            f"`clip_seconds={clip_seconds:g}` ({wanted} samples) is longer than {clip.path}: "
            f"{_length(len(waveform), sample_rate)}. Lower it to {_seconds(len(waveform), sample_rate)} or remove the "
            "file."
        )
    return waveform[:wanted]


def _stacked(
    clips: Sequence[Clip],
    loaded: Iterable[_Loaded],
    sample_rate: int,
    progress: Callable[[int], None] | None,
    bad: dict[str, str] | None,
) -> Tensor:
    items: Tensor | None = None
    expected, model = 0, clips[0]
    for row, (clip, found) in enumerate(zip(clips, loaded, strict=True)):
        if not isinstance(found, str):
            samples, spectrogram = found
            if items is None:
                items, expected, model = spectrogram.new_zeros(len(clips), *spectrogram.shape), samples, clip
            if samples == expected:
                items[row] = spectrogram
            else:
                found = (
                    f"{clip.path} has {_length(samples, sample_rate)}, {model.path} has "
                    f"{_length(expected, sample_rate)}. All clips need one length. Crop them with "
                    f"`clip_seconds={_seconds(min(samples, expected), sample_rate)}` or less."
                )
        if isinstance(found, str):
            if bad is None:
                raise InputError(found)
            bad[clip.id] = found
        if progress is not None:
            progress(row + 1)
    if items is None:
        assert bad
        raise InputError(f"none of the {len(clips)} recordings can be used. The first: {next(iter(bad.values()))}")
    return items


def _length(samples: int, sample_rate: int) -> str:
    return f"{samples} samples ({samples / sample_rate:.3f} s)"


def _seconds(samples: int, sample_rate: int) -> str:
    """Seconds rounded down: as `clip_seconds` they never exceed the clip."""
    return f"{samples * 1000 // sample_rate / 1000:g}"

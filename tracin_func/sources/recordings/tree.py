"""The lab's tree of recordings: finding clips of one material and tone, and loading them as items.

Clips lie as `ROOT/deg036/plastic/plastic_deg036_500hz_04.wav`: class (an angle in degrees), material, tone
and take. A clip's id is its file name without the ending.
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

    Entries whose names do not follow the layout are left out; `notice` receives how many.

    Args:
        root: folder of the tree.
        material: such as `plastic`.
        frequency: the tone, such as `500hz`.
        classes: class folders to use, such as `deg036`; all present when left out.
        takes: takes to use; all present when left out. A class need not have each of them.
        notice: called with each sentence that the user should read.

    Raises:
        InputError: the root is missing or has no class folders, the material, tone, a class or a take is
            nowhere to be found (the message lists what there is), no name follows the layout, fewer than two
            classes are left, two files are the same take, or an entry is named as the layout asks and is no
            file or folder.
    """
    root = Path(root)
    try:
        clips = _clips_of_material(root, material, notice)
    except OSError as error:
        raise InputError(f"{error.filename} cannot be read: {error.strerror}. Check the data root.") from None
    place = f"of {material!r} under {root}"
    _require_present("tone", [frequency], {clip.frequency for clip in clips}, place, "--frequency")
    clips = [clip for clip in clips if clip.frequency == frequency]
    place = f"of {frequency} {place}"
    if classes is not None:
        _require_present("class", classes, {clip.degree_class for clip in clips}, place, "--classes")
        clips = [clip for clip in clips if clip.degree_class in classes]
    if takes is not None:
        _require_present("take", takes, {clip.take for clip in clips}, place, "--takes")
        clips = [clip for clip in clips if clip.take in takes]
    clips.sort(key=lambda clip: (clip.degree, clip.take, clip.path.name))
    for clip, following in itertools.pairwise(clips):
        if (clip.degree, clip.take) == (following.degree, following.take):
            raise InputError(
                f"{clip.path} and {following.path} are the same take; expected one file a take. Remove one."
            )
    for clip in clips:
        if not os.path.isfile(clip.path):
            raise _unfit(clip.path, "recording", "file")
    present = sorted({clip.degree for clip in clips})
    if len(present) < 2:
        raise InputError(
            f"{len(present)} class {place} (degrees: {_listed(present)}); expected at least two, since pairs "
            "compare different angles. Add recordings or name more with --classes."
        )
    return clips


def find_tones(root: str | Path, material: str) -> list[str]:
    """The tones of which a material has recordings, the lowest first.

    Raises:
        InputError: as `find_clips`, of which the first tone that is missing is no fault.
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
        clips: what to read, [items].
        front_end: from waveform to spectrogram.
        sample_rate: the rate all files must state; nothing is resampled.
        clip_seconds: use this much from the start of each clip; the whole clip when left out.
        workers: threads that read; 0 reads in this one. The result does not depend on it.
        progress: called, in this thread, with the number of clips finished.
        bad: where given, a clip that cannot be used is no error: its id and what is wrong go in here, and its row is 0.

    Raises:
        InputError: a file does not fit (see `read_wav` and `FrontEnd`), is shorter than `clip_seconds`, or
            has another length than the first clip. The message names the file.
        UsageError: `clip_seconds` or `workers` is out of range.
    """
    if clip_seconds is not None and not 0 < clip_seconds < math.inf:
        raise UsageError(f"`clip_seconds` should be above 0. Got {clip_seconds}.")
    if workers < 0:
        raise UsageError(f"`workers` should be 0 or more. Got {workers}.")
    if not clips:
        raise InputError("no clips to load; expected at least one. Check --classes and --takes.")

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
        what = "is not a folder" if root.exists() else "does not exist"
        raise InputError(f"data root {root} {what}; expected a tree like {LAYOUT}. Check --data-root.")
    folders = [folder for folder in root.iterdir() if _CLASS.fullmatch(folder.name) and _is_folder(folder, "class")]
    if not folders:
        raise InputError(f"data root {root} has no class folder; expected {LAYOUT}. Check --data-root.")
    materials = {one_form(entry.name) for folder in folders for entry in folder.iterdir() if entry.is_dir()}
    _require_present("material", [one_form(material)], materials, f"under {root}", "--material")
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
            f"no recording of {material!r} under {root}: {len(ignored)} entries, none follows {LAYOUT}{example}. "
            "Expected names as they stand there, in lower case. Rename them, or choose with --material."
        )
    if ignored:
        notice(
            f"{len(ignored)} of the entries of {material} under {root} do not follow {LAYOUT} and are left "
            f"out{example}."
        )
    return clips


def _clip(path: Path, degree_class: str, material: str) -> Clip | None:
    """The clip that `path` names, None when the name does not follow the layout."""
    prefix, name = one_form(f"{material}_{degree_class}_"), one_form(path.name)
    match = _TONE_AND_TAKE.fullmatch(name.removeprefix(prefix))
    if not name.startswith(prefix) or match is None:
        return None
    degree = int(degree_class.removeprefix("deg"))
    return Clip(path.stem, path, degree_class, degree, material, match[1], int(match[2]))


def _is_folder(path: Path, kind: str) -> bool:
    """Whether a folder is there; something else of that name is an error, for it would drop recordings unsaid."""
    if os.path.lexists(path) and not path.is_dir():
        raise _unfit(path, kind, "folder")
    return path.is_dir()


def _unfit(path: Path, kind: str, expected: str) -> InputError:
    what = "a link that leads nowhere" if not path.exists() else f"no {expected}"
    return InputError(f"{path} is named like a {kind} and is {what}. Expected a {expected}: mend or remove it.")


def _require_present(kind: str, wanted: Iterable[_Name], present: set[_Name], place: str, option: str) -> None:
    for name in wanted:
        if name not in present:
            raise InputError(
                f"no {kind} {name!r} {place}; there are: {_listed(sorted(present))}. Choose with {option}."
            )


def _listed(names: Sequence[str] | Sequence[int]) -> str:
    return ", ".join(str(name) for name in names) or "none"


def _cropped(waveform: Tensor, clip: Clip, clip_seconds: float, sample_rate: int) -> Tensor:
    wanted = round(clip_seconds * sample_rate)
    if len(waveform) < wanted:
        raise InputError(
            f"{clip.path} has {_length(len(waveform), sample_rate)}, shorter than --clip-seconds "
            f"{clip_seconds:g} ({wanted} samples). Lower it to "
            f"{_seconds(len(waveform), sample_rate)} or remove the file."
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
                    f"{_length(expected, sample_rate)}; expected one length. Crop all clips with "
                    f"--clip-seconds {_seconds(min(samples, expected), sample_rate)} or less."
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
    """Rounded down, so that as a value of --clip-seconds it never asks for more than there is."""
    return f"{samples * 1000 // sample_rate / 1000:g}"

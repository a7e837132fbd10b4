"""What a report shows of a recording: its spectrogram as a picture, and its sound."""

import io
import itertools
import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray

from tracin_func.errors import InputError
from tracin_func.sources.recordings.frontend import FrontEnd
from tracin_func.sources.recordings.names import classes_in_names
from tracin_func.sources.recordings.options import SAMPLE_RATE
from tracin_func.sources.recordings.wav import read_wav
from tracin_func.task.item_view import ItemView

_WIDTH, _HEIGHT = 128, 80  # pixels of a spectrogram
_LEVELS = 40  # colours, of DECIBELS decibels together
DECIBELS = 80.0
_LOWEST = 100.0  # Hz at the bottom of a spectrogram, whose frequency axis is logarithmic
MOST_SECONDS = 3.0  # of sound that is kept

# From quiet to loud: dark blue, purple, orange, yellow; lightness rises throughout.
_COLOURS = ((6, 5, 30), (61, 15, 95), (137, 34, 106), (205, 66, 71), (246, 135, 26), (252, 255, 164))


def viewer(record: Mapping[str, Any]) -> Callable[[str], ItemView | None] | None:
    """A function from the id of a recording to what is shown of it; None if `record` names no recordings.

    Args:
        record: what provenance says about the source: `data_root`, and `sample_rate` and `clip_seconds` if known.
    """
    root = record.get("data_root")
    if not isinstance(root, str) or not Path(root).is_dir():
        return None
    rate, seconds = record.get("sample_rate"), record.get("clip_seconds")
    sample_rate = rate if isinstance(rate, int) else SAMPLE_RATE
    most = min(MOST_SECONDS, float(seconds)) if isinstance(seconds, int | float) else MOST_SECONDS

    def view(item: str) -> ItemView | None:
        path = _path_of(Path(root), item)
        if path is None:
            return None
        try:
            return view_of(read_wav(path, sample_rate=sample_rate), sample_rate, most)
        except InputError:  # the scores are shown without it
            return None

    return view


def view_of(waveform: NDArray[np.float64], sample_rate: int, most: float = MOST_SECONDS) -> ItemView:
    """The spectrogram and the sound of a waveform, of its first `most` seconds.

    Raises:
        InputError: the waveform is too short or silent.
    """
    waveform = waveform[: round(most * sample_rate)]
    levels = FrontEnd()(torch.from_numpy(waveform))[0].numpy()
    top = sample_rate / 2
    edges = np.geomspace(min(_LOWEST, top / 2), top, _HEIGHT + 1) / top * (len(levels) - 1)
    low = np.minimum(np.floor(edges[:-1]).astype(int), len(levels) - 1)
    rows = np.stack(
        [levels[at : max(at + 1, int(np.ceil(to)))].max(axis=0) for at, to in zip(low, edges[1:], strict=True)]
    )
    frames = np.linspace(0, rows.shape[1], _WIDTH + 1).astype(int)
    image = np.stack([rows[:, at : max(at + 1, to)].mean(axis=1) for at, to in itertools.pairwise(frames)], 1)
    shades = np.clip((1 + image / DECIBELS) * _LEVELS, 0, _LEVELS - 1).astype(np.uint8)
    seconds = len(waveform) / sample_rate
    axes = "0 s", f"{seconds:.3g} s", f"{min(_LOWEST, top / 2):g} Hz", f"{top / 1000:g} kHz"
    return ItemView(picture=png(shades[::-1], palette()), axes=axes, sound=_sound(waveform, sample_rate))


def palette() -> NDArray[np.uint8]:
    """The colours of the levels, from quiet to loud, uint8 [levels, 3]."""
    places = np.linspace(0, 1, len(_COLOURS))
    channels = [np.interp(np.linspace(0, 1, _LEVELS), places, channel) for channel in zip(*_COLOURS, strict=True)]
    return np.stack(channels, axis=1).round().astype(np.uint8)


def png(pixels: NDArray[np.uint8], colours: NDArray[np.uint8]) -> bytes:
    """A PNG file of pixels, places in a palette, uint8 [height, width], and its colours, uint8 [colours, 3]."""
    height, width = pixels.shape
    lines = np.concatenate([np.zeros((height, 1), np.uint8), pixels], axis=1)  # 0: a line without a filter

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [
            chunk(b"IHDR", header),
            chunk(b"PLTE", colours.tobytes()),
            chunk(b"IDAT", zlib.compress(lines.tobytes(), 9)),
            chunk(b"IEND", b""),
        ]
    )


def _path_of(root: Path, item: str) -> Path | None:
    """The file of a recording by the layout of the tree."""
    degree_class = classes_in_names([item]).get(item)
    if degree_class is None or Path(item).name != item:
        return None
    path = root / degree_class / item.partition(f"_{degree_class}")[0] / f"{item}.wav"
    return path if path.is_file() else None


def _sound(waveform: NDArray[np.float64], sample_rate: int) -> bytes:
    """A FLAC file, about half the size of the WAV file and without loss."""
    content = io.BytesIO()
    soundfile.write(content, np.clip(waveform, -1, 1), sample_rate, format="FLAC", subtype="PCM_16")
    return content.getvalue()

"""A small tree of recordings with a ranker and checkpoints, and WAV files as recorders leave them."""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tests.support.cases.reference import seeded

SAMPLES, SAMPLE_RATE = 4800, 48000
Samples = NDArray[np.int16]


class Ranker(nn.Module):
    """Scores spectrograms [items, 1, frequencies, frames] by eight means of each."""

    def __init__(self) -> None:
        super().__init__()
        self.pool, self.head = nn.AdaptiveAvgPool2d((4, 2)), nn.Sequential(nn.Linear(8, 4), nn.Tanh(), nn.Linear(4, 1))

    def forward(self, spectrograms: Tensor) -> Tensor:
        return self.head(self.pool(spectrograms).flatten(1) / 40)[:, 0]


@dataclass(frozen=True)
class Recordings:
    """Folders as the command line expects them."""

    folder: Path

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def results(self) -> Path:
        return self.folder / "results"

    @property
    def clips(self) -> list[Path]:
        return sorted(self.data.rglob("*.wav"))

    def arguments(self, *more: str) -> list[str]:
        """Options that name the folders and the ranker; those in `more` replace them."""
        own = {
            "--data-root": self.data,
            "--checkpoint-dir": self.checkpoints,
            "--metadata-dir": self.results,
            "--model": "tests.support.cases.audio:Ranker",
            "--material": "box",
        }
        given = [word for option, value in own.items() if option not in more for word in (option, str(value))]
        return [*given, *more]


def write_recordings(folder: Path) -> Recordings:
    """Four takes of three angles, 0.1 s each, and two checkpoints."""
    recordings = Recordings(folder)
    random, time = np.random.default_rng(0), np.arange(SAMPLES) / SAMPLE_RATE
    for degree in (0, 36, 72):
        for take in range(4):
            path = recordings.data / f"deg{degree:03}/box/box_deg{degree:03}_500hz_{take:02}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            tone = (0.1 + degree / 200) * np.sin(2 * np.pi * 500 * time) + 0.01 * random.standard_normal(SAMPLES)
            soundfile.write(path, tone, SAMPLE_RATE)
    recordings.checkpoints.mkdir()
    for epoch in (1, 8):
        state = seeded(Ranker, epoch).state_dict()
        content = {"model_state_dict": state, "args": {"margin": 10.0, "seed": 3, "lr": 0.01}}
        torch.save(content, recordings.checkpoints / f"model_epoch_{epoch}.pt")
    return recordings


def samples_of(path: Path) -> Samples:
    samples: Samples = soundfile.read(path, dtype="int16")[0]
    return samples


LAYOUT = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, SAMPLE_RATE, 2 * SAMPLE_RATE, 2, 16)
UNKNOWN_SIZES = (0, 0x7FFFEFFC, 0x7FFFF000, 0x7FFFFFDB, 0x7FFFFFFF, 0x80000000, 0x80000024, 0xFFFFFFDB, 0xFFFFFFFF)
TAG = b"ID3\x03\0\0\0\0\0\x0a" + bytes(10)


def riff(
    samples: Samples, data_size: int | None = None, before: bytes = b"", total: int | None = None, after: bytes = b""
) -> bytes:
    """A mono 16-bit WAV file whose header claims `data_size` bytes of samples and `total` in all.

    `before` and `after` stand beside the samples' chunk.
    """
    size = samples.nbytes if data_size is None else data_size
    chunks = LAYOUT + before + b"data" + struct.pack("<I", size)
    if total is None:
        total = min(len(chunks) + 4 + size + len(after), 0xFFFFFFFF)
    return b"RIFF" + struct.pack("<I", total) + b"WAVE" + chunks + samples.tobytes() + after


def rf64(
    samples: Samples,
    name: bytes = b"RF64",
    long_size: int | None = None,
    data_size: int = 0xFFFFFFFF,
    before: bytes = b"",
    sizes: bool = True,
) -> bytes:
    """The same with sizes of 64 bits, in a chunk of their own if `sizes`."""
    long_size = samples.nbytes if long_size is None else long_size
    own = b"ds64" + struct.pack("<IQQQI", 28, min(72 + long_size, 2**64 - 1), long_size, 0, 0) if sizes else b""
    chunks = own + LAYOUT + before + b"data" + struct.pack("<I", data_size)
    return name + struct.pack("<I", 0xFFFFFFFF) + b"WAVE" + chunks + samples.tobytes()


ODD = b"LIST\x05\0\0\0INFOx"  # a chunk of odd length, without its padding
HEADERS: dict[str, Callable[[Samples], bytes]] = {
    "plain": riff,
    **{f"{size:#x}": lambda samples, size=size: riff(samples, size) for size in UNKNOWN_SIZES},
    "0 in both": lambda samples: riff(samples, 0, total=0),
    "0, and the header alone": lambda samples: riff(samples, 0, total=36),
    "0 in all": lambda samples: riff(samples, total=0),
    "unknown in all": lambda samples: riff(samples, total=0xFFFFFFFF),
    "unknown, behind a chunk": lambda samples: riff(samples, 0xFFFFFFFF, before=ODD + b"\0"),
    "size with the header": lambda samples: riff(samples, samples.nbytes + 44, total=36 + samples.nbytes),
    "more in all": lambda samples: riff(samples, total=samples.nbytes + 1000),
    "another chunk of odd length": lambda samples: riff(samples, before=ODD + b"\0"),
    "another chunk without padding": lambda samples: riff(samples, before=ODD),
    "another chunk of another name": lambda samples: riff(samples, before=b"abcd\x03\0\0\0xyz\0"),
    "two formats": lambda samples: riff(samples, before=LAYOUT),
    "a chunk after": lambda samples: riff(samples, after=ODD + b"\0"),
    "a chunk after, cut": lambda samples: riff(samples, after=ODD + b"\0")[:-4],
    "tag": lambda samples: TAG + riff(samples),
    "two tags": lambda samples: TAG * 2 + riff(samples),
    "tag with a footer": lambda samples: TAG + b"3DI" + TAG[3:10] + riff(samples),
    "tag, streamed": lambda samples: TAG + riff(samples, 0xFFFFFFFF),
    "tag and a chunk after": lambda samples: TAG + riff(samples, after=ODD + b"\0"),
    "RF64": rf64,
    "BW64": lambda samples: rf64(samples, b"BW64"),
    "RF64, 0": lambda samples: rf64(samples, long_size=0),
    "RF64, unknown": lambda samples: rf64(samples, long_size=2**64 - 1),
    "RF64, size of 32 bits": lambda samples: rf64(samples, long_size=0, data_size=samples.nbytes),
    "RF64 without sizes": lambda samples: rf64(samples, sizes=False),
    "RF64, a chunk of odd length": lambda samples: rf64(samples, before=ODD + b"\0"),
    "RF64, tag": lambda samples: TAG + rf64(samples),
}

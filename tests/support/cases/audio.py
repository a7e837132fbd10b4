"""A small tree of recordings with a ranker and checkpoints, and WAV files as recorders leave them."""

import struct
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


def riff(samples: Samples, data_size: int | None = None, before: bytes = b"") -> bytes:
    """A mono 16-bit WAV file whose header claims `data_size` bytes; `before` stands before the samples' chunk."""
    size = samples.nbytes if data_size is None else data_size
    layout = struct.pack("<HHIIHH", 1, 1, SAMPLE_RATE, 2 * SAMPLE_RATE, 2, 16)
    chunks = b"fmt " + struct.pack("<I", len(layout)) + layout + before + b"data" + struct.pack("<I", size)
    total = min(len(chunks) + 4 + size, 0xFFFFFFFF)
    return b"RIFF" + struct.pack("<I", total) + b"WAVE" + chunks + samples.tobytes()


def tagged(content: bytes) -> bytes:
    """The file with an ID3 tag of ten bytes before it."""
    return b"ID3\x03\0\0\0\0\0\x0a" + bytes(10) + content

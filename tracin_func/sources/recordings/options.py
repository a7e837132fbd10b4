"""The options of recordings, and of the embedded example, which lies in the same tree."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tracin_func.sources.options import COMPUTING, DATA, option, switch
from tracin_func.sources.values import numbers, words

FREQUENCY, MATERIAL, SAMPLE_RATE = "500hz", "plastic", 48000


@dataclass(frozen=True)
class RecordingOptions:
    """Which recordings."""

    panel: ClassVar[str] = DATA
    data_root: Path | None = option(
        "Folder of WAV files: in it deg036/plastic/plastic_deg036_500hz_04.wav.", "embedded"
    )
    frequency: str | None = option("Tone: 500hz, 1000hz, ...; or all: each tone its own run and files.", "500hz")
    material: str | None = option("Material: the folder and file name part such as plastic.", "plastic")
    classes: str | None = option("Class folders, separated by commas: deg000,deg036.", "all present")
    takes: str | None = option("Takes, separated by commas: 0,1,2.", "all present")
    sample_rate: int | None = option("Rate that all files have, in Hz; nothing is resampled.", "48000", least=1)
    clip_seconds: float | None = option("Use this much from the start of each clip.", "whole clips of one length")
    skip_bad_audio: bool = switch("Leave out recordings that cannot be read, and count them.")
    num_workers: int | None = option("Threads that read WAV files.", "0", panel=COMPUTING, least=0)

    def __post_init__(self) -> None:
        words("--classes", self.classes)
        numbers("--takes", self.takes)

    @property
    def placeholders(self) -> dict[str, str]:
        """The values of {frequency} and {material} in the name of a folder."""
        return {"frequency": self.frequency or FREQUENCY, "material": self.material or MATERIAL}

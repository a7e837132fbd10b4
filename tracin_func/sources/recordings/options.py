"""The options of recordings, which the embedded example takes too."""

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
        "Folder of WAV files, such as DIR/deg036/plastic/plastic_deg036_500hz_04.wav.", "embedded"
    )
    frequency: str | None = option("Tone: 500hz, 1000hz, ...; or all, one run and result file per tone.", "500hz")
    material: str | None = option("Material, as in the names of folders and files, such as plastic.", "plastic")
    classes: str | None = option("Class folders to use, separated by commas, such as deg000,deg036.", "all present")
    takes: str | None = option("Takes to use, separated by commas, such as 0,1,2.", "all present")
    sample_rate: int | None = option("Sample rate of all files in Hz; nothing is resampled.", "48000", least=1)
    clip_seconds: float | None = option("Seconds to use from the start of each clip.", "whole clips of equal length")
    skip_bad_audio: bool = switch("Leave out recordings that cannot be read.")
    num_workers: int | None = option("Number of threads that read WAV files.", "0", panel=COMPUTING, least=0)

    def __post_init__(self) -> None:
        words("classes", self.classes)
        numbers("takes", self.takes)

    @property
    def placeholders(self) -> dict[str, str]:
        """The values of {frequency} and {material} in folder names."""
        return {"frequency": self.frequency or FREQUENCY, "material": self.material or MATERIAL}

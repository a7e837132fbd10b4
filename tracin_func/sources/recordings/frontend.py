"""From a waveform to the input of the ranker: a spectrogram in decibels below the clip's own maximum.

A checkpoint is valid only with the front end of its training, which provenance therefore records.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from tracin_func.errors import InputError, UsageError


@dataclass(frozen=True)
class FrontEnd:
    """Spectrogram S = 20·log10(max(|X|, amin) / max|X|), X the short-time Fourier transform of a clip.

    The window is the SYMMETRIC Hamming window of `n_fft` samples (the periodic one of many libraries differs
    by up to 2 dB); frames are centred and the clip is padded by reflection. The maximum is over all
    frequencies and frames of the one clip.

    Args:
        n_fft: length of window and transform, in samples.
        hop_length: samples between two frames.
        amin: smallest magnitude distinguished from 0.

    Raises:
        UsageError: a setting is out of range.

    Example:
        `FrontEnd()(torch.randn(48000))` has shape [1, 1025, 188].
    """

    n_fft: int = 2048
    hop_length: int = 256
    amin: float = 1e-10

    def __post_init__(self) -> None:
        if self.n_fft < 2:
            raise UsageError(f"`n_fft` should be at least 2. Got {self.n_fft}.")
        if self.hop_length < 1:
            raise UsageError(f"`hop_length` should be at least 1. Got {self.hop_length}.")
        if not self.amin > 0:
            raise UsageError(f"`amin` should be above 0. Got {self.amin}.")

    def __call__(self, waveform: Tensor) -> Tensor:
        """Spectrogram of each clip, in the waveform's own precision.

        Args:
            waveform: float [..., samples].

        Returns:
            [..., 1, frequencies, frames]; frequencies = n_fft // 2 + 1, frames = 1 + samples // hop_length.

        Raises:
            InputError: a clip is too short to be padded by reflection (n_fft // 2 samples or fewer), silent (no
                magnitude reaches `amin`), or not finite.
        """
        samples, shortest = waveform.shape[-1], self.n_fft // 2 + 1
        if samples < shortest:
            raise InputError(
                f"the clip has {samples} samples. At least {shortest} are needed to pad a window of {self.n_fft} by "
                "reflection. Use longer clips or a larger `clip_seconds`."
            )
        magnitude = self._magnitude(waveform)
        peak = magnitude.amax(dim=(-2, -1), keepdim=True)
        usable = (peak >= self.amin) & peak.isfinite()
        if not bool(usable.all()):
            largest = float(peak[~usable][0])
            raise InputError(
                f"the clip is silent or not finite: its largest magnitude is {largest}. At least {self.amin} is "
                "needed. Record it again or leave it out."
            )
        return (20 * torch.log10(magnitude.clamp(min=self.amin) / peak)).unsqueeze(-3)

    def describe(self) -> dict[str, Any]:
        """The settings that provenance records."""
        return {
            **asdict(self),
            "window": "symmetric Hamming",
            "padding": "centred, reflect",
            "scale": "dB relative to the clip's maximum",
        }

    def _magnitude(self, waveform: Tensor) -> Tensor:
        """|X|, [..., frequencies, frames]."""
        window = torch.hamming_window(self.n_fft, periodic=False, dtype=waveform.dtype, device=waveform.device)
        transform = torch.stft(
            waveform.reshape(-1, waveform.shape[-1]),
            self.n_fft,
            hop_length=self.hop_length,
            window=window,
            center=True,
            pad_mode="reflect",
            return_complex=True,
        )
        return transform.abs().reshape(*waveform.shape[:-1], *transform.shape[1:])

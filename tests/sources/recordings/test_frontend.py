"""The front end against a second implementation in numpy, and clips it cannot measure."""

import json

import numpy as np
import pytest
import torch
from torch import Tensor

from tracin_func.errors import InputError, UsageError
from tracin_func.sources.recordings.frontend import FrontEnd


def numpy_spectrogram(waveform: np.ndarray, window: np.ndarray, hop: int = 256) -> np.ndarray:
    """The formula once more, frame by frame: [frequencies, frames]."""
    size = len(window)
    padded = np.pad(waveform, size // 2, mode="reflect")
    starts = range(0, len(padded) - size + 1, hop)
    magnitude = np.stack([np.abs(np.fft.rfft(window * padded[at : at + size])) for at in starts], axis=1)
    return 20 * np.log10(np.maximum(magnitude, 1e-10) / magnitude.max())


def symmetric_hamming(size: int) -> np.ndarray:
    return 0.54 - 0.46 * np.cos(2 * np.pi * np.arange(size) / (size - 1))


def periodic_hamming(size: int) -> np.ndarray:
    return 0.54 - 0.46 * np.cos(2 * np.pi * np.arange(size) / size)


def tone(samples: int = 12000, noise: float = 0.01) -> np.ndarray:
    time = np.arange(samples) / 48000
    return 0.3 * np.sin(2 * np.pi * 500 * time) + noise * np.random.default_rng(0).normal(size=samples)


@pytest.mark.parametrize("samples", [1025, 12000, 12288, 12289])
def test_equals_the_formula_in_numpy(samples: int) -> None:
    waveform = tone(samples)
    spectrogram = FrontEnd()(torch.from_numpy(waveform))
    assert spectrogram.dtype == torch.float64
    assert spectrogram.shape == (1, 1025, 1 + samples // 256)
    expected = numpy_spectrogram(waveform, symmetric_hamming(2048))
    assert np.abs(spectrogram[0].numpy() - expected).max() <= 1e-6


def test_the_comparison_would_notice_a_periodic_window() -> None:
    waveform = tone(noise=1e-4)
    spectrogram = FrontEnd()(torch.from_numpy(waveform))[0].numpy()
    assert np.abs(spectrogram - numpy_spectrogram(waveform, periodic_hamming(2048))).max() > 0.1


def test_magnitudes_below_amin_lie_at_the_floor() -> None:
    waveform = tone()
    waveform[6000:] = 0
    spectrogram = FrontEnd()(torch.from_numpy(waveform))[0].numpy()
    expected = numpy_spectrogram(waveform, symmetric_hamming(2048))
    assert np.abs(spectrogram - expected).max() <= 1e-6
    assert spectrogram.max() == 0
    floor = spectrogram[:, -1]
    assert np.ptp(floor) == 0
    assert floor[0] < -200


def test_settings_are_used() -> None:
    waveform = tone()
    spectrogram = FrontEnd(n_fft=512, hop_length=100, amin=1e-10)(torch.from_numpy(waveform))
    expected = numpy_spectrogram(waveform, symmetric_hamming(512), hop=100)
    assert np.abs(spectrogram[0].numpy() - expected).max() <= 1e-6
    assert float(FrontEnd(amin=10.0)(torch.from_numpy(waveform)).min()) > -40


def test_each_clip_of_a_batch_is_measured_from_its_own_maximum() -> None:
    clips = torch.stack([torch.from_numpy(tone()), 1e-3 * torch.from_numpy(tone(noise=0.1))])
    together = FrontEnd()(clips)
    alone = torch.stack([FrontEnd()(clip) for clip in clips])
    assert together.shape == (2, 1, 1025, 47)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-9)


def test_float32_stays_float32() -> None:
    waveform = torch.from_numpy(tone())
    spectrogram = FrontEnd()(waveform.float())
    assert spectrogram.dtype == torch.float32
    torch.testing.assert_close(spectrogram.double(), FrontEnd()(waveform), rtol=0, atol=0.1)


@pytest.mark.parametrize("waveform", [torch.zeros(4000), torch.full((4000,), 1e-15), torch.full((4000,), torch.nan)])
def test_a_clip_without_a_maximum_is_refused(waveform: Tensor) -> None:
    with pytest.raises(InputError, match="silent or not finite: its largest magnitude is"):
        FrontEnd()(waveform)


def test_one_silent_clip_of_a_batch_is_refused() -> None:
    with pytest.raises(InputError, match="largest magnitude is 0.0"):
        FrontEnd()(torch.stack([torch.ones(4000), torch.zeros(4000)]))


def test_a_clip_too_short_for_reflection_is_refused() -> None:
    with pytest.raises(InputError, match="has 1024 samples. At least 1025 are needed"):
        FrontEnd()(torch.ones(1024))


@pytest.mark.parametrize("setting", [{"n_fft": 1}, {"hop_length": 0}, {"amin": 0.0}, {"amin": float("nan")}])
def test_settings_out_of_range_are_refused(setting: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=f"`{next(iter(setting))}` should be"):
        FrontEnd(**setting)


def test_the_description_goes_into_json() -> None:
    described = json.loads(json.dumps(FrontEnd().describe()))
    assert described["n_fft"] == 2048
    assert described["window"] == "symmetric Hamming"

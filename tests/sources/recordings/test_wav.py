"""Reading WAV files: what the samples become, and one clear line for each file that does not fit."""

import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.support.cases.audio import HEADERS, riff
from tracin_func.errors import InputError
from tracin_func.sources.recordings.wav import read_wav

RAMP = np.linspace(-0.9, 0.9, 100)


def write(path: Path, samples: np.ndarray, subtype: str = "PCM_16", rate: int = 48000, **options: str) -> Path:
    soundfile.write(path, samples, rate, subtype=subtype, **options)
    return path


def test_sixteen_bit_samples_are_divided_by_32768(tmp_path: Path) -> None:
    values = np.array([-32768, -1, 0, 1, 32767], dtype=np.int16)
    waveform = read_wav(write(tmp_path / "a.wav", values))
    assert waveform.dtype == np.float64
    np.testing.assert_array_equal(waveform, values / 32768)


@pytest.mark.parametrize(
    ("subtype", "step"), [("PCM_16", 2**-15), ("PCM_24", 2**-23), ("PCM_32", 2**-31), ("FLOAT", 2**-24), ("DOUBLE", 0)]
)
@pytest.mark.parametrize("container", ["WAV", "WAVEX", "RF64"])
def test_every_kind_of_sample_is_read_to_its_own_precision(
    tmp_path: Path, subtype: str, step: float, container: str
) -> None:
    waveform = read_wav(write(tmp_path / "a.wav", RAMP, subtype, format=container))
    np.testing.assert_allclose(waveform, RAMP, rtol=0, atol=step)


def test_stereo_is_the_mean_of_both_channels(tmp_path: Path) -> None:
    left = np.array([100, 200, 300], dtype=np.int16)
    right = np.array([-101, 500, 301], dtype=np.int16)
    waveform = read_wav(write(tmp_path / "a.wav", np.stack([left, right], axis=1)))
    np.testing.assert_array_equal(waveform, (left / 32768 + right / 32768) / 2)


def test_big_endian_and_trailing_chunks_are_read(tmp_path: Path) -> None:
    np.testing.assert_allclose(read_wav(write(tmp_path / "big.wav", RAMP, endian="BIG")), RAMP, rtol=0, atol=2**-15)
    path = write(tmp_path / "notes.wav", RAMP)
    path.write_bytes(path.read_bytes() + b"note\x04\x00\x00\x00abcd")
    assert len(read_wav(path)) == 100


SAMPLES = np.random.default_rng(0).integers(-3000, 3000, 480, dtype=np.int16)


@pytest.mark.parametrize("header", HEADERS)
def test_headers_of_recorders(header: str, tmp_path: Path) -> None:
    """All samples, wherever they begin and whatever size is announced that cannot be meant."""
    path = tmp_path / "a.wav"
    path.write_bytes(HEADERS[header](SAMPLES))
    np.testing.assert_array_equal(read_wav(path), SAMPLES / 32768)


@pytest.mark.parametrize(
    "header", ["plain", "0 in all", "unknown in all", "another chunk of odd length", "two tags", "RF64", "BW64"]
)
def test_a_size_that_can_be_meant_is_held_to(header: str, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(HEADERS[header](SAMPLES)[:-100])
    with pytest.raises(InputError, match="a.wav is truncated: 100 of the 960 bytes"):
        read_wav(path)


def test_a_streamed_file_is_read_to_its_last_whole_sample(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(riff(SAMPLES, 0xFFFFFFFF)[:-1])
    np.testing.assert_array_equal(read_wav(path), SAMPLES[:-1] / 32768)


@pytest.mark.parametrize("after", [b"", b"LIST\x05\0\0\0INFOx\0"], ids=["nothing", "a chunk"])
def test_a_size_of_0_is_meant_where_no_samples_follow(after: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(riff(SAMPLES[:0], after=after))
    with pytest.raises(InputError, match="a.wav holds 0 samples"):
        read_wav(path)


@pytest.mark.parametrize("kind", ["PCM_16", "PCM_24", "FLOAT"])
def test_channels_that_cancel_are_named(kind: str, tmp_path: Path) -> None:
    """Up to rounding: -1 has no inverse among samples of 16 and 24 bits."""
    samples = np.sin(np.arange(4800)).round(1)
    path = write(tmp_path / "a.wav", np.stack([samples, -samples], axis=1), kind)
    with pytest.raises(InputError, match="a.wav is stereo, and the mean of its two channels is silent"):
        read_wav(path)


@pytest.mark.parametrize("other", [0.0, -0.99], ids=["one is silent", "one is weaker"])
def test_channels_that_do_not_cancel_are_averaged(other: float, tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", np.stack([RAMP, other * RAMP], axis=1), "DOUBLE")
    np.testing.assert_allclose(read_wav(path), RAMP * (1 + other) / 2, rtol=1e-12)


def test_another_rate_is_read_when_it_is_stated(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", RAMP, rate=44100)
    assert len(read_wav(path, sample_rate=44100)) == 100
    with pytest.raises(InputError, match="`sample_rate=48000` differs from .*a.wav: 44100 .* `sample_rate=44100`"):
        read_wav(path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    samples = np.stack([RAMP, RAMP], axis=1)
    samples[17, 1] = value
    with pytest.raises(InputError, match="a.wav holds NaN or infinite samples, the first at position 17"):
        read_wav(write(tmp_path / "a.wav", samples, "FLOAT"))


@pytest.mark.parametrize("missing", [1, 57, 198])
def test_a_truncated_file_is_refused(tmp_path: Path, missing: int) -> None:
    path = write(tmp_path / "a.wav", RAMP)
    path.write_bytes(path.read_bytes()[:-missing])
    with pytest.raises(InputError, match=f"a.wav is truncated: {missing} of the 200 bytes"):
        read_wav(path)


@pytest.mark.parametrize("kept", [3, 11, 20, 40])
def test_a_file_cut_inside_its_header_is_refused(tmp_path: Path, kept: int) -> None:
    path = write(tmp_path / "a.wav", RAMP)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match="a.wav"):
        read_wav(path)


def test_files_that_hold_no_recording_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("these are not the samples that you look for\n" * 20)
    write(tmp_path / "none.wav", np.zeros(0))
    (tmp_path / "folder.wav").mkdir()
    for name, reason in {
        "empty.wav": "is empty",
        "text.wav": "is not a readable WAV file",
        "none.wav": "holds 0 samples",
        "folder.wav": "cannot be read",
        "missing.wav": ": file not found",
    }.items():
        with pytest.raises(InputError, match=f"{name} ?{reason}"):
            read_wav(tmp_path / name)


def test_other_kinds_of_sound_file_are_refused_by_name(tmp_path: Path) -> None:
    write(tmp_path / "eight.wav", RAMP, "PCM_U8")
    write(tmp_path / "six.wav", np.zeros((10, 6)))
    soundfile.write(tmp_path / "flac.wav", RAMP, 48000, format="FLAC")
    for name, reason in {
        "eight.wav": "holds PCM_U8 samples. Allowed: PCM_16, PCM_24",
        "six.wav": "has 6 channels",
        "flac.wav": "is a FLAC file, not WAV",
    }.items():
        with pytest.raises(InputError, match=f"{name} ?{reason}"):
            read_wav(tmp_path / name)


def test_paths_beyond_ascii_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "Aufnahmen für 角度"
    folder.mkdir()
    assert len(read_wav(str(write(folder / "tön.WAV", RAMP)))) == 100


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the file without a name is closed, by no `with`
def test_an_interrupt_at_any_moment_of_reading_is_no_unreadable_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "long.wav", np.linspace(-1, 1, 100_000))
    in_destructors: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", in_destructors.append)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    read = interrupted = 0
    try:
        for moment in np.geomspace(5e-5, 5e-3, 200):
            try:
                signal.setitimer(signal.ITIMER_REAL, moment)
                read_wav(path)
                signal.setitimer(signal.ITIMER_REAL, 0)
                read += 1
            except KeyboardInterrupt:
                interrupted += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert read + interrupted == 200
    assert interrupted > 10 * len(in_destructors)

"""Reading one WAV file as a mono waveform; the only module that knows soundfile."""

import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
from numpy.typing import NDArray

from tracin_func.errors import InputError

FORMATS = ("WAV", "WAVEX", "RF64")
SUBTYPES = ("PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")
UNKNOWN_SIZE = 0xFFFFFFFF  # what a recorder that streams, and RF64, write for a chunk's size


def read_wav(path: str | Path, *, sample_rate: int = 48000) -> NDArray[np.float64]:
    """Waveform of one WAV file, float64 [samples].

    A sample of b-bit PCM with integer value v becomes v / 2^(b−1) (16 bit: v / 32768); float samples stay as
    they are. Stereo becomes the mean of its two channels.

    Args:
        path: a WAV file, 16, 24 or 32-bit PCM or float, mono or stereo.
        sample_rate: the rate the file must state, in samples a second. Nothing is resampled.

    Raises:
        InputError: the file is missing, empty, truncated, corrupt, not a WAV file of these kinds, without
            samples, of another sample rate, or holds NaN or infinite samples. The message names the file.
    """
    path = Path(path)
    try:
        if path.stat().st_size == 0:
            raise InputError(f"{path} is empty (0 bytes); expected a WAV file. Copy it again or remove it.")
        with path.open("rb") as file:
            _require_whole(path, file)
            with soundfile.SoundFile(file) as sound:
                _require_kind(path, sound, sample_rate)
                channels: NDArray[np.float64] = sound.read(dtype="float64", always_2d=True)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; expected a WAV file. Check the path.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}. Expected a readable WAV file.") from None
    except soundfile.LibsndfileError as error:
        raise InputError(
            f"{path} is not a readable WAV file: {error.error_string} Copy it again or remove it."
        ) from None
    if len(channels) == 0:
        raise InputError(f"{path} holds 0 samples; expected a recording. Copy it again or remove it.")
    finite = np.isfinite(channels).all(axis=1)
    if not finite.all():
        raise InputError(
            f"{path} holds NaN or infinite samples, the first at position {int(finite.argmin())}; "
            "expected finite numbers. Export it again or remove it."
        )
    waveform: NDArray[np.float64] = channels.mean(axis=1)
    return waveform


def _require_kind(path: Path, sound: soundfile.SoundFile, sample_rate: int) -> None:
    if sound.format not in FORMATS:
        raise InputError(f"{path} is not a WAV file but {sound.format}. Convert it to WAV.")
    if sound.subtype not in SUBTYPES:
        raise InputError(
            f"{path} holds {sound.subtype} samples; expected one of {', '.join(SUBTYPES)}. Convert it to 16-bit PCM."
        )
    if sound.channels > 2:
        raise InputError(f"{path} has {sound.channels} channels; expected mono or stereo. Mix it down.")
    if sound.samplerate != sample_rate:
        raise InputError(
            f"{path} has {sound.samplerate} samples a second; expected {sample_rate}. If all files have that "
            f"rate, state it with --sample-rate {sound.samplerate} (nothing is resampled)."
        )


def _require_whole(path: Path, file: BinaryIO) -> None:
    """Refuse a data chunk that ends early, of which libsndfile would silently return what is left."""
    total = file.seek(0, 2)
    file.seek(0)
    order = {b"RIFF": "<", b"RIFX": ">"}.get(file.read(4))
    if order is not None:
        file.seek(12)
        while len(header := file.read(8)) == 8:
            name, size = struct.unpack(f"{order}4sI", header)
            missing = file.tell() + size - total
            if name == b"data" and size != UNKNOWN_SIZE and missing > 0:
                raise InputError(
                    f"{path} is truncated: {missing} of the {size} bytes of samples that it announces are "
                    "missing. Copy it again or remove it."
                )
            if name == b"data":
                break
            file.seek(size + size % 2, 1)  # chunks are padded to an even length
    file.seek(0)

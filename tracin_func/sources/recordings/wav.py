"""Reading one WAV file as a mono waveform; the only module that knows soundfile."""

import io
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from tracin_func.errors import InputError

WAV_FORMATS = ("WAV", "WAVEX", "RF64")
SUBTYPES = ("PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")
CANCELS = 1e-3  # deviation of the mean of two channels over theirs, below which they cancel (-60 dB)

_BYTE_ORDERS = {b"RIFF": "<", b"RIFX": ">", b"RF64": "<", b"BW64": "<"}
_MOST = 0xFFFFFFFF - 64  # bytes of samples in a file whose sizes have 32 bits
# Sizes written by programs that do not know them yet: 0, 2^31 and 2^32, less a header, a page or a part of a frame.
_UNKNOWN = (range(1), range(0x7FFE0000, 0x80001000), range(0xFFFE0000, 2**32), range(2**62, 2**64))


def read_wav(path: str | Path, *, sample_rate: int = 48000) -> NDArray[np.float64]:
    """Waveform of one WAV file, float64 [samples].

    A sample of b-bit PCM with integer value v becomes v / 2^(b−1) (16 bit: v / 32768); float samples stay as
    they are. Stereo becomes the mean of its two channels. ID3 tags before the header are skipped. If the header lacks
    the size of the samples, as in files of streaming recorders, all samples are read.

    Args:
        path: a WAV file (RIFF, RIFX, RF64 or BW64), 16, 24 or 32-bit PCM or float, mono or stereo.
        sample_rate: required sample rate in Hz. Nothing is resampled.

    Raises:
        InputError: the file is missing, empty, truncated, corrupt, not a WAV file of these kinds, without samples, or
            of another sample rate; it contains NaN or infinite samples; or its two channels cancel.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
        if not content:
            raise InputError(f"{path} is empty (0 bytes). Copy it again or remove it.")
        channels = _decoded(path, content, sample_rate)
    except FileNotFoundError:
        raise InputError(f"{path}: file not found. Check the path.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}. Check its permissions.") from None
    except soundfile.LibsndfileError as error:
        raise InputError(
            f"{path} is not a readable WAV file: {error.error_string} Copy it again or remove it."
        ) from None
    if len(channels) == 0:
        raise InputError(f"{path} holds 0 samples. Copy it again or remove it.")
    finite = np.isfinite(channels).all(axis=1)
    if not finite.all():
        raise InputError(
            f"{path} holds NaN or infinite samples, the first at position {int(finite.argmin())}. Export it again "
            "or remove it."
        )
    waveform: NDArray[np.float64] = channels.mean(axis=1)
    if waveform.std() < CANCELS * channels.std(axis=0).max():
        raise InputError(
            f"{path} is stereo, and the mean of its two channels is silent: one is the other inverted. Invert one "
            "channel, or export one channel as mono."
        )
    return waveform


def _decoded(path: Path, content: bytes, sample_rate: int) -> NDArray[np.float64]:
    """Samples of a file; from the disk where it needs no repair, as callbacks from C lose a Ctrl-C."""
    plain = _plain(path, content)
    with path.open("rb") as file:
        opened = file.fileno() if plain is content else io.BytesIO(plain)
        with soundfile.SoundFile(opened, closefd=False) as sound:
            _require_kind(path, sound, sample_rate)
            channels: NDArray[np.float64] = sound.read(dtype="float64", always_2d=True)
    return channels


def _require_kind(path: Path, sound: soundfile.SoundFile, sample_rate: int) -> None:
    if sound.format not in WAV_FORMATS:
        raise InputError(f"{path} is a {sound.format} file, not WAV. Convert it to WAV.")
    if sound.subtype not in SUBTYPES:
        raise InputError(
            f"{path} holds {sound.subtype} samples. Allowed: {', '.join(SUBTYPES)}. Convert it to 16-bit PCM."
        )
    if sound.channels > 2:
        raise InputError(f"{path} has {sound.channels} channels. Allowed: mono, stereo. Mix it down.")
    if sound.samplerate != sample_rate:
        raise InputError(
            f"`sample_rate={sample_rate}` differs from {path}: {sound.samplerate} samples per second. If all files "
            f"have this rate, set `sample_rate={sound.samplerate}`; nothing is resampled."
        )


def _plain(path: Path, content: bytes) -> bytes:
    """The file reduced to format and samples, with their true sizes; `content` itself if it needs no change.

    Without these two chunks the file from its header on is returned for libsndfile. libsndfile alone would accept
    truncated samples, and lose samples behind a tag or an unknown size.
    """
    start = _after_tags(content)
    order = _BYTE_ORDERS.get(content[start : start + 4])
    if order is None or len(content) < start + 12:
        return content[start:]
    total = struct.unpack_from(f"{order}I", content, start + 4)[0]
    chunks: dict[bytes, tuple[int, int]] = {}
    for name, at, size in _chunks(content, start + 12, order):
        chunks.setdefault(name, (at, size))
        if name == b"data":
            break
    if b"fmt " not in chunks or b"data" not in chunks:
        return content[start:]
    at, size = chunks[b"data"]
    if content[start : start + 4] in (b"RF64", b"BW64") and chunks.get(b"ds64", (0, 0))[1] >= 16:
        long = struct.unpack_from("<Q", content, chunks[b"ds64"][0] + 8)[0]
        size = size if _is_unknown(long) else long
    there = len(content) - at
    whole = at < start + 8 + total <= len(content)  # as the file's own size says
    if size > there and not whole and not _is_unknown(size):
        raise InputError(
            f"{path} is truncated: {size - there} of the {size} bytes of samples in its header are missing. Copy it "
            "again or remove it."
        )
    if size == 0 and not _are_chunks(content, at, order):
        size = there
    size = min(size, there)
    if size > _MOST:
        return content[start:]
    first, length = chunks[b"fmt "]
    is_plain = start == 0 and first == 20 and at == first + length + length % 2 + 8
    if is_plain and total + 8 == len(content) and 0 < chunks[b"data"][1] == size:
        return content
    layout = content[first : first + length + length % 2]
    head = struct.pack(
        f"{order}4sI4s4sI", b"RIFX" if order == ">" else b"RIFF", 20 + len(layout) + size, b"WAVE", b"fmt ", len(layout)
    )
    return b"".join((head, layout, struct.pack(f"{order}4sI", b"data", size), memoryview(content)[at : at + size]))


def _after_tags(content: bytes) -> int:
    """Where the file begins after its ID3 tags: ten bytes that end in the tag's size, 7 bits per byte."""
    at = 0
    while content[at : at + 3] == b"ID3" and len(content) >= at + 10:
        size = 0
        for byte in content[at + 6 : at + 10]:
            size = size << 7 | byte & 0x7F
        at += 10 + size
        at += 10 * (content[at : at + 3] == b"3DI")  # a footer
    return at


def _chunks(content: bytes, at: int, order: str) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and size of each chunk from `at` on; chunks should be padded to an even length."""
    while at + 8 <= len(content):
        name, size = struct.unpack_from(f"{order}4sI", content, at)
        if not (name.isascii() and name.decode("ascii").isprintable()):
            return
        yield name, at + 8, size
        at += 8 + size
        at += size % 2 and content[at : at + 4] not in (b"fmt ", b"data")


def _are_chunks(content: bytes, at: int, order: str) -> bool:
    """Whether chunks, and therefore no samples, follow to the end of the file."""
    for _, start, size in _chunks(content, at, order):
        at = start + size
    return len(content) - 1 <= at <= len(content)


def _is_unknown(size: int) -> bool:
    """Whether a size was unknown when it was written."""
    return any(size in sizes for sizes in _UNKNOWN)

"""What a report shows of a recording: a PNG file with the tone where it belongs, and the sound without loss."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import soundfile

from tests.support.lab import Lab
from tracin_func.sources.recordings.view import view_of, viewer

RATE = 48000


def tone(hertz: float) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(RATE) / RATE)


def pixels(png: bytes) -> np.ndarray:
    """The places in the palette, [height, width]."""
    width, height = struct.unpack(">II", png[16:24])
    start = png.index(b"IDAT")
    (size,) = struct.unpack(">I", png[start - 4 : start])
    lines = np.frombuffer(zlib.decompress(png[start + 4 : start + 4 + size]), np.uint8)
    return lines.reshape(height, width + 1)[:, 1:]


def test_a_higher_tone_is_drawn_higher() -> None:
    rows = []
    for hertz in (300.0, 1000.0, 9000.0):
        picture = view_of(tone(hertz), RATE).picture
        assert picture is not None
        rows.append(int(pixels(picture).astype(int).sum(axis=1).argmax()))
    assert rows == sorted(rows, reverse=True)
    assert len(set(rows)) == 3
    wanted = [80 * (1 - np.log(hertz / 100) / np.log(240)) for hertz in (300.0, 1000.0, 9000.0)]
    assert np.abs(np.array(rows) - wanted).max() < 4


def test_the_sound_is_that_of_the_file(lab: Lab) -> None:
    view = viewer({"data_root": str(lab.data), "sample_rate": RATE})
    assert view is not None
    found = view("box_deg036_500hz_01")
    assert found is not None
    assert found.sound is not None
    heard, rate = soundfile.read(io.BytesIO(found.sound), dtype="int16")
    original, _ = soundfile.read(lab.data / "deg036/box/box_deg036_500hz_01.wav", dtype="int16")
    assert rate == RATE
    assert (heard == original).all()
    assert found.axes == ("0 s", "0.1 s", "100 Hz", "24 kHz")


def test_only_recordings_of_the_tree_are_read(lab: Lab, tmp_path: Path) -> None:
    view = viewer({"data_root": str(lab.data)})
    assert view is not None
    outside = lab.data / "box_deg036_500hz_01.wav"  # what `..` in an id would lead to
    (lab.data / "box").mkdir()
    outside.write_bytes((lab.data / "deg036/box/box_deg036_500hz_01.wav").read_bytes())
    for item in ("box_deg036_500hz_99", "no_class", "../box_deg036_500hz_01", "x/../box_deg036_500hz_01"):
        assert view(item) is None
    assert viewer({"data_root": str(tmp_path / "missing")}) is None
    assert viewer({}) is None

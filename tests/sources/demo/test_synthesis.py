"""The synthetic tones: the lab's layout, the physics, and what the front end can see of it."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray

from tracin_func.errors import UsageError
from tracin_func.sources.demo import synthesis
from tracin_func.sources.demo.synthesis import CLASSES, FREQUENCIES, MATERIALS, TAKES, synthesise, write_tones
from tracin_func.sources.recordings.frontend import FrontEnd
from tracin_func.sources.recordings.tree import find_clips


def tone_level(samples: NDArray[np.int16], hertz: int) -> float:
    """Level of the sine at `hertz` in the steady half of a clip, dB."""
    steady = samples[12_000:36_000] / 32768
    wave = np.exp(-2j * np.pi * hertz * np.arange(len(steady)) / 48_000)
    return float(20 * np.log10(abs(wave @ steady) * 2 / len(steady)))


def test_files_lie_and_read_as_the_labs(tmp_path: Path) -> None:
    paths = write_tones(tmp_path, materials=["plastic"], frequencies=["500hz"], takes=[0, 8])
    assert tmp_path / "deg036/plastic/plastic_deg036_500hz_08.wav" in paths
    assert sorted(paths) == sorted(tmp_path.rglob("*.wav"))
    assert len(paths) == len(CLASSES) * 2
    for path in paths:
        info = soundfile.info(path)
        assert (info.samplerate, info.channels, info.subtype, info.frames) == (48_000, 1, "PCM_16", 48_000)
    clips = find_clips(tmp_path, material="plastic", frequency="500hz")
    assert [clip.degree for clip in clips] == [0, 0, 36, 36, 72, 72, 108, 108, 144, 144, 180, 180]


def test_a_clip_depends_on_its_own_name_alone(tmp_path: Path) -> None:
    write_tones(tmp_path / "one", materials=["box"], frequencies=["1000hz"], classes=["deg072"], takes=[3])
    write_tones(tmp_path / "many", frequencies=["1000hz"], classes=["deg000", "deg072"], takes=[2, 3])
    name = "deg072/box/box_deg072_1000hz_03.wav"
    assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "many" / name).read_bytes()


def test_every_clip_is_another_one() -> None:
    clips = {
        synthesise(material, label, frequency, take).tobytes()
        for material in MATERIALS
        for label in ("deg000", "deg180")
        for frequency in FREQUENCIES
        for take in (0, 1)
    }
    assert len(clips) == 2 * 2 * 3 * 2


def test_the_tone_is_the_sum_over_image_sources() -> None:
    """Against the sum written out: every image a delayed sine, with nothing factored out."""
    setting = synthesis.Take.draw(72.0, np.random.RandomState(0))
    panel = MATERIALS["plastic"]
    time = np.arange(9_600, 14_400) / 48_000  # steady: every envelope is 1
    turn = np.deg2rad(setting.angle)
    room, source, microphone = synthesis.ROOM, setting.loudspeaker, setting.microphone
    planes = [(None, 0.0, 1.0)]
    planes += [(axis, wall, 0.22) for axis in range(3) for wall in (0.0, room[axis])]
    planes += [(1, 1.6 + panel.distance, panel.reflection)]
    expected = np.zeros_like(time)
    for axis, plane, reflection in planes:
        image, heading = source.copy(), np.array([np.cos(turn), np.sin(turn), 0.0])
        if axis is not None:
            image[axis], heading[axis] = 2 * plane - image[axis], -heading[axis]
        way = microphone - image
        distance = np.sqrt(way @ way)
        cardioid = (1 + heading @ way / distance) / 2
        for harmonic, amplitude in enumerate(synthesis.HARMONICS, start=1):
            size = 1.0
            if reflection == panel.reflection:
                area = panel.width * panel.height
                size = area / (area + np.pi * 343 / (harmonic * 1000) * distance / 4)
            wave = np.sin(2 * np.pi * harmonic * 1000 * (time - distance / 343) + harmonic * setting.phase)
            expected += amplitude * reflection * size * cardioid * wave / distance
    expected *= np.linalg.norm(microphone - source)
    got = synthesis._tone(time, 1000, panel, setting)
    np.testing.assert_allclose(got, expected, atol=1e-11)


@pytest.mark.parametrize("frequency", FREQUENCIES)
@pytest.mark.parametrize("material", MATERIALS)
def test_the_level_falls_with_the_angle_and_takes_overlap(material: str, frequency: str) -> None:
    clips = [[synthesise(material, label, frequency, take) for take in TAKES] for label in CLASSES]
    levels = np.array([[tone_level(clip, int(frequency[:-2])) for clip in row] for row in clips])
    rank = levels.ravel().argsort().argsort()
    ranks_of_angles = np.repeat(np.arange(len(CLASSES)) * len(TAKES) + (len(TAKES) - 1) / 2, len(TAKES))
    spearman = -np.corrcoef(rank, ranks_of_angles)[0, 1]
    assert 0.5 < spearman < 0.96  # pairs can be told apart, and some are honestly hard
    assert levels[0].min() < levels[1].max()
    assert max(np.abs(clip.astype(int)).max() for row in clips for clip in row) < 32_767  # nothing is clipped


def test_the_angle_shows_in_a_spectrogram_relative_to_its_own_maximum() -> None:
    """The front end hides absolute level; the distance from tone to noise is left."""
    floors = []
    for label in ("deg000", "deg108", "deg180"):
        clips = [torch.from_numpy(synthesise("plastic", label, "1000hz", take) / 32768) for take in TAKES]
        spectrograms = [FrontEnd()(clip) for clip in clips]
        assert all(float(spectrogram.max()) == 0.0 for spectrogram in spectrograms)
        floors.append(np.mean([float(spectrogram.median()) for spectrogram in spectrograms]))
    assert floors[0] + 5 < floors[1] < floors[2] - 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("glass", "deg000", "500hz", 0), "`material` should be one of plastic, box. Got 'glass'"),
        (("box", "36", "500hz", 0), "`class` should have the form deg036. Got '36'"),
        (("box", "deg181", "500hz", 0), "between deg000 and deg180. Got 'deg181'"),
        (("box", "deg000", "500", 0), "`frequency` should have the form 500hz. Got '500'"),
        (("box", "deg000", "8000hz", 0), "between 1hz and 7999hz. Got '8000hz'"),
    ],
)
def test_what_cannot_be_synthesised_is_refused(arguments: tuple[str, str, str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        synthesise(*arguments)

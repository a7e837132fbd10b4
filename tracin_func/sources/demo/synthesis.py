"""Synthetic tones in the layout of recordings: a turned loudspeaker, a room, a reflecting panel, jitter per take.

Nothing here was recorded. In the physical model a loudspeaker of cardioid directivity is turned by 0 to 180 degrees
away from a microphone in a room with absorbing walls, beside one panel of the material. A tone is a sum of sines, so
the sum over image sources (Allen and Berkley, J. Acoust. Soc. Am. 65, 943, 1979) is exact in the time domain: every
image is a delayed, scaled copy,

    p(t) = Σ_h a_h Σ_i Γ_i(h f) D(θ_i) (d_0 / d_i) e(t − d_i/c) sin(2π h f (t − d_i/c)),

with h the harmonics of the loudspeaker, i the images of first order, Γ the reflection on the path,
D(θ) = (1 + cos θ)/2 the cardioid, d_i the length of the path and e the envelope of the tone.

A spectrogram in dB relative to the maximum of its clip hides the absolute level. The angle shows in the level relative
to background noise and mains hum, which do not turn with the loudspeaker. Neighbouring angles differ by about one dB
near 0 degrees, as much as two takes of one angle: some pairs are hard.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from tracin_func.errors import UsageError

SAMPLE_RATE = 48_000
SECONDS = 1.0
CLASSES = ("deg000", "deg036", "deg072", "deg108", "deg144", "deg180")
FREQUENCIES = ("500hz", "1000hz", "3000hz")
TAKES = tuple(range(9))

SPEED_OF_SOUND = 343.0  # m/s
ROOM = np.array([4.2, 3.4, 2.6])  # m; shoebox, one corner at the origin
LOUDSPEAKER = np.array([1.5, 1.6, 1.2])  # m
MICROPHONE = np.array([2.7, 1.6, 1.2])  # m; at 0 degrees the loudspeaker faces it
WALL_REFLECTION = 0.22  # pressure; absorption coefficient 0.95
HARMONICS = (1.0, 0.03, 0.012)  # amplitude of h = 1, 2, 3 at the loudspeaker
LEVEL = 0.25  # amplitude of the direct tone at 0 degrees, full scale 1
NOISE = 0.002  # standard deviation of the white background noise, full scale 1
HUM = {50.0: 0.003, 150.0: 0.0015}  # Hz: amplitude of the mains hum, full scale 1
ONSET, RELEASE, RAMP = 0.1, 0.9, 0.01  # s; the tone between two smooth ramps


@dataclass(frozen=True)
class Panel:
    """A flat panel of one material, parallel to the line from loudspeaker to microphone."""

    reflection: float  # coefficient of the sound pressure
    width: float  # m, along the line
    height: float  # m
    distance: float  # m, from the line


MATERIALS = {
    "plastic": Panel(reflection=0.9, width=0.5, height=0.4, distance=0.75),
    "box": Panel(reflection=0.5, width=0.4, height=0.3, distance=0.60),
}


@dataclass(frozen=True)
class Arrival:
    """One path of the sound from the loudspeaker to the microphone."""

    distance: float  # m, length of the path
    directivity: float  # pressure in the direction of the path, 1 on the loudspeaker's axis
    reflection: float = 1.0  # share of pressure that the wall or panel reflects; 1 for the direct sound
    area: float = np.inf  # m², of the reflecting surface; infinite for a wall


@dataclass(frozen=True)
class Take:
    """The setup of one take, with jitter as of a careful person."""

    loudspeaker: NDArray[np.float64]  # m, [3]
    microphone: NDArray[np.float64]  # m, [3]
    angle: float  # degrees
    gain: float  # of the tone
    noise_gain: float  # of noise and hum
    phase: float  # rad, of the tone

    @classmethod
    def draw(cls, angle: float, random: np.random.RandomState) -> "Take":
        """One take: standard deviations 1 cm, 4 degrees, and 2 and 0.4 dB of the gains."""
        return cls(
            loudspeaker=LOUDSPEAKER + 0.01 * random.standard_normal(3),
            microphone=MICROPHONE + 0.01 * random.standard_normal(3),
            angle=angle + 4.0 * random.standard_normal(),
            gain=_from_decibel(2.0 * random.standard_normal()),
            noise_gain=_from_decibel(0.4 * random.standard_normal()),
            phase=random.uniform(0.0, 2 * np.pi),
        )


def write_tones(
    root: Path,
    *,
    materials: Iterable[str] = tuple(MATERIALS),
    frequencies: Iterable[str] = FREQUENCIES,
    classes: Iterable[str] = CLASSES,
    takes: Iterable[int] = TAKES,
) -> list[Path]:
    """Write synthetic clips as `ROOT/deg036/plastic/plastic_deg036_500hz_04.wav`, int16 mono at 48 kHz, 1 s.

    A clip depends only on its own name; existing clips are overwritten. The paths are returned class by class.

    Raises:
        UsageError: a material, class or frequency is not allowed.
    """
    materials, frequencies, takes = tuple(materials), tuple(frequencies), tuple(takes)
    paths = []
    for label in classes:
        for material in materials:
            folder = Path(root) / label / material
            folder.mkdir(parents=True, exist_ok=True)
            for frequency in frequencies:
                for take in takes:
                    path = folder / f"{material}_{label}_{frequency}_{take:02d}.wav"
                    samples = synthesise(material, label, frequency, take)
                    soundfile.write(path, samples, SAMPLE_RATE, subtype="PCM_16")
                    paths.append(path)
    return paths


def synthesise(material: str, label: str, frequency: str, take: int) -> NDArray[np.int16]:
    """One synthetic clip of a class `label`, int16 [samples], the same on every machine up to rounding.

    Raises:
        UsageError: see `write_tones`.
    """
    if material not in MATERIALS:
        raise UsageError(f"`material` should be one of {', '.join(MATERIALS)}. Got {material!r}.")
    angle = _number("class", label, "deg", "", like="deg036")
    if angle > 180:
        raise UsageError(f"`class` should lie between deg000 and deg180. Got {label!r}.")
    hertz = _number("frequency", frequency, "", "hz", like="500hz")
    if not 0 < hertz * len(HARMONICS) < SAMPLE_RATE / 2:
        highest = SAMPLE_RATE // (2 * len(HARMONICS))
        raise UsageError(f"`frequency` should lie between 1hz and {highest - 1}hz. Got {frequency!r}.")
    # RandomState, not default_rng: numpy guarantees its stream.
    random = np.random.RandomState([*material.encode(), angle, hertz, take])
    setting = Take.draw(angle, random)
    time = np.arange(int(SECONDS * SAMPLE_RATE)) / SAMPLE_RATE
    pressure = LEVEL * setting.gain * _tone(time, hertz, MATERIALS[material], setting)
    pressure += setting.noise_gain * _background(time, random)
    return np.clip(np.rint(pressure * 32768), -32768, 32767).astype(np.int16)


def _tone(time: NDArray[np.float64], hertz: float, panel: Panel, setting: Take) -> NDArray[np.float64]:
    """The tone at the microphone, [samples]; its direct sound at 0 degrees has amplitude 1."""
    arrivals = _arrivals(panel, setting)
    delays = np.array([arrival.distance / SPEED_OF_SOUND for arrival in arrivals])
    waves, strengths = [], []
    for harmonic, amplitude in enumerate(HARMONICS, start=1):
        wavelength = SPEED_OF_SOUND / (harmonic * hertz)
        strength = amplitude * np.array([_strength(arrival, wavelength) for arrival in arrivals])
        # sin(ω (t − τ) + φ) = sin(ω t + φ) cos(ω τ) − cos(ω t + φ) sin(ω τ): two waves serve all arrivals.
        phase = harmonic * (2 * np.pi * hertz * time + setting.phase)
        lag = harmonic * 2 * np.pi * hertz * delays
        waves += [np.sin(phase), np.cos(phase)]
        strengths += [strength * np.cos(lag), -strength * np.sin(lag)]
    pressure = np.zeros_like(time)
    for row, delay in enumerate(delays):
        arriving = sum(wave * strength[row] for wave, strength in zip(waves, strengths, strict=True))
        pressure += arriving * _envelope(time - delay)
    return pressure * arrivals[0].distance


def _arrivals(panel: Panel, setting: Take) -> list[Arrival]:
    """The direct sound, one reflection from each wall, and the one from the panel."""
    turn = np.deg2rad(setting.angle)
    heading = np.array([np.cos(turn), np.sin(turn), 0.0])
    arrivals = [Arrival(*_way(setting, setting.loudspeaker, heading))]
    mirrors = [(axis, wall, WALL_REFLECTION, np.inf) for axis in range(3) for wall in (0.0, ROOM[axis])]
    mirrors.append((1, LOUDSPEAKER[1] + panel.distance, panel.reflection, panel.width * panel.height))
    for axis, wall, reflection, area in mirrors:
        flip = np.ones(3)
        flip[axis] = -1.0
        image = setting.loudspeaker.copy()
        image[axis] = 2 * wall - image[axis]
        arrivals.append(Arrival(*_way(setting, image, heading * flip), reflection, area))
    return arrivals


def _way(setting: Take, source: NDArray[np.float64], heading: NDArray[np.float64]) -> tuple[float, float]:
    """Length of the path from `source` to the microphone, m, and the cardioid D(θ) along it."""
    way = setting.microphone - source
    distance = float(np.linalg.norm(way))
    return distance, (1.0 + float(way @ heading) / distance) / 2


def _strength(arrival: Arrival, wavelength: float) -> float:
    """Γ D / d of one arrival, 1/m.

    A surface smaller than the first Fresnel zone, S_F = π λ d / 4, reflects only the part S / (S + S_F).
    """
    fresnel_zone = np.pi * wavelength * arrival.distance / 4
    part = 1.0 if np.isinf(arrival.area) else arrival.area / (arrival.area + fresnel_zone)
    return arrival.reflection * part * arrival.directivity / arrival.distance


def _envelope(time: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 during the tone, 0 outside, smooth ramps 3x² − 2x³ between, shaped as `time`."""
    ramp = np.clip(np.minimum(time - ONSET, RELEASE - time) / RAMP, 0.0, 1.0)
    return np.asarray(ramp * ramp * (3 - 2 * ramp))


def _background(time: NDArray[np.float64], random: np.random.RandomState) -> NDArray[np.float64]:
    """White noise and mains hum of one take, before its gain, [samples]."""
    background = NOISE * random.standard_normal(len(time))
    for hertz, amplitude in HUM.items():
        background += amplitude * np.sin(2 * np.pi * hertz * time + random.uniform(0.0, 2 * np.pi))
    return background


def _from_decibel(level: float) -> float:
    return float(10 ** (level / 20))


def _number(name: str, text: str, prefix: str, suffix: str, like: str) -> int:
    digits = text.removeprefix(prefix).removesuffix(suffix)
    if text != f"{prefix}{digits}{suffix}" or not (digits.isascii() and digits.isdigit()):
        raise UsageError(f"`{name}` should have the form {like}. Got {text!r}.")
    return int(digits)

"""The lab's tree: which clips are found, in what order, and what is said when something is not there."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from tracin_func.errors import InputError, UsageError
from tracin_func.sources.recordings.frontend import FrontEnd
from tracin_func.sources.recordings.tree import Clip, find_clips, load_items
from tracin_func.sources.recordings.wav import read_wav

SMALL = FrontEnd(n_fft=64, hop_length=16)


def add(root: Path, degree: int, take: int, material: str = "plastic", tone: str = "500hz", **options) -> Path:
    """One short clip in its place; `samples` and `suffix` at choice."""
    folder = root / f"deg{degree:03d}" / material
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{material}_deg{degree:03d}_{tone}_{take:02d}{options.get('suffix', '.wav')}"
    noise = np.random.default_rng(100 * degree + take).uniform(-0.5, 0.5, options.get("samples", 480))
    soundfile.write(path, noise, 48000, subtype="PCM_16")
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three classes with takes 0 to 2, beside another material and another tone."""
    root = tmp_path / "Tonbänder 録音"
    for degree in (180, 0, 36):
        for take in (2, 0, 1):
            add(root, degree, take)
    add(root, 36, 0, material="box")
    add(root, 36, 7, tone="1000hz")
    return root


def ids(clips: list[Clip]) -> list[str]:
    return [clip.id for clip in clips]


def test_clips_are_ordered_by_class_then_take(root: Path) -> None:
    clips = find_clips(root, material="plastic", frequency="500hz")
    expected = [f"plastic_deg{degree:03d}_500hz_{take:02d}" for degree in (0, 36, 180) for take in range(3)]
    assert ids(clips) == expected
    path = root / "deg036" / "plastic" / "plastic_deg036_500hz_01.wav"
    assert clips[4] == Clip("plastic_deg036_500hz_01", path, "deg036", 36, "plastic", "500hz", 1)


def test_classes_are_ordered_by_angle_not_by_name(root: Path) -> None:
    add(root, 1000, 0)
    assert find_clips(root, material="plastic", frequency="500hz")[-1].degree == 1000


def test_classes_and_takes_are_chosen(root: Path) -> None:
    clips = find_clips(root, material="plastic", frequency="500hz", classes=["deg180", "deg000"], takes=[2, 0])
    expected = [f"plastic_deg{degree:03d}_500hz_{take:02d}" for degree in (0, 180) for take in (0, 2)]
    assert ids(clips) == expected


def test_a_take_that_one_class_lacks_is_no_error(root: Path) -> None:
    add(root, 0, 5)
    clips = find_clips(root, material="plastic", frequency="500hz", takes=[0, 5])
    assert [(clip.degree, clip.take) for clip in clips] == [(0, 0), (0, 5), (36, 0), (180, 0)]


def test_other_files_are_left_out_and_counted(root: Path) -> None:
    expected = find_clips(root, material="plastic", frequency="500hz")
    folder = root / "deg036" / "plastic"
    strays = (
        "notes.txt",
        "._plastic_deg036_500hz_01.wav",
        "plastic_deg036_500hz_01.wav.bak",
        "plastic_deg000_500hz_08.wav",
        "plastic_deg036_500hz.wav",
        "deg036_500hz_09.wav",
        "500hz_09.wav",
    )
    for name in strays:
        (folder / name).write_text("no sound")
    (root / "degrees").mkdir()
    (root / "readme.txt").touch()
    told: list[str] = []
    assert find_clips(root, material="plastic", frequency="500hz", notice=told.append) == expected
    (line,) = told
    assert line.startswith(f"left out {len(strays)} files for plastic in {root} with names unlike ROOT/")
    assert line.endswith("such as deg036/plastic/._plastic_deg036_500hz_01.wav.")


@pytest.mark.parametrize("name", ["deg036/plastic/plastic_deg036_500hz_08.wav", "deg072", "deg072/plastic"])
@pytest.mark.parametrize("dangling", [True, False])
def test_what_is_named_like_a_recording_and_is_none_is_refused(root: Path, name: str, dangling: bool) -> None:
    path = root / name
    path.parent.mkdir(exist_ok=True)
    if dangling:
        path.symlink_to(root / "gone")
    elif path.suffix:
        path.mkdir()
    else:
        path.touch()
    reason = "a broken link" if dangling else "not a (file|folder)"
    with pytest.raises(InputError, match=f"{name} has the name of a (recording|class|material) and is {reason}"):
        find_clips(root, material="plastic", frequency="500hz")
    if path.suffix:
        assert find_clips(root, material="plastic", frequency="500hz", takes=[0, 1])


def test_upper_case_endings_are_found(root: Path) -> None:
    add(root, 36, 5, suffix=".WAV")
    clips = find_clips(root, material="plastic", frequency="500hz")
    assert "plastic_deg036_500hz_05" in ids(clips)
    assert load_items(clips, SMALL).shape == (10, 1, 33, 31)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"material": "wood"}, '`material="wood"` not found in .*. Available: box, plastic.'),
        ({"frequency": "3000hz"}, '`frequency="3000hz"` not found for plastic .*: 1000hz, 500hz.'),
        ({"classes": ["deg000", "deg072"]}, '`classes="deg072"` not found .*: deg000, deg036, deg180.'),
        ({"takes": [0, 9]}, "`takes=9` not found for 500hz for plastic .*: 0, 1, 2."),
        ({"classes": ["deg036"]}, "1 class found for 500hz .*degrees: 36.*at least two"),
        ({"material": "box"}, "1 class found for 500hz for box"),
        ({"takes": []}, "0 class"),
    ],
)
def test_what_is_missing_is_named_with_what_there_is(root: Path, wanted: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_clips(root, **{"material": "plastic", "frequency": "500hz", **wanted})


def test_a_root_that_is_no_tree_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name, reason in {"absent": "folder not found", "file": "not a folder", ".": "no class folder"}.items():
        with pytest.raises(InputError, match=f"`data_root`: {reason}.*ROOT/deg036/plastic/"):
            find_clips(tmp_path / name, material="plastic", frequency="500hz")


def test_two_files_of_one_take_are_refused(root: Path) -> None:
    add(root, 36, 1, suffix=".WAV")
    with pytest.raises(InputError, match="plastic_deg036_500hz_01.WAV and .*_01.wav are the same take"):
        find_clips(root, material="plastic", frequency="500hz")


@pytest.mark.parametrize("workers", [0, 3])
def test_items_are_the_spectrograms_in_order(root: Path, workers: int) -> None:
    clips = find_clips(root, material="plastic", frequency="500hz")
    finished: list[int] = []
    items = load_items(clips, SMALL, workers=workers, progress=finished.append)
    assert items.dtype == torch.float32
    assert items.shape == (9, 1, 33, 31)
    for clip, item in zip(clips, items, strict=True):
        assert torch.equal(item, SMALL(torch.from_numpy(read_wav(clip.path))).float())
    assert finished == list(range(1, 10))


@pytest.mark.parametrize("workers", [0, 3])
def test_a_corrupt_file_among_good_ones_is_named(root: Path, workers: int) -> None:
    clips = find_clips(root, material="plastic", frequency="500hz")
    clips[5].path.write_bytes(clips[5].path.read_bytes()[:-100])
    with pytest.raises(InputError, match="plastic_deg036_500hz_02.wav is truncated"):
        load_items(clips, SMALL, workers=workers)


def test_a_silent_file_is_named(root: Path) -> None:
    clips = find_clips(root, material="plastic", frequency="500hz")
    soundfile.write(clips[3].path, np.zeros(480), 48000)
    with pytest.raises(InputError, match="plastic_deg036_500hz_00.wav: the clip is silent"):
        load_items(clips, SMALL)


def test_another_length_is_refused_and_the_named_option_fixes_it(root: Path) -> None:
    add(root, 36, 1, samples=431)
    add(root, 180, 0, samples=900)
    clips = find_clips(root, material="plastic", frequency="500hz")
    message = r"deg036_500hz_01.wav has 431 samples \(0.009 s\), .*deg000_500hz_00.wav has 480 .*`clip_seconds=0.008`"
    with pytest.raises(InputError, match=message):
        load_items(clips, SMALL)
    items = load_items(clips, SMALL, clip_seconds=0.008)
    start = read_wav(clips[0].path)[:384]
    assert torch.equal(items[0], SMALL(torch.from_numpy(start)).float())


def test_a_clip_shorter_than_asked_for_is_refused(root: Path) -> None:
    clips = find_clips(root, material="plastic", frequency="500hz")
    assert load_items(clips, SMALL, clip_seconds=0.01).shape == (9, 1, 33, 31)
    with pytest.raises(
        InputError, match=r"`clip_seconds=0.02` \(960 samples\) is longer than .*deg000_500hz_00.wav: 480 samples"
    ):
        load_items(clips, SMALL, clip_seconds=0.02)


def test_another_rate_is_stated(root: Path) -> None:
    clips = find_clips(root, material="plastic", frequency="500hz")
    with pytest.raises(InputError, match="`sample_rate=48000`"):
        load_items(clips, SMALL, sample_rate=44100)


def test_settings_out_of_range_are_refused(root: Path) -> None:
    clips = find_clips(root, material="plastic", frequency="500hz")
    with pytest.raises(UsageError, match="`clip_seconds` should be above 0. Got -1"):
        load_items(clips, SMALL, clip_seconds=-1)
    with pytest.raises(UsageError, match="`workers` should be 0 or more"):
        load_items(clips, SMALL, workers=-1)
    with pytest.raises(InputError, match="no clips"):
        load_items([], SMALL)

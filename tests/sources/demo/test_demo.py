"""The embedded example and the demo folder: made whole or not at all, once, and where it can be written."""

import itertools
import logging
import os
import shlex
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

import platformdirs
import pytest
import soundfile

from tests.support.prepared import PREPARED
from tracin_func.errors import OutputError, UsageError
from tracin_func.sources.demo import cache as demo
from tracin_func.sources.demo.cache import EmbeddedDemo, embedded, write_demo


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, and making what goes into it takes no time."""
    monkeypatch.setenv(demo.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(demo, "_make", make_nothing_much)
    return tmp_path / "cache" / "embedded"


def make_nothing_much(made: EmbeddedDemo, frequency: str, material: str, progress: demo.Progress) -> None:
    made.data_root.mkdir(parents=True)
    made.checkpoint_dir.mkdir()
    (made.checkpoint_dir / "model_epoch_1.pt").write_text(f"{material} {frequency}")


def test_the_embedded_default_is_a_tree_and_checkpoints(embedded_500hz: EmbeddedDemo) -> None:
    clips = sorted(embedded_500hz.data_root.rglob("*.wav"))
    assert len(clips) == 54
    assert clips[0].relative_to(embedded_500hz.data_root) == Path("deg000/plastic/plastic_deg000_500hz_00.wav")
    names = sorted(path.name for path in embedded_500hz.checkpoint_dir.iterdir())
    assert names == [f"model_epoch_{epoch}.pt" for epoch in (1, 2, 3, 4, 6, 8)]


def test_it_is_made_once_and_says_that_it_is_synthetic(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setenv(demo.CACHE_VARIABLE, str(cache.parent))
    lines: list[str] = []
    monkeypatch.setattr(demo.fit, "fit", lambda *_, save, **more: save.args[0].mkdir())
    first = embedded("3000hz", "box", progress=lines.append)
    assert "Creating the synthetic example (once, under a minute); cached in" in lines[0]
    assert len(list(first.data_root.rglob("box_*_3000hz_*.wav"))) == 54

    def fail(*_: object) -> None:
        raise AssertionError("it was made again")

    monkeypatch.setattr(demo, "_make", fail)
    assert embedded("3000hz", "box", progress=lines.append) == first
    assert len(lines) == 1


def test_each_tone_and_material_has_a_place_of_its_own(cache: Path) -> None:
    places = {embedded(tone, material) for tone in ("500hz", "1000hz") for material in ("plastic", "box")}
    assert len(places) == 4
    assert all(cache in place.data_root.parents for place in places)


def test_what_the_embedded_default_lacks_is_refused(cache: Path) -> None:
    with pytest.raises(UsageError, match="`frequency` .* one of 500hz, 1000hz, 3000hz. Got '440hz'"):
        embedded("440hz")
    with pytest.raises(UsageError, match="`material` .* one of plastic, box. Got 'glass'"):
        embedded("500hz", "glass")
    assert not cache.exists()


def test_a_failure_on_the_way_leaves_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(made: EmbeddedDemo, *_: object) -> None:
        made.checkpoint_dir.mkdir(parents=True)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(demo, "_make", stop)
    with pytest.raises(OutputError, match=f"could not be written to {cache}.*No space left.*Free some space"):
        embedded()
    assert [path.suffix for path in cache.iterdir()] == [".lock"]


def make_it(cache: str, lines: Connection) -> None:
    os.environ[demo.CACHE_VARIABLE] = cache
    embedded(progress=lines.send)


def test_a_kill_leaves_nothing_whole_and_the_next_run_makes_it(cache: Path) -> None:
    lines, others = PREPARED.Pipe(duplex=False)
    process = PREPARED.Process(target=make_it, args=(str(cache.parent), others))
    process.start()
    others.close()
    with lines:
        while "epoch 1 of" not in lines.recv():
            pass
        process.kill()
        process.join()
    [left] = [path for path in cache.iterdir() if path.is_dir()]
    assert left.name.startswith(".")
    assert (left / "checkpoints" / "model_epoch_1.pt").exists()
    made = embedded()
    assert (made.checkpoint_dir / "model_epoch_1.pt").read_text() == "plastic 500hz"
    assert not left.exists()


def test_two_at_once_make_it_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    makers: list[str] = []

    def slowly(made: EmbeddedDemo, frequency: str, material: str, progress: demo.Progress) -> None:
        makers.append(frequency)
        time.sleep(0.5)
        make_nothing_much(made, frequency, material, progress)

    monkeypatch.setattr(demo, "_make", slowly)
    results: list[EmbeddedDemo] = []
    lines: list[str] = []
    threads = [threading.Thread(target=lambda: results.append(embedded(progress=lines.append))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert makers == ["500hz"]
    assert results[0] == results[1]
    assert lines == ["another process is creating the embedded example; waiting for it"]


@pytest.mark.parametrize("home", ["a file in the way", "no home", "a relative home"])
def test_where_the_cache_cannot_be_written_a_temporary_folder_serves(
    home: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(demo.tempfile, "tempdir", str(tmp_path / "temporary"))
    if home == "no home":
        monkeypatch.delenv(demo.CACHE_VARIABLE)

        def fail(_: str) -> Path:
            raise RuntimeError("could not determine the home directory")

        monkeypatch.setattr(platformdirs, "user_cache_path", fail)
    elif home == "a relative home":
        monkeypatch.delenv(demo.CACHE_VARIABLE)
        monkeypatch.setattr(platformdirs, "user_cache_path", lambda _: Path("~/.cache"))
    else:
        (tmp_path / "file").touch()
        monkeypatch.setenv(demo.CACHE_VARIABLE, str(tmp_path / "file" / "cache"))
    with caplog.at_level(logging.WARNING):
        made = embedded()
        again = embedded()
    assert tmp_path / "temporary" in made.data_root.parents
    assert made == again
    assert "cannot be written" in caplog.text
    assert "Set TRACIN_FUNC_CACHE_DIR" in caplog.text


def test_a_finished_cache_serves_where_nothing_can_be_written(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = embedded()

    def refuse(folder: Path) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(demo, "_require_writable", refuse)
    assert embedded() == made


def test_the_demo_folder_holds_data_checkpoints_and_commands(embedded_500hz: EmbeddedDemo, tmp_path: Path) -> None:
    directory = tmp_path / "a demo"
    commands = write_demo(directory, frequencies=["500hz"])
    assert commands == directory / "COMMANDS.md"
    assert sorted(path.name for path in directory.iterdir()) == ["COMMANDS.md", "checkpoints", "data"]
    for made in embedded_500hz.checkpoint_dir.iterdir():
        copy = directory / "checkpoints" / "500hz" / made.name
        assert copy.read_bytes() == made.read_bytes()
    clips = sorted((directory / "data").rglob("*.wav"))
    assert len(clips) == 2 * 54
    clip = "deg072/plastic/plastic_deg072_500hz_04.wav"
    left, right = (soundfile.read(root / clip)[0] for root in (directory / "data", embedded_500hz.data_root))
    assert (left == right).all()

    text = commands.read_text(encoding="utf-8")
    assert "The data are synthetic" in text
    lines = [shlex.split(line) for line in text.splitlines() if line.startswith("tracin-func ")]
    assert [line[1] for line in lines] == ["self", "influence"]
    for line in lines:
        options = dict(itertools.pairwise(line))
        assert Path(options["--data-root"]).is_dir()
        assert len(list(Path(options["--checkpoint-dir"]).glob("model_epoch_*.pt"))) == 6
        assert options["--frequency"] == "500hz"
        assert options["--metadata-dir"] == str(directory / "metadata")


def test_a_folder_in_use_is_refused_and_left_alone(cache: Path, tmp_path: Path) -> None:
    folder, file = tmp_path / "mine", tmp_path / "file"
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")
    file.write_text("mine")
    for taken in (folder, file):
        with pytest.raises(UsageError, match="not an empty folder; nothing was written. Name a new"):
            write_demo(taken)
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]
    assert file.read_text() == "mine"
    with pytest.raises(OutputError, match="the demo could not be written"):
        write_demo(file / "below")
    assert not cache.exists()


def test_an_empty_folder_will_do(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "write_tones", lambda *_, **__: [])
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert write_demo(".", frequencies=["1000hz"]).exists()
    assert os.listdir("checkpoints/1000hz") == ["model_epoch_1.pt"]

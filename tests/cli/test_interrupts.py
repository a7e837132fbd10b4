"""Ctrl-C and SIGKILL at any moment of a real process, and two real processes at once: files are old or new."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer

from tests.support.lab import Lab, run
from tests.support.prepared import Ended, Started, start
from tests.support.series import several
from tracin_func.cli.app import main
from tracin_func.cli.errors import guarded, importing, interruption

# By the way a process starts; moments of a new one mostly fall in imports, those of a prepared one in the work.
MOMENTS = {"new": several(2, 8), "prepared": several(8, 40)}

# The command from its first line on: before, nothing of ours runs that could answer. A Python that was started in a
# shell's background ignores SIGINT, hence the handler.
COMMAND = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from tracin_func.cli.app import main
from tracin_func.cli.errors import guarded, importing, interruption
print("ready", file=sys.stderr, flush=True)
main()
"""


class New:
    """The command in a Python of its own, from its first line on."""

    def __init__(self, *words: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        assert self._process.stderr is not None
        assert self._process.stderr.readline() == "ready\n"

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def end(self) -> Ended:
        _, errors = self._process.communicate()
        return Ended(self._process.returncode, "", errors)


def begun(how: str, lab: Lab, *words: str) -> New | Started:
    """The command at work."""
    if how == "new":
        return New(*words)
    process = start(words, lab.folder / "log")
    process.await_start()
    return process


def results(lab: Lab) -> dict[str, bytes]:
    return {name: content for name, content in lab.files().items() if Path(name).parent == lab.results}


def ended(capsys: pytest.CaptureFixture[str]) -> tuple[object, str]:
    """Exit code and stderr of the command line in this process, which leaves its handler of signals behind."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what runs in background
    with pytest.raises(SystemExit) as end:
        main()
    signal.signal(signal.SIGINT, before)
    return end.value.code, capsys.readouterr().err


@pytest.mark.parametrize("kind", [KeyboardInterrupt, typer.Abort])  # typer makes the second of the first
def test_an_interrupt_outside_a_command_is_one_line(
    kind: type[BaseException], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """While the parser works, or after a command has ended."""

    def interrupted(*words: object, **named: object) -> None:
        raise kind

    monkeypatch.setattr("tracin_func.cli.app.app", interrupted)
    assert ended(capsys) == (130, "interrupted.\n")


def test_an_interrupt_inside_the_parser_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """typer makes an exit code of it, and says nothing."""

    def interrupted(*words: object, **named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(typer.core.TyperGroup, "invoke", interrupted)
    monkeypatch.setattr(sys, "argv", ["tracin-func", "doctor"])
    assert ended(capsys) == (130, "interrupted.\n")


def test_an_interrupt_that_a_destructor_drops_is_repeated(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Interrupting:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    def interrupted(*words: object, **named: object) -> None:
        Interrupting()
        time.sleep(10)

    monkeypatch.setattr(typer.core.TyperGroup, "invoke", interrupted)
    monkeypatch.setattr(sys, "argv", ["tracin-func", "doctor"])
    assert ended(capsys) == (130, "interrupted.\n")


def test_an_error_that_an_interrupt_led_to_is_an_interrupt(capsys: pytest.CaptureFixture[str]) -> None:
    """As where it comes between two statements of torch that belong together."""

    def interrupted() -> None:
        with interruption("the scores are somewhere"):
            try:
                raise KeyboardInterrupt
            finally:
                raise RuntimeError("trying to pop from empty mode stack")

    with pytest.raises(typer.Exit) as end:
        guarded(interrupted)()
    assert (end.value.exit_code, capsys.readouterr().err) == (130, "interrupted; the scores are somewhere.\n")


def test_an_interrupt_waits_for_an_import() -> None:
    done = []

    def interrupted() -> None:
        with importing():
            signal.raise_signal(signal.SIGINT)
            done.append("the import")

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert done == ["the import"]
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("how", ["new", "prepared"])
def test_an_interrupt_at_random_moments(lab: Lab, how: str) -> None:
    words = ("self", *lab.arguments("--margin", "2", "--quiet", "--batch-size", "4"))
    process = begun(how, lab, *words)
    begin = time.monotonic()
    process.end()
    whole = time.monotonic() - begin
    ended = []
    assert run("self", lab, "--quiet")[0] == 0
    table = lab.results / "box_500hz_metadata.json"
    for moment in range(MOMENTS[how]):
        before = table.read_bytes()
        process = begun(how, lab, *words)
        time.sleep(random.Random(moment).uniform(0, whole))
        process.send(signal.SIGINT)
        done = process.end()
        ended.append(done.code)
        assert "Traceback" not in done.stderr, done.stderr
        assert done.code in (0, 130), done.stderr
        lines = [line for line in done.stderr.splitlines() if line.startswith("interrupted")]
        assert len(lines) == (done.code == 130), done.stderr
        if done.code == 130 and "are as they were." in lines[0]:
            assert table.read_bytes() == before
        assert {Path(name).name for name in results(lab)} == {table.name, f"{table.name}.provenance.json"}
        assert all(json.loads(content) for content in results(lab).values())
    assert 130 in ended, "no moment fell into a run"

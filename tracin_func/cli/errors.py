"""Every way a command can end: one clear line on stderr, and an exit code that says whose fault it was.

0 done; 2 an option wrong in itself or a device this machine lacks; 3 something read does not fit; 1 writing
failed, a number is not finite, or a bug; 130 interrupted.
"""

import contextlib
import functools
import os
import shutil
import signal
import sys
import textwrap
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TextIO

import typer

from tracin_func.cli.options import in_flags
from tracin_func.errors import InputError, NumericalError, OutputError, ReportedElsewhereError, UsageError
from tracin_func.report.terminal.tables import is_plain

STYLES = {"error": "\x1b[31m", "warning": "\x1b[33m", "note": "\x1b[2m", "Verification passed": "\x1b[32m"}
_RESET = "\x1b[0m"
INTERRUPTED = 130
_EXIT_CODES: dict[type[Exception], int] = {UsageError: 2, InputError: 3, NumericalError: 1, OutputError: 1}


class Reported(int):
    """An exit code whose reason is printed; typer gives its own, in silence, to an interrupt outside a command."""


@dataclass
class Reporter:
    """Prints notices on stderr and keeps them for the record."""

    quiet: bool
    verbose: bool = False
    notices: list[str] = field(default_factory=list)

    def __call__(self, sentence: str) -> None:
        self.notices.append(in_flags(sentence))
        notify(sentence, quiet=self.quiet, verbose=self.verbose)


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """`command` with its errors reported in one line; `--debug` adds the traceback."""

    @functools.wraps(command)
    def run(**options: Any) -> None:
        try:
            with interruption("result files are as they were"):
                command(**options)
        except tuple(_EXIT_CODES) as error:
            if options.get("debug"):
                traceback.print_exc()
            say(f"error: {error}")
            raise typer.Exit(next(code for kind, code in _EXIT_CODES.items() if isinstance(error, kind))) from None
        except KeyboardInterrupt as error:
            say(f"interrupted; {error.args[0]}.")
            raise typer.Exit(Reported(INTERRUPTED)) from None
        except (typer.Exit, typer.Abort):
            raise
        except ReportedElsewhereError:
            raise typer.Exit(1) from None
        except Exception as error:
            if options.get("debug"):
                traceback.print_exc()
            words = f"{type(error).__name__}: {error}"
            say(f"error: internal error: {words}. This is a bug in tracin-func; please report it with --debug.")
            raise typer.Exit(1) from None

    return run


@contextlib.contextmanager
def interruption(meaning: str) -> Iterator[None]:
    """An interrupt in the block is reported with `meaning`, what it leaves behind; the innermost meaning counts.

    So is an error that an interrupt led to: it may come between two statements of a library that belong together.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(*(error.args or [meaning])) from None
    except Exception as error:
        if _began_with_interrupt(error):
            raise KeyboardInterrupt(meaning) from None
        raise


def _began_with_interrupt(error: BaseException | None) -> bool:
    return error is not None and (isinstance(error, KeyboardInterrupt) or _began_with_interrupt(error.__context__))


@contextlib.contextmanager
def interrupts_repeated() -> Iterator[None]:
    """Repeat a Ctrl-C that Python raised, and dropped, in a destructor or in a callback from C, once that has ended."""
    before = sys.unraisablehook

    def repeat(dropped: Any) -> None:
        if issubclass(dropped.exc_type, KeyboardInterrupt):
            threading.Timer(0.01, signal.raise_signal, [signal.SIGINT]).start()
        else:
            before(dropped)

    sys.unraisablehook = repeat
    try:
        yield
    finally:
        sys.unraisablehook = before


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Defer Ctrl-C to the end of the block: an interrupted import leaves modules half initialised."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    interrupted: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: interrupted.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if interrupted:
        raise KeyboardInterrupt


@contextlib.contextmanager
def printing() -> Iterator[None]:
    """Prints of the block reach stdout before it ends.

    Raises:
        typer.Exit: the reader has left; exit code 0, since results are in their files by then.
        OutputError: stdout cannot be written.
    """
    try:
        yield
        sys.stdout.flush()  # so that an error is noticed here, not while Python shuts down
    except BrokenPipeError:
        _discard(sys.stdout)
        raise typer.Exit(0) from None
    except OSError as error:
        _discard(sys.stdout)
        raise OutputError(f"stdout cannot be written: {error.strerror}. Result files are in their place.") from error


def say(sentence: str, *, quiet: bool = False) -> None:
    """One line on stderr, where there is one; `quiet`: only if it is a warning or an error."""
    kind = sentence.partition(": ")[0]
    if quiet and kind not in ("warning", "error"):
        return
    style = STYLES.get(kind)
    line = _fitted(in_flags(sentence))
    show(f"{style}{kind}{_RESET}{line.removeprefix(kind)}\n" if style and _is_colored() else f"{line}\n")


def show(text: str) -> None:
    """Text on stderr as it is; a bar that is shown there moves below it."""
    try:
        print(text, end="", file=sys.stderr, flush=True)
    except (OSError, ValueError):
        _discard(sys.stderr)


def notify(sentence: str, *, quiet: bool = False, verbose: bool = False) -> None:
    """A notice of a run: one that begins with `warning: ` or `note: ` is printed, others only where `verbose`."""
    if sentence.startswith(("warning: ", "note: ")):
        say(sentence, quiet=quiet)
    elif verbose:
        say(f"note: {sentence}", quiet=quiet)


def _is_colored() -> bool:
    return sys.stderr.isatty() and not is_plain()


def _fitted(sentence: str) -> str:
    """As one line; on a terminal broken between words."""
    line = " ".join(sentence.split())
    if not sys.stderr.isatty():
        return line
    width = shutil.get_terminal_size().columns
    return textwrap.fill(line, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def open_streams() -> None:
    """Make stdout and stderr safe to print to: closed streams go to devnull, unencodable characters become `?`."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(getattr(sys, name), "reconfigure"):
            getattr(sys, name).reconfigure(errors="replace")


def _discard(stream: TextIO) -> None:
    """Send what Python still buffers to devnull, so that it raises nothing at shutdown."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())

"""Every way a command can end: one clear line on stderr, and an exit code that says whose fault it was.

0 done; 2 an option wrong in itself or a device this machine lacks; 3 something read does not fit; 1 writing
failed, a number is not finite, or a fault of ours; 130 interrupted.
"""

import functools
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

import typer

from tracin_func.errors import InputError, NumericalError, OutputError, UsageError

_EXIT_CODES: dict[type[Exception], int] = {UsageError: 2, InputError: 3, NumericalError: 1, OutputError: 1}


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """`command` with its errors told in one line; `--debug` adds the traceback."""

    @functools.wraps(command)
    def run(**options: Any) -> None:
        try:
            command(**options)
            sys.stdout.flush()  # so that a reader who has left is noticed here, not while Python shuts down
        except tuple(_EXIT_CODES) as error:
            if options.get("debug"):
                traceback.print_exc()
            say(f"error: {error}")
            raise typer.Exit(next(code for kind, code in _EXIT_CODES.items() if isinstance(error, kind))) from None
        except BrokenPipeError:
            # The reader of our output has left; what Python still holds of it goes nowhere, without a complaint.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        except KeyboardInterrupt:
            say("interrupted; result files are as they were.")
            raise typer.Exit(130) from None
        except (typer.Exit, typer.Abort):
            raise
        except Exception as error:
            if options.get("debug"):
                traceback.print_exc()
            words = f"{type(error).__name__}: {error}"
            say(f"error: a fault inside tracin-func: {words}. Please report it, with the output of --debug.")
            raise typer.Exit(1) from None

    return run


def say(sentence: str) -> None:
    """One line on stderr."""
    print(" ".join(sentence.split()), file=sys.stderr, flush=True)

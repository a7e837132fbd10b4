"""The command line: `tracin-func self`, `influence` and the others. Loads torch only when a command runs."""

import signal
import sys
from importlib.metadata import version
from typing import Annotated

import typer
from typer import rich_utils

from tracin_func.cli import demo, doctor, gradients, influence, merge, self_influence, show, store
from tracin_func.cli.errors import INTERRUPTED, Reported, open_streams, printing, say
from tracin_func.cli.older import Commands
from tracin_func.errors import OutputError
from tracin_func.report.terminal.tables import is_plain

# The parser's own errors; typer >= 0.26 brings the class and gives it no public name.
_ParseError: type[Exception] = typer.BadParameter.__bases__[0]

app = typer.Typer(
    name="tracin-func",
    cls=Commands,
    help="Which training pairs made my ranking model behave like this? TracIn (arXiv 2002.08484) on ranking pairs.",
    epilog="Options of self and influence can be environment variables too: TRACIN_FUNC_DATA_ROOT for --data-root.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("self")(self_influence.command)
app.command("influence")(influence.command)
app.command("gradients")(gradients.command)
app.command("merge")(merge.command)
app.command("store")(store.command)
app.command("show")(show.command)
app.command("demo")(demo.command)
app.command("doctor")(doctor.command)


def main() -> None:
    """Run the command line; every error is one line on stderr, those of the parser too."""
    open_streams()
    if is_plain():
        rich_utils.COLOR_SYSTEM = None  # of the parser's help
    code = _run()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is done and reported; Python would end with another exit code
    sys.exit(code)


def _run() -> int:
    try:
        with printing():
            code: int = app(sys.argv[1:] or ["--help"], standalone_mode=False) or 0
        if code == INTERRUPTED and not isinstance(code, Reported):
            raise KeyboardInterrupt
        return code
    except typer.Exit as end:
        return end.exit_code
    except (KeyboardInterrupt, typer.Abort):  # outside a command, which has its own words
        say("interrupted.")
        return INTERRUPTED
    except OutputError as error:
        say(f"error: {error}")
        return 1
    except _ParseError as error:
        say(f"error: {error.format_message()}")  # type: ignore[attr-defined]
        return 2
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # so rich ends the parser's help when the reader has left
            return 0
        raise


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"tracin-func {version('tracin-func')}")
        raise typer.Exit


@app.callback()
def _options(
    shown: Annotated[
        bool,
        typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True, metavar=""),
    ] = False,
) -> None:
    pass

"""The command line: the commands of the table as functions that typer reads; torch is loaded when one runs."""

import re
import signal
import sys
from collections.abc import Callable
from difflib import SequenceMatcher
from functools import partial
from importlib import import_module
from importlib.metadata import version
from inspect import Signature
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from tracin_func.cli.commands import COMMANDS, Command
from tracin_func.cli.errors import (
    INTERRUPTED,
    Reported,
    guarded,
    importing,
    interrupts_repeated,
    open_streams,
    printing,
    say,
)
from tracin_func.cli.older import Commands
from tracin_func.cli.options import parameters
from tracin_func.errors import OutputError
from tracin_func.report.terminal.tables import is_plain
from tracin_func.sources.options import Options, groups_of

WELCOME = """\
tracin-func finds the training pairs that shaped your ranking model's behaviour.

Start with
  tracin-func self                     which training pairs are hard for the model
  tracin-func influence --num-test 5   what each training pair did to 5 test pairs
Both run on an embedded example (synthetic tones), made on first use.

Then
  tracin-func self --help              options for your own data and checkpoints
  tracin-func doctor                   test this installation
  tracin-func --help                   all commands"""

HELP = {"-h", "--help"}
_KINDS = {"integer": "a whole number", "float": "a number", "number": "a number"}
# The parser's own errors; typer >= 0.26 brings the class and gives it no public name.
_ParseError: type[Exception] = typer.BadParameter.__bases__[0]


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"tracin-func {version('tracin-func')}")
        raise typer.Exit


def _options(
    context: typer.Context,
    shown: Annotated[
        bool,
        typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True, metavar=""),
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        print(WELCOME)


class _Named(TyperCommand):
    """A command whose help names its arguments without their Python types, such as list[Path]."""

    def get_params(self, ctx: Any) -> Any:
        found = super().get_params(ctx)
        for each in found:
            if each.param_type_name == "argument":
                vars(each)["display_type"] = lambda ctx: ""
        return found


def make_app() -> typer.Typer:
    """The commands of the table, with the options of the sources and losses that are registered now."""
    made = typer.Typer(
        name="tracin-func",
        cls=Commands,
        help="Which training pairs made my ranking model behave like this? TracIn (arXiv 2002.08484) on ranking pairs. "
        "Start with: tracin-func self",
        epilog="Variables set options of self and influence, too: TRACIN_FUNC_DATA_ROOT for --data-root.",
        invoke_without_command=True,
        rich_markup_mode="markdown",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": sorted(HELP)},
    )
    made.callback()(_options)
    for name, command in COMMANDS.items():
        examples = "\n".join(f"- {example}" for example in command.examples)
        epilog = f"Examples:\n\n{examples}" if examples else None
        made.command(name, cls=_Named, help=command.help, epilog=epilog)(_function(command))
    return made


def _function(command: Command) -> Callable[..., None]:
    """A command as a function that typer reads, and the only place where torch is imported."""
    groups = groups_of(command.groups)

    @guarded
    def run(**values: Any) -> None:
        options = Options(groups, values)
        with importing():
            module, _, name = command.body.partition(":")
            body = getattr(import_module(module), name)
            options = options.checked()
        body(options)

    found = parameters(groups)
    run.__signature__ = Signature(found)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in found}
    return run


app = make_app()


def main() -> None:
    """Run the command line; every error is one line on stderr, those of the parser too."""
    open_streams()
    if is_plain() and not HELP.isdisjoint(sys.argv):  # no other command pays for the parser's renderer
        vars(import_module("typer.rich_utils"))["COLOR_SYSTEM"] = None
    code = _run()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is done and reported; Python would end with another exit code
    sys.exit(code)


def _likeness(first: str, second: str) -> float:
    return SequenceMatcher(None, first, second).ratio()


def _in_words(error: Any) -> str:
    """A sentence for an error of the parser, whose own differ between its versions."""
    wrong, near = getattr(error, "option_name", ""), getattr(error, "possibilities", None)
    if wrong and near:
        return f"No such option: {wrong}. Did you mean {max(near, key=partial(_likeness, wrong))}?"
    message: str = error.format_message()
    option = re.match(r"Invalid value for '(--[\w-]+)'", message)
    kind = next((words for word, words in _KINDS.items() if word in message), None)
    return f"{option[1]} should be {kind}." if option and kind else message


def _run() -> int:
    try:
        with printing(), interrupts_repeated():
            code: int = app(sys.argv[1:], standalone_mode=False) or 0
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
        say(f"error: {_in_words(error)}")
        return 2
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # so rich ends the parser's help when the reader has left
            return 0
        raise

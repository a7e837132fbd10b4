"""The command line: a table of commands. Each takes its options by group; torch is loaded when one runs."""

import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from inspect import Signature
from typing import Annotated, Any

import typer
from typer import rich_utils

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
from tracin_func.cli.options import (
    GRADIENTS,
    INFLUENCE,
    SELF,
    DemoOptions,
    DoctorOptions,
    InspectOptions,
    MergeOptions,
    PrintOptions,
    ShowOptions,
    ViewOptions,
    parameters,
)
from tracin_func.errors import OutputError
from tracin_func.report.terminal.tables import is_plain
from tracin_func.sources.options import Options, groups_of


@dataclass(frozen=True)
class Command:
    """A command.

    Args:
        body: `module:function`, imported when the command runs and called with its `Options`.
        groups: the groups of its options.
        help: what it does.
    """

    body: str
    groups: tuple[type | Callable[[], tuple[type, ...]], ...]
    help: str


COMMANDS = {
    "self": Command(
        "tracin_func.cli.score:self_influence",
        SELF,
        """Score how hard each training pair is: self(p) = Σ_t η_t ‖∇ℓ_p‖².

        Without options it runs on the embedded default: synthetic tones and a ranker trained on them, made on first
        use. Results are merged into METADATA_DIR/{material}_{frequency}_metadata.json.
        """,
    ),
    "influence": Command(
        "tracin_func.cli.score:influence",
        INFLUENCE,
        """Score what each training pair did to test pairs: Σ_t ⟨∇ℓ_p, η_t ∇ℓ_q⟩; positive: p lowered the loss of q.

        Without options it runs on the embedded default: synthetic tones and a ranker trained on them, made on first
        use. Results are merged into METADATA_DIR/{material}_{frequency}_influence_metadata.json.
        """,
    ),
    "gradients": Command(
        "tracin_func.cli.fill:gradients",
        GRADIENTS,
        """Compute the gradients of all items once and keep them in a store, for any pairs that are scored later.

        A run that is ended goes on where it was; with --shard I/N, N runs of a job array fill it together.
        """,
    ),
    "merge": Command(
        "tracin_func.cli.score:merge",
        (MergeOptions, PrintOptions),
        """Score what the shards of `self` or `influence` prepared in a store, with their options, and write the
        results.

        Run it where the shards were run. Blocks that are missing are named, and nothing is scored.
        """,
    ),
    "store": Command(
        "tracin_func.cli.store:store",
        (InspectOptions, ViewOptions),
        """Tell what a gradient store holds (info), or read every block again and compare it with its checksum (verify).

        Exit code 1 where something is damaged; --drop then takes these blocks out, and the next run makes them again.
        """,
    ),
    "show": Command(
        "tracin_func.cli.show:show",
        (ShowOptions, ViewOptions),
        """Show a result file: where its scores come from, what is odd about them, the largest, and their distribution.

        By class-pair it tells what to record more of, by item which recordings to listen to. Of influence on several
        test pairs the views sum the columns; --column PART takes one.
        """,
    ),
    "demo": Command(
        "tracin_func.cli.demo:demo",
        (DemoOptions,),
        """Write synthetic data, checkpoints and the exact commands to run on them.

        Tones of 500hz, 1000hz and 3000hz in the lab's layout, and a ranker trained on each; about a minute on first
        use.
        """,
    ),
    "doctor": Command(
        "tracin_func.cli.doctor:doctor",
        (DoctorOptions,),
        """Tell what is installed and what it can use, and test every engine on every device.

        Versions, devices, optional packages, the cache, variables, and scores of a small random net against a float64
        loop. A few seconds; exit code 1 when an engine computes wrongly. Nothing is written.
        """,
    ),
}

# The parser's own errors; typer >= 0.26 brings the class and gives it no public name.
_ParseError: type[Exception] = typer.BadParameter.__bases__[0]


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"tracin-func {version('tracin-func')}")
        raise typer.Exit


def _options(
    shown: Annotated[
        bool,
        typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True, metavar=""),
    ] = False,
) -> None:
    pass


def make_app() -> typer.Typer:
    """The commands of the table, with the options of the sources and losses that are registered now."""
    made = typer.Typer(
        name="tracin-func",
        cls=Commands,
        help="Which training pairs made my ranking model behave like this? TracIn (arXiv 2002.08484) on ranking pairs.",
        epilog="Options of self and influence can be environment variables too: TRACIN_FUNC_DATA_ROOT for --data-root.",
        no_args_is_help=True,
        rich_markup_mode="markdown",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    made.callback()(_options)
    for name, command in COMMANDS.items():
        made.command(name, help=command.help)(_function(command))
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
    if is_plain():
        rich_utils.COLOR_SYSTEM = None  # of the parser's help
    code = _run()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is done and reported; Python would end with another exit code
    sys.exit(code)


def _run() -> int:
    try:
        with printing(), interrupts_repeated():
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

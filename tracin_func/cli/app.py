"""The command line: a table of commands. Each takes its options by group; torch is loaded when one runs."""

import re
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import partial
from importlib import import_module
from importlib.metadata import version
from inspect import Signature
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

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
from tracin_func.cli.exclusion_options import ExcludeOptions
from tracin_func.cli.older import Commands
from tracin_func.cli.options import (
    EVALUATE,
    GRADIENTS,
    INFLUENCE,
    REPORT,
    SELF,
    TRAIN,
    DemoOptions,
    DoctorOptions,
    InspectOptions,
    MergeOptions,
    PrintOptions,
    ViewOptions,
    parameters,
)
from tracin_func.cli.view_options import CompareOptions, ShowOptions
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
        examples: below the options.
    """

    body: str
    groups: tuple[type | Callable[[], tuple[type, ...]], ...]
    help: str
    examples: tuple[str, ...] = ()


COMMANDS = {
    "self": Command(
        "tracin_func.cli.score:self_influence",
        SELF,
        """Score how hard each training pair is for the model.

        self(p) = Σ_t η_t ‖∇ℓ_p‖²: high scores mark hard pairs and possible label errors. Without options it runs on
        the embedded example: synthetic tones and a ranker trained on them, made on first use. Results are merged into
        METADATA_DIR/{material}_{frequency}_metadata.json.
        """,
        (
            "tracin-func self",
            "tracin-func self --data-root recordings --checkpoint-dir checkpoints --material box",
            "tracin-func self --loss-type standard --by class-pair",
        ),
    ),
    "influence": Command(
        "tracin_func.cli.score:influence",
        INFLUENCE,
        """Score what each training pair did to test pairs.

        influence(p, q) = Σ_t ⟨∇ℓ_p, η_t ∇ℓ_q⟩: positive where training on p lowered the loss of q. Without options it
        runs on the embedded example: synthetic tones and a ranker trained on them, made on first use. Results are
        merged into METADATA_DIR/{material}_{frequency}_influence_metadata.json.
        """,
        (
            "tracin-func influence --num-test 5",
            "tracin-func influence --test-select misranked --test-functional score-margin",
            "tracin-func influence --num-test 5 --with-self --verify 20",
        ),
    ),
    "gradients": Command(
        "tracin_func.cli.fill:gradients",
        GRADIENTS,
        """Compute the gradients of all items once and cache them in a store, for any pairs that are scored later.

        An interrupted run continues where it stopped. With --shard I/N, N runs of a job array share the work.
        """,
        ("tracin-func gradients --store gradients", "tracin-func influence --num-test 5 --store gradients"),
    ),
    "merge": Command(
        "tracin_func.cli.score:merge",
        (MergeOptions, PrintOptions),
        """Score the gradients that `--shard` runs have computed, with the options of those runs.

        Run it where the shards were run. If blocks are missing, they are listed and nothing is scored.
        """,
    ),
    "store": Command(
        "tracin_func.cli.store:store",
        (InspectOptions, ViewOptions),
        """Describe a gradient store (info), or check it for damage (verify).

        Exit code 1 if a block is damaged; with --drop, damaged blocks are removed and the next run recomputes them.
        """,
        ("tracin-func store info gradients", "tracin-func store verify gradients --drop"),
    ),
    "show": Command(
        "tracin_func.cli.show:show",
        (ShowOptions, ViewOptions),
        """Show a result file: its highest scores, their distribution, and anything odd about them.

        --by class-pair shows what to record more of, --by item which items to check. With several test pairs, scores
        are summed over them; --column PART selects one.
        """,
        (
            "tracin-func show metadata/plastic_500hz_metadata.json",
            "tracin-func show metadata/plastic_500hz_metadata.json --by class-pair",
        ),
    ),
    "compare": Command(
        "tracin_func.cli.compare:compare",
        (CompareOptions, ViewOptions),
        """Compare the order of pairs in two result files: of two losses, margins, models or runs.

        Shows the rank correlation, how many of the strongest pairs are the same, and which pairs moved most. Influence
        is compared for each test pair that both files have, and for their sum.
        """,
        (
            "tracin-func compare metadata/plastic_500hz_metadata.json audit/plastic_500hz_metadata.json",
            "tracin-func compare scores.json scores.json --column margin_10 --column margin_1",
        ),
    ),
    "exclude": Command(
        "tracin_func.cli.exclude:exclude",
        (ExcludeOptions, ViewOptions),
        """List training pairs to leave out, by their scores in result files.

        Influence: pairs below --threshold on enough test pairs; they raised the loss of these. Self-influence: pairs
        above --upper-threshold; they are hard or mislabelled. A list that would empty a class is refused. Give the file
        to --exclusions-file.
        """,
        (
            "tracin-func exclude metadata/plastic_500hz_influence_metadata.json --output-file exclusions.txt",
            "tracin-func exclude metadata/plastic_500hz_influence_metadata.json --sweep -5,-10,-15",
            "tracin-func exclude metadata/plastic_500hz_metadata.json --upper-threshold 99%",
        ),
    ),
    "report": Command(
        "tracin_func.cli.report:report",
        REPORT,
        """Write a report of scores: one HTML file to read, print and send, or Markdown.

        With result files, it reports these. Without, it scores training pairs and test pairs first, as `influence
        --with-self` with the same options, and reports everything that is known of the run. Recordings are shown with
        spectrogram and sound where their folder is known, from provenance or --data-root.
        """,
        (
            "tracin-func report",
            "tracin-func report metadata/plastic_500hz_metadata.json --output report.html",
            "tracin-func report --data-root recordings --checkpoint-dir checkpoints --num-test 5 --lang zh-TW",
            "tracin-func report metadata/plastic_500hz_metadata.json --format markdown",
        ),
    ),
    "train": Command(
        "tracin_func.cli.train:train",
        TRAIN,
        """Train a ranker on the training pairs and save checkpoints that `self` and `influence` read.

        The tones ranker, a --model on recordings, or the scorer of a --task. Split and held-out pairs stay the same
        whatever --exclusions-file leaves out. A killed training continues with --resume, to the same checkpoints.
        """,
        (
            "tracin-func train --checkpoint-dir runs/all",
            "tracin-func train --task job.py:task --checkpoint-dir runs --seeds 1,2,3",
        ),
    ),
    "evaluate": Command(
        "tracin_func.cli.evaluate:evaluate_scores",
        EVALUATE,
        """Retrain the model to find out whether scores deserve trust on your data.

        With planted label flips, without the pairs that a score ranks first, and on random halves of the pairs. Plain
        loss, random scores and dropping nothing are always compared. Retrained models are cached.
        """,
        (
            "tracin-func evaluate --budget 10 --methods tracin,tracin-last,self",
            "tracin-func evaluate --parts datamodelling,items --budget 20 --figure evaluation.svg",
        ),
    ),
    "demo": Command(
        "tracin_func.cli.demo:demo",
        (DemoOptions,),
        """Write the embedded example as files: data, checkpoints and the commands to run on them.

        Synthetic tones of 500hz, 1000hz and 3000hz, and a ranker trained on each; about a minute on first use.
        """,
        ("tracin-func demo example",),
    ),
    "doctor": Command(
        "tracin_func.cli.doctor:doctor",
        (DoctorOptions,),
        """Report versions, devices and settings, and test every engine on every device.

        The test compares scores of a small random net with a float64 loop. It takes a few seconds and writes nothing.
        Exit code 1 if an engine computes wrong scores.
        """,
    ),
}

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

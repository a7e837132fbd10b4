"""The one table of options. Commands take their parameters from it, so that one option is one line.

A setting is taken from the first that has it: the option, the environment variable TRACIN_FUNC_NAME, the
checkpoint's own `args`, the default. Options are None when not given; the defaults shown live here as words
and in `settings` as values.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

DATA, MODEL, LOSS, PAIRS, COMPUTING, RESULTS = "Data", "Model and checkpoints", "Loss", "Pairs", "Computing", "Results"


@dataclass(frozen=True)
class Option:
    """One option: its name, type, what it means, the default in words, and where help shows it."""

    name: str
    kind: Any
    help: str
    default: str
    panel: str
    aliases: tuple[str, ...] = ()
    metavar: str | None = None

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def environment(self) -> str:
        return "TRACIN_FUNC_" + self.name.upper()

    def parameter(self) -> inspect.Parameter:
        """As a parameter that typer reads."""
        declared = typer.Option(
            self.flag,
            *self.aliases,
            help=self.help,
            envvar=self.environment,
            show_envvar=False,
            show_default=self.default or False,
            rich_help_panel=self.panel,
            metavar=self.metavar,
        )
        default = False if self.kind is bool else None
        kind = self.kind if self.kind is bool else self.kind | None
        return inspect.Parameter(
            self.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, declared]
        )


JOB = (
    Option(
        "data_root", Path, "Folder of WAV files, as ROOT/deg036/plastic/plastic_deg036_500hz_04.wav.", "embedded", DATA
    ),
    Option("frequency", str, "Tone: the part of the file names such as 500hz.", "500hz", DATA),
    Option("material", str, "Material: the folder and file name part such as plastic.", "plastic", DATA),
    Option("classes", str, "Class folders, separated by commas: deg000,deg036.", "all present", DATA),
    Option("takes", str, "Takes, separated by commas: 0,1,2.", "all present", DATA),
    Option("sample_rate", int, "Rate that all files have, in Hz; nothing is resampled.", "48000", DATA),
    Option("clip_seconds", float, "Use this much from the start of each clip.", "whole clips of one length", DATA),
    Option("checkpoint_dir", Path, "Folder of checkpoints; may hold {frequency} and {material}.", "embedded", MODEL),
    Option("checkpoint_prefix", str, "Start of the checkpoints' file names.", "model_epoch_", MODEL),
    Option(
        "model",
        str,
        "Scorer of your own: a torch.nn.Module class. The file is run.",
        "embedded ranker",
        MODEL,
        metavar="FILE.py:Class",
    ),
    Option("model_arg", list[str], "Argument of the model class; repeat for more.", "", MODEL, metavar="NAME=VALUE"),
    Option(
        "task",
        str,
        "Whole job of your own: a function that returns a tracin_func.Task. The file is run.",
        "",
        MODEL,
        metavar="FILE.py:factory",
    ),
    Option("learning_rate", float, "Learning rate of all checkpoints.", "from the checkpoint", MODEL),
    Option("loss_type", str, "standard (margin ranking), ghm or logistic.", "the checkpoint's, else standard", LOSS),
    Option("margin", float, "Margin of the ranking loss.", "the checkpoint's, else 1.0", LOSS),
    Option("ghm_bins", int, "Bins of difficulty.", "the checkpoint's, else 10", LOSS),
    Option("ghm_alpha", float, "Exponent of the density in a bin.", "the checkpoint's, else 0.75", LOSS),
    Option("ghm_variant", str, "symmetric, or lab (factor 3 for pairs of target -1).", "the checkpoint's kind", LOSS),
    Option(
        "ghm_batch_size", str, "Batch size the weights are averaged over, or all.", "the checkpoint's, else 32", LOSS
    ),
    Option(
        "pairs", str, "drawn as the lab trained, all, or a CSV: first,second,target[,split,weight].", "drawn", PAIRS
    ),
    Option(
        "exclusions_file",
        Path,
        "Item or pair ids to leave out, one a line; applies after the split. Or none.",
        "the checkpoint's, else none",
        PAIRS,
    ),
    Option("seed", int, "Seed of split, drawing and test sample.", "the checkpoint's, else 42", PAIRS),
    Option("device", str, "auto, cpu, cuda, cuda:1 or mps.", "auto: cuda, mps, cpu", COMPUTING),
    Option("engine", str, "auto, ghost, item, pair or loop. All give the same scores.", "auto", COMPUTING),
    Option("batch_size", str, "Gradients computed together, or auto.", "auto: measured", COMPUTING),
    Option("explain_plan", bool, "Tell how each parameter's gradient is taken, what it costs and why.", "", COMPUTING),
    Option("num_workers", int, "Threads that read WAV files.", "0", COMPUTING),
    Option("metadata_dir", Path, "Folder of the result files.", "metadata", RESULTS),
    Option("top", int, "Rows of the table.", "10 (self), 3 (influence)", RESULTS),
    Option("debug", bool, "Show the traceback of an error.", "", RESULTS),
)

INFLUENCE_ONLY = (
    Option(
        "num_test",
        str,
        "Test pairs to explain, sampled with the seed; or all.",
        "5",
        PAIRS,
        ("--num-test-samples",),
    ),
    Option("test_functional", str, "loss, or score-margin (does not saturate).", "loss", LOSS),
    Option("weight_test_pairs", bool, "GHM weights for test pairs too.", "", LOSS),
    Option("with_self", bool, "Self-influence as well, from the same pass.", "", RESULTS),
)

TABLE = {option.name: option for option in (*JOB, *INFLUENCE_ONLY)}


def takes(*options: Option) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command `def f(**options)` the options as its parameters."""

    def declare(function: Callable[..., None]) -> Callable[..., None]:
        parameters = [option.parameter() for option in options]
        function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        function.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return function

    return declare

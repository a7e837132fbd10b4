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

from tracin_func.cli.values import as_present
from tracin_func.losses.registry import LOSSES, LossOption, loss_options

DATA, MODEL, LOSS, PAIRS = "Data", "Model and checkpoints", "Loss and scores", "Pairs"
COMPUTING, ESTIMATES, RESULTS = "Computing", "Projection and store", "Results"
VIEW = "View"
PLACES = ("pairs", "test_pairs", "model", "task")  # texts that may name a file


@dataclass(frozen=True)
class Option:
    """One option: its name, type, what it means, the default in words, and where help shows it.

    A switch that is `on` unless it is turned off has a second flag for that, `--no-NAME`.
    """

    name: str
    kind: Any
    help: str
    default: str
    panel: str
    aliases: tuple[str, ...] = ()
    metavar: str | None = None
    spelled: str | None = None  # where the flag is no name that Python allows
    variable: bool = True  # whether the environment may set it
    on: bool = False

    @property
    def flag(self) -> str:
        return self.spelled or "--" + self.name.replace("_", "-")

    @property
    def environment(self) -> str | None:
        return "TRACIN_FUNC_" + self.name.upper() if self.variable else None

    def parameter(self) -> inspect.Parameter:
        """As a parameter that typer reads."""
        declared = typer.Option(
            f"{self.flag}/--no-{self.flag.removeprefix('--')}" if self.on else self.flag,
            *self.aliases,
            help=f"{self.help} Default: {self.default}." if self.default else self.help,
            envvar=self.environment,
            show_envvar=False,
            show_default=False,
            rich_help_panel=self.panel,
            metavar="" if self.kind is bool else self.metavar,
            callback=as_present if self.kind is Path or self.name in PLACES else None,
        )
        default = self.on if self.kind is bool else None
        kind = self.kind if self.kind is bool else self.kind | None
        return inspect.Parameter(
            self.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, declared]
        )


@dataclass(frozen=True)
class Argument:
    """What a command is given without a flag."""

    name: str
    kind: Any
    help: str

    def parameter(self) -> inspect.Parameter:
        """As a parameter that typer reads."""
        declared = typer.Argument(
            help=self.help,
            show_default=False,
            metavar=self.name.upper(),
            callback=as_present if self.kind is Path else None,
        )
        return inspect.Parameter(self.name, inspect.Parameter.KEYWORD_ONLY, annotation=Annotated[self.kind, declared])


def _loss_types() -> str:
    *most, last = [f"{name} ({loss.help})" if loss.help else name for name, loss in LOSSES.items()]
    return f"{', '.join(most)} or {last}."


def _of_loss(option: LossOption) -> Option:
    kind = str if option.words else option.kind
    default = option.shown_default or f"the checkpoint's, else {option.default}"
    return Option(option.name, kind, option.help, default, LOSS)


JOB = (
    Option(
        "data_root", Path, "Folder of WAV files: in it deg036/plastic/plastic_deg036_500hz_04.wav.", "embedded", DATA
    ),
    Option("frequency", str, "Tone: 500hz, 1000hz, ...; or all: each tone its own run and files.", "500hz", DATA),
    Option("material", str, "Material: the folder and file name part such as plastic.", "plastic", DATA),
    Option("classes", str, "Class folders, separated by commas: deg000,deg036.", "all present", DATA),
    Option("takes", str, "Takes, separated by commas: 0,1,2.", "all present", DATA),
    Option("sample_rate", int, "Rate that all files have, in Hz; nothing is resampled.", "48000", DATA),
    Option("clip_seconds", float, "Use this much from the start of each clip.", "whole clips of one length", DATA),
    Option("skip_bad_audio", bool, "Leave out recordings that cannot be read, and count them.", "", DATA),
    Option("checkpoint_dir", Path, "Folder of checkpoints; may hold {frequency} and {material}.", "embedded", MODEL),
    Option("checkpoint_prefix", str, "Start of the names of checkpoints, files or folders.", "model_epoch_", MODEL),
    Option("checkpoints", str, "Which of them: numbers as 10,20, or last:3.", "all", MODEL),
    Option(
        "checkpoint_weights",
        str,
        "lr: each checkpoint weighs its learning rate; uniform: each weighs 1, no rate is used.",
        "lr",
        MODEL,
    ),
    Option(
        "preconditioner",
        str,
        "adam: gradients meet as in Adam's steps, by the second moments in the checkpoints; none: as in SGD's.",
        "none",
        MODEL,
    ),
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
    Option("learning_rate", float, "Learning rate of all checkpoints.", "their own", MODEL),
    Option("params", str, "Score only parameters in whose name this regular expression is found.", "all", MODEL),
    Option("loss_type", str, _loss_types(), "the checkpoint's, else standard", LOSS),
    *map(_of_loss, loss_options().values()),
    Option(
        "pairs",
        str,
        "drawn by the seed as in the training, all, or a CSV or Parquet FILE: first,second,target[,split,weight].",
        "drawn",
        PAIRS,
    ),
    Option(
        "ids",
        str,
        "What first and second of the pairs FILE are: names (ids of items) or positions (0, 1, ...).",
        "names; positions where Parquet holds whole numbers",
        PAIRS,
    ),
    Option(
        "exclusions_file",
        Path,
        "Item or pair ids to leave out, one a line; applies after the split. Or none.",
        "the checkpoint's, else none",
        PAIRS,
    ),
    Option(
        "exclude_before_split",
        bool,
        "Excluded items are left out before the split; others may then change sides.",
        "",
        PAIRS,
    ),
    Option("limit", int, "Score only the first so many training pairs: a quick try.", "all", PAIRS),
    Option("seed", int, "Seed of split, drawing and test sample.", "the checkpoint's, else 42", PAIRS),
    Option("device", str, "auto, cpu, cuda, cuda:1 or mps.", "the first of cuda, mps, cpu", COMPUTING),
    Option("engine", str, "auto, ghost, item, pair or loop. All give the same scores.", "auto", COMPUTING),
    Option("batch_size", str, "Gradients computed together; changes no score.", "measured", COMPUTING),
    Option("memory_budget", str, "Memory for the work, as 800MB or 4GB.", "half of what is free", COMPUTING),
    Option("dtype", str, "float32, float64, bfloat16 or float16, for weights and items.", "their own", COMPUTING),
    Option("explain_plan", bool, "Tell how each parameter's gradient is taken, what it costs and why.", "", COMPUTING),
    Option(
        "dry_run", bool, "Tell what would be done, how long and how much memory it takes; score nothing.", "", COMPUTING
    ),
    Option(
        "verify",
        int,
        "So many scores are computed again, by single float64 gradients; above 1e-4 off: exit 1.",
        "none",
        COMPUTING,
    ),
    Option(
        "projection",
        str,
        "auto, kronecker, sjlt, rademacher or gaussian: scores are estimates, with a standard error each. auto stays "
        "exact where that is cheaper.",
        "none; with --store auto",
        ESTIMATES,
    ),
    Option(
        "proj_dim",
        int,
        "Dimension of each projected gradient (for kronecker: an upper limit). With --store and without --projection "
        "it means --projection auto.",
        "4096, dense ones 512",
        ESTIMATES,
    ),
    Option("projection_seed", int, "Seed of the projection.", "0", ESTIMATES),
    Option(
        "store",
        Path,
        "Folder that keeps the gradients of all items: what is there is used, what is missing is added.",
        "none",
        ESTIMATES,
        metavar="FOLDER",
    ),
    Option("store_dtype", str, "float32, float16 or bfloat16: numbers in a new store.", "float32", ESTIMATES),
    Option(
        "shard",
        str,
        "This run's part of the store, such as 2/8: its rows are made, and nothing is scored; see merge.",
        "all of it",
        ESTIMATES,
        metavar="I/N",
    ),
    Option("threads", int, "Threads of each process.", "all cores, or their share under torchrun", COMPUTING),
    Option("num_workers", int, "Threads that read WAV files.", "0", COMPUTING),
    Option("metadata_dir", Path, "Folder of the result files.", "metadata", RESULTS),
    Option(
        "format",
        str,
        "json (merged into what is there), csv or parquet (long tables).",
        "json; parquet with --keep",
        RESULTS,
    ),
    Option("score_name", str, "Name of the column in the files.", "tracin_self_influence, tracin_influence", RESULTS),
    Option("per_checkpoint", bool, "A second file with a column for each checkpoint.", "", RESULTS),
    Option("top", int, "Rows of the table.", "10 for self, 3 for influence", RESULTS),
    Option("by", str, "Rows of the table: pair, item, class or class-pair.", "pair", RESULTS),
    Option("quiet", bool, "No tables and no notes; warnings and errors remain.", "", RESULTS),
    Option("json", bool, "One JSON document on stdout instead of tables.", "", RESULTS),
    Option(
        "repeat",
        Path,
        "Repeat the run that this FILE.provenance.json records; options given beside it win.",
        "",
        RESULTS,
        metavar="FILE",
        spelled="--from",
        variable=False,
    ),
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
    Option(
        "test_pairs",
        str,
        "These test pairs: ids ID1_ID2 separated by commas, or a file with one a line.",
        "drawn",
        PAIRS,
    ),
    Option(
        "test_select",
        str,
        "random; or by the model: misranked or lowest-margin at the last checkpoint, active at any.",
        "random",
        PAIRS,
    ),
    Option("aggregate", str, "mean: one column, of the mean of the test pairs.", "a column each", LOSS),
    Option("normalize", str, "cosine: divide by the lengths of both gradients.", "none", LOSS),
    Option("test_functional", str, "loss, or score-margin (does not saturate).", "loss", LOSS),
    Option("weight_test_pairs", bool, "GHM weights for test pairs too.", "", LOSS),
    Option(
        "keep",
        int,
        "Keep only the K strongest proponents and opponents of each test pair, in a table (parquet or csv); --pairs "
        "FILE.parquet is then read in blocks and never held.",
        "all scores",
        RESULTS,
        metavar="K",
    ),
    Option("with_self", bool, "Self-influence as well, from the same pass.", "", RESULTS),
)

# Of a run that fills a store and scores nothing.
GRADIENTS = tuple(
    option
    for option in JOB
    if option.name in ("quiet", "json", "debug")
    or (option.panel not in (RESULTS, LOSS) and option.name not in ("dry_run", "verify", "limit"))
)

STORE = (
    Argument("action", str, "info or verify."),
    Argument("folder", Path, "Folder of a store."),
    Option("drop", bool, "Take damaged blocks out, so that the next run makes them again.", "", VIEW),
    Option("json", bool, "One JSON document on stdout and nothing else.", "", VIEW),
    Option("debug", bool, "Show the traceback of an error.", "", VIEW),
)

MERGE = (
    Argument("folder", Path, "Store that the shards of a run have filled."),
    Option("quiet", bool, "No tables and no notes; warnings and errors remain.", "", RESULTS),
    Option("json", bool, "One JSON document on stdout instead of tables.", "", RESULTS),
    Option("debug", bool, "Show the traceback of an error.", "", RESULTS),
)

SHOW = (
    Argument("file", Path, "Result file: JSON, CSV or Parquet; one of ours, or of the same form."),
    Option("by", str, "What a row is: pair, item, class or class-pair.", "pair", VIEW, metavar="VIEW"),
    Option("column", str, "A column, a part of its name, or all.", "self-influence, else all", VIEW, metavar="NAME"),
    Option("sort", str, "By score, abs (size, whatever the sign) or id.", "score", VIEW, metavar="ORDER"),
    Option("top", int, "Rows of the table; of influence at each end.", "10", VIEW, metavar="N"),
    Option("histogram", bool, "How the scores are distributed.", "on", VIEW, on=True),
    Option("json", bool, "One JSON document on stdout and nothing else.", "", VIEW),
    Option("debug", bool, "Show the traceback of an error.", "", VIEW),
)

TABLE = {option.name: option for option in (*JOB, *INFLUENCE_ONLY)}


def is_given(value: Any) -> bool:
    """Whether an option was given: not None, no switch that is off, no empty list; 0 is a value."""
    return value is not None and value is not False and value not in ([], ())


def takes(*options: Option | Argument) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command `def f(**options)` the options as its parameters."""

    def declare(function: Callable[..., None]) -> Callable[..., None]:
        parameters = [option.parameter() for option in options]
        function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        function.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return function

    return declare

"""The options of commands that no source needs: how to compute, what to write and show; and how typer reads them."""

import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import typer

from tracin_func.cli.evaluate_options import EvaluateOptions
from tracin_func.cli.exclusion_options import ExcludeOptions
from tracin_func.cli.view_options import ReportOptions, ShowOptions, View
from tracin_func.errors import UsageError
from tracin_func.sources.groups import ModelOptions, PairOptions, QueryOptions, loss_groups
from tracin_func.sources.options import (
    COMPUTING,
    ESTIMATES,
    LOSS,
    MOST_USED,
    PAIRS,
    PANELS,
    RESULTS,
    VIEW,
    Option,
    declared,
    groups_of,
    option,
    switch,
)
from tracin_func.sources.registry import source_groups
from tracin_func.sources.training_options import TrainingOptions
from tracin_func.sources.values import size_in_bytes, whole_or

# What help shows first.
_MOST_USED = (
    "data_root",
    "checkpoint_dir",
    "material",
    "frequency",
    "task",
    "pairs",
    "loss_type",
    "methods",
    "parts",
    "budget",
    "num_test",
    "threshold",
    "sweep",
    "output_file",
    "top",
    "by",
    "metadata_dir",
    "device",
    "dry_run",
    "verbose",
)


@dataclass(frozen=True)
class ComputeOptions:
    """How gradients are computed; changes no score beyond rounding."""

    panel: ClassVar[str] = COMPUTING
    device: str | None = option("auto, cpu, cuda, cuda:1 or mps.", "the first of cuda, mps, cpu")
    engine: str | None = option(
        "How gradients are computed: auto, ghost, item, pair or loop. All give the same scores.",
        "auto",
        words="gradients.engines.registry:engine_names",
    )
    batch_size: str | None = option("Gradients computed at once; does not change scores.", "measured")
    memory_budget: str | None = option("Memory to use, such as 800MB or 4GB.", "half of what is free")
    dtype: Literal["float32", "float64", "bfloat16", "float16"] | None = option(
        "Precision of weights and items: float32, float64, bfloat16 or float16.", "their own"
    )
    threads: int | None = option("Threads per process.", "all cores, or their share under torchrun", least=1)
    explain_plan: bool = switch("Show how the gradient of each parameter is computed, at what cost and why.")

    def __post_init__(self) -> None:
        whole_or("auto", "batch_size", self.batch_size)
        size_in_bytes("memory_budget", self.memory_budget)


@dataclass(frozen=True)
class ScoringOptions:
    """What is scored of a job, and whether it is checked."""

    panel: ClassVar[str] = COMPUTING
    limit: int | None = option("Score only the first N training pairs (for a quick test).", "all", panel=PAIRS, least=1)
    dry_run: bool = switch("Show what would be computed, in what time and memory, without scoring.")
    verify: int | None = option(
        "Recompute N random scores one by one in float64; exit with code 1 if any is off by more than 1e-4.",
        "none",
        least=1,
    )


@dataclass(frozen=True)
class StoreOptions:
    """Projection of gradients, and where they are kept."""

    panel: ClassVar[str] = ESTIMATES
    projection: str | None = option(
        "Project gradients: auto, kronecker, sjlt, rademacher, gaussian or none. Scores become estimates with a "
        "standard error; auto keeps exact gradients where that is cheaper.",
        "none; with --store auto",
        words="gradients.projection.registry:kinds",
    )
    proj_dim: int | None = option(
        "Dimension of each projected gradient (for kronecker: an upper limit). With --store and without --projection "
        "it means --projection auto.",
        "4096, dense ones 512",
        least=2,
    )
    projection_seed: int | None = option("Seed of the projection.", "0", least=0)
    store: Path | None = option(
        "Folder in which gradients are cached. Existing gradients are reused; missing ones are computed and added.",
        "none",
        metavar="FOLDER",
    )
    store_dtype: Literal["float32", "float16", "bfloat16"] | None = option(
        "Precision of a new store: float32, float16 or bfloat16.", "float32"
    )
    shard: str | None = option(
        "Compute part I of N of the store (such as 2/8) without scoring. Run `tracin-func merge` once all parts are "
        "done.",
        "all of it",
        metavar="I/N",
    )

    def __post_init__(self) -> None:
        for name in ("store_dtype", "shard") if self.store is None else ():
            if getattr(self, name) is not None:
                raise UsageError(f"{declared(StoreOptions)[name].flag} was given without --store. Expected both.")
        for name in ("proj_dim", "projection_seed"):
            flag = declared(StoreOptions)[name].flag
            if getattr(self, name) is not None and self.projection == "none":
                raise UsageError(
                    f"{flag} was given with --projection none, which projects nothing. Leave one of them out."
                )
            if getattr(self, name) is not None and self.projection is None and self.store is None:
                raise UsageError(f"{flag} was given without --projection. Expected both.")


@dataclass(frozen=True)
class ResultOptions:
    """Files and tables of scores."""

    panel: ClassVar[str] = RESULTS
    metadata_dir: Path | None = option("Folder of the result files.", "metadata")
    format: str | None = option(
        "Format of the files: json (merged into existing files), csv or parquet (long tables).",
        "json; parquet with --keep",
        words="results.files.registry:FORMATS",
    )
    score_name: str | None = option("Name of the column in the files.", "tracin_self_influence, tracin_influence")
    per_checkpoint: bool = switch("Write a second file with one column per checkpoint.")
    top: int | None = option("Rows of the table.", "10 for self, 3 for influence", least=1)
    by: View | None = option("What a row of the table is: pair, item, class or class-pair.", "pair")
    repeat: Path | None = option(
        "Repeat the run recorded in FILE (a .provenance.json). Other options on the command line override the recorded "
        "ones.",
        metavar="FILE",
        spelled="--from",
        variable=False,
    )

    def __post_init__(self) -> None:
        if self.score_name is not None and not self.score_name.strip():
            raise UsageError("--score-name should not be empty.")


@dataclass(frozen=True)
class PrintOptions:
    """What is printed."""

    panel: ClassVar[str] = RESULTS
    verbose: bool = switch("Also print each checkpoint, every note, and how the scores were computed.")
    quiet: bool = switch("Print no tables and no notes, only warnings and errors.")
    json: bool = switch("Print one JSON document instead of tables.")
    debug: bool = switch("Show the traceback of an error.")


@dataclass(frozen=True)
class InfluenceOptions:
    """What is computed of training pairs and test pairs, and kept."""

    panel: ClassVar[str] = LOSS
    aggregate: Literal["mean"] | None = option(
        "mean: one score per training pair, the mean over the test pairs.", "a column each"
    )
    normalize: Literal["none", "cosine"] | None = option(
        "cosine: divide each score by the norms of both gradients.", "none"
    )
    test_functional: Literal["loss", "score-margin"] | None = option(
        "Explain the loss of a test pair, or its score-margin (which does not saturate).", "loss"
    )
    weight_test_pairs: bool = switch("Apply GHM weights to test pairs too.")
    keep: int | None = option(
        "Keep only the K strongest proponents and opponents of each test pair, in a table (parquet or csv). --pairs "
        "FILE.parquet is then streamed, never loaded at once.",
        "all scores",
        panel=RESULTS,
        metavar="K",
        least=1,
    )
    with_self: bool = switch("Also score self-influence, in the same pass.", panel=RESULTS)


@dataclass(frozen=True)
class ViewOptions:
    """How a file is reported."""

    panel: ClassVar[str] = VIEW
    verbose: bool = switch("Also print where the scores come from, in full.")
    json: bool = switch("Print one JSON document and nothing else.")
    debug: bool = switch("Show the traceback of an error.")


@dataclass(frozen=True)
class InspectOptions:
    """Which store, and what is done with it."""

    panel: ClassVar[str] = VIEW
    action: Literal["info", "verify"] = option("info or verify.", argument=True)
    folder: Path = option("Folder of a store.", argument=True)
    drop: bool = switch("Remove damaged blocks; the next run recomputes them.")


@dataclass(frozen=True)
class MergeOptions:
    """What is merged."""

    panel: ClassVar[str] = RESULTS
    folder: Path = option("Store that the `--shard` runs have filled.", argument=True)


@dataclass(frozen=True)
class DemoOptions:
    """Where the embedded example goes."""

    directory: Path = option("Folder to write: empty, or new.", argument=True)
    debug: bool = switch("Show the traceback of an error.", variable=False)


@dataclass(frozen=True)
class DoctorOptions:
    """How health is reported."""

    json: bool = switch("Print one JSON document instead.", variable=False)
    debug: bool = switch("Show the traceback of an error.", variable=False)


# Of a run that fills a store, that scores, and that scores with test pairs.
TRAIN = (TrainingOptions, PrintOptions, source_groups)
GRADIENTS = (ModelOptions, PairOptions, ComputeOptions, StoreOptions, PrintOptions, source_groups)
SCORING = (ScoringOptions, StoreOptions, ResultOptions, PrintOptions)
SELF = (ModelOptions, loss_groups, PairOptions, ComputeOptions, *SCORING, source_groups)
EVALUATE = (EvaluateOptions, ModelOptions, loss_groups, PairOptions, PrintOptions, source_groups)
INFLUENCE = (*SELF, QueryOptions, InfluenceOptions)
REPORT = (ReportOptions, ModelOptions, loss_groups, PairOptions, QueryOptions, ComputeOptions, source_groups)


def parameters(groups: Sequence[type]) -> list[inspect.Parameter]:
    """The options of the groups as parameters that typer reads, panel by panel."""
    every = [_promoted(each) for group in groups for each in declared(group).values()]
    every.sort(key=lambda each: (PANELS.index(each.panel) if each.panel in PANELS else len(PANELS), _rank(each)))
    return [_parameter(each) for each in every]


def _rank(own: Option) -> int:
    return _MOST_USED.index(own.name) if own.panel == MOST_USED else 0


def _promoted(own: Option) -> Option:
    return replace(own, panel=MOST_USED) if own.name in _MOST_USED and not own.argument else own


def _parameter(own: Option) -> inspect.Parameter:
    if own.argument:
        name = own.name.upper().removesuffix("S") if own.base == list[Path] else own.name.upper()
        declared_as = typer.Argument(help=own.help, show_default=False, metavar=name)
        kind: Any = own.base | None if own.optional else own.base
        annotation = Annotated[kind, declared_as]
        default = None if own.optional else inspect.Parameter.empty
        return inspect.Parameter(own.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
    is_switch = own.base is bool
    declared_as = typer.Option(
        f"{own.flag}/--no-{own.flag.removeprefix('--')}" if own.on else own.flag,
        *own.aliases,
        help=f"{own.help} Default: {own.default}." if own.default else own.help,
        envvar=own.environment,
        show_envvar=False,
        show_default=False,
        rich_help_panel=own.panel or None,
        metavar="" if is_switch else own.metavar,
    )
    return inspect.Parameter(
        own.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=own.on if is_switch else None,
        annotation=Annotated[bool if is_switch else own.base | None, declared_as],
    )


_OTHER_NAMES = {"dim": "proj_dim"}  # of an option, by the setting's name in Python


def in_flags(sentence: str) -> str:
    """A sentence of the library with its settings as options: `` `batch_size=1` `` becomes --batch-size 1."""
    return re.sub(r"`([a-z_]+)(?:=([^`]*))?`", _as_flag, sentence)


def _as_flag(setting: re.Match[str]) -> str:
    name, value = _OTHER_NAMES.get(setting[1], setting[1]), setting[2]
    every = groups_of((*INFLUENCE, *TRAIN, ShowOptions, InspectOptions, ExcludeOptions, EvaluateOptions))
    known = next((own for group in every if (own := declared(group).get(name)) is not None), None)
    if known is None:
        return setting[0]
    return known.flag if value in (None, "True") else f"{known.flag} {value.strip(chr(34))}"

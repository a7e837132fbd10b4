"""From options to what the library takes: how to compute, by which processes and into which store."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tracin_func.cli.errors import Reporter, notify, say
from tracin_func.cli.options import ComputeOptions, InfluenceOptions, PrintOptions, ResultOptions, StoreOptions
from tracin_func.cli.progress import progress
from tracin_func.errors import UsageError
from tracin_func.files import present
from tracin_func.gradients.compute import Compute
from tracin_func.gradients.device import resolve_device
from tracin_func.gradients.processes import World
from tracin_func.gradients.projection.registry import require_known, row_dimension
from tracin_func.gradients.store.identity import NAME as MANIFEST
from tracin_func.gradients.store.identity import read_manifest
from tracin_func.losses.custom import as_loss
from tracin_func.report.terminal.scores import print_plan
from tracin_func.results.views import PAIR
from tracin_func.scoring.observer import Observer
from tracin_func.sources.groups import ModelOptions, PairOptions
from tracin_func.sources.options import Options, flag
from tracin_func.sources.registry import source_of
from tracin_func.sources.settings import Settings
from tracin_func.sources.source import Listener, Source
from tracin_func.sources.values import size_in_bytes, whole_or
from tracin_func.task.method import NONE, Method, Projection
from tracin_func.task.pair_reader import is_parquet
from tracin_func.task.task import Task

# Options that need every score at hand, with the value that does not.
_OF_ALL = {
    "per_checkpoint": None,
    "score_name": None,
    "with_self": None,
    "verify": None,
    "weight_test_pairs": None,
    "normalize": "none",
    "by": PAIR,
}


def needing_all(options: Options) -> list[str]:
    """Flags of the options given that need every score."""
    given = options.given()
    return options.flags([name for name, value in _OF_ALL.items() if given.get(name, value) != value])


def is_in_blocks(options: Options, scores: tuple[str, ...]) -> bool:
    """Whether training pairs are scored in blocks: with --keep, and for self-influence from Parquet to Parquet."""
    if options[InfluenceOptions].keep is not None:
        return True
    both = is_parquet(options[PairOptions].pairs) and options[ResultOptions].format == "parquet"
    return scores == ("self",) and both and not needing_all(options)


def is_streamed(options: Options, scores: tuple[str, ...]) -> bool:
    """Whether they come from a file that is never held."""
    return is_in_blocks(options, scores) and is_parquet(options[PairOptions].pairs)


def runs_of(options: Options) -> Sequence[Source]:
    """The runs of the source that the options ask for.

    Raises:
        UsageError: a device that is not there, or one store for several runs.
    """
    source = source_of(options)
    resolve_device(options[ComputeOptions].device)  # before anything is read
    runs = source.runs()
    store = options[StoreOptions].store
    for name, value in source.placeholders.items():
        if runs[0].placeholders[name] != value and store is not None and f"{{{name}}}" not in str(store):
            raise UsageError(
                f"{flag(name)} {value} keeps a store for each run. Expected {{{name}}} in --store. Got {store}."
            )
    return runs


def title_of(source: Source, runs: Sequence[Source]) -> str:
    """The placeholders by which a run differs from the others."""
    own = source.placeholders.items()
    return ", ".join(value for name, value in own if any(each.placeholders[name] != value for each in runs))


def limited(task: Task, limit: int | None, report: Reporter) -> Task:
    """The task with the first `limit` training pairs."""
    if limit is None or limit >= len(task.train_pairs):
        return task
    if (loss := as_loss(task.loss)).weighted:
        weights = f"{loss.loss_type.upper()} weights"
        report(
            f"warning: --limit {limit}: {weights} are computed from these pairs only, so scores differ from a full run."
        )
    return replace(task, train=task.train_pairs.select(torch.arange(limit)))


def listener_of(report: Reporter, chosen: Callable[[], None] = lambda: None) -> Listener:
    """Reports what a source does to the user, on stderr."""
    return Listener(report, partial(say, quiet=report.quiet), partial(progress, quiet=report.quiet), chosen)


def method_of(source: Source) -> Method:
    """What the options of a run say that changes a score.

    Raises:
        As `compute_of`.
    """
    of_model, own = source.options[ModelOptions], source.options[InfluenceOptions]
    return Method(
        test_functional=own.test_functional or "loss",
        weight_test_pairs=own.weight_test_pairs,
        aggregate=own.aggregate,
        normalize=own.normalize or "none",
        checkpoint_weights=of_model.checkpoint_weights or "lr",
        preconditioner=of_model.preconditioner or "none",
        params=of_model.params,
        projection=_projection(source.options[StoreOptions], store_of(source)),
    )


def compute_of(source: Source, world: World) -> Compute:
    """How the options of a run say to compute, by these processes.

    Raises:
        UsageError: a value that is wrong in itself. InputError: a store that is none.
    """
    own, of_store, store = source.options[ComputeOptions], source.options[StoreOptions], store_of(source)
    batch_size = whole_or("auto", "batch_size", own.batch_size)
    return Compute(
        engine=own.engine or "auto",
        device=own.device,
        dtype=None if own.dtype is None else getattr(torch, own.dtype),
        batch_size=batch_size if isinstance(batch_size, int) else "auto",
        memory_budget=size_in_bytes("memory_budget", own.memory_budget),
        store=store,
        store_dtype=of_store.store_dtype or _stored(store).get("dtype") or "float32",
        shard=shard_of(of_store.shard),
        world=world,
    )


def observer_of(
    options: Options, settings: Settings, evaluated: Callable[[Any], None] = lambda evaluation: None
) -> Observer:
    """Reports a run to the user, on stderr, and the checkpoints' `args` to the settings."""
    planned = print_plan if options[ComputeOptions].explain_plan else lambda engine: None
    notice = partial(notify, quiet=options[PrintOptions].quiet, verbose=options[PrintOptions].verbose)
    return Observer(notice, planned=planned, opened=settings.compare, evaluated=evaluated)


def shard_of(value: str | None) -> tuple[int, int] | None:
    """(i, n) of I/N.

    Raises:
        UsageError: it is not of this form, or i is not one of 1 to n.
    """
    if value is None:
        return None
    match = re.fullmatch(r"(\d+)/(\d+)", value.strip())
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise UsageError(f"--shard should be I/N with I from 1 to N, such as 2/8. Got {value!r}.")
    return int(match[1]), int(match[2])


def store_of(source: Source) -> Path | None:
    """The store of a run; placeholders in its name are replaced."""
    store = source.options[StoreOptions].store
    if store is None:
        return None
    path = str(store)
    for name, value in source.placeholders.items():
        path = path.replace(f"{{{name}}}", value)
    return present(Path(path))


def _stored(store: Path | None) -> Mapping[str, Any]:
    """What a store that is there says of its rows; nothing of one that is not."""
    if store is None or not (store / MANIFEST).is_file():
        return {}
    manifest = read_manifest(store)
    return {"dtype": manifest.dtype, "projection": manifest.identity.get("projection")}


def _projection(asked: StoreOptions, store: Path | None) -> Projection:
    """As asked; else the one of the store; and of a new store what is cheaper."""
    kind, dim, seed = asked.projection, asked.proj_dim, asked.projection_seed
    if kind is not None or store is None:
        return Projection(kind or NONE.kind, dim, seed=seed or 0)
    found = _stored(store).get("projection")
    if not isinstance(found, dict):
        return Projection("auto", dim, seed=seed or 0)
    known = Projection(**found)
    require_known(known)
    projected = known.kind != NONE.kind
    for name, value, own in (
        ("proj_dim", dim, row_dimension(known) if projected else None),
        ("projection_seed", seed, known.seed if projected else None),
    ):
        if value not in (None, own):
            has = f"has {own}" if projected else "holds exact gradients"
            raise UsageError(
                f"{flag(name)} {value} was given, and the store {store} {has}. Leave the option out, or name another "
                "folder with --store."
            )
    return known

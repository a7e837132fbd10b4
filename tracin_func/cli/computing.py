"""Options about computing, checked before anything is read, as what the library takes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tracin_func.cli.options import TABLE
from tracin_func.cli.processes import shard_of
from tracin_func.cli.settings import DEFAULTS, DTYPES, check_words
from tracin_func.cli.values import checkpoint_choice, size_in_bytes, whole_or
from tracin_func.errors import InputError, UsageError
from tracin_func.files import present
from tracin_func.gradients.compute import Compute
from tracin_func.gradients.processes import World
from tracin_func.gradients.store.identity import NAME as MANIFEST
from tracin_func.gradients.store.identity import read_manifest
from tracin_func.sources.recordings.source import WORDS
from tracin_func.task.method import NONE, Method, Projection


def check_options(options: Mapping[str, Any]) -> None:
    """Options that are wrong in themselves, before anything is read."""
    check_words(options)
    for name, least in (("top", 1), ("sample_rate", 1), ("num_workers", 0), ("limit", 1), ("verify", 1)):
        if options[name] is not None and options[name] < least:
            raise UsageError(f"{TABLE[name].flag} should be at least {least}. Got {options[name]}.")
    if options["shard"] is not None:
        given = [TABLE[name].flag for name in ("dry_run", "verify") if options[name]]
        if given:
            raise UsageError(f"{given[0]} was given with --shard, which scores nothing. Leave one of them out.")
    if options["frequency"] == "all" and options["store"] is not None and "{frequency}" not in str(options["store"]):
        raise UsageError(
            f"--frequency all keeps a store for each tone. Expected {{frequency}} in --store. Got {options['store']}."
        )
    if options["model_arg"] and options["model"] is None:
        raise UsageError("--model-arg was given without --model. Expected the model class whose arguments they are.")
    if options["learning_rate"] is not None and options["checkpoint_weights"] == "uniform":
        raise UsageError("--learning-rate was given with --checkpoint-weights uniform, which uses none. Leave one out.")
    if options["exclude_before_split"] and options["exclusions_file"] is None and options["checkpoint_dir"] is None:
        raise UsageError("--exclude-before-split was given without --exclusions-file. Expected both.")
    if options["score_name"] is not None and not options["score_name"].strip():
        raise UsageError("--score-name should not be empty.")
    checkpoint_choice("--checkpoints", options["checkpoints"])
    pairs = options["pairs"]
    if pairs is not None and pairs not in WORDS and not Path(pairs).exists():
        raise InputError(f"--pairs {pairs}: no such file. Expected {', '.join(WORDS)} or a CSV or Parquet FILE.")
    if options["ids"] is not None and pairs in (None, *WORDS):
        raise UsageError("--ids was given without --pairs FILE. Expected both.")


def method_of(options: Mapping[str, Any]) -> Method:
    """What the options say that changes a score.

    Raises:
        As `compute_of`.
    """
    return Method(
        test_functional=options.get("test_functional") or "loss",
        weight_test_pairs=bool(options.get("weight_test_pairs")),
        aggregate=options.get("aggregate"),
        normalize=options.get("normalize") or "none",
        checkpoint_weights=options["checkpoint_weights"] or "lr",
        preconditioner=options["preconditioner"] or "none",
        params=options["params"],
        projection=_projection(options, _store(options)),
    )


def compute_of(options: Mapping[str, Any], world: World) -> Compute:
    """How the options say to compute, by these processes.

    Raises:
        UsageError: a value that is wrong in itself. InputError: a store that is none.
    """
    batch_size = whole_or("auto", "--batch-size", options["batch_size"])
    store = _store(options)
    return Compute(
        engine=options["engine"] or "auto",
        device=options["device"],
        dtype=DTYPES.get(options["dtype"] or ""),
        batch_size=batch_size if isinstance(batch_size, int) else "auto",
        memory_budget=size_in_bytes("--memory-budget", options["memory_budget"]),
        store=store,
        store_dtype=options["store_dtype"] or (None if store is None else _stored(store).get("dtype")) or "float32",
        shard=shard_of(options["shard"]),
        world=world,
    )


def _store(options: Mapping[str, Any]) -> Path | None:
    """The store, whose path may hold {frequency} and {material}."""
    if options["store"] is None:
        given = [TABLE[name].flag for name in ("store_dtype", "shard") if options[name] is not None]
        if given:
            raise UsageError(f"{given[0]} was given without --store. Expected both.")
        return None
    path = str(options["store"])
    for name in ("frequency", "material"):
        path = path.replace(f"{{{name}}}", options[name] or DEFAULTS[name])
    return present(Path(path))


def _stored(store: Path) -> Mapping[str, Any]:
    """What a store that is there says of its rows; nothing of one that is not."""
    if not (store / MANIFEST).is_file():
        return {}
    manifest = read_manifest(store)
    return {"dtype": manifest.dtype, "projection": manifest.identity.get("projection")}


def _projection(options: Mapping[str, Any], store: Path | None) -> Projection:
    """As asked; else the one of the store; and of a new store what is cheaper."""
    kind, dim, seed = options["projection"], options["proj_dim"], options["projection_seed"]
    for name, value, least in (("proj_dim", dim, 2), ("projection_seed", seed, 0)):
        flag = TABLE[name].flag
        if value is not None and value < least:
            raise UsageError(f"{flag} should be at least {least}. Got {value}.")
        if value is not None and kind == NONE.kind:
            raise UsageError(f"{flag} was given with --projection none, which projects nothing. Leave one of them out.")
        if value is not None and kind is None and store is None:
            raise UsageError(f"{flag} was given without --projection. Expected both.")
    if kind is None and store is not None:
        found = _stored(store).get("projection")
        if not isinstance(found, dict):
            return Projection("auto", dim, seed=seed or 0)
        known = Projection(**found)
        projected = known.kind != NONE.kind
        for name, value, own in (
            ("proj_dim", dim, known.width if projected else None),
            ("projection_seed", seed, known.seed if projected else None),
        ):
            if value not in (None, own):
                has = f"has {own}" if projected else "holds exact gradients"
                raise UsageError(
                    f"{TABLE[name].flag} {value} was given, and the store {store} {has}. Leave the option out, or name "
                    "another folder with --store."
                )
        return known
    return Projection(kind or NONE.kind, dim, seed=seed or 0)

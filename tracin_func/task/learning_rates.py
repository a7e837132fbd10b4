"""Learning rates of a checkpoint by parameter, recorded or given, and as the metric M_t = diag η_t.

Gradients are scaled by √η, so that plain dot products of them are ⟨g, M h⟩.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from tracin_func.errors import InputError
from tracin_func.task.checkpoints import LearningRate, LoadedCheckpoint
from tracin_func.task.optimizer_state import entries
from tracin_func.task.weight_names import unwrapped


def learning_rates(
    loaded: LoadedCheckpoint, parameters: Mapping[str, Tensor], given: LearningRate | None
) -> tuple[LearningRate, str]:
    """η_t of a checkpoint and its source: `given`, the optimiser's groups (see `entries`), or `args`.

    `parameters` are those of the module by name, in its order; those that require a gradient were trained.

    Raises:
        InputError: no learning rate is recorded, or it is ambiguous which group a parameter belongs to.
    """
    if given is not None:
        return given, "given"
    groups = _groups(loaded)
    if groups:
        rates = [_checked(group["lr"], loaded.name) for group in groups]
        trained = [name for name, parameter in parameters.items() if parameter.requires_grad]
        held = sum(len(group["params"]) for group in groups)
        if held < len(trained):
            raise InputError(
                f"{loaded.name}: its optimiser has {held} parameters, the model has {len(trained)} trainable ones. "
                "Freeze what was not trained (requires_grad_(False)), or give `learning_rate` by parameter name."
            )
        if len(set(rates)) == 1:
            return rates[0], "optimizer"
        found = entries(loaded, groups, parameters, {name: name for name in parameters}, "give `learning_rate`")
        return {name: float(found[name].group["lr"]) for name in trained if name in found}, "optimizer"
    for key in ("learning_rate", "lr"):
        if isinstance(loaded.args.get(key), int | float):
            return _checked(loaded.args[key], loaded.name), f"{loaded.args_key}.{key}"
    raise InputError(
        f"{loaded.name}: records no learning rate. Expected 'optimizer_state_dict' or 'args' with one. Give "
        '`learning_rate`, or use none with `checkpoint_weights="uniform"`.'
    )


def root_rates(rate: LearningRate, names: Mapping[str, str | None]) -> dict[str, float]:
    """√η of every trainable parameter; ⟨√η g, √η h⟩ summed over parameters is ⟨g, M h⟩, M = diag η.

    Args:
        rate: one for all, or a mapping by any name of a parameter.
        names: every name of a parameter -> its canonical one, None for what is not trained.

    Raises:
        InputError: a mapping lacks a parameter, has an unknown name, or two rates for a tied parameter.
    """
    canonical = [name for name in dict.fromkeys(names.values()) if name is not None]
    if not isinstance(rate, Mapping):
        return dict.fromkeys(canonical, float(rate) ** 0.5)
    rates: dict[str, float] = {}
    unknown = []
    for name, value in unwrapped(rate, names).items():
        if name not in names:
            unknown.append(name)
        elif (first := names[name]) is not None and rates.setdefault(first, float(value)) != float(value):
            raise InputError(f"`learning_rate` has two values for {name!r}, which is tied to {first!r}. Give one.")
    missing = [name for name in canonical if name not in rates]
    if missing or unknown:
        raise InputError(
            f"`learning_rate` should have one entry per parameter, by the names of named_parameters(). Missing: "
            f"{_listed(missing)}; unknown: {_listed(unknown)}."
        )
    return {name: rates[name] ** 0.5 for name in canonical}


def _groups(loaded: LoadedCheckpoint) -> list[Mapping[str, Any]]:
    """The optimiser's parameter groups if all of them record a learning rate and their parameters, else none."""
    groups = (loaded.optimizer or {}).get("param_groups")
    if not isinstance(groups, list | tuple) or not all(isinstance(group, Mapping) for group in groups):
        return []
    complete = all("lr" in group and isinstance(group.get("params"), list | tuple) for group in groups)
    return list(groups) if complete else []


def _checked(recorded: Any, name: str) -> float:
    try:
        rate = float(recorded)
    except (TypeError, ValueError):
        rate = -1.0
    if not (np.isfinite(rate) and rate >= 0):
        raise InputError(
            f"{name}: records the learning rate {recorded!r}. Expected a number of at least 0. Give `learning_rate`."
        )
    return rate


def _listed(names: list[str]) -> str:
    return f"{', '.join(names[:4])}{' ...' if len(names) > 4 else ''}" if names else "none"

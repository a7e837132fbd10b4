"""Learning rates of a checkpoint, one per parameter: found in it, and as the metric M_t = diag η_t.

Gradients are scaled by √η, so that plain inner products of them are ⟨g, M h⟩.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from tracin_func.errors import InputError
from tracin_func.task.checkpoints import LearningRate, LoadedCheckpoint
from tracin_func.task.weight_names import unwrapped


def learning_rates(
    loaded: LoadedCheckpoint, trainable: Mapping[str, Tensor], given: LearningRate | None
) -> tuple[LearningRate, str]:
    """η_t of a checkpoint and where it came from: `given`, the optimiser's groups, or `args`.

    Rates that differ between groups are mapped to parameters by the groups' `param_names`, else by the shapes
    of the optimiser's state where these allow one assignment only.

    Raises:
        InputError: no rate is to be found, or groups differ and cannot be told apart.
    """
    if given is not None:
        return given, "given"
    groups = _groups(loaded)
    if groups:
        rates = [_checked(group["lr"], loaded.name) for group in groups]
        held = sum(len(group["params"]) for group in groups)
        if held < len(trainable):
            raise InputError(
                f"{loaded.name}: its optimiser holds {held} parameters, the model has {len(trainable)} trainable ones. "
                "Freeze what was not trained (requires_grad_(False)), or give learning rates by parameter name."
            )
        if len(set(rates)) == 1:
            return rates[0], "optimizer"
        if all("param_names" in group for group in groups):
            named = {n: r for group, r in zip(groups, rates, strict=True) for n in group["param_names"]}
            named = unwrapped(named, trainable)
            return {name: named[name] for name in named if name in trainable}, "optimizer"
        return _rates_by_shape(loaded, groups, rates, trainable), "optimizer"
    for key in ("learning_rate", "lr"):
        if isinstance(loaded.args.get(key), int | float):
            return _checked(loaded.args[key], loaded.name), f"{loaded.args_key}.{key}"
    raise InputError(
        f"{loaded.name}: records no learning rate. Expected `optimizer_state_dict` or `args` with one; "
        "give it with --learning-rate (`learning_rate=` in Python), or use none: --checkpoint-weights uniform."
    )


def root_rates(rate: LearningRate, names: Mapping[str, str | None]) -> dict[str, float]:
    """√η of every trainable parameter; ⟨√η g, √η h⟩ summed over parameters is ⟨g, M h⟩, M = diag η.

    Args:
        rate: one for all, or a mapping by any name of a parameter.
        names: every name of a parameter -> its canonical one, None for what is not trained.

    Raises:
        InputError: a mapping leaves a parameter out, names something else, or gives a tied parameter two rates.
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
            raise InputError(f"`learning_rate` has two values for {name!r}, which is tied to {first!r}.")
    missing = [name for name in canonical if name not in rates]
    if missing or unknown:
        raise InputError(
            f"`learning_rate` has {_listed(missing)} missing and {_listed(unknown)} that is no parameter. "
            "Expected one entry each, by the names of `named_parameters()`."
        )
    return {name: rates[name] ** 0.5 for name in canonical}


def _groups(loaded: LoadedCheckpoint) -> list[Mapping[str, Any]]:
    """The optimiser's parameter groups that record a rate and their parameters; none where any does not."""
    groups = (loaded.optimizer or {}).get("param_groups")
    if not isinstance(groups, list | tuple) or not all(isinstance(group, Mapping) for group in groups):
        return []
    complete = all("lr" in group and isinstance(group.get("params"), list | tuple) for group in groups)
    return list(groups) if complete else []


def _checked(recorded: Any, name: str) -> float:
    try:
        rate = float(recorded)
    except (TypeError, ValueError):
        raise InputError(
            f"{name}: records the learning rate {recorded!r}. Expected a number; give --learning-rate."
        ) from None
    if not (np.isfinite(rate) and rate >= 0):
        raise InputError(f"{name}: records the learning rate {rate}. Expected one of at least 0; give --learning-rate.")
    return rate


def _rates_by_shape(
    loaded: LoadedCheckpoint,
    groups: Sequence[Mapping[str, Any]],
    rates: Sequence[float],
    trainable: Mapping[str, Tensor],
) -> dict[str, float]:
    state = (loaded.optimizer or {}).get("state") or {}
    rates_of_shape: dict[tuple[int, ...], list[float]] = {}
    for group, rate in zip(groups, rates, strict=True):
        for index in group["params"]:
            moments = [value for value in state.get(index, {}).values() if isinstance(value, Tensor) and value.ndim]
            if moments:
                rates_of_shape.setdefault(tuple(moments[0].shape), []).append(rate)
    shapes = [tuple(parameter.shape) for parameter in trainable.values()]
    result = {}
    for (name, _), shape in zip(trainable.items(), shapes, strict=True):
        candidates = rates_of_shape.get(shape, [])
        if len(set(candidates)) != 1 or len(candidates) != shapes.count(shape):
            raise InputError(
                f"{loaded.name}: its optimiser has groups with learning rates {sorted(set(rates))}, and the group "
                f"of parameter {name!r} cannot be told. Expected `param_names` in the groups; give one rate with "
                "--learning-rate, or a mapping by parameter name in Python."
            )
        result[name] = candidates[0]
    return result


def _listed(names: list[str]) -> str:
    return f"{', '.join(names[:4])}{' ...' if len(names) > 4 else ''}" if names else "nothing"

"""The entries of an optimiser's state by parameter, and P of Adam, so that the metric is M_t = diag(η P).

    P = 1 / (√v̂ + ε),   v̂ = v / (1 − β2^step)

v is `exp_avg_sq`, or `max_exp_avg_sq` with amsgrad, of which torch, too, corrects the bias of the maximum. v is taken
as constant at a checkpoint. Its dependence on the gradient, momentum and weight decay are left out.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from tracin_func.errors import InputError
from tracin_func.task.checkpoints import LoadedCheckpoint
from tracin_func.task.weight_names import unwrapped

MOMENT, LARGEST_MOMENT = "exp_avg_sq", "max_exp_avg_sq"
MOST_WAYS = 10_000  # of assigning parameters to groups; beyond, the assignment counts as ambiguous

_ZERO_KEYS = ("zero_stage", "single_partition_of_fp32_groups", "partition_count")
_SHARDED_TYPES = ("DTensor", "ShardedTensor")
_FLAT_KEY = "flat_param"
_WITHOUT = 'score with `preconditioner="none"`'


@dataclass(frozen=True)
class Entry:
    """One parameter in an optimiser's state: its name if that is recorded, its state, its group's settings."""

    name: str | None
    state: Mapping[str, Any]
    group: Mapping[str, Any]

    @property
    def shape(self) -> torch.Size | None:
        moments = (value for value in (self.state.get(MOMENT), *self.state.values()) if isinstance(value, Tensor))
        return next((moment.shape for moment in moments if moment.ndim or moment is self.state.get(MOMENT)), None)


def holds_second_moments(loaded: LoadedCheckpoint) -> bool:
    """Whether the optimiser's state has second moments as in Adam."""
    states = (loaded.optimizer or {}).get("state")
    values = states.values() if isinstance(states, Mapping) else ()
    return any(isinstance(value, Mapping) and MOMENT in value for value in values)


def adam_preconditioner(
    loaded: LoadedCheckpoint, parameters: Mapping[str, Tensor], names: Mapping[str, str | None]
) -> dict[str, Tensor]:
    """P of every differentiated parameter by canonical name, float64 on the CPU, in the parameter's shape.

    Args:
        loaded: the checkpoint.
        parameters: all parameters of the module by canonical name, in its order, frozen ones included.
        names: every name of a parameter -> its canonical one, None for what is not differentiated.

    Raises:
        InputError: no state of torch's Adam or AdamW, a state that is sharded or damaged, a parameter that was never
            stepped, or an ambiguous one.
    """
    found = entries(loaded, _groups(loaded), parameters, names, _WITHOUT)
    wanted = dict.fromkeys(name for name in names.values() if name is not None)
    if missing := [name for name in wanted if name not in found]:
        raise InputError(
            f"{loaded.name}: its optimiser has no parameter {missing[0]!r}. Expected the optimiser of this model. "
            f"Freeze what was not trained (requires_grad_(False)), or {_WITHOUT}."
        )
    return {name: _preconditioner(loaded.name, name, found[name], parameters[name].shape) for name in wanted}


def _groups(loaded: LoadedCheckpoint) -> list[Mapping[str, Any]]:
    optimizer, name = loaded.optimizer, loaded.name
    if optimizer is None:
        raise InputError(
            f'{name}: has no optimiser state, and `preconditioner="adam"` needs the second moments of Adam. Save '
            f"'optimizer_state_dict' beside the weights during training, or {_WITHOUT}."
        )
    if sharding := _sharding(optimizer):
        raise InputError(
            f'{name}: its optimiser state is sharded ({sharding}), and `preconditioner="adam"` needs that of all '
            f"parameters. Gather it before saving, or {_WITHOUT}."
        )
    groups, states = optimizer.get("param_groups"), optimizer.get("state")
    if not isinstance(groups, list | tuple) or not groups or not isinstance(states, Mapping):
        groups = [None]
    if not all(_is_group(group) for group in groups):
        raise InputError(f"{name}: its optimiser state is damaged. Expected 'state' and 'param_groups' as in torch.")
    # Others have an `exp_avg_sq` too (RAdam, NAdam, Adafactor) and divide by something else.
    if not all(isinstance(group.get("amsgrad"), bool) and "betas" in group and "eps" in group for group in groups):
        raise InputError(
            f'{name}: its optimiser is not torch\'s Adam or AdamW, which `preconditioner="adam"` needs: its groups '
            f"lack 'amsgrad', 'betas' or 'eps'. Instead, {_WITHOUT}."
        )
    return list(groups)


def _is_group(group: Any) -> bool:
    keys = group.get("params") if isinstance(group, Mapping) else None
    return isinstance(keys, list | tuple) and all(isinstance(key, int | str) for key in keys)


def _sharding(optimizer: Mapping[str, Any]) -> str | None:
    """The sign that an optimiser's state is sharded, or None."""
    if key := next((key for key in _ZERO_KEYS if key in optimizer), None):
        return f"DeepSpeed ZeRO: '{key}'"
    states = optimizer.get("state")
    for key, state in states.items() if isinstance(states, Mapping) else ():
        if _FLAT_KEY in str(key):
            return f"FSDP: '{key}'"
        for value in state.values() if isinstance(state, Mapping) else ():
            if type(value).__name__ in _SHARDED_TYPES:
                return f"a {type(value).__name__}"
    return None


def entries(
    loaded: LoadedCheckpoint,
    groups: Sequence[Mapping[str, Any]],
    parameters: Mapping[str, Tensor],
    names: Mapping[str, str | None],
    remedy: str,
) -> dict[str, Entry]:
    """The optimiser's entry of each parameter that it holds, by canonical name.

    They are matched by `param_names` of the groups (or names in the place of numbers), else by order: each group has
    its parameters in the order of the module, all or only the trainable ones.

    Raises:
        InputError: they do not fit, or are ambiguous; the message ends with `remedy`.
    """
    every = list(_entries(loaded, groups))
    if any(one.name is None for one in every):
        return _by_order(loaded.name, groups, every, parameters, remedy)
    named = unwrapped({str(one.name): one for one in every}, names)
    return {canonical: one for name, one in named.items() if (canonical := names.get(name)) is not None}


def _entries(loaded: LoadedCheckpoint, groups: Sequence[Mapping[str, Any]]) -> Iterator[Entry]:
    states = (loaded.optimizer or {}).get("state")
    states = states if isinstance(states, Mapping) else {}
    for group in groups:
        keys = group["params"]
        named = all(isinstance(key, str) for key in keys)  # as FSDP gathers it
        names = group.get("param_names", keys if named else None)
        fits = isinstance(names, list | tuple) and len(names) == len(keys) and all(isinstance(n, str) for n in names)
        if names is not None and not fits:
            raise InputError(
                f"{loaded.name}: an optimiser group has {len(keys)} parameters and another number of 'param_names'. "
                "Expected one name per parameter, or none in any group."
            )
        for key, name in zip(keys, names or [None] * len(keys), strict=True):
            state = states.get(key, {})
            yield Entry(name, state if isinstance(state, Mapping) else {}, group)


def _by_order(
    name: str,
    groups: Sequence[Mapping[str, Any]],
    every: Sequence[Entry],
    parameters: Mapping[str, Tensor],
    remedy: str,
) -> dict[str, Entry]:
    """The one assignment of parameters to groups in which each group is in order and every shape fits."""
    trained = [one for one, parameter in parameters.items() if parameter.requires_grad]
    order = trained if len(every) == len(trained) else list(parameters)  # Adam(model.parameters()) has frozen ones too
    if len(every) != len(order):
        raise InputError(
            f"{name}: its optimiser has {len(every)} parameters, the model has {len(trained)} trainable ones and "
            f"{len(parameters)} in all. Freeze what was not trained (requires_grad_(False)), or save the optimiser "
            "with 'param_names' in its groups."
        )
    rest = iter(every)
    columns = [list(islice(rest, len(group["params"]))) for group in groups]
    ahead = [iter(column) for column in columns]
    return {
        one: next(ahead[place])
        for one, place in zip(order, _assign(name, columns, order, parameters, remedy), strict=True)
    }


def _assign(
    name: str, columns: Sequence[Sequence[Entry]], order: Sequence[str], parameters: Mapping[str, Tensor], remedy: str
) -> list[int]:
    """The column of each parameter, all columns being in order; only one way may fit."""
    # How far each column is used up, after each parameter -> the possible columns of the last one.
    steps: list[dict[tuple[int, ...], list[int]]] = [{(0,) * len(columns): []}]
    for one in order:
        shape = parameters[one].shape
        reached: dict[tuple[int, ...], list[int]] = {}
        for used in steps[-1]:
            for column, place in enumerate(used):
                if place < len(columns[column]) and columns[column][place].shape in (None, shape):
                    after = (*used[:column], place + 1, *used[column + 1 :])
                    reached.setdefault(after, []).append(column)
        if not reached:
            raise InputError(
                f"{name}: its optimiser state does not fit the model: it has no entry of shape {list(shape)} in the "
                f"place of parameter {one!r}. Expected the optimiser of this model, its parameters in order."
            )
        if len(reached) > MOST_WAYS:
            raise _ambiguous(name, one, len(columns), remedy)
        steps.append(reached)
    used = tuple(map(len, columns))
    result: list[int] = []
    for one, reached in zip(reversed(order), reversed(steps[1:]), strict=True):
        if len(reached[used]) > 1:
            raise _ambiguous(name, one, len(columns), remedy)
        (column,) = reached[used]
        result.append(column)
        used = (*used[:column], used[column] - 1, *used[column + 1 :])
    return result[::-1]


def _ambiguous(name: str, parameter: str, groups: int, remedy: str) -> InputError:
    return InputError(
        f"{name}: its optimiser has {groups} groups without 'param_names', and the shapes of parameter {parameter!r} "
        f"fit several of them. Create the optimiser from named_parameters(), or {remedy}."
    )


def _preconditioner(checkpoint: str, name: str, entry: Entry, shape: torch.Size) -> Tensor:
    """P of one parameter. `maximize` flips the gradient's sign and v contains squares: P is the same."""
    plain, kind = entry.state.get(MOMENT), LARGEST_MOMENT if entry.group["amsgrad"] else MOMENT
    if not isinstance(plain, Tensor):
        raise InputError(
            f"{checkpoint}: its optimiser has no second moment of parameter {name!r}, which was never stepped. Freeze "
            f"it (requires_grad_(False)), leave it out with `params`, or {_WITHOUT}."
        )
    if plain.shape != shape:
        raise InputError(
            f"{checkpoint}: its optimiser state of parameter {name!r} has the shape {list(plain.shape)}, the "
            f"parameter {list(shape)}. Expected the optimiser of this model."
        )
    beta, epsilon, step = _settings(checkpoint, name, entry)
    moment = entry.state.get(kind)
    if not isinstance(moment, Tensor) or moment.shape != shape:
        raise InputError(f"{checkpoint}: its optimiser has amsgrad, but no fitting '{kind}' of parameter {name!r}.")
    moment = moment.double()
    if not bool((moment.isfinite() & (moment >= 0)).all()):
        raise InputError(
            f"{checkpoint}: '{kind}' of parameter {name!r} is NaN, infinite or negative. Leave this checkpoint out."
        )
    preconditioner: Tensor = 1 / (moment.sqrt() / (1 - beta**step) ** 0.5 + epsilon)
    if not bool(preconditioner.isfinite().all()):
        raise InputError(
            f"{checkpoint}: '{kind}' of parameter {name!r} has zeros and eps is {epsilon}, so Adam's step there is "
            f"unbounded. Leave the parameter out with `params`, or {_WITHOUT}."
        )
    return preconditioner


def _settings(checkpoint: str, name: str, entry: Entry) -> tuple[float, float, float]:
    """β2, ε and the number of steps, checked."""
    try:
        beta, epsilon, step = float(entry.group["betas"][1]), float(entry.group["eps"]), float(entry.state["step"])
    except (TypeError, ValueError, LookupError, RuntimeError):  # RuntimeError for a tensor of several numbers
        beta, epsilon, step = -1.0, -1.0, -1.0
    if not (0 <= beta < 1 and 0 <= epsilon < float("inf") and 1 <= step < float("inf")):
        raise InputError(
            f"{checkpoint}: 'betas', 'eps' or 'step' of parameter {name!r} in its optimiser state is not valid for "
            "Adam. Expected 0 <= beta < 1, eps >= 0 and at least one step."
        )
    return beta, epsilon, step

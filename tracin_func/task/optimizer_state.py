"""What an optimiser's state adds to the metric: P of Adam, by parameter, so that M_t = diag(η P).

    P = 1 / (√v̂ + ε),   v̂ = v / (1 − β2^step)

v is `exp_avg_sq`, or `max_exp_avg_sq` with amsgrad, of which torch, too, corrects the bias of the maximum. Taken as
constants at a checkpoint: that a gradient also changes v, and what momentum and weight decay do, is left out.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tracin_func.errors import InputError
from tracin_func.task.checkpoints import LoadedCheckpoint
from tracin_func.task.weight_names import unwrapped

MOMENT, LARGEST_MOMENT = "exp_avg_sq", "max_exp_avg_sq"
MOST_WAYS = 10_000  # of distributing parameters over groups that are followed; beyond, they cannot be told

_ZERO_KEYS = ("zero_stage", "single_partition_of_fp32_groups", "partition_count")
_SHARDED_TYPES = ("DTensor", "ShardedTensor")
_FLAT_KEY = "flat_param"


@dataclass(frozen=True)
class _Held:
    """One parameter as the optimiser holds it: its name where that is recorded, its state, its group's settings."""

    name: str | None
    state: Mapping[str, Any]
    group: Mapping[str, Any]

    @property
    def shape(self) -> torch.Size | None:
        """That of its second moment; None where it was never stepped."""
        moment = self.state.get(MOMENT)
        return moment.shape if isinstance(moment, Tensor) else None


def holds_second_moments(loaded: LoadedCheckpoint) -> bool:
    """Whether the optimiser's state has second moments as Adam keeps them."""
    states = (loaded.optimizer or {}).get("state")
    values = states.values() if isinstance(states, Mapping) else ()
    return any(isinstance(value, Mapping) and MOMENT in value for value in values)


def adam_preconditioner(
    loaded: LoadedCheckpoint, parameters: Mapping[str, Tensor], names: Mapping[str, str | None]
) -> dict[str, Tensor]:
    """P of every parameter that is differentiated, by canonical name, float64 on the CPU, in the parameter's shape.

    State is mapped to parameters by `param_names` of the groups (or names in the place of their numbers), else by
    order: each group holds its parameters in the order of the module's, all or only the trainable ones.

    Args:
        loaded: the checkpoint.
        parameters: all parameters of the module by canonical name, in its order, frozen ones included.
        names: every name of a parameter -> its canonical one, None for what is not differentiated.

    Raises:
        InputError: no state of torch's Adam or AdamW, a state that is sharded or damaged, a parameter that was never
            stepped, or one that cannot be told.
    """
    groups = _groups(loaded)
    held = list(_held(loaded, groups))
    if all(one.name is not None for one in held):
        found = _by_name(held, names)
    else:
        found = _by_order(loaded.name, groups, held, parameters)
    wanted = dict.fromkeys(name for name in names.values() if name is not None)
    missing = [name for name in wanted if name not in found]
    if missing:
        raise InputError(
            f"{loaded.name}: its optimiser does not hold parameter {missing[0]!r}. Expected that of this model; freeze "
            " what was not trained (requires_grad_(False)), or score with --preconditioner none."
        )
    return {name: _preconditioner(loaded.name, name, found[name], parameters[name].shape) for name in wanted}


def _groups(loaded: LoadedCheckpoint) -> list[Mapping[str, Any]]:
    """The groups of torch's Adam or AdamW."""
    optimizer, name = loaded.optimizer, loaded.name
    if optimizer is None:
        raise InputError(
            f"{name}: holds no optimiser state, and --preconditioner adam needs Adam's second moments. Expected "
            "`optimizer_state_dict` beside the weights; save it while training, or score with --preconditioner none."
        )
    if sharding := _sharding(optimizer):
        raise InputError(
            f"{name}: its optimiser state is sharded ({sharding}), which --preconditioner adam does not support. "
            "Expected the state of all parameters; gather it before saving, or score with --preconditioner none."
        )
    groups, states = optimizer.get("param_groups"), optimizer.get("state")
    if not isinstance(groups, list | tuple) or not groups or not isinstance(states, Mapping):
        groups = [None]
    if not all(_is_group(group) for group in groups):
        raise InputError(f"{name}: its optimiser state is damaged. Expected `state` and `param_groups` as torch saves.")
    # Others keep an `exp_avg_sq` too (RAdam, NAdam, Adafactor) and divide by something else.
    if not all(isinstance(group.get("amsgrad"), bool) and "betas" in group and "eps" in group for group in groups):
        raise InputError(
            f"{name}: its optimiser is not torch's Adam or AdamW (its groups lack `amsgrad`, `betas` or `eps`), and "
            "--preconditioner adam knows no other. Score with --preconditioner none."
        )
    return list(groups)


def _is_group(group: Any) -> bool:
    keys = group.get("params") if isinstance(group, Mapping) else None
    return isinstance(keys, list | tuple) and all(isinstance(key, int | str) for key in keys)


def _sharding(optimizer: Mapping[str, Any]) -> str | None:
    """What tells that an optimiser's state is a part of it."""
    if key := next((key for key in _ZERO_KEYS if key in optimizer), None):
        return f"DeepSpeed ZeRO: `{key}`"
    states = optimizer.get("state")
    for key, state in states.items() if isinstance(states, Mapping) else ():
        if _FLAT_KEY in str(key):
            return f"FSDP: `{key}`"
        for value in state.values() if isinstance(state, Mapping) else ():
            if type(value).__name__ in _SHARDED_TYPES:
                return f"a {type(value).__name__}"
    return None


def _held(loaded: LoadedCheckpoint, groups: Sequence[Mapping[str, Any]]) -> Iterator[_Held]:
    """What the optimiser holds, group after group."""
    states = (loaded.optimizer or {})["state"]
    for group in groups:
        keys = group["params"]
        named = all(isinstance(key, str) for key in keys)  # as FSDP gathers it
        names = group.get("param_names", keys if named else None)
        fits = isinstance(names, list | tuple) and len(names) == len(keys) and all(isinstance(n, str) for n in names)
        if names is not None and not fits:
            raise InputError(
                f"{loaded.name}: a group of its optimiser has {len(keys)} parameters and no list of as many "
                "`param_names`. Expected a name each, or none in any group."
            )
        for key, name in zip(keys, names or [None] * len(keys), strict=True):
            state = states.get(key, {})
            yield _Held(name, state if isinstance(state, Mapping) else {}, group)


def _by_name(held: Sequence[_Held], names: Mapping[str, str | None]) -> dict[str, _Held]:
    named = unwrapped({str(one.name): one for one in held}, names)
    return {canonical: one for name, one in named.items() if (canonical := names.get(name)) is not None}


def _by_order(
    name: str, groups: Sequence[Mapping[str, Any]], held: Sequence[_Held], parameters: Mapping[str, Tensor]
) -> dict[str, _Held]:
    """The one way to deal the parameters out to the groups in which each is in order and every shape fits."""
    trained = [one for one, parameter in parameters.items() if parameter.requires_grad]
    order = trained if len(held) == len(trained) else list(parameters)  # Adam(model.parameters()) holds frozen ones too
    if len(held) != len(order):
        raise InputError(
            f"{name}: its optimiser holds {len(held)} parameters, the model has {len(trained)} trainable ones and "
            f"{len(parameters)} in all. Freeze what was not trained (requires_grad_(False)), or save the optimiser "
            "with `param_names` in its groups."
        )
    columns, start = [], 0
    for group in groups:
        columns.append(held[start : start + len(group["params"])])
        start += len(group["params"])
    result: dict[str, _Held] = {}
    dealt = _deal(name, columns, order, parameters)
    places = [0] * len(columns)
    for one, column in zip(order, dealt, strict=True):
        result[one] = columns[column][places[column]]
        places[column] += 1
    return result


def _deal(
    name: str, columns: Sequence[Sequence[_Held]], order: Sequence[str], parameters: Mapping[str, Tensor]
) -> list[int]:
    """The column that each parameter is in, all columns being in order; only one way may fit."""
    # How far each column is used up, after each parameter -> the columns that the last one may have come from.
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
                f"{name}: its optimiser's state does not fit the model: nothing of the shape {list(shape)} is left "
                f"where parameter {one!r} should be. Expected the optimiser of this model, its parameters in order."
            )
        if len(reached) > MOST_WAYS:
            raise _ambiguous(name, one, len(columns))
        steps.append(reached)
    used = tuple(map(len, columns))
    result: list[int] = []
    for one, reached in zip(reversed(order), reversed(steps[1:]), strict=True):
        if len(reached[used]) > 1:
            raise _ambiguous(name, one, len(columns))
        (column,) = reached[used]
        result.append(column)
        used = (*used[:column], used[column] - 1, *used[column + 1 :])
    return result[::-1]


def _ambiguous(name: str, parameter: str, groups: int) -> InputError:
    return InputError(
        f"{name}: its optimiser has {groups} groups without `param_names`, and which of them holds parameter "
        f"{parameter!r} cannot be told from shapes. Expected `param_names` in the groups: make the optimiser of "
        "`named_parameters()`, or score with --preconditioner none."
    )


def _preconditioner(checkpoint: str, name: str, held: _Held, shape: torch.Size) -> Tensor:
    """P of one parameter. `maximize` turns the gradient's sign and v holds squares: P is the same."""
    if held.shape is None:
        raise InputError(
            f"{checkpoint}: its optimiser has no second moment of parameter {name!r}, which was never stepped. Freeze "
            "it (requires_grad_(False)), leave it out with --params, or score with --preconditioner none."
        )
    if held.shape != shape:
        raise InputError(
            f"{checkpoint}: its optimiser's state of parameter {name!r} has the shape {list(held.shape)}, the "
            f"parameter {list(shape)}. Expected the optimiser of this model."
        )
    kind = LARGEST_MOMENT if held.group["amsgrad"] else MOMENT
    moment = held.state.get(kind)
    beta, epsilon, step = _settings(checkpoint, name, held)
    if not isinstance(moment, Tensor) or moment.shape != shape:
        raise InputError(f"{checkpoint}: its optimiser has amsgrad, and no `{kind}` of parameter {name!r} that fits.")
    moment = moment.double()
    if not bool((moment.isfinite() & (moment >= 0)).all()):
        raise InputError(
            f"{checkpoint}: `{kind}` of parameter {name!r} is NaN, infinite or negative. Leave this checkpoint out."
        )
    preconditioner: Tensor = 1 / (moment.sqrt() / (1 - beta**step) ** 0.5 + epsilon)
    if not bool(preconditioner.isfinite().all()):
        raise InputError(
            f"{checkpoint}: `{kind}` of parameter {name!r} has zeros and eps is {epsilon}, so Adam's step there is "
            "unbounded. Leave the parameter out with --params, or score with --preconditioner none."
        )
    return preconditioner


def _settings(checkpoint: str, name: str, held: _Held) -> tuple[float, float, float]:
    """β2, ε and the number of steps, checked."""
    try:
        beta, epsilon, step = float(held.group["betas"][1]), float(held.group["eps"]), float(held.state["step"])
    except (TypeError, ValueError, LookupError, RuntimeError):  # a tensor of several numbers raises the last
        beta, epsilon, step = -1.0, -1.0, -1.0
    if not (0 <= beta < 1 and 0 <= epsilon < float("inf") and 1 <= step < float("inf")):
        raise InputError(
            f"{checkpoint}: `betas`, `eps` or `step` of parameter {name!r} in its optimiser's state is no number that "
            "Adam could have. Expected 0 <= beta < 1, eps >= 0 and at least one step."
        )
    return beta, epsilon, step

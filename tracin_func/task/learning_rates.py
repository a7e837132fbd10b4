"""The metric M_t of a checkpoint: one learning rate a parameter, applied to gradients as √η."""

from collections.abc import Mapping

from tracin_func.errors import InputError
from tracin_func.task.checkpoints import LearningRate, unwrapped


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


def _listed(names: list[str]) -> str:
    return f"{', '.join(names[:4])}{' ...' if len(names) > 4 else ''}" if names else "nothing"

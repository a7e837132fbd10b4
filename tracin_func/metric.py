"""The metric M_t of a checkpoint: one learning rate a parameter, applied to gradients as √η."""

from collections.abc import Iterable, Mapping

from tracin_func.checkpoints import LearningRate
from tracin_func.errors import InputError


def root_rates(rate: LearningRate, names: Iterable[str]) -> dict[str, float]:
    """√η of every parameter in `names`; ⟨√η g, √η h⟩ summed over parameters is ⟨g, M h⟩, M = diag η.

    Raises:
        InputError: a mapping leaves a trainable parameter out.
    """
    if not isinstance(rate, Mapping):
        return dict.fromkeys(names, float(rate) ** 0.5)
    missing = [name for name in names if name not in rate]
    if missing:
        raise InputError(
            f"`learning_rate` has no entry for {', '.join(missing[:4])}{' ...' if len(missing) > 4 else ''}. "
            "Expected one a trainable parameter, by the names of `named_parameters()`."
        )
    return {name: float(rate[name]) ** 0.5 for name in names}

"""Where a column of scores comes from, in words and numbers enough to repeat and to read it."""

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

SIGN = {
    "self": "Σ_t η_t ‖∇ℓ_p‖²: larger = harder pair",
    "influence": "Σ_t ⟨∇ℓ_p, η_t ∇ℓ_q⟩; positive: training on p lowered the loss of q (proponent)",
}
UNIT = (
    "first-order loss change per visit with SGD; the true change is about "
    "score × visits of p between checkpoints / batch size"
)
_PACKAGES = ("tracin-func", "torch", "numpy")


def provenance(
    *,
    command: Sequence[str] | None,
    source: Mapping[str, Any],
    checkpoints: Sequence[Mapping[str, Any]],
    loss: Mapping[str, Any],
    pairs: Mapping[str, Any],
    engine: Mapping[str, Any],
    score: str,
) -> dict[str, Any]:
    """The record of one column: what was computed from what, by which versions, and how to read it.

    Args:
        command: the arguments that were run, program first; None when called from Python.
        source: `kind` ("embedded" for the demonstration), and what is known of data, split and front end.
        checkpoints: one mapping a checkpoint: its name and learning rates.
        loss: its name and settings.
        pairs: how they were chosen, and how many.
        engine: its name, plan and precision.
        score: "self" or "influence"; chooses the sentence about the sign.

    Returns:
        A mapping that can be written as JSON when its parts can.

    Raises:
        ValueError: `score` is neither.
    """
    if score not in SIGN:
        raise ValueError(f"`score` should be one of {', '.join(map(repr, SIGN))}. Got {score!r}.")
    return {
        "score": score,
        "sign": SIGN[score],
        "unit": UNIT,
        "command": None if command is None else list(command),
        "source": dict(source),
        "checkpoints": [dict(checkpoint) for checkpoint in checkpoints],
        "loss": dict(loss),
        "pairs": dict(pairs),
        "engine": dict(engine),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Versions of this package, of what it computes with, and of the machine's system."""
    packages = {name: _version(name) for name in _PACKAGES}
    return packages | {"python": platform.python_version(), "platform": platform.platform()}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # run from a clone that is not installed
        return "not installed"

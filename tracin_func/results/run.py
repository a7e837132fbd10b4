"""How scores came about: the run, and its provenance in words and numbers."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tracin_func.gradients.device import versions
from tracin_func.results.partial import Partial
from tracin_func.task.method import Method

SIGN = {
    "self": "Σ_t η_t ‖∇ℓ_p‖²: larger = harder pair",
    "loss": "Σ_t ⟨∇ℓ_p, η_t ∇ℓ_q⟩; positive: training on p lowered the loss of q (proponent)",
    "score-margin": "−Σ_t ⟨∇ℓ_p, η_t ∇m_q⟩, m_q = y (s_a − s_b); positive: training on p raised the score margin of q",
}
_P = "P = 1 / (√v̂ + ε) of Adam"
ADAM_SIGN = {
    "self": f"Σ_t η_t ‖√P_t ∇ℓ_p‖², {_P}: larger = harder pair",
    "loss": f"Σ_t ⟨∇ℓ_p, η_t P_t ∇ℓ_q⟩, {_P}; positive: training on p lowered the loss of q (proponent)",
    "score-margin": f"−Σ_t ⟨∇ℓ_p, η_t P_t ∇m_q⟩, m_q = y (s_a − s_b), {_P}; positive: training on p raised the score "
    "margin of q",
}
STEP = {  # of which a score is the effect
    "none": "SGD",
    "adam": "Adam's step, moments held fixed, momentum and weight decay left out",
}
_UNIT = (
    "first-order change of the {} per visit with {}; the true change is about "
    "score × visits of p between checkpoints / batch size"
)
_OF = {"self": "loss", "loss": "loss", "score-margin": "score margin"}
UNIT = {name: _UNIT.format(of, STEP["none"]) for name, of in _OF.items()}
ADAM_UNIT = {name: _UNIT.format(of, STEP["adam"]) for name, of in _OF.items()}
UNIFORM_UNIT = "squared slope of the loss, without learning rates (η_t = 1): an order, no loss change"
ADAM_UNIFORM_UNIT = UNIFORM_UNIT.replace("of the loss,", "of the loss along Adam's step,")
COSINE_UNIT = (
    "none: the score divided by √(self(p) self(q)), the cosine of the gradients at all checkpoints, in [-1, 1]"
)
SCORES = ("self", "influence")


@dataclass(frozen=True)
class Run(Partial):
    """How scores came about: checkpoints with their rates, loss, engine, source, and what the user was told."""

    checkpoints: tuple[Mapping[str, Any], ...]
    loss: Mapping[str, Any]
    engine: Mapping[str, Any]
    source: Mapping[str, Any]
    notices: tuple[str, ...]
    method: Method = Method()

    @property
    def names(self) -> list[str]:
        """The checkpoints' names."""
        return [str(checkpoint["name"]) for checkpoint in self.checkpoints]

    def provenance(
        self,
        score: str,
        pairs: Mapping[str, Any],
        command: Sequence[str] | None,
        options: Mapping[str, Any] | None,
    ) -> dict[str, Any]:
        """The record of a column of scores of this run, `self` or `influence`; see `provenance.provenance`."""
        return provenance(
            command=command,
            options=options,
            source=self.source,
            checkpoints=self.checkpoints,
            loss=self.loss,
            pairs=pairs,
            engine=self.engine,
            score=score,
            notices=self.notices,
            method=self.method,
        )


def provenance(
    *,
    command: Sequence[str] | None,
    options: Mapping[str, Any] | None = None,
    source: Mapping[str, Any],
    checkpoints: Sequence[Mapping[str, Any]],
    loss: Mapping[str, Any],
    pairs: Mapping[str, Any],
    engine: Mapping[str, Any],
    score: str,
    method: Method,
    notices: Sequence[str] = (),
) -> dict[str, Any]:
    """The record of one column: what was computed from what, by which versions, and how to read it.

    Args:
        command: the arguments that were run, program first; None when called from Python.
        options: the options of the command line that were given, as they can be given again.
        source: `kind` ("embedded" for the demonstration), and what is known of data, split and front end.
        checkpoints: one mapping a checkpoint: its name and learning rates.
        loss: its name and settings.
        pairs: how they were chosen, and how many.
        engine: its name, plan and precision.
        score: "self" or "influence".
        method: recorded as far as it concerns the score; with `score` it chooses the sentences about sign and unit.
        notices: what the user was told while it ran.

    Returns:
        A mapping that can be written as JSON when its parts can.

    Raises:
        ValueError: `score` is neither.
    """
    if score not in SCORES:
        raise ValueError(f"`score` should be one of {', '.join(map(repr, SCORES))}. Got {score!r}.")
    return {
        "score": score,
        **meaning(score, method),
        **method.describe(score),
        "command": None if command is None else list(command),
        "options": None if options is None else dict(options),
        "working_folder": _working_folder(),
        "environment": {name: value for name, value in os.environ.items() if name.startswith("TRACIN_FUNC_")},
        "source": dict(source),
        "checkpoints": [dict(checkpoint) for checkpoint in checkpoints],
        "loss": dict(loss),
        "pairs": dict(pairs),
        "engine": dict(engine),
        "notices": list(notices),
        "versions": versions(),
    }


def meaning(score: str, method: Method) -> dict[str, str]:
    """Sign and unit of a score, in words."""
    of = method.test_functional if score == "influence" else "self"
    adam = method.preconditioner == "adam"
    unit = (ADAM_UNIT if adam else UNIT)[of]
    if method.checkpoint_weights == "uniform":
        unit = ADAM_UNIFORM_UNIT if adam else UNIFORM_UNIT
    if score == "influence" and method.normalize == "cosine":
        unit = f"{COSINE_UNIT}, preconditioned by √P" if adam else COSINE_UNIT
    return {"sign": (ADAM_SIGN if adam else SIGN)[of], "unit": unit}


def _working_folder() -> str | None:
    """Where relative paths of the command start; None when the folder was removed meanwhile."""
    try:
        return os.getcwd()
    except OSError:
        return None

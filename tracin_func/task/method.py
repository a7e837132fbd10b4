"""Settings that change scores: the metric, the weighting of checkpoints, the query objective, projection."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from tracin_func.errors import UsageError

TEST_FUNCTIONALS = ("loss", "score-margin")
MOST_SEED = 2**63 - 1


@dataclass(frozen=True)
class Projection:
    """A random linear map Π with E⟨Πx, Πy⟩ = ⟨x, y⟩ from gradients to short rows, one per checkpoint.

    Args:
        kind: `rademacher` or `gaussian`, dense; `sjlt`, sparse: one non-zero per coordinate (Kane and Nelson, JACM
            2014); `kronecker`: each side of every weight matrix, from its factors (LoGra, arXiv 2405.13954). `auto`:
            exact gradients if these are cheaper, else `kronecker` with captured factors and `sjlt` without. `none`:
            exact gradients.
        dim: dimension of each row (for `kronecker`: an upper limit); by default that of the kind.
        side: for `kronecker`, dimension of each side of every matrix; the largest that `dim` allows when None.
        seed: Π depends on it and on the names of parameter and checkpoint only; not on the device, on chunks or on the
            number of processes.

    Raises:
        UsageError: a number out of range. The kind is checked when a run begins.
    """

    kind: str = "auto"
    dim: int | None = None
    side: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("dim", "side"):
            value = getattr(self, name)
            if value is not None and value < 2:
                raise UsageError(f"`{name}` of a projection should be at least 2. Got {value}.")
        if self.side is not None and self.dim is not None:
            raise UsageError("`dim` and `side` both set the dimension of rows. Give one of them.")
        if not 0 <= self.seed <= MOST_SEED:
            raise UsageError(f"`seed` of a projection should be from 0 to 2^63 − 1. Got {self.seed}.")

    def describe(self) -> dict[str, Any]:
        """The settings that provenance records."""
        own = asdict(self)
        return {name: own[name] for name in ("kind", "seed")} if self.kind == "none" else own


NONE = Projection("none")


def _choice(default: str | None, allowed: tuple[str | None, ...], *, of_self: bool = False) -> Any:
    return field(default=default, metadata={"allowed": allowed, "of_self": of_self})


@dataclass(frozen=True)
class Method:
    """Settings that change scores. Provenance records all of them.

    Args:
        test_functional: the query objective: `loss` or `score-margin`.
        weight_test_pairs: weight test pairs too, by the weights of the loss (GHM); `score-margin` has none.
        aggregate: `mean`: one column for the mean of the test pairs' objectives, repeats counted; None: a column per
            test pair.
        normalize: `cosine`: influence divided by √(self(p) self(q)), the cosine of the gradients of all checkpoints
            as one vector, in [-1, 1].
        checkpoint_weights: the checkpoint weighting: `lr`, or `uniform`: the weight of every checkpoint is 1, whatever
            its learning rate.
        preconditioner: `adam`: scale gradients by the second moments saved in the checkpoints, as Adam does, M_t =
            diag(η / (√v̂ + ε)); `none`: plain SGD, M_t = diag η.
        params: regular expression; only parameters whose names match are differentiated.
        projection: of gradients to short rows; scores are then estimates with a standard error.

    Raises:
        UsageError: a value that is not listed.
    """

    test_functional: str = _choice("loss", TEST_FUNCTIONALS)
    weight_test_pairs: bool = False
    aggregate: str | None = _choice(None, (None, "mean"))
    normalize: str = _choice("none", ("none", "cosine"))
    checkpoint_weights: str = _choice("lr", ("lr", "uniform"), of_self=True)
    preconditioner: str = _choice("none", ("none", "adam"), of_self=True)
    params: str | None = field(default=None, metadata={"of_self": True})
    projection: Projection = field(default=NONE, metadata={"of_self": True})

    def __post_init__(self) -> None:
        for each in fields(self):
            allowed, value = each.metadata.get("allowed"), getattr(self, each.name)
            if allowed is not None and value not in allowed:
                words = ", ".join(word for word in allowed if word is not None)
                raise UsageError(f"`{each.name}` should be one of {words}. Got {value!r}.")

    def describe(self, score: str) -> Mapping[str, Any]:
        """The settings of a score, `self` or `influence`, that provenance records."""
        own = {each.name: getattr(self, each.name) for each in fields(self)}
        own["projection"] = None if self.projection.kind == NONE.kind else self.projection.describe()
        of_self = [each.name for each in fields(self) if each.metadata.get("of_self")]
        return own if score == "influence" else {name: own[name] for name in of_self}

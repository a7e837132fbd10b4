"""What changes a score, beside the task itself: how gradients meet, how checkpoints weigh, what is explained."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from tracin_func.errors import UsageError

TEST_FUNCTIONALS = ("loss", "score-margin")
AGGREGATES = ("mean",)
NORMALIZATIONS = ("none", "cosine")
CHECKPOINT_WEIGHTS = ("lr", "uniform")
PRECONDITIONERS = ("none", "adam")
MOST_SEED = 2**63 - 1


@dataclass(frozen=True)
class Projection:
    """A random linear map Π with E⟨Πx, Πy⟩ = ⟨x, y⟩, one for each checkpoint, that takes gradients to short rows.

    Args:
        kind: `rademacher` or `gaussian`, dense; `sjlt`, sparse: one non-zero a coordinate (Kane and Nelson, JACM 2014);
            `kronecker`: both sides of every weight matrix apart, from its factors (LoGra, arXiv 2405.13954). `auto`:
            the exact gradients where these are cheaper, else `kronecker` where factors are captured and `sjlt`
            elsewhere. `none`: the gradients themselves.
        dim: numbers a row; of `kronecker` at most. A default of the kind when None.
        side: of `kronecker`, numbers a side of every matrix; the largest that `dim` allows when None.
        seed: what is drawn depends on it, the parameter's name and the checkpoint's, on nothing else: neither on the
            device nor on chunks or the number of processes.

    Raises:
        UsageError: a number out of range. The kind is compared with those there are when a run begins.
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
            raise UsageError("`dim` and `side` both say how wide rows are. Expected one of them.")
        if not 0 <= self.seed <= MOST_SEED:
            raise UsageError(f"`seed` of a projection should lie in 0 to 2^63 − 1. Got {self.seed}.")

    def describe(self) -> dict[str, Any]:
        """The settings that provenance records."""
        own = asdict(self)
        return {name: own[name] for name in ("kind", "seed")} if self.kind == "none" else own


NONE = Projection("none")


def _choice(default: str | None, allowed: tuple[str | None, ...], *, of_self: bool = False) -> Any:
    return field(default=default, metadata={"allowed": allowed, "of_self": of_self})


@dataclass(frozen=True)
class Method:
    """What changes a number. Provenance records all of it.

    Args:
        test_functional: the query objective: `loss` or `score-margin`.
        weight_test_pairs: test pairs get the loss's population weights too (GHM); `score-margin` has none.
        aggregate: `mean`: one column, of the mean of the test pairs' objectives, repeats counted; None: a column each.
        normalize: `cosine`: influence divided by √(self(p) self(q)), the cosine of the gradients of all checkpoints
            as one vector, in [-1, 1].
        checkpoint_weights: the checkpoint weighting: `lr`, or `uniform`: every checkpoint weighs 1, whatever its
            learning rate.
        preconditioner: `adam`: gradients meet as Adam's steps take them, M_t = diag(η / (√v̂ + ε)), by the second
            moments that checkpoints hold; `none`: as those of SGD, M_t = diag η.
        params: regular expression; only parameters in whose name it is found are differentiated.
        projection: how gradients are projected to short rows; scores are then estimates with a standard error.

    Raises:
        UsageError: a value outside what is listed.
    """

    test_functional: str = _choice("loss", TEST_FUNCTIONALS)
    weight_test_pairs: bool = False
    aggregate: str | None = _choice(None, (None, *AGGREGATES))
    normalize: str = _choice("none", NORMALIZATIONS)
    checkpoint_weights: str = _choice("lr", CHECKPOINT_WEIGHTS, of_self=True)
    preconditioner: str = _choice("none", PRECONDITIONERS, of_self=True)
    params: str | None = field(default=None, metadata={"of_self": True})
    projection: Projection = field(default=NONE, metadata={"of_self": True})

    def __post_init__(self) -> None:
        for each in fields(self):
            allowed, value = each.metadata.get("allowed"), getattr(self, each.name)
            if allowed is not None and value not in allowed:
                words = ", ".join(word for word in allowed if word is not None)
                raise UsageError(f"`{each.name}` should be one of {words}. Got {value!r}.")

    def describe(self, score: str) -> Mapping[str, Any]:
        """What provenance records of the method of a score, `self` or `influence`: what concerns it."""
        own = {each.name: getattr(self, each.name) for each in fields(self)}
        own["projection"] = None if self.projection.kind == NONE.kind else self.projection.describe()
        of_self = [each.name for each in fields(self) if each.metadata.get("of_self")]
        return own if score == "influence" else {name: own[name] for name in of_self}

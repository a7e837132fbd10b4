"""What changes a score: the words that are allowed for it, and the projection of gradients."""

from dataclasses import asdict, dataclass
from typing import Any

from tracin_func.errors import UsageError

TEST_FUNCTIONALS = ("loss", "score-margin")
AGGREGATES = ("mean",)
NORMALIZATIONS = ("none", "cosine")
CHECKPOINT_WEIGHTS = ("lr", "uniform")
PRECONDITIONERS = ("none", "adam")
DENSE = ("rademacher", "gaussian")
KINDS = ("none", "auto", *DENSE, "sjlt", "kronecker")
DIMENSIONS = {"rademacher": 512, "gaussian": 512, "sjlt": 4096, "kronecker": 4096}
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
        UsageError: a value outside what is listed.
    """

    kind: str = "auto"
    dim: int | None = None
    side: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f"`projection` should be one of {', '.join(KINDS)}. Got {self.kind!r}.")
        for name in ("dim", "side"):
            value = getattr(self, name)
            if value is not None and value < 2:
                raise UsageError(f"`{name}` of a projection should be at least 2. Got {value}.")
        if self.side is not None and self.kind != "kronecker":
            raise UsageError(f"`side` belongs to the projection 'kronecker'. Got it with {self.kind!r}; give `dim`.")
        if self.side is not None and self.dim is not None:
            raise UsageError("`dim` and `side` both say how wide rows are. Expected one of them.")
        if not 0 <= self.seed <= MOST_SEED:
            raise UsageError(f"`seed` of a projection should lie in 0 to 2^63 − 1. Got {self.seed}.")

    @property
    def width(self) -> int:
        """Numbers a row at most."""
        return self.dim or DIMENSIONS[self.kind]

    def describe(self) -> dict[str, Any]:
        """The settings that provenance records."""
        own = asdict(self)
        return {name: own[name] for name in ("kind", "seed")} if self.kind == "none" else own


NONE = Projection("none")

"""What is needed to read scores: what the loss saw of pairs, what was asked for, how scores came about."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from torch import Tensor

from tracin_func.gradients.compute import Compute
from tracin_func.results.provenance import provenance
from tracin_func.task.method import Projection


@dataclass(frozen=True)
class PairRecord:
    """What the loss saw of one table of pairs: `ids` [pairs], the rest [checkpoints, pairs].

    `loss` is without weights, `score_margin` is y (s_a − s_b) (above 0: ranked right), `weight` the loss's own
    times the pair's, `inactive` True where the gradient is exactly 0, `bin` the GHM bin (−1 for none), None with
    another loss. `target` [pairs] is +1 or −1, `count` [pairs] how often a pair was drawn, `items` the names of its
    two items. `swapped` maps an id ID1_ID2 to ID2_ID1, under which a file may know the pair; empty for ids of one's
    own.
    """

    ids: tuple[str, ...]
    items: tuple[tuple[str, str], ...]
    swapped: Mapping[str, str]
    target: Tensor
    count: Tensor
    bin: Tensor | None
    loss: Tensor
    score_margin: Tensor
    weight: Tensor
    inactive: Tensor


@dataclass(frozen=True)
class Choices:
    """What was asked for that changes a score; see `Compute`. All but the last four are about influence only."""

    test_functional: str = "loss"
    weight_test_pairs: bool = False
    aggregate: str | None = None
    normalize: str = "none"
    checkpoint_weights: str = "lr"
    preconditioner: str = "none"
    params: str | None = None
    projection: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, compute: Compute, projection: Projection) -> "Choices":
        """Those of `compute`, and the projection that was taken."""
        own = {name.name: getattr(compute, name.name) for name in fields(cls)}
        return cls(**own | {"projection": None if projection.kind == "none" else projection.describe()})


@dataclass(frozen=True)
class Run:
    """How scores came about: checkpoints with their rates, loss, engine, source, and what the user was told."""

    checkpoints: tuple[Mapping[str, Any], ...]
    loss: Mapping[str, Any]
    engine: Mapping[str, Any]
    source: Mapping[str, Any]
    notices: tuple[str, ...]
    choices: Choices = Choices()

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
            choices=asdict(self.choices),
        )

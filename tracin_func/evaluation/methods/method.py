"""What a method is: effects of training pairs on queries, or a ranking of training pairs."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from tracin_func.task.task import Task


@dataclass(frozen=True)
class Scoring:
    """A method. Its functions take a task with training pairs, checkpoints trained on them, and queries as test pairs.

    Args:
        help: what it computes, for help and tables.
        effects: of each training pair on the score margin of each query, float64 [train_pairs, queries], per visit;
            positive: training on the pair raised the margin. None for a method without queries.
        ranking: float64 [train_pairs]: pairs with high values are dropped first. By default −Σ of the effects.
        is_baseline: whether it needs no gradients; the others are compared with it.
    """

    help: str
    effects: Callable[[Task], Tensor] | None = None
    ranking: Callable[[Task], Tensor] | None = None
    is_baseline: bool = False

    def ranked(self, task: Task) -> Tensor:
        """The ranking, float64 [train_pairs]."""
        if self.ranking is not None:
            return self.ranking(task)
        assert self.effects is not None
        return -self.effects(task).sum(dim=1)

"""A task of a few pairs at two checkpoints, and its scores."""

import torch
from torch import nn

import tracin_func as ti
from tests.support import calls

TRAIN = ti.Pairs([0, 1, 2, 3], [1, 2, 3, 0], [1, -1, 1, 1], count=[1, 2, 1, 1])
TEST = ti.Pairs([4, 5, 0], [0, 1, 2], [1, 1, -1])


def small_task(**changes: object) -> ti.Task:
    """A linear scorer over six items."""
    torch.manual_seed(0)
    scorer, items = nn.Linear(3, 1), torch.randn(6, 3)
    checkpoints = [
        ti.Checkpoint({name: scale * value for name, value in scorer.state_dict().items()}, 0.1, f"c_{scale}.pt")
        for scale in (1, 2)
    ]
    names = [f"é{position}" for position in range(6)]
    more = {"item_ids": names, "item_classes": ["low", "low", "high", "high", "low", "high"], **changes}
    return ti.Task(scorer, items, TRAIN, checkpoints, TEST, ti.GHMRankingLoss(1.0, bins=4), **more)  # type: ignore[arg-type]


def both_scores(projection: ti.Projection | None = None) -> calls.Scores:
    """Self-influence and influence in one pass."""
    how = calls.how(device="cpu", engine="item", batch_size=6, projection=projection or ti.Projection("none"))
    return calls.score(small_task(), how, influence=True)


def small_scores(projection: ti.Projection | None = None) -> ti.Influence:
    found = both_scores(projection).influence
    assert found is not None
    return found


def small_self(projection: ti.Projection | None = None) -> ti.SelfInfluence:
    found = both_scores(projection).self_influence
    assert found is not None
    return found

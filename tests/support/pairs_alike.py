"""A job whose items are nearly equal two by two."""

import torch
from torch import nn

import tracin_func as ti
from tests.support.reference import Job


def nearly_equal(gap: float) -> Job:
    """Items 2k and 2k + 1 differ so little that ‖g_a − g_b‖/‖g_a‖ is about `gap`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(40, 64), nn.Softplus(), nn.Linear(64, 1))
        items = torch.randn(ITEMS, 40)
        items[1::2] = items[::2] + gap * torch.randn(ITEMS // 2, 40)
    checkpoint = ti.Checkpoint(module.state_dict(), 1.0)
    return Job(module, items, TRAIN, TRAIN, [checkpoint], ti.MarginRankingLoss(5.0))


ITEMS = 24


TRAIN = ti.Pairs(list(range(0, ITEMS, 2)) * 2, list(range(1, ITEMS, 2)) * 2, [1] * (ITEMS // 2) + [-1] * (ITEMS // 2))

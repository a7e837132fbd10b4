"""Digits of scikit-learn, ranked by their value: a task file for tracin-func, with a training of a few seconds.

Try it (scikit-learn must be installed; its file of digits is read, nothing is imported):

    tracin-func evaluate --task examples/digits.py:task --budget 5
"""

import gzip
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import tracin_func as ti

TRAIN_ITEMS, HELD_OUT_ITEMS, TRAIN_PAIRS, HELD_OUT_PAIRS = 200, 300, 1000, 3000


def digits() -> tuple[Tensor, Tensor]:
    """The 1,797 images of 64 pixels in [0, 1], and their digits."""
    spec = find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise SystemExit("This example reads the digits of scikit-learn. Install it: pip install scikit-learn")
    with gzip.open(Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz", "rt") as file:
        table = torch.from_numpy(np.loadtxt(file, delimiter=",", dtype=np.float32))
    return table[:, :-1] / 16, table[:, -1].long()


def drawn(positions: Tensor, labels: Tensor, count: int, generator: torch.Generator) -> ti.Pairs:
    """Distinct pairs of different digits; the larger digit should score higher."""
    first, second = torch.combinations(positions).T
    unequal = labels[first] != labels[second]
    rows = unequal.nonzero()[:, 0]
    rows = rows[torch.randperm(len(rows), generator=generator)[:count]]
    target = torch.where(labels[first] > labels[second], 1, -1)
    return ti.Pairs(first[rows], second[rows], target[rows])


def task(loss: ti.PairLoss | None = None, optimizer: str = "sgd") -> ti.Task:
    """A small net trained on 1,000 pairs of 200 digits; 3,000 pairs of 300 other digits are held out."""
    generator = torch.Generator().manual_seed(0)
    pixels, labels = digits()
    chosen = torch.randperm(len(pixels), generator=generator)[: TRAIN_ITEMS + HELD_OUT_ITEMS]
    pixels, labels = pixels[chosen], labels[chosen]
    places = torch.arange(len(chosen))
    train = drawn(places[:TRAIN_ITEMS], labels, TRAIN_PAIRS, generator)
    held_out = drawn(places[TRAIN_ITEMS:], labels, HELD_OUT_PAIRS, generator)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        scorer = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1))
    rate, kind = (0.2, torch.optim.SGD) if optimizer == "sgd" else (1e-3, torch.optim.Adam)
    state = kind(scorer.parameters(), lr=rate).state_dict()
    args = {"epochs": 20, "batch_size": 32, "learning_rate": rate}
    start = {"model_state_dict": scorer.state_dict(), "optimizer_state_dict": state, "args": args}
    return ti.Task(
        scorer,
        pixels,
        train,
        [ti.Checkpoint(start, name="start")],
        test=held_out,
        held_out=held_out,
        loss=loss or ti.LogisticLoss(),
        item_classes=[str(digit) for digit in labels.tolist()],
    )

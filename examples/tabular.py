"""Rank things described by a table: train, save checkpoints, find planted wrong labels, leave them out, train again.

    python examples/tabular.py                                  write tabular/, train on it and save checkpoints
    tracin-func self --task examples/tabular.py:task            score the training pairs
    python examples/tabular.py --without tabular/suspects.txt   train again without the pairs listed in a file

The data are synthetic. For data of your own, replace `write_data`: the rest reads `items.csv` (an id and numbers per
item) and `pairs.csv` (`first,second,target,split`: target 1 where the first item should score higher, else -1).
"""

import argparse
import csv
from pathlib import Path

import numpy as np
import torch
from torch import nn

import tracin_func as ti

FOLDER = Path("tabular")
ITEMS, FEATURES, TRAIN, TEST, PLANTED = 40, 6, 300, 200, 30
EPOCHS, CHECKPOINTS, LEARNING_RATE = 20, (2, 5, 10, 20), 0.2


def write_data() -> None:
    """Items with a hidden order, pairs that follow it, and PLANTED training pairs with the wrong target."""
    random = np.random.RandomState(0)
    features = random.standard_normal((ITEMS, FEATURES))
    order = features @ random.standard_normal(FEATURES) + 0.5 * np.sin(3 * features[:, 0])
    every = np.array(np.triu_indices(ITEMS, k=1)).T
    chosen = every[random.permutation(len(every))[: TRAIN + TEST]]
    target = np.where(order[chosen[:, 0]] > order[chosen[:, 1]], 1, -1)
    wrong = random.choice(TRAIN, PLANTED, replace=False)
    target[wrong] *= -1
    names = [f"thing{number:02d}" for number in range(ITEMS)]
    FOLDER.mkdir(exist_ok=True)
    with (FOLDER / "items.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([name, *row] for name, row in zip(names, features.tolist(), strict=True))
    with (FOLDER / "pairs.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["first", "second", "target", "split"])
        for row, (first, second) in enumerate(chosen.tolist()):
            writer.writerow([names[first], names[second], target[row], "train" if row < TRAIN else "test"])
    planted = [f"{names[first]}_{names[second]}\n" for first, second in chosen[np.sort(wrong)].tolist()]
    (FOLDER / "planted.txt").write_text("".join(planted))


def read_items() -> tuple[list[str], torch.Tensor]:
    """Ids and features [items, features]."""
    with (FOLDER / "items.csv").open(newline="") as stream:
        rows = list(csv.reader(stream))
    return [row[0] for row in rows], torch.tensor([[float(cell) for cell in row[1:]] for row in rows])


def read_pairs(split: str, names: list[str]) -> ti.Pairs:
    """The pairs of a split, as positions into the items."""
    return ti.PairTable(FOLDER / "pairs.csv", names, split, ids="names").pairs()


def ranker(seed: int = 0) -> nn.Module:
    """A small network that scores items: [items, features] -> [items, 1]."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(FEATURES, 32), nn.Tanh(), nn.Linear(32, 1))


def train(seed: int, without: frozenset[str] = frozenset(), save_to: Path | None = None) -> float:
    """Train on the pairs that are not in `without`, and return the share of test pairs in the right order."""
    names, items = read_items()
    every, test = read_pairs("train", names), read_pairs("test", names)
    ids = [f"{names[a]}_{names[b]}" for a, b in zip(every.first.tolist(), every.second.tolist(), strict=True)]
    pairs = every.select(torch.tensor([name not in without for name in ids]))
    model = ranker(seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    for epoch in range(1, EPOCHS + 1):
        for rows in torch.randperm(len(pairs)).split(20):
            scores = model(items)[:, 0]
            margins = pairs.target[rows] * (scores[pairs.first[rows]] - scores[pairs.second[rows]])
            optimizer.zero_grad()
            nn.functional.softplus(-margins).mean().backward()
            optimizer.step()
        if save_to is not None and epoch in CHECKPOINTS:
            ti.save_checkpoint(model, optimizer, epoch, save_to)
    with torch.no_grad():
        scores = model(items)[:, 0]
    return float((test.target * (scores[test.first] - scores[test.second]) > 0).double().mean())


def task() -> ti.Task:
    """What `tracin-func --task examples/tabular.py:task` scores."""
    names, items = read_items()
    return ti.Task(
        ranker(),
        items,
        read_pairs("train", names),
        ti.find_checkpoints(FOLDER / "checkpoints"),
        test=read_pairs("test", names),
        loss=ti.LogisticLoss(),
        item_ids=names,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--without", type=Path, help="train without the pairs whose ids are the lines of this file")
    without = parser.parse_args().without
    if without is None:
        write_data()
        accuracy = train(0, save_to=FOLDER / "checkpoints")
        print(f"trained on {TRAIN} pairs, {PLANTED} of them with the wrong target: test accuracy {accuracy:.1%}")
        return
    left_out = frozenset(without.read_text().split())
    found = len(left_out & set((FOLDER / "planted.txt").read_text().split()))
    before, after = ([train(seed, names) for seed in range(5)] for names in (frozenset[str](), left_out))
    print(f"left out {len(left_out)} pairs, {found} of them planted")
    print(f"test accuracy, mean of 5 seeds: {np.mean(before):.1%} with them, {np.mean(after):.1%} without")


if __name__ == "__main__":
    main()

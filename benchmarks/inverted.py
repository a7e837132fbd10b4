"""How many flipped training pairs the lists of `--suggest flip` hold: on all test pairs, and on five of them.

22 of the 441 training pairs of the embedded example get the wrong target and are scored at its checkpoints, which
were trained on the correct ones. Prints `found of listed`, first with the score margins that tables hold, then without
them, as in JSON. Run: python benchmarks/inverted.py
"""

import random
from collections.abc import Sequence
from dataclasses import replace

import torch

import tracin_func as ti
from benchmarks.mislabelled import FLIPPED, flipped
from tracin_func.results.exclusion_rule import Rule
from tracin_func.results.exclusions import Exclusions
from tracin_func.results.flips import suggested_flips
from tracin_func.results.score_table import ScoreTable
from tracin_func.results.scored import score_table

DRAWS, CHOICES, FEW = 3, 10, 5
LOSSES = {"the loss of the training": {}, "standard loss": {"loss_type": "standard"}}


def counts(found: Exclusions, wrong: set[str]) -> str:
    """Of how many listed pairs the target is wrong."""
    return f"{len(wrong & set(found.ids))} of {len(found)}"


def suggested(table: ScoreTable, columns: Sequence[int], *, margins: bool) -> Exclusions:
    """The list by these test columns alone."""
    some = replace(
        table,
        tests=tuple(table.tests[column] for column in columns),
        scores=table.scores[:, list(columns)],
        margins=table.margins if margins else {},
    )
    return suggested_flips(some, Rule())


def main() -> None:
    """Print the lists of each loss and set of flipped pairs."""
    for name, options in LOSSES.items():
        task = ti.sources.demo(num_test="all", **options)
        for seed in range(DRAWS):
            rows = torch.randperm(len(task.train_pairs), generator=torch.Generator().manual_seed(seed))[:FLIPPED]
            job = replace(task, train=flipped(task.train_pairs, rows))
            scores, own = ti.influence(job), ti.self_influence(job)
            assert isinstance(own, ti.SelfInfluence)
            wrong, table = {scores.ids[row] for row in rows.tolist()}, score_table(scores)
            every = range(len(table.tests))
            few = [random.Random(choice).sample(every, FEW) for choice in range(CHOICES)]
            print(f"{name}, draw {seed}: self-influence {counts(own.flips(), wrong)}")
            for margins in (True, False):
                found = [counts(suggested(table, columns, margins=margins), wrong) for columns in (every, *few)]
                words = "with margins" if margins else "without them"
                print(f"  {words}: {len(every)} test pairs {found[0]}; {FEW} of them {', '.join(found[1:])}")


if __name__ == "__main__":
    main()

"""Sources of task and model files, to be written to a folder of a test's own."""

# The module that the job files import: a neighbour of theirs, or in a folder beside them.
NEIGHBOUR = """
import torch
import tracin_func as ti


def job():
    torch.manual_seed(0)
    scorer = torch.nn.Linear(5, 1)
    pairs = ti.Pairs([0, 1, 2], [1, 2, 3], [1, -1, 1])
    return ti.Task(scorer, torch.randn(4, 5), pairs, [ti.Checkpoint(scorer.state_dict(), 0.1)], pairs)
"""

EARLY = """
from {neighbour} import job
"""

LATE = """
def job():
    from {neighbour} import job
    return job()
"""

OWN_PATH = """
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "lib"))


def job():
    from {neighbour} import job
    return job()
"""

# Training scripts that read their own options when they are imported.
OPTIONAL_OPTION = """
import argparse
from tests.support.cases.audio import Ranker

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=7)
settings = parser.parse_args()


class Net(Ranker):
    pass
"""

REQUIRED_OPTION = OPTIONAL_OPTION.replace("type=int, default=7", "required=True")

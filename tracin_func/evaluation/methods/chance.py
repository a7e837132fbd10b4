"""Random scores: the control that no evaluation may reward."""

import hashlib

import torch
from torch import Tensor

from tracin_func.evaluation.methods.method import Scoring
from tracin_func.evaluation.methods.tracin import influence_scores
from tracin_func.task.checkpoints import digest
from tracin_func.task.task import Task


def _generator(task: Task) -> torch.Generator:
    """Seeded by the targets and the last checkpoint, so that each draw and run has its own numbers."""
    own = digest({"target": task.train_pairs.target, **task.checkpoints[-1].peek().weights})
    return torch.Generator().manual_seed(int(hashlib.sha256(own.encode()).hexdigest()[:12], 16))


def shuffled(task: Task) -> Tensor:
    """TracIn with the training pairs exchanged at random."""
    found = influence_scores(task)
    return found[torch.randperm(len(found), generator=_generator(task))]


def at_random(task: Task) -> Tensor:
    """A random order of the training pairs."""
    return torch.rand(len(task.train_pairs), generator=_generator(task), dtype=torch.float64)


RANDOM = Scoring("random: shuffled TracIn, a random order", shuffled, at_random, is_baseline=True)

"""Training a small ranker on drawn pairs, with checkpoints.

The loss is the per-batch GHM margin loss with Adam: in a batch with R_k pairs in the bin of pair p, the weight of p is
R_k^(−alpha), and the loss is the mean over the batch of weight × margin loss.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tracin_func.errors import NumericalError, UsageError
from tracin_func.losses.ghm import GHMRankingLoss
from tracin_func.task.pairs import Pairs
from tracin_func.training.checkpoint import save_checkpoint


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of one run, recorded in its checkpoints.

    A checkpoint is saved after each of `epochs`, which increase; the last one ends the run. Tone and material are only
    recorded.
    """

    frequency: str = "500hz"
    material: str = "plastic"
    epochs: tuple[int, ...] = (1, 2, 3, 4, 6, 8)
    margin: float = 10.0
    ghm_bins: int = 10
    ghm_alpha: float = 0.75
    batch_size: int = 32
    learning_rate: float = 1e-4
    seed: int = 42  # of the initial weights and of the order of pairs

    def __post_init__(self) -> None:
        rising = all(before < after for before, after in zip(self.epochs, self.epochs[1:], strict=False))
        if not self.epochs or self.epochs[0] < 1 or not rising:
            raise UsageError(f"`epochs` should be increasing numbers from 1. Got {self.epochs}.")
        if self.batch_size < 2:
            raise UsageError(f"`batch_size` should be at least 2, for BatchNorm. Got {self.batch_size}.")

    def as_args(self) -> dict[str, Any]:
        """The settings by their names in the `args` of checkpoints."""
        fixed = {"loss_type": "ghm", "ghm_variant": "symmetric", "exclusions_file": None, "synthetic": True}
        return asdict(self) | {"epochs": self.epochs[-1]} | fixed


@dataclass(frozen=True)
class EpochReport:
    """Results of one epoch; pair accuracies count repeated pairs as often as drawn."""

    epoch: int
    epochs: int
    loss: float
    train_accuracy: float
    test_accuracy: float


def train(
    model: nn.Module,
    items: Tensor,
    train_pairs: Pairs,
    test_pairs: Pairs,
    settings: TrainingSettings,
    directory: Path,
    *,
    on_epoch: Callable[[EpochReport], None] | None = None,
) -> list[Path]:
    """Train `model` from its current weights and save a checkpoint at each of `settings.epochs`.

    One thread is used: results then do not depend on the number of threads, and a small model on busy cores is four
    times faster (measured). Equal weights, settings and items give bit-equal checkpoints. torch's global random state
    and number of threads are not changed.

    Args:
        model: a batch of items -> scores [items]; it is trained in place.
        items: float [items, 1, frequencies, frames], on the CPU.
        train_pairs: over `items`; a pair with count k is visited k times per epoch.
        test_pairs: over `items`, for their pair accuracy.
        settings: see `TrainingSettings`.
        directory: folder for `model_epoch_N.pt`, created if missing.
        on_epoch: called after every epoch.

    Returns:
        Paths of the checkpoints, by epoch. Each holds `model_state_dict`, `optimizer_state_dict`, `epoch`,
        `train_accuracy`, `test_accuracy` and `args`.

    Raises:
        NumericalError: a score became NaN or infinite.
    """
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.learning_rate)
    shuffle = torch.Generator().manual_seed(settings.seed)
    visits = train_pairs.select(torch.arange(len(train_pairs)).repeat_interleave(train_pairs.counts))
    last, paths = settings.epochs[-1], []
    for epoch in range(1, last + 1):
        with _one_thread():
            loss = _train_epoch(model, optimizer, items, visits, settings, shuffle)
            scores = score(model, items)
        report = EpochReport(epoch, last, loss, accuracy(scores, train_pairs), accuracy(scores, test_pairs))
        if epoch in settings.epochs:
            shares = {"train_accuracy": report.train_accuracy, "test_accuracy": report.test_accuracy}
            paths.append(save_checkpoint(model, optimizer, epoch, directory, args=settings.as_args(), **shares))
        if on_epoch is not None:
            on_epoch(report)
    return paths


def score(model: nn.Module, items: Tensor) -> Tensor:
    """Scores [items] in eval mode; the mode of `model` is restored."""
    training = model.training
    model.eval()
    with torch.no_grad():
        scores = torch.cat([model(batch) for batch in torch.split(items, 32)])
    model.train(training)
    return scores


def accuracy(scores: Tensor, pairs: Pairs) -> float:
    """Pair accuracy: share of drawn pairs in the right order by `scores` [items]; a tie is wrong."""
    right = pairs.target * (scores[pairs.first] - scores[pairs.second]) > 0
    return float((right * pairs.counts).sum() / pairs.counts.sum())


def ghm_batch_loss(first: Tensor, second: Tensor, target: Tensor, loss: GHMRankingLoss) -> Tensor:
    """Mean over the pairs of one batch of R_k^(−alpha) × margin loss, with R_k of the batch's pairs in bin k."""
    index = loss.bin(first.detach(), second.detach(), target)
    density = torch.bincount(index, minlength=loss.bins)[index]
    return (density.to(first) ** -loss.alpha * loss(first, second, target)).mean()


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    items: Tensor,
    visits: Pairs,
    settings: TrainingSettings,
    shuffle: torch.Generator,
) -> float:
    """One epoch in random order; returns the mean loss of the batches."""
    model.train()
    ghm = GHMRankingLoss(settings.margin, settings.ghm_bins, settings.ghm_alpha, settings.batch_size)
    order = torch.randperm(len(visits), generator=shuffle)
    total = 0.0
    batches = torch.split(order, settings.batch_size)
    for rows in batches:
        # An item in several pairs of the batch is scored once.
        both = torch.stack([visits.first[rows], visits.second[rows]])
        used, slot = torch.unique(both, return_inverse=True)
        scores = model(items[used])
        if not scores.isfinite().all():
            raise NumericalError("A score became NaN or infinite in training. Lower `learning_rate`.")
        # index_select, not indexing: its backward adds in one fixed order.
        first, second = scores.index_select(0, slot[0]), scores.index_select(0, slot[1])
        loss = ghm_batch_loss(first, second, visits.target[rows].to(scores), ghm)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        total += loss.item()
    return total / len(batches)

"""Training a task's scorer anew on some of its pairs, in memory: the outcome that scores should predict."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tracin_func.errors import InputError, NumericalError, UsageError
from tracin_func.losses.custom import as_loss
from tracin_func.task.checkpoints import Checkpoint
from tracin_func.task.loss import PairLoss
from tracin_func.task.pairs import PairBlock, Pairs
from tracin_func.task.task import Task
from tracin_func.training.settings import OPTIMIZERS

INITIAL = ("drawn", "scorer")
_AT_ONCE = 256  # items scored at once


@dataclass(frozen=True)
class Recipe:
    """How a scorer is trained anew.

    Args:
        epochs: passes over the pairs.
        batch_size: pairs per step; the last batch of an epoch may be smaller.
        learning_rate: constant.
        optimizer: `adam`, `adamw` or `sgd`.
        weight_decay: of the optimiser.
        checkpoints: number of states to keep, at equal distances of epochs, the last one at the end.
        start: `drawn`: weights are redrawn with the seed, by `reset_parameters` of every module that has one and whose
            parameters are trained. `scorer`: the weights that the scorer has.

    Raises:
        UsageError: a value out of range.
    """

    epochs: int = 20
    batch_size: int = 32
    learning_rate: float = 1e-3
    optimizer: str = "adam"
    weight_decay: float = 0.0
    checkpoints: int = 6
    start: str = "drawn"

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "checkpoints"):
            if getattr(self, name) < 1:
                raise UsageError(f"`{name}` of a retraining should be at least 1. Got {getattr(self, name)}.")
        if not 0 < self.learning_rate < float("inf"):
            raise UsageError(f"`learning_rate` of a retraining should be above 0. Got {self.learning_rate}.")
        for name, allowed in (("optimizer", OPTIMIZERS), ("start", INITIAL)):
            if getattr(self, name) not in allowed:
                raise UsageError(f"`{name}` should be one of {', '.join(allowed)}. Got {getattr(self, name)!r}.")

    @property
    def kept(self) -> list[int]:
        """The epochs after which a state is kept."""
        count = min(self.checkpoints, self.epochs)
        return [round(self.epochs * step / count) for step in range(1, count + 1)]

    def describe(self) -> dict[str, Any]:
        """The settings by name."""
        return asdict(self)


@dataclass(frozen=True)
class Retrained:
    """The outcome of one retraining.

    Args:
        scores: of all items at the end, float32 [items].
        states: checkpoints as saved by a training, with `model_state_dict`, `optimizer_state_dict` and `epoch`; empty
            unless they were asked for.
    """

    scores: Tensor
    states: tuple[dict[str, Any], ...] = ()

    def margins(self, pairs: Pairs) -> Tensor:
        """y (s_a − s_b) of pairs, float64 [pairs]."""
        scores = self.scores.double()
        return pairs.target * (scores[pairs.first] - scores[pairs.second])

    def checkpoints(self) -> list[Checkpoint]:
        """The kept states as checkpoints of a task."""
        return [Checkpoint(state, name=f"epoch {state['epoch']}") for state in self.states]


def recipe_of(task: Task, **given: Any) -> Recipe:
    """The recipe of the training that the task's last checkpoint records, with the values `given` that are not None.

    The optimiser and its learning rate come from its state, the rest from `args`: `epochs`, `batch_size`,
    `weight_decay`. What is not recorded has the default of `Recipe`.
    """
    last = task.checkpoints[-1].peek()
    found: dict[str, Any] = {}
    groups = (last.optimizer or {}).get("param_groups") or []
    if groups:
        moments = (last.optimizer or {}).get("state") or {}
        adaptive = "betas" in groups[0] or any("exp_avg" in each for each in moments.values())
        found |= {"optimizer": "adam" if adaptive else "sgd", "weight_decay": float(groups[0].get("weight_decay", 0))}
        found |= {"learning_rate": float(groups[0].get("initial_lr", groups[0]["lr"]))} if groups[0]["lr"] else {}
    for name, kind in (("epochs", int), ("batch_size", int), ("learning_rate", float), ("weight_decay", float)):
        value = last.args.get(name)
        if isinstance(value, int | float) and value > 0:
            found[name] = kind(value)
    found |= {name: value for name, value in given.items() if value is not None}
    return Recipe(**found)


def retrain(task: Task, pairs: Pairs, seed: int, recipe: Recipe, *, states: bool = False) -> Retrained:
    """Train a copy of the task's scorer on `pairs` with the task's loss; the scorer itself is not changed.

    Each step takes the mean over a batch of weight × ℓ; weights of the loss (GHM) are those of the batch. One thread is
    used, so that equal arguments give bit-equal outcomes on one machine. Initial weights, order of pairs and dropout
    depend on `seed` only; torch's global random state is not changed.

    Args:
        task: its scorer, items and loss are used.
        pairs: over the items of the task; a pair with count k is visited k times per epoch.
        seed: of initial weights and of the order of pairs.
        recipe: optimiser, epochs, batch size.
        states: also return the checkpoints.

    Raises:
        InputError: a pairwise scorer (`joint`), or a scorer without trainable parameters.
        NumericalError: a score became NaN or infinite.
    """
    require_retrainable(task)
    with _alone(seed):
        model = initialised(task.scorer, seed, recipe.start)
        optimizer = _optimizer(model, recipe)
        order = torch.Generator().manual_seed(seed)
        _, block = next(pairs.blocks(len(pairs)))  # selecting rows of a block checks nothing again
        visits = block.select(torch.arange(len(pairs)).repeat_interleave(pairs.counts))
        kept: list[dict[str, Any]] = []
        for epoch in range(1, recipe.epochs + 1):
            _train_epoch(model, optimizer, task, visits, recipe, order)
            if states and epoch in recipe.kept:
                kept.append(_state(model, optimizer, epoch, recipe))
        return Retrained(_scores(model, task), tuple(kept))


def require_retrainable(task: Task) -> None:
    """Raise InputError for a task whose scorer cannot be trained here."""
    if task.joint:
        raise InputError("retraining needs a scorer of single items. This task has a pairwise scorer (`joint`).")
    if not any(parameter.requires_grad for parameter in task.scorer.parameters()):
        raise InputError("the scorer has no trainable parameter (requires_grad), so it cannot be retrained.")


def initialised(scorer: nn.Module, seed: int, start: str = "drawn") -> nn.Module:
    """A copy of `scorer` with initial weights; see `Recipe.start`. Gradients and hooks of the scorer are not copied."""
    model = copy.deepcopy(scorer)
    if start == "drawn":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for module in model.modules():
                own = list(module.parameters(recurse=False))
                if callable(reset := getattr(module, "reset_parameters", None)) and all(p.requires_grad for p in own):
                    reset()
    model.zero_grad(set_to_none=True)
    return model


def checkpoint_scores(task: Task) -> Tensor:
    """The score of every item at every checkpoint, float64 [checkpoints, items]."""
    model, found = copy.deepcopy(task.scorer), []
    for checkpoint in task.checkpoints:
        model.load_state_dict(checkpoint.peek().weights)
        found.append(_scores(model, task).double())
    return torch.stack(found)


def batch_loss(loss: PairLoss, first: Tensor, second: Tensor, pairs: PairBlock) -> Tensor:
    """Mean over the pairs of one batch of weight × ℓ(s_a, s_b, y); weights of the loss are those of the batch."""
    target, margin = pairs.target.to(first), None if pairs.margin is None else pairs.margin.to(first)
    found = loss(first, second, target, margin)
    if pairs.weight is not None:
        found = found * pairs.weight.to(found)
    if loss.weighted:
        fixed = first.detach(), second.detach(), target, margin
        weigh = loss.weights(loss.tally(*fixed, torch.ones(len(pairs), dtype=torch.int64)))
        found = found * weigh(*fixed).to(found)
    return found.mean()


def _train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    task: Task,
    visits: PairBlock,
    recipe: Recipe,
    order: torch.Generator,
) -> None:
    model.train()
    loss = as_loss(task.loss)
    for rows in torch.split(torch.randperm(len(visits), generator=order), recipe.batch_size):
        batch = visits.select(rows)
        # An item in several pairs of the batch is scored once.
        used, slot = torch.unique(torch.stack([batch.first, batch.second]), return_inverse=True)
        scores = _finite(model(task.items.take(used)))
        # index_select, not indexing: its backward adds in one fixed order.
        value = batch_loss(loss, scores.index_select(0, slot[0]), scores.index_select(0, slot[1]), batch)
        optimizer.zero_grad()
        torch.autograd.backward(value)
        optimizer.step()


def _scores(model: nn.Module, task: Task) -> Tensor:
    model.eval()
    with torch.no_grad():
        found = [_finite(model(task.items.take(part))) for part in torch.arange(len(task.items)).split(_AT_ONCE)]
    return torch.cat(found).float()


def _finite(scores: Tensor) -> Tensor:
    if not bool(scores.isfinite().all()):
        raise NumericalError("a score became NaN or infinite in a retraining. Lower its learning rate.")
    return scores.reshape(len(scores))


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    own: Mapping[str, Any] = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay}
    make: Any = OPTIMIZERS[recipe.optimizer]
    optimizer: torch.optim.Optimizer = make(trained, **own)
    return optimizer


def _state(model: nn.Module, optimizer: torch.optim.Optimizer, epoch: int, recipe: Recipe) -> dict[str, Any]:
    """A checkpoint that shares no memory with the model."""
    content = {"model_state_dict": model.state_dict(), "optimizer_state_dict": optimizer.state_dict(), "epoch": epoch}
    return copy.deepcopy(content) | {"args": recipe.describe()}


@contextmanager
def _alone(seed: int) -> Iterator[None]:
    """One thread and a random state of `seed` in the block; both as before after it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)

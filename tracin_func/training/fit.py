"""Training a scorer on ranking pairs: the loop over epochs and batches.

The loss of a batch is the mean over its pairs of weight × loss. A weighted loss takes its weights from the pairs of the
batch: with R_k of them in the bin of pair p, the GHM weight of p is R_k^(−alpha).
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tracin_func.errors import InputError, NumericalError
from tracin_func.losses.custom import as_loss
from tracin_func.losses.ghm import GHMRankingLoss
from tracin_func.losses.registry import as_args
from tracin_func.task.items import Items, as_items
from tracin_func.task.loss import PairLoss
from tracin_func.task.pairs import Pairs
from tracin_func.training.ranking import accuracy, differences, forward
from tracin_func.training.settings import TrainingSettings
from tracin_func.training.state import RunState, deterministic


@dataclass(frozen=True)
class EpochReport:
    """Results of one epoch.

    Args:
        epoch, epochs: its number, from 1, and that of the last one.
        step: steps of the optimiser so far.
        loss: mean loss of its batches.
        learning_rate: of the steps of this epoch.
        train_accuracy, test_accuracy: pair accuracy after it in eval mode, repeats counted; None without such pairs.
        bins: training pairs, repeats counted, in no bin and in each bin of the loss; empty for a loss without bins.
    """

    epoch: int
    epochs: int
    step: int
    loss: float
    learning_rate: float
    train_accuracy: float
    test_accuracy: float | None
    bins: tuple[int, ...] = ()


@dataclass(frozen=True, repr=False)
class Trained:
    """The outcome of `fit`.

    Args:
        scorer: the trained module.
        checkpoints: by epoch; what `save` returned for each, such as its content or path. A `Task` takes them.
        history: the report of every epoch.
    """

    scorer: nn.Module
    checkpoints: list[Any] = field(default_factory=list)
    history: list[EpochReport] = field(default_factory=list)

    def __repr__(self) -> str:
        last = self.history[-1]
        held_out = "" if last.test_accuracy is None else f", {last.test_accuracy:.1%} of held-out pairs"
        return (
            f"Trained({type(self.scorer).__qualname__}: {last.epoch} epochs, pair accuracy {last.train_accuracy:.1%} "
            f"of training pairs{held_out})"
        )


def kept(content: dict[str, Any]) -> Any:
    """The content of a checkpoint itself, to keep it in memory."""
    return content


def fit(
    scorer: nn.Module,
    items: Any,
    train: Pairs,
    loss: PairLoss | Callable[..., Tensor] | None,
    settings: TrainingSettings,
    *,
    held_out: Pairs | None = None,
    joint: bool = False,
    device: torch.device | str = "cpu",
    args: Mapping[str, Any] | None = None,
    state: Mapping[str, Any] | None = None,
    save: Callable[[dict[str, Any]], Any] = kept,
    on_epoch: Callable[[EpochReport], None] | None = None,
) -> Trained:
    """Train `scorer`, in place and from its current weights.

    Equal weights, settings and items give bit-equal checkpoints on the CPU, also after an interruption: with the
    content of a checkpoint as `state` the run continues behind it. torch's global random state and number of threads
    are not changed. Each item of a batch is scored once, however many of its pairs contain it.

    Args:
        scorer: batch of items -> scores [items] or [items, 1]; with `joint`, two batches -> score differences [pairs].
        items: those of a `Task`.
        train: the training pairs.
        loss: as that of a `Task`.
        settings: see `TrainingSettings`.
        held_out: pairs for the pair accuracy after each epoch; nothing else depends on them.
        joint: the scorer takes both items of a pair at once.
        device: where it runs; the scorer stays there.
        args: further settings for the `args` of checkpoints, which scoring reads.
        state: the content of a checkpoint of this run to continue from; None for the start.
        save: receives the content of each checkpoint, whose tensors it may keep.
        on_epoch: called after every epoch.

    Returns:
        The scorer, what `save` returned for each checkpoint, and the report of every epoch.

    Raises:
        NumericalError: the loss became NaN or infinite.
        InputError: there are fewer pairs than a batch takes and `drop_last` leaves none, or `state` does not fit.
    """
    device = torch.device(device)
    visits = train.select(torch.arange(len(train)).repeat_interleave(train.counts))
    if settings.drop_last and len(visits) < settings.batch_size:
        raise InputError(
            f"{len(visits)} training pairs are fewer than a batch takes. Lower `batch_size={settings.batch_size}`."
        )
    data = _Data(as_items(items), train, visits, held_out, as_loss(loss), joint, device)
    found = Trained(scorer.to(device))
    with deterministic(settings, device):
        run = RunState(scorer, settings, device)
        if state is not None:
            run.restore(state)
            found.history.extend(EpochReport(**each) for each in state["history"])
        for epoch in range(run.epoch + 1, settings.epochs + 1):
            report = _train_epoch(run, data)
            found.history.append(report)
            if settings.is_saved(epoch):
                shares = {"train_accuracy": report.train_accuracy}
                shares |= {} if report.test_accuracy is None else {"test_accuracy": report.test_accuracy}
                history = {"history": [asdict(each) for each in found.history]}
                own_args = {"args": as_args(data.loss) | settings.as_args() | dict(args or {})}
                found.checkpoints.append(save(run.content() | shares | history | own_args))
            if on_epoch is not None:
                on_epoch(report)
    return found


def batch_loss(
    first: Tensor,
    second: Tensor,
    target: Tensor,
    loss: PairLoss,
    margin: Tensor | None = None,
    weight: Tensor | None = None,
) -> Tensor:
    """Mean over the pairs of one batch of weight × loss; `weight` [pairs] are further weights of the pairs."""
    values = loss(first, second, target, margin)
    if loss.weighted:
        values = loss.batch_weights(first.detach(), second.detach(), target, margin) * values
    return (values if weight is None else weight * values).mean()


@dataclass(frozen=True)
class _Data:
    """What a run trains on; `visits` has a row for each time a training pair is drawn."""

    items: Items
    train: Pairs
    visits: Pairs
    held_out: Pairs | None
    loss: PairLoss
    joint: bool
    device: torch.device


def _train_epoch(run: RunState, data: _Data) -> EpochReport:
    """The next epoch, in random order."""
    settings, rate, held_out = run.settings, run.learning_rate, data.held_out
    run.scorer.train()
    batches = torch.randperm(len(data.visits), generator=run.shuffle).split(settings.batch_size)
    if settings.drop_last and len(batches[-1]) < settings.batch_size:
        batches = batches[:-1]
    total = 0.0
    for rows in batches:
        run.step += 1
        loss = _loss_of(run, data, rows)
        run.optimizer.zero_grad()
        torch.autograd.backward(loss)
        run.optimizer.step()
        total += loss.item()
    ahead = _ahead(run, data, data.train)
    shares = accuracy(ahead, data.train), None if held_out is None else accuracy(_ahead(run, data, held_out), held_out)
    run.end_epoch(total / len(batches))
    return EpochReport(run.epoch, settings.epochs, run.step, total / len(batches), rate, *shares, _bins(ahead, data))


def _bins(ahead: Tensor, data: _Data) -> tuple[int, ...]:
    if not isinstance(data.loss, GHMRankingLoss):
        return ()
    scored = ahead, torch.zeros_like(ahead), data.train.target.to(ahead), data.train.margin
    return tuple(data.loss.tally(*scored, data.train.counts).tolist())


def _loss_of(run: RunState, data: _Data, rows: Tensor) -> Tensor:
    """The loss of the batch of visits `rows`."""
    scorer, visits = run.scorer, data.visits
    both = torch.stack([visits.first[rows], visits.second[rows]])
    if data.joint:
        first = forward(scorer, data.items, list(both), data.device)
        second = torch.zeros_like(first)
    else:
        # An item in several pairs of the batch is scored once.
        used, slot = torch.unique(both, return_inverse=True)
        scores, slot = forward(scorer, data.items, [used], data.device), slot.to(data.device)
        # index_select, not indexing: its backward adds in one fixed order.
        first, second = scores.index_select(0, slot[0]), scores.index_select(0, slot[1])
    _require_finite(run, first - second)
    margin, weight = (None if each is None else each[rows].to(first) for each in (visits.margin, visits.weight))
    loss = batch_loss(first, second, visits.target[rows].to(first), data.loss, margin, weight)
    _require_finite(run, loss)
    return loss


def _ahead(run: RunState, data: _Data, pairs: Pairs) -> Tensor:
    """Score differences of pairs after an epoch."""
    found = differences(run.scorer, data.items, pairs, data.joint, data.device)
    _require_finite(run, found)
    return found


def _require_finite(run: RunState, values: Tensor) -> None:
    if not values.isfinite().all():
        raise NumericalError(
            f"the loss became NaN or infinite in epoch {run.epoch + 1}, step {run.step}. Lower "
            f"`learning_rate={run.settings.learning_rate:g}`, or check the items."
        )

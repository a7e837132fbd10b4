"""Training the embedded ranker: its loss, its checkpoints, and what the embedded default reaches."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tracin_func.errors import NumericalError, UsageError
from tracin_func.losses.ghm import GHMRankingLoss
from tracin_func.sources.demo.cache import EmbeddedDemo
from tracin_func.sources.demo.ranker import AngleRanker
from tracin_func.sources.recordings.drawing import draw_sequence, merge_repeats, sample_test_pairs, split_items
from tracin_func.sources.recordings.frontend import FrontEnd
from tracin_func.sources.recordings.tree import find_clips, load_items
from tracin_func.task.pairs import Pairs
from tracin_func.training.checkpoint import save_content
from tracin_func.training.fit import EpochReport, batch_loss, fit
from tracin_func.training.ranking import accuracy, score
from tracin_func.training.settings import TrainingSettings

QUICK = TrainingSettings(
    epochs=3,
    checkpoint_interval=(1, 3),
    learning_rate=1e-4,
    weight_decay=0.0,
    batch_size=8,
    drop_last=False,
    plateau=None,
)
GHM = GHMRankingLoss(margin=10.0, batch_size=8)


@pytest.fixture(scope="module")
def items() -> Tensor:
    """Small spectrograms whose line stands out the more, the higher their class (0, 0, 0, 1, 1, 1, ...)."""
    noise = torch.randn(12, 1, 33, 20, generator=torch.Generator().manual_seed(0))
    noise[:, :, 9] += torch.arange(4).repeat_interleave(3)[:, None, None] * 8.0
    return noise


def all_pairs(positions: list[int]) -> Pairs:
    pairs = [(a, b) for a in positions for b in positions if a // 3 != b // 3]
    return Pairs([a for a, _ in pairs], [b for _, b in pairs], [1 if a // 3 > b // 3 else -1 for a, b in pairs])


TRAIN, TEST = all_pairs([0, 1, 3, 4, 6, 7, 9, 10]), all_pairs([2, 5, 8, 11])


def train(
    model: AngleRanker, items: Tensor, pairs: Pairs, settings: TrainingSettings, folder: Path, **more: Any
) -> list[Path]:
    save = partial(save_content, folder)
    return fit(model, items, pairs, GHM, settings, held_out=TEST, save=save, **more).checkpoints


def load(path: Path) -> dict[str, Any]:
    checkpoint: dict[str, Any] = torch.load(path, weights_only=True)
    return checkpoint


def test_checkpoints_have_the_labs_keys_and_can_be_loaded(items: Tensor, tmp_path: Path) -> None:
    reports: list[EpochReport] = []
    paths = train(
        AngleRanker.seeded(QUICK.seed),
        items,
        TRAIN,
        QUICK,
        tmp_path / "new",
        on_epoch=reports.append,
        args={"synthetic": True},
    )
    assert [path.name for path in paths] == ["model_epoch_1.pt", "model_epoch_3.pt"]
    assert [report.epoch for report in reports] == [1, 2, 3]
    checkpoint = load(paths[-1])
    keys = {"model_state_dict", "optimizer_state_dict", "epoch", "train_accuracy", "test_accuracy", "args"}
    assert set(checkpoint) == keys | {"scheduler_state_dict", "rng", "step", "history"}
    args = checkpoint["args"]
    expected = {"margin": 10.0, "loss_type": "ghm", "ghm_bins": 10, "ghm_alpha": 0.75, "batch_size": 8}
    expected |= {"ghm_variant": "symmetric", "learning_rate": 1e-4, "seed": 42, "synthetic": True}
    assert expected.items() <= args.items()
    model = AngleRanker()
    model.load_state_dict(checkpoint["model_state_dict"])
    optimizer = torch.optim.Adam(model.parameters())
    optimizer.load_state_dict(checkpoint["optimizer_state_dict"])
    assert optimizer.param_groups[0]["lr"] == 1e-4
    assert checkpoint["epoch"] == 3
    assert checkpoint["test_accuracy"] == accuracy(ahead(score(model, items), TEST), TEST) == reports[-1].test_accuracy


def test_it_learns_and_the_loss_falls(items: Tensor, tmp_path: Path) -> None:
    reports: list[EpochReport] = []
    settings = replace(QUICK, epochs=12, checkpoint_interval=12, learning_rate=1e-3)
    train(AngleRanker.seeded(QUICK.seed), items, TRAIN, settings, tmp_path, on_epoch=reports.append)
    assert reports[-1].loss < reports[0].loss / 2
    assert reports[-1].train_accuracy > 0.9
    assert (reports[-1].test_accuracy or 0) > 0.8


def test_the_same_settings_give_the_same_bytes_at_any_number_of_threads(items: Tensor, tmp_path: Path) -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    first = train(AngleRanker.seeded(QUICK.seed), items, TRAIN, QUICK, tmp_path / "a")
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(4)
    threads = torch.get_num_threads()
    torch.set_num_threads(3 - threads if threads < 3 else 1)
    second = train(AngleRanker.seeded(QUICK.seed), items, TRAIN, QUICK, tmp_path / "b")
    assert torch.get_num_threads() != threads
    torch.set_num_threads(threads)
    other = train(AngleRanker.seeded(43), items, TRAIN, replace(QUICK, seed=43), tmp_path / "c")
    for left, right in zip(first, second, strict=True):
        assert left.read_bytes() == right.read_bytes()
    weights = [load(paths[0])["model_state_dict"]["head.1.weight"] for paths in (first, other)]
    assert not torch.equal(*weights)


def test_a_pair_drawn_twice_is_visited_twice(items: Tensor, tmp_path: Path) -> None:
    """Adam's step counter tells the number of batches."""
    twice = Pairs(TRAIN.first, TRAIN.second, TRAIN.target, count=torch.full((len(TRAIN),), 2))
    for pairs, visits in ((TRAIN, len(TRAIN)), (twice, 2 * len(TRAIN))):
        path = train(
            AngleRanker.seeded(QUICK.seed), items, pairs, replace(QUICK, epochs=1, checkpoint_interval=1), tmp_path
        )[0]
        steps = load(path)["optimizer_state_dict"]["state"][0]["step"]
        assert int(steps) == -(-visits // QUICK.batch_size)


def test_batch_loss_is_the_plain_ghm_written_out() -> None:
    first, second = (torch.randn(20, generator=torch.Generator().manual_seed(seed)).mul(6).double() for seed in (0, 1))
    target = torch.tensor([1.0, -1.0]).repeat(10).double()
    bins = [
        min(int(10 / (1 + np.exp(-(3 - float(y * (a - b)))))), 9) for a, b, y in zip(first, second, target, strict=True)
    ]
    assert len(set(bins)) > 3
    hinges = torch.relu(3 - target * (first - second))
    expected = sum(float(hinges[p]) / bins.count(bins[p]) ** 0.75 for p in range(20)) / 20
    loss = GHMRankingLoss(margin=3.0, bins=10, alpha=0.75)
    assert float(batch_loss(first, second, target, loss)) == pytest.approx(expected, rel=1e-12)
    plain = batch_loss(first, second, target, replace(loss, alpha=0.0))
    assert float(plain) == pytest.approx(float(hinges.mean()), rel=1e-12)


def test_accuracy_counts_repeats_and_a_tie_is_wrong() -> None:
    pairs = Pairs([0, 1, 2], [1, 2, 3], [1, -1, 1], count=[3, 2, 1])
    assert accuracy(ahead(torch.tensor([5.0, 4.0, 1.0, 1.0]), pairs), pairs) == pytest.approx(3 / 6)


def test_settings_and_losses_that_cannot_be_are_refused(items: Tensor, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"or increasing epochs from 1 to 2. Got \(2, 2\)"):
        TrainingSettings(epochs=2, checkpoint_interval=(2, 2))
    with pytest.raises(UsageError, match="`batch_size` should be at least 1"):
        TrainingSettings(batch_size=0)
    with pytest.raises(
        NumericalError, match="loss became NaN or infinite in epoch 1, step 1. Lower `learning_rate=0.0"
    ):
        train(AngleRanker.seeded(QUICK.seed), items * torch.nan, TRAIN, QUICK, tmp_path)


# What the embedded default has to reach, on pairs it was not trained on.


@pytest.fixture(scope="module")
def tones(embedded_500hz: EmbeddedDemo) -> Tensor:
    clips = find_clips(embedded_500hz.data_root, material="plastic", frequency="500hz")
    return load_items(clips, FrontEnd())


@pytest.fixture(scope="module")
def paths(embedded_500hz: EmbeddedDemo) -> list[Path]:
    return [embedded_500hz.checkpoint_dir / f"model_epoch_{epoch}.pt" for epoch in (1, 2, 3, 4, 6, 8)]


@pytest.fixture(scope="module")
def scores(tones: Tensor, paths: list[Path]) -> list[Tensor]:
    model = AngleRanker()
    scores = []
    for path in paths:
        model.load_state_dict(load(path)["model_state_dict"])
        scores.append(score(model.eval(), tones))
    return scores


@pytest.fixture(scope="module")
def pairs() -> tuple[Pairs, Pairs, Pairs]:
    """The drawn training pairs, the drawn test pairs, and the five default test pairs."""
    classes, rng = torch.arange(54) // 9, np.random.RandomState(42)
    train_draws, test_draws = (draw_sequence(split, classes, rng) for split in split_items(54, 42))
    assert (len(train_draws), len(test_draws)) == (566, 120)
    return (merge_repeats(train_draws), merge_repeats(test_draws), sample_test_pairs(test_draws, 5, 42))


def test_it_orders_unseen_pairs(scores: list[Tensor], pairs: tuple[Pairs, Pairs, Pairs], paths: list[Path]) -> None:
    reached = accuracy(ahead(scores[-1], pairs[1]), pairs[1])
    assert reached >= 0.85
    assert load(paths[-1])["test_accuracy"] == pytest.approx(reached)


def test_at_least_four_of_the_five_test_columns_are_not_zero(
    scores: list[Tensor], pairs: tuple[Pairs, Pairs, Pairs]
) -> None:
    active = torch.stack([difference(at, pairs[2]) < 10 for at in scores]).any(dim=0)
    assert int(active.sum()) >= 4


def test_every_checkpoint_has_active_training_pairs(scores: list[Tensor], pairs: tuple[Pairs, Pairs, Pairs]) -> None:
    shares = [float((difference(at, pairs[0]) < 10).double().mean()) for at in scores]
    assert min(shares) > 0.05
    assert shares[0] > shares[-1]


def test_statistics_of_the_batch_norms_fit_the_items(tones: Tensor, paths: list[Path]) -> None:
    """Eval mode, with running statistics, ranks as train mode does, with those of the batch."""
    model = AngleRanker()
    model.load_state_dict(load(paths[-1])["model_state_dict"])
    running = score(model.eval(), tones)
    with torch.no_grad():
        batch = model.train()(tones)
    ranks = [scores.argsort().argsort().double() for scores in (running, batch)]
    assert float(torch.corrcoef(torch.stack(ranks))[0, 1]) > 0.9
    assert float(running.std() / batch.std()) == pytest.approx(1, abs=0.5)


def ahead(scores: Tensor, pairs: Pairs) -> Tensor:
    return scores[pairs.first] - scores[pairs.second]


def difference(scores: Tensor, pairs: Pairs) -> Tensor:
    return pairs.target * ahead(scores, pairs)

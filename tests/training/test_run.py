"""Training a task: bit-equal after an interruption, on the pairs that are left, with split and held-out pairs fixed."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tracin_func as ti
from tracin_func.results.exclusions import flipped
from tracin_func.training.fit import fit
from tracin_func.training.initial import initialised, kept_weights

GENERATOR = torch.Generator().manual_seed(0)
ITEMS = torch.randn(16, 5, generator=GENERATOR)
ORDER = ITEMS @ torch.randn(5, generator=GENERATOR)
EVERY = [(a, b) for a in range(16) for b in range(a)]
MIXED = [EVERY[row] for row in torch.randperm(len(EVERY), generator=GENERATOR).tolist()]
QUICK = ti.TrainingSettings(epochs=5, batch_size=16, learning_rate=0.01)
LOSSES = [ti.MarginRankingLoss(2.0), ti.GHMRankingLoss(2.0), ti.LogisticLoss(), nn.functional.margin_ranking_loss]


def pairs(chosen: list[tuple[int, int]], **more: Any) -> ti.Pairs:
    first, second = zip(*chosen, strict=True)
    return ti.Pairs(first, second, [1 if ORDER[a] > ORDER[b] else -1 for a, b in chosen], **more)


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 1))


def task(**more: Any) -> ti.Task:
    scorer = more.pop("scorer", None) or net()
    own = {"loss": ti.MarginRankingLoss(2.0), "item_ids": [f"i{row}" for row in range(16)], **more}
    return ti.Task(scorer, ITEMS, pairs(MIXED[:80]), [scorer], pairs(MIXED[80:]), **own)  # type: ignore[list-item]


def same(left: Any, right: Any) -> bool:
    """Nested values are equal, tensors bit for bit."""
    if isinstance(left, Tensor):
        return torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[name], right[name]) for name in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("loss", LOSSES[:3], ids=["standard", "ghm", "logistic"])
def test_a_run_continues_behind_any_checkpoint_as_if_nothing_had_happened(loss: Any, optimizer: str) -> None:
    """Dropout, batch statistics, moments, the lowered learning rate and the order of pairs included."""
    settings = replace(QUICK, epochs=7, optimizer=optimizer, learning_rate=1.0, plateau=(0.5, 0))
    whole = ti.train(task(loss=loss), settings=settings).checkpoints
    assert [each["epoch"] for each in whole] == [1, 2, 3, 4, 5, 6, 7]
    assert len({each["learning_rate"] for each in whole[-1]["history"]}) > 1
    for place, content in enumerate(whole[:-1]):
        scorer = initialised(net(), 7)
        rest = fit(scorer, ITEMS, pairs(MIXED[:80]), loss, settings, held_out=pairs(MIXED[80:]), state=content)
        for left, right in zip(rest.checkpoints, whole[place + 1 :], strict=True):
            assert same({**left, "args": 0}, {**right, "args": 0})


@pytest.mark.parametrize("loss", LOSSES[:3], ids=["standard", "ghm", "logistic"])
def test_it_learns_with_each_loss(loss: Any) -> None:
    settings = ti.TrainingSettings(epochs=25, batch_size=16)
    found = ti.train(task(loss=loss), settings=settings)
    last = found.history[-1]
    assert last.test_accuracy is not None
    assert last.test_accuracy >= 0.9
    assert repr(found) == (
        f"Trained(Sequential: 25 epochs, pair accuracy {last.train_accuracy:.1%} of training pairs, "
        f"{last.test_accuracy:.1%} of held-out pairs)"
    )
    bins = [each.bins for each in found.history]
    assert {sum(each) for each in bins} == ({80} if isinstance(loss, ti.GHMRankingLoss) else {0})
    if isinstance(loss, ti.GHMRankingLoss):
        assert bins[0][-1] > bins[-1][-1]  # hard pairs become easy


def test_the_caller_keeps_his_scorer_his_random_numbers_and_his_threads() -> None:
    torch.manual_seed(3)
    own, before = task(), torch.random.get_rng_state()
    weights, threads = {name: each.clone() for name, each in own.scorer.state_dict().items()}, torch.get_num_threads()
    first, second = (ti.train(own, settings=QUICK).checkpoints for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    assert same(own.scorer.state_dict(), weights)
    assert same(first, second)
    other = ti.train(own, settings=replace(QUICK, seed=1)).checkpoints
    assert not same(first[-1]["model_state_dict"], other[-1]["model_state_dict"])


def test_checkpoints_in_memory_and_in_files_can_be_scored(tmp_path: Path) -> None:
    own = task(loss=ti.GHMRankingLoss(2.0, batch_size=16))
    kept, written = ti.train(own, settings=QUICK), ti.train(own, tmp_path / "run", settings=QUICK)
    assert [path.name for path in written.checkpoints] == [f"model_epoch_{epoch}.pt" for epoch in range(1, 6)]
    scores = [ti.self_influence(replace(own, checkpoints=each.checkpoints)).scores for each in (kept, written)]
    assert torch.equal(*scores)
    assert float(scores[0].sum()) > 0
    args = torch.load(written.checkpoints[0], weights_only=True)["args"]
    expected = {"loss_type": "ghm", "margin": 2.0, "ghm_bins": 10, "ghm_alpha": 0.75, "ghm_variant": "symmetric"}
    expected |= {"batch_size": 16, "learning_rate": 0.01, "weight_decay": 1e-5, "optimizer": "adam", "epochs": 5}
    assert expected.items() <= args.items()


def test_what_is_left_out_or_inverted_changes_the_training_pairs_alone(tmp_path: Path) -> None:
    own, (a, b), (c, d) = task(), MIXED[0], MIXED[1]
    notices: list[str] = []
    settings = replace(QUICK, epochs=1)
    exclude, flip = [f"i{b}_i{a}", "nobody"], [f"i{c}_i{d}", "i0_nobody"]
    found = ti.train(own, tmp_path, settings=settings, exclude=exclude, flip=flip, notice=notices.append)
    assert [notice.partition(":")[2] for notice in notices] == [
        " `exclusions_file`: no training pair found for 1 id: nobody.",
        " `flips_file`: no training pair found for 1 id: i0_nobody.",
    ]
    step = torch.load(found.checkpoints[0], weights_only=True)["step"]
    assert step == 79 // 16
    plain = pairs(MIXED[1:80])
    target = plain.target.clone()
    target[0] *= -1
    inverted = ti.Pairs(plain.first, plain.second, target)
    right = fit(initialised(own.scorer, 42), ITEMS, inverted, own.loss, settings, held_out=own.test)
    assert same(right.scorer.state_dict(), found.scorer.state_dict())
    assert right.history == found.history


def test_a_mirrored_pair_keeps_its_target_where_the_flip_names_the_other() -> None:
    both = ti.Pairs([0, 1], [1, 0], [1, -1])
    assert flipped(both, ["a", "b"], ["a_b"])[0].target.tolist() == [-1, -1]
    assert flipped(both.select(torch.tensor([1])), ["a", "b"], ["a_b"])[0].target.tolist() == [1]
    named = ti.Pairs([0, 1], [1, 0], [1, -1], ids=["x", "y"])
    found, unknown = flipped(named, ["a", "b"], ["y", "z"])
    assert found.target.tolist() == [1, 1]
    assert unknown == {"z"}


def test_a_folder_of_another_training_is_refused(tmp_path: Path) -> None:
    own, short = task(), replace(QUICK, epochs=2)
    ti.train(own, tmp_path, settings=short)
    before = {path: path.read_bytes() for path in tmp_path.glob("*.pt")}
    with pytest.raises(ti.InputError, match=r"already holds 2 checkpoints, the last model_epoch_2.pt. Continue"):
        ti.train(own, tmp_path, settings=short)
    for settings, name in ((replace(short, weight_decay=0.1), "weight_decay is 1e-05, not 0.1"),
                           (replace(short, seed=1), "seed is 42, not 1")):  # fmt: skip
        with pytest.raises(ti.InputError, match=f"is of another training: its {name}"):
            ti.train(own, tmp_path, settings=settings, resume=True)
    with pytest.raises(ti.InputError, match="its pairs_sha256 is"):
        ti.train(own, tmp_path, settings=short, exclude=["i1"], resume=True)
    with pytest.raises(ti.InputError, match="is beyond `epochs=1`"):
        ti.train(own, tmp_path, settings=replace(short, epochs=1), resume=True)
    assert {path: path.read_bytes() for path in tmp_path.glob("*.pt")} == before
    longer = ti.train(own, tmp_path, settings=QUICK, resume=True)
    assert [path.name for path in longer.checkpoints] == [f"model_epoch_{epoch}.pt" for epoch in (3, 4, 5)]
    assert same(longer.scorer.state_dict(), ti.train(own, settings=QUICK).scorer.state_dict())


def test_pair_weights_margins_repeats_and_any_callable_count() -> None:
    """One step of SGD on all pairs at once is the gradient of the mean of weight × loss."""
    few = pairs(MIXED[:6], weight=[1, 2, 0, 1, 1, 3], margin=[1, 2, 3, 1, 2, 3], count=[1, 1, 1, 1, 1, 2])
    linear = nn.Linear(5, 1, bias=False)
    weight = linear.weight.detach().clone().requires_grad_()
    settings = ti.TrainingSettings(
        1, optimizer="sgd", batch_size=7, learning_rate=0.5, weight_decay=0.0, plateau=None, seed=0
    )
    fit(linear, ITEMS, few, lambda a, b, y, m: nn.functional.softplus(m - y * (a - b)), settings)
    rows = [0, 1, 2, 3, 4, 5, 5]
    scores = (ITEMS @ weight.T)[:, 0]
    ahead = few.target[rows] * (scores[few.first[rows]] - scores[few.second[rows]])
    assert few.margin is not None
    assert few.weight is not None
    (few.weight[rows] * nn.functional.softplus(few.margin[rows] - ahead)).mean().backward()
    assert weight.grad is not None
    assert torch.allclose(linear.weight, weight - 0.5 * weight.grad, atol=1e-6)


class Difference(nn.Module):
    """A scorer of pairs."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 1)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        ahead: Tensor = self.layer(first) - self.layer(second)
        return ahead.squeeze(-1)


def test_scorers_of_pairs_and_datasets_of_unequal_items() -> None:
    joint = ti.train(task(scorer=Difference(), joint=True), settings=replace(QUICK, epochs=20, learning_rate=0.05))
    assert joint.history[-1].train_accuracy > 0.9

    class Mean(Difference):
        def forward(self, items: Tensor) -> Tensor:  # type: ignore[override]
            scores: Tensor = self.layer(items.mean(dim=1))
            return scores

    ragged = [item.repeat(1 + row % 2, 1) for row, item in enumerate(ITEMS)]
    settings = replace(QUICK, epochs=20, learning_rate=0.05)
    scorer = Mean()
    found = ti.train(ti.Task(scorer, ragged, pairs(MIXED[:80]), [scorer]), settings=settings)  # type: ignore[list-item]
    assert found.history[-1].train_accuracy > 0.9
    assert found.history[-1].test_accuracy is None


def test_fresh_weights_leave_frozen_ones_and_name_those_that_cannot_be_drawn() -> None:
    scorer = net()
    scorer.get_parameter("0.weight").requires_grad_(False)
    scorer.scale = nn.Parameter(torch.ones(()))
    made, again, other = initialised(scorer, 1), initialised(scorer, 1), initialised(scorer, 2)
    assert same(made.state_dict(), again.state_dict())
    assert torch.equal(made.get_parameter("0.weight"), scorer.get_parameter("0.weight"))
    assert not torch.equal(made.get_parameter("4.weight"), other.get_parameter("4.weight"))
    assert kept_weights(scorer) == ["scale"]
    notices: list[str] = []
    ti.train(task(scorer=scorer), settings=replace(QUICK, epochs=1), notice=notices.append)
    assert "1 parameter of the scorer begin" in notices[0]


@pytest.mark.parametrize(
    ("name", "value"),
    [("epochs", 0), ("learning_rate", 0.0), ("learning_rate", float("nan")), ("weight_decay", -1.0), ("batch_size", 0),
     ("optimizer", "lion"), ("checkpoint_interval", 0), ("checkpoint_interval", (1, 2))],
)  # fmt: skip
def test_settings_that_are_wrong_in_themselves(name: str, value: Any) -> None:
    with pytest.raises(ti.UsageError, match=f"`{name}` should be .* Got"):
        ti.TrainingSettings(**{name: value})


def test_what_cannot_be_trained(tmp_path: Path) -> None:
    with pytest.raises(ti.InputError, match="80 training pairs are fewer than a batch takes. Lower `batch_size=100`"):
        ti.train(task(), settings=replace(QUICK, batch_size=100))
    with pytest.raises(
        ti.NumericalError, match=r"became NaN or infinite in epoch 1, step 2. Lower `learning_rate=1e\+3"
    ):
        ti.train(task(), tmp_path / "wild", settings=replace(QUICK, optimizer="sgd", learning_rate=1e30))
    with pytest.raises(ti.InputError, match="excludes all 80 training pairs"):
        ti.train(task(), exclude=[f"i{row}" for row in range(16)])
    with pytest.raises(ti.InputError, match=r"returned \(13, 5\) for 13 items. Expected scores"):
        ti.train(task(scorer=nn.Linear(5, 5)), settings=replace(QUICK, batch_size=16))
    with pytest.raises(ti.InputError, match="failed on a batch of"):
        ti.train(task(scorer=nn.Linear(4, 1)), settings=QUICK)
    with pytest.raises(ti.InputError, match="no trainable parameter"):
        ti.train(task(scorer=nn.Linear(5, 1).requires_grad_(False)), settings=QUICK)
    assert not list(tmp_path.rglob("*.pt"))

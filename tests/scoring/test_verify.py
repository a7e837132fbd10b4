"""Verification finds what is wrong, and nothing where all is right; the user's model is as it was."""

import copy
import io
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tracin_func as ti
from tests.support import calls
from tracin_func.results.verification import TOLERANCE, Verification

TRAIN = ti.Pairs(
    first=[0, 1, 2, 3, 4, 0, 3, 1],
    second=[1, 2, 3, 4, 0, 2, 0, 0],
    target=[1, -1, 1, 1, -1, -1, 1, 1],
    weight=[0.5, 1.0, 3.0, 1.0, 0.25, 1.0, 2.0, 1.0],
    margin=[0.2, 0.9, 0.4, 0.6, 0.8, 0.1, 0.3, 0.7],
)
TEST = ti.Pairs(first=[5, 1, 2], second=[0, 5, 4], target=[1, 1, -1], weight=[0.5, 1.0, 2.0])


class Joint(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 1))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return self.layers(torch.cat([first, second], dim=1))


class Drawing(nn.Dropout):
    """Drops half of its input in train mode, and draws a random number in either."""

    def forward(self, items: Tensor) -> Tensor:
        torch.rand(1)
        return super().forward(items)


class SingleOnly(nn.Linear):
    """Makes a tensor of a type of its own, as some scorers do."""

    def forward(self, items: Tensor) -> Tensor:
        return super().forward(items) @ torch.ones(1, 1)


def task(joint: bool = False, **changes: Any) -> ti.Task:
    """Two checkpoints, the second with a rate of its own for each parameter."""
    torch.manual_seed(0)
    module = Joint() if joint else nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.LayerNorm(6), nn.Linear(6, 1))
    later = copy.deepcopy(module)
    with torch.no_grad():
        for parameter in later.parameters():
            parameter += 0.3 * torch.randn(parameter.shape)
    rates = {name: 0.02 * (position + 1) for position, (name, _) in enumerate(later.named_parameters())}
    checkpoints = [ti.Checkpoint(module.state_dict(), 0.1), ti.Checkpoint(later.state_dict(), rates)]
    made = ti.Task(module, torch.randn(6, 4), TRAIN, checkpoints, TEST, ti.MarginRankingLoss(1.0), joint=joint)
    return replace(made, **changes)


def run(of: ti.Task, kinds: str = "both", **compute: Any) -> tuple[calls.How, calls.Scores]:
    settings = calls.how(device="cpu", **compute)
    return settings, calls.score(of, settings, self_influence=kinds != "influence", influence=kinds != "self")


def verified(of: ti.Task, n: int = 100, kinds: str = "both", **compute: Any) -> Verification:
    return calls.verified(of, *run(of, kinds, **compute), n)


def spoiled(result: Any, share: float) -> Any:
    """A result with every score off by a share of itself."""
    return None if result is None else replace(result, per_checkpoint=result.per_checkpoint * (1 + share))


GHM = ti.GHMRankingLoss(margin=0.5, bins=4, batch_size=5)
CASES: dict[str, tuple[ti.Task, dict[str, Any]]] = {
    "hinge, groups of rates, weights and margins": (task(), {}),
    "ghm": (task(loss=GHM), {}),
    "ghm of the lab, weighted test pairs": (task(loss=replace(GHM, variant="lab")), {"weight_test_pairs": True}),
    "score margin": (task(), {"test_functional": "score-margin"}),
    "logistic": (task(loss=ti.LogisticLoss(0.1)), {}),
    "cosine": (task(), {"normalize": "cosine"}),
    "mean": (task(), {"aggregate": "mean"}),
    "mean of cosines": (task(), {"aggregate": "mean", "normalize": "cosine"}),
    "some parameters, uniform weights": (task(), {"params": "weight", "checkpoint_weights": "uniform"}),
    "joint": (task(joint=True), {}),
    "joint ghm, score margin": (task(joint=True, loss=GHM), {"test_functional": "score-margin"}),
    "left in train()": (task(scorer=task().scorer.append(Drawing()).train()), {}),
    "float64": (task(scorer=task().scorer.double(), items=task().items.take(torch.arange(6)).double()), {}),
}


@pytest.mark.parametrize("name", CASES)
def test_right_scores_pass(name: str) -> None:
    of, compute = CASES[name]
    found = verified(of, **compute)
    assert found.passed, str(found)
    assert len(found.entries) == 8 * (1 if compute.get("aggregate") else 3) + 8
    assert found.zeros < len(found.entries) / 2
    assert found.worst is not None
    assert found.worst.deviation < 1e-5
    assert str(found).startswith("Verification passed: ")


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("wrong", ["self_influence", "influence"])
def test_scores_off_by_a_thousandth_fail(name: str, wrong: str) -> None:
    of, compute = CASES[name]
    settings, scores = run(of, **compute)
    scores = replace(scores, **{wrong: spoiled(getattr(scores, wrong), 1e-3)})
    found = calls.verified(of, settings, scores, 100)
    assert not found.passed
    assert found.worst is not None
    assert (found.worst.test_pair is None) == (wrong == "self_influence")
    assert found.worst.deviation == pytest.approx(1e-3, rel=0.2) or wrong == "influence"
    assert str(found).startswith("Verification FAILED: ")


@pytest.mark.parametrize("kinds", ["self", "influence", "both"])
def test_what_is_there_is_verified(kinds: str) -> None:
    found = verified(task(), 5, kinds)
    own = [entry for entry in found.entries if entry.test_pair is None]
    assert (len(own) > 0, len(found.entries) - len(own)) == (kinds != "influence", 0 if kinds == "self" else 5)
    assert len({(entry.pair, entry.test_pair) for entry in found.entries}) == len(found.entries)
    assert found.passed


def test_entries_are_drawn_by_the_seed() -> None:
    of = task()
    settings, scores = run(of)
    one, same, other = (calls.verified(of, settings, scores, 4, seed).entries for seed in (1, 1, 2))
    assert one == same
    assert [str(entry) for entry in one] != [str(entry) for entry in other]


def test_one_wrong_entry_is_named() -> None:
    of = task()
    settings, scores = run(of, "influence")
    assert scores.influence is not None
    wrong = scores.influence.per_checkpoint.clone()
    wrong[1, 3, 2] += 1.0
    found = calls.verified(of, settings, replace(scores, influence=replace(scores.influence, per_checkpoint=wrong)), 24)
    assert str(found.worst) == f"{scores.influence.ids[3]} on {scores.influence.test_ids[2]}"
    assert sum(entry.deviation > TOLERANCE for entry in found.entries) == 1


def test_a_score_that_is_nan_fails() -> None:
    of = task()
    settings, scores = run(of, "self")
    assert scores.self_influence is not None
    values = scores.self_influence.per_checkpoint.clone()
    values[0, 3] = float("nan")
    scores = replace(scores, self_influence=replace(scores.self_influence, per_checkpoint=values))
    for seed in range(3):
        assert not calls.verified(of, settings, scores, 8, seed).passed


def test_the_cost_is_at_most_two_gradients_an_entry_and_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    of, taken, shares = task(), [], []
    settings, scores = run(of)
    plain = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *args, **more: taken.append(1) or plain(*args, **more))
    calls.verified(of, calls.but(settings, progress=shares.append), scores, 5)
    monkeypatch.undo()
    assert len(taken) <= 5 * 2 * 2
    pairs = {
        (entry.pair, entry.test_pair) for entry in calls.verified(of, settings, scores, 5).entries if entry.test_pair
    }
    assert len(taken) == 2 * (len({pair for pair, _ in pairs}) + len({test for _, test in pairs}))
    assert sum(shares) == pytest.approx(2)


def test_the_users_model_is_unchanged() -> None:
    of = task(scorer=task().scorer.append(Drawing()).eval())
    of.scorer[1].train()
    settings, scores = run(of)

    def everything() -> tuple[bytes, list[bool], list[Any], Tensor]:
        stream = io.BytesIO()
        torch.save(of.scorer.state_dict(), stream)
        modes = [module.training for module in of.scorer.modules()]
        return stream.getvalue(), modes, [p.grad for p in of.scorer.parameters()], torch.get_rng_state()

    before = everything()
    calls.verified(of, settings, scores, 3)
    after = everything()
    assert after[:3] == before[:3]
    assert torch.equal(after[3], before[3])


# Where rounding decides


def at_a_kink(distance: float) -> ti.Task:
    """s = x: the score margin of the pair 1_0 is `distance` below the hinge's."""
    scorer = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        scorer.weight.fill_(1.0)
    items = torch.tensor([[0.0], [1.0 - distance], [0.25]])
    return ti.Task(scorer, items, ti.Pairs([1, 2], [0, 0], [1, 1]), [ti.Checkpoint(scorer.state_dict(), 0.1)])


def contradicted(of: ti.Task) -> Verification:
    """Verified with a record, and a score, that have the first pair the other way than it is."""
    settings, scores = run(of, "self")
    own = scores.self_influence
    assert own is not None
    inactive, values = own.pairs.inactive.clone(), own.per_checkpoint.clone()
    inactive[0, 0] = ~inactive[0, 0]
    values[0, 0] = 0.0 if inactive[0, 0] else 0.1
    own = replace(own, per_checkpoint=values, pairs=replace(own.pairs, inactive=inactive))
    return calls.verified(of, settings, replace(scores, self_influence=own), 2)


@pytest.mark.parametrize("distance", [1e-6, -1e-6])
def test_a_pair_at_the_kink_is_not_compared(distance: float) -> None:
    found = contradicted(at_a_kink(distance))
    assert [entry.pair for entry in found.entries if entry.undecided] == ["1_0"]
    assert found.passed
    assert "1 not compared: they depend on rounding at a kink of the loss." in str(found)


@pytest.mark.parametrize("distance", [1e-3, -1e-3])
def test_a_pair_beside_the_kink_is_compared_and_fails(distance: float) -> None:
    found = contradicted(at_a_kink(distance))
    assert not any(entry.undecided for entry in found.entries)
    assert not found.passed


def test_a_pair_at_the_kink_that_is_recorded_rightly_is_compared() -> None:
    assert len(verified(at_a_kink(1e-6), kinds="self").compared) == 2


def test_a_score_margin_has_no_kink() -> None:
    """The gradient of the test pair is 0, as its items are alike; its loss would be at the kink."""
    of = replace(at_a_kink(0.5), items=torch.tensor([[0.0], [1.0], [1.0]]), loss=ti.MarginRankingLoss(0.0))
    of = replace(of, test=ti.Pairs([1], [2], [1]))
    assert len(verified(of, kinds="influence", test_functional="score-margin").compared) == 2


def test_nothing_compared_is_no_pass() -> None:
    of = at_a_kink(1e-6)
    found = contradicted(replace(of, train=of.train_pairs.select(torch.tensor([0]))))
    assert not found.passed
    assert str(found).startswith("Verification FAILED: no score could be compared. 1 not compared")


def test_slopes_below_float32_are_no_deviation() -> None:
    of = replace(at_a_kink(0.0), loss=ti.LogisticLoss(), items=torch.tensor([[0.0], [150.0], [1.0]]))
    found = verified(of, kinds="self")
    assert found.passed
    assert any(entry.found == 0 < entry.expected for entry in found.entries)


# Faults


def test_faults() -> None:
    of = task()
    settings, scores = run(of)
    with pytest.raises(ti.UsageError, match="`n` should be at least 1. Got 0."):
        calls.verified(of, settings, scores, 0)
    with pytest.raises(
        ti.UsageError, match=r"has \(8, 3, 2\) training pairs, .* Expected those of `task`: \(8, 3, 1\)"
    ):
        calls.verified(replace(of, checkpoints=of.checkpoints[:1]), settings, scores, 1)


def test_a_scorer_that_does_not_run_in_float64_is_verified_in_its_own_type() -> None:
    scorer = SingleOnly(4, 1)
    of = task(scorer=scorer, checkpoints=[ti.Checkpoint(scorer.state_dict(), 0.1)])
    assert verified(of, 20).passed
    assert all(tensor.dtype == torch.float32 for tensor in scorer.state_dict().values())
    settings, scores = run(of)
    assert not calls.verified(of, settings, replace(scores, influence=spoiled(scores.influence, 1e-3)), 20).passed


def test_json() -> None:
    described = verified(task(), 2, "self").describe()
    assert described["passed"] is True
    assert list(described["entries"][0]) == [
        *("pair", "test_pair", "found", "expected", "scale", "undecided", "standard_error", "deviation"),
    ]

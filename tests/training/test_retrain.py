"""Retraining a task's scorer on some of its pairs: equal to a training by hand, and alone in what it changes."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import tracin_func as ti
from tracin_func.training.retrain import Recipe, batch_loss, checkpoint_scores, initialised, recipe_of, retrain

ITEMS = torch.randn(12, 5, generator=torch.Generator().manual_seed(0))
PAIRS = ti.Pairs([0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11], [1, -1, 1, 1, -1, 1], count=[1, 2, 1, 1, 3, 1])
RECIPE = Recipe(epochs=3, batch_size=4, learning_rate=0.1, optimizer="sgd", checkpoints=2)


def net() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout(0.2), nn.Linear(4, 1))


def task(loss: ti.PairLoss | None = None, scorer: nn.Module | None = None) -> ti.Task:
    scorer = scorer or net()
    return ti.Task(scorer, ITEMS, PAIRS, [ti.Checkpoint(scorer, 0.1)], loss=loss or ti.LogisticLoss())


def by_hand(seed: int, rows: list[int]) -> tuple[Tensor, nn.Module]:
    """The same training, written out: no function of the package."""
    first, second = PAIRS.first[rows].tolist(), PAIRS.second[rows].tolist()
    assert PAIRS.count is not None
    target, count = PAIRS.target[rows].tolist(), PAIRS.count[rows].tolist()
    visits = [(a, b, y) for a, b, y, k in zip(first, second, target, count, strict=True) for _ in range(k)]
    order = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout(0.2), nn.Linear(4, 1))
        torch.manual_seed(seed)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(3):
            shuffled = torch.randperm(len(visits), generator=order).tolist()
            for start in range(0, len(shuffled), 4):
                batch = [visits[row] for row in shuffled[start : start + 4]]
                used = sorted({item for a, b, _ in batch for item in (a, b)})
                scores = model(ITEMS[used])[:, 0]
                left = scores.index_select(0, torch.tensor([used.index(a) for a, _, _ in batch]))
                right = scores.index_select(0, torch.tensor([used.index(b) for _, b, _ in batch]))
                y = torch.tensor([float(y) for _, _, y in batch])
                loss = nn.functional.softplus(-y * (left - right)).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    model.eval()
    with torch.no_grad():
        return model(ITEMS)[:, 0], model


def test_equal_to_a_training_by_hand_bit_for_bit() -> None:
    rows = [0, 1, 3, 4]
    found = retrain(task(), PAIRS.select(torch.tensor(rows)), 7, RECIPE, states=True)
    scores, model = by_hand(7, rows)
    assert torch.equal(found.scores, scores)
    state = found.states[-1]["model_state_dict"]
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert not torch.equal(retrain(task(), PAIRS.select(torch.tensor(rows)), 8, RECIPE).scores, scores)


def test_margins_are_of_the_targets() -> None:
    found = retrain(task(), PAIRS, 0, RECIPE)
    scores, columns = found.scores.tolist(), (PAIRS.first.tolist(), PAIRS.second.tolist(), PAIRS.target.tolist())
    expected = [y * (scores[a] - scores[b]) for a, b, y in zip(*columns, strict=True)]
    assert found.margins(PAIRS).tolist() == pytest.approx(expected, abs=1e-6)


def test_checkpoints_can_be_scored_and_their_scores_are_those_of_the_end() -> None:
    found = retrain(task(), PAIRS, 0, RECIPE, states=True)
    run = replace(task(), checkpoints=found.checkpoints(), test=PAIRS)
    assert [each.name for each in run.checkpoints] == ["epoch 2", "epoch 3"]
    assert torch.equal(checkpoint_scores(run)[-1], found.scores.double())
    scored = ti.influence(run)
    assert [each["learning_rate"] for each in scored.run.checkpoints] == [0.1, 0.1]
    assert scored.test.score_margin[-1].tolist() == pytest.approx(found.margins(PAIRS).tolist(), abs=1e-5)


def test_nothing_of_the_user_changes() -> None:
    own = task()
    before, state, threads = copy.deepcopy(own.scorer.state_dict()), torch.get_rng_state(), torch.get_num_threads()
    retrain(own, PAIRS, 0, RECIPE, states=True)
    after = own.scorer.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    assert own.scorer.training


def test_ghm_weights_are_those_of_the_batch() -> None:
    loss = ti.GHMRankingLoss(2.0, 4, 0.75)
    first, second = torch.randn(2, 6, generator=torch.Generator().manual_seed(1))
    index = loss.bin(first, second, PAIRS.target)
    share = torch.tensor([float((index == each).sum()) ** -0.75 for each in index])
    expected = (share * ti.MarginRankingLoss(2.0)(first, second, PAIRS.target)).mean()
    (_, block) = next(PAIRS.blocks(6))
    assert float(batch_loss(loss, first, second, block)) == pytest.approx(float(expected), rel=1e-6)


def test_the_start_is_drawn_by_the_seed_or_that_of_the_scorer() -> None:
    scorer = net()
    drawn, again, other = (initialised(scorer, seed) for seed in (1, 1, 2))
    assert torch.equal(drawn[0].weight, again[0].weight)  # type: ignore[index,union-attr]
    assert not torch.equal(drawn[0].weight, other[0].weight)  # type: ignore[index,union-attr]
    kept = initialised(scorer, 1, "scorer")
    assert all(torch.equal(value, scorer.state_dict()[name]) for name, value in kept.state_dict().items())
    scorer[0].requires_grad_(False)
    assert torch.equal(initialised(scorer, 1)[0].weight, scorer[0].weight)  # type: ignore[index,union-attr]


def test_the_recipe_is_that_of_the_training() -> None:
    scorer = net()
    state = torch.optim.Adam(scorer.parameters(), lr=0.25, weight_decay=0.5).state_dict()
    args = {"epochs": 7, "batch_size": 3, "learning_rate": 0.25}
    content = {"model_state_dict": scorer.state_dict(), "optimizer_state_dict": state, "args": args}
    own = replace(task(scorer=scorer), checkpoints=[ti.Checkpoint(content)])
    assert recipe_of(own, checkpoints=2) == Recipe(7, 3, 0.25, "adam", 0.5, 2)
    assert recipe_of(own, optimizer="sgd", epochs=1).optimizer == "sgd"
    assert Recipe(epochs=8, checkpoints=4).kept == [2, 4, 6, 8]
    assert Recipe(epochs=2, checkpoints=5).kept == [1, 2]


@pytest.mark.parametrize(("wrong", "words"), [({"epochs": 0}, "`epochs`"), ({"optimizer": "x"}, "adam, adamw, sgd")])
def test_what_is_wrong_in_itself(wrong: dict[str, object], words: str) -> None:
    with pytest.raises(ti.UsageError, match=words):
        Recipe(**wrong)  # type: ignore[arg-type]


def test_a_training_that_diverges_is_reported() -> None:
    with pytest.raises(ti.NumericalError, match="Lower its learning rate"):
        retrain(task(ti.MarginRankingLoss(1e30)), PAIRS, 0, replace(RECIPE, learning_rate=1e30))

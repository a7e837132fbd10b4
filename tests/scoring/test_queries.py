"""Pairs that are explained without being in any split, by the model's own ranking where no target is given."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import tracin_func as ti
from tests.support.reference import Job, assert_same, module_at, reference, scores_of
from tests.support.scored import small_task

ALONE = ti.Compute(device="cpu", engine="item", batch_size=6)
LETTERS = list("abcdef")


def in_float64() -> tuple[ti.Task, list[str]]:
    """A small conv net over six items in float64, and a list that receives notices."""
    torch.manual_seed(3)
    net = nn.Sequential(nn.Conv1d(1, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(9, 1)).double()
    states = [{name: scale * value for name, value in net.state_dict().items()} for scale in (1.0, -2.0)]
    checkpoints = [ti.Checkpoint(state, 0.1, f"c{place}") for place, state in enumerate(states)]
    items = torch.randn(6, 1, 4, dtype=torch.float64)
    train = ti.Pairs([0, 1, 2, 3], [1, 2, 3, 0], [1, -1, 1, 1])
    loss = ti.LogisticLoss()
    return ti.Task(net, items, train, checkpoints, loss=loss, item_ids=LETTERS), []


def test_the_model_s_own_ranking_at_the_last_checkpoint_is_explained() -> None:
    task, said = in_float64()
    module = module_at(task.scorer, task.checkpoints[-1].source)  # type: ignore[arg-type]
    job = Job(task.scorer, task.items.content, task.train_pairs, task.train_pairs, task.checkpoints)
    asked = [(first, second) for first in range(6) for second in range(6) if first != second]
    found = ti.with_queries(task, asked, compute=ALONE, observer=ti.Observer(notice=said.append)).test
    assert found is not None
    for row, (first, second) in enumerate(asked):
        s_a, s_b = scores_of(module, job, first, second)
        assert int(found.target[row]) == (1 if s_a > s_b else -1)
    assert set(found.target.tolist()) == {1, -1}
    assert len(said) == 1
    s_a, s_b = (float(each.detach()) for each in scores_of(module, job, 0, 1))
    higher, lower = (("a", s_a), ("b", s_b)) if s_a > s_b else (("b", s_b), ("a", s_a))
    assert f"at c1 is explained: {higher[0]} ({higher[1]:.4g}) above {lower[0]} ({lower[1]:.4g}); " in said[0]
    assert said[0].endswith("; and 27 more.")


@pytest.mark.parametrize("functional", ["loss", "score-margin"])
def test_scores_of_queries_are_those_of_the_reference(functional: str) -> None:
    task, said = in_float64()
    method = ti.Method(test_functional=functional)  # type: ignore[arg-type]
    asked = ti.with_queries(task, ["a,e", ("f", "b", -1)], compute=ALONE, observer=ti.Observer(notice=said.append))
    assert asked.test is not None
    found = ti.influence(asked, method=method, compute=ALONE)
    job = Job(
        *(task.scorer, task.items.content, task.train_pairs, asked.test, task.checkpoints, task.loss),
        test_functional=functional,
    )
    assert_same(None, found.per_checkpoint, reference(job), 1e-9)
    assert found.test_ids == ("a_e", "f_b")
    (own, given) = found.provenance["source"]["queries"]
    assert (own["target_from"], given["target_from"], given["target"]) == ("model", "query", -1)
    assert own["target"] == int(asked.test.target[0])
    both = scores_of(module_at(task.scorer, task.checkpoints[-1].source), job, 0, 4)  # type: ignore[arg-type]
    assert own["scores"] == pytest.approx([float(score.detach()) for score in both], rel=1e-12)
    assert (own["scores"][0] > own["scores"][1]) == (own["target"] > 0)


def test_a_query_that_is_a_test_pair_has_its_scores() -> None:
    task = small_task(item_ids=LETTERS)
    whole = ti.influence(task, compute=ALONE)
    asked = ti.with_queries(task, ["f,b,1", "a,c,-1"], compute=ALONE)
    found = ti.influence(asked, compute=ALONE)
    for place, name in enumerate(("f_b", "a_c")):
        assert torch.equal(found.scores[:, place], whole.scores[:, whole.test_ids.index(name)])
    assert asked.held_out is task.test  # the model is evaluated on the same pairs


def test_no_learning_rate_at_the_last_checkpoint_is_no_obstacle() -> None:
    task = small_task(item_ids=LETTERS)
    last = replace(task.checkpoints[-1], learning_rate=0.0)
    asked = ti.with_queries(replace(task, checkpoints=[task.checkpoints[0], last]), ["a,b"], compute=ALONE)
    assert asked.test is not None


def test_a_scorer_of_pairs_gives_the_direction_of_the_pair_as_asked() -> None:
    class Joint(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([2.0]))

        def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
            return (self.weight * (first - second)).sum(1)

    said: list[str] = []
    items, train = torch.tensor([[0.0], [1.0], [3.0]]), ti.Pairs([0], [1], [1])
    task = ti.Task(Joint(), items, train, [ti.Checkpoint(Joint().state_dict(), 0.1)], joint=True)
    asked = ti.with_queries(task, [(0, 2), (2, 1)], observer=ti.Observer(notice=said.append))
    assert asked.test is not None
    assert asked.test.target.tolist() == [-1, 1]
    assert "2 above 0 (score difference 6); 2 above 1 (score difference 4)." in said[0]


def test_items_that_score_alike_have_no_ranking_to_explain() -> None:
    task = small_task(item_ids=LETTERS)
    same = replace(task, items=torch.ones(6, 3))
    with pytest.raises(ti.InputError, match="scores both items of a,b alike.*such as a,b,1"):
        ti.with_queries(same, ["a,b"], compute=ALONE)
    assert ti.with_queries(same, ["a,b,1"], compute=ALONE).test is not None


def test_no_query_and_one_text_are_refused() -> None:
    with pytest.raises(ti.UsageError, match="empty"):
        ti.with_queries(small_task(), [])
    with pytest.raises(ti.UsageError, match="should be a list of queries"):
        ti.with_queries(small_task(), "a,b")

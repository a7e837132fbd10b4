"""Datamodelling, flips and removal on retrained models of a task small enough for each to be retrained here."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import tracin_func as ti
from tracin_func.evaluation.datamodelling import foresee, item_masks, left_out_item_masks, left_out_masks, pair_masks
from tracin_func.evaluation.evaluate import EvaluationReport, Setup, evaluate
from tracin_func.evaluation.flips import with_flips
from tracin_func.evaluation.held_out import halves, sampled
from tracin_func.evaluation.measures import auc, datamodelling_score
from tracin_func.evaluation.methods.registry import SCORINGS, chosen
from tracin_func.evaluation.outcomes import Outcomes
from tracin_func.evaluation.plan import Sizes, planned
from tracin_func.evaluation.runs import run_of
from tracin_func.training.retrain import Recipe, retrain

RECIPE = Recipe(epochs=4, batch_size=8, learning_rate=0.1, optimizer="sgd", checkpoints=2)
SIZES = Sizes(runs=2, draws=2, masks=12, seeds=2, left_out=5)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small() -> ti.Task:
    """Items with a hidden order; 60 training pairs of the first 16 items, 40 held-out pairs of the others."""
    items = torch.randn(28, 4, generator=generator())
    order = items @ torch.tensor([1.0, -1.0, 0.5, 0.0])
    both = [torch.combinations(torch.arange(*span)) for span in ((0, 16), (16, 28))]
    tables = []
    for pairs, count in zip(both, (60, 40), strict=True):
        first, second = pairs[torch.randperm(len(pairs), generator=generator(1))[:count]].T
        tables.append(ti.Pairs(first, second, torch.where(order[first] > order[second], 1, -1)))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        scorer = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1))
    return ti.Task(scorer, items, tables[0], [ti.Checkpoint(scorer, 0.1)], loss=ti.LogisticLoss(), held_out=tables[1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("outcomes")


@pytest.fixture(scope="module")
def report(folder: Path) -> EvaluationReport:
    setup = Setup(parts=("flips", "removal", "datamodelling", "items", "left-out"), sizes=SIZES, queries=10)
    return evaluate(small(), setup=setup, recipe=RECIPE, folder=folder, processes=1)


def test_masks_are_halves_and_single_ones_and_grow_at_the_end() -> None:
    pairs = small().train_pairs
    masks = pair_masks(pairs, 6, 3)
    assert (masks.sum(dim=1) == 30).all()
    assert torch.equal(pair_masks(pairs, 9, 3)[:6], masks)
    assert not torch.equal(pair_masks(pairs, 6, 4), masks)
    for mask in item_masks(pairs, 6, 3):
        assert len(set(pairs.first[mask].tolist()) | set(pairs.second[mask].tolist())) <= 8
    assert left_out_masks(pairs, 5, 0).sum(dim=1).tolist() == [59] * 5
    for mask in left_out_item_masks(pairs, 16, 0):
        gone = pairs.select(~mask)
        both = [{a, b} for a, b in zip(gone.first.tolist(), gone.second.tolist(), strict=True)]
        assert set.intersection(*both)


def test_a_linear_model_is_foreseen_by_its_own_datamodel(folder: Path) -> None:
    """Margins of a linear scorer after ONE step of SGD on all pairs are linear in the pairs, up to the sum's share."""
    torch.manual_seed(0)
    plain = small().train_pairs
    counted = ti.Pairs(plain.first, plain.second, plain.target, count=1 + torch.arange(60) % 3)
    task = replace(small(), scorer=nn.Linear(4, 1), train=counted)
    pairs, queries = task.train_pairs, task.held_out
    assert queries is not None
    recipe = Recipe(epochs=1, batch_size=200, learning_rate=0.01, optimizer="sgd", start="scorer")
    masks = pair_masks(pairs, 20, 0)
    start = task.scorer.weight.detach()[0].double()  # type: ignore[union-attr]
    items = task.items.take(torch.arange(28)).double()
    apart = pairs.target[:, None] * (items[pairs.first] - items[pairs.second])
    steps = torch.sigmoid(-(apart @ start))[:, None] * apart  # −∂ℓ/∂w of each pair
    effects = steps @ (queries.target[:, None] * (items[queries.first] - items[queries.second])).T
    outcomes = Outcomes(task, recipe, folder, 1)
    found = foresee("halves", outcomes, pairs, queries, masks, (0,), {"own": [effects]}, (0,), lambda amount: None)
    assert found.rows[0].mean.value > 0.9
    margins = torch.stack([retrain(task, pairs.select(mask), 0, recipe).margins(queries) for mask in masks])
    assert found.rows[0].mean.value == datamodelling_score((masks * pairs.counts).double() @ effects, margins)
    assert datamodelling_score(masks.double() @ effects, margins) < found.rows[0].mean.value


def test_figures_of_the_parts_against_their_retrainings(report: EvaluationReport) -> None:
    task = small()
    pairs, held_out = task.train_pairs, task.held_out
    assert held_out is not None
    queries = sampled(held_out, 10, 0)
    runs = [retrain(task, pairs, seed, RECIPE, states=True) for seed in (0, 1)]
    effects = [SCORINGS["tracin"].effects(run_of(task, pairs, each, queries)) for each in runs]  # type: ignore[misc]
    masks = pair_masks(pairs, 12, 0)
    outcomes = [
        torch.stack([retrain(task, pairs.select(mask), seed, RECIPE).margins(queries) for seed in (1000, 1001)]).mean(0)
        for mask in masks
    ]
    own = report.datamodelling[0]
    row = next(row for row in own.rows if row.method == "tracin")
    assert row.runs == pytest.approx(
        [datamodelling_score(masks.double() @ each, torch.stack(outcomes)) for each in effects]
    )
    assert (own.masks, own.seeds, own.run_seeds, own.queries) == (12, (1000, 1001), (0, 1), 10)
    assert [each.what for each in report.datamodelling] == [
        "random halves of the pairs",
        "random halves of the items",
        "all pairs but one",
        "all items but one",
    ]


def test_flips_and_removal_against_their_retrainings(report: EvaluationReport) -> None:
    task = small()
    held_out = task.held_out
    assert held_out is not None
    assert report.flips is not None
    assert report.removal is not None
    areas, gains = [], []
    for seed in (0, 1):
        pairs, flipped = with_flips(task.train_pairs, 0.1, seed)
        assert int(flipped.sum()) == 6
        assert torch.equal(pairs.target == task.train_pairs.target, ~flipped)
        trained = retrain(task, pairs, seed, RECIPE, states=True)
        queries, judged = halves(held_out, 0)
        ranking = SCORINGS["loss"].ranked(run_of(task, pairs, trained, queries))
        areas.append(auc(ranking, flipped))
        kept = torch.ones(60, dtype=torch.bool)
        kept[ranking.argsort(descending=True, stable=True)[:12]] = False
        again = retrain(task, pairs.select(kept), seed, RECIPE)
        shares = [(each.margins(judged) > 0).double().mean() for each in (again, trained)]
        gains.append(float(shares[0] - shares[1]))
    found = next(row for row in report.flips.rows if row.method == "loss")
    assert found.auc.value == pytest.approx(sum(areas) / 2)
    dropped = next(row for row in report.removal.rows if row.method == "loss" and row.k == 12)
    assert dropped.gain.value == pytest.approx(sum(gains) / 2)
    assert {row.method for row in report.removal.rows} == {*chosen(None), "oracle"}


def test_a_second_method_retrains_nothing(report: EvaluationReport, folder: Path) -> None:
    setup = Setup(parts=("flips", "datamodelling"), sizes=SIZES, queries=10)
    again = evaluate(small(), methods=["tracin-last"], setup=setup, recipe=RECIPE, folder=folder, processes=1)
    assert again.computed == 0
    assert [row.method for row in again.datamodelling[0].rows] == ["tracin-last", "random"]
    assert again.flips is not None
    assert report.flips is not None
    assert again.flips.rows[1] == report.flips.rows[2]  # plain loss


def test_the_two_sides_of_held_out_pairs_share_no_item() -> None:
    held_out = small().held_out
    assert held_out is not None
    sides = [set(each.first.tolist()) | set(each.second.tolist()) for each in halves(held_out, 0)]
    assert sides[0]
    assert sides[1]
    assert not sides[0] & sides[1]
    with pytest.raises(ti.InputError, match="cannot be split"):
        halves(ti.Pairs([0, 1], [1, 2], [1, 1]), 0)


def test_a_plan_takes_masks_before_seeds_and_says_what_it_leaves_out() -> None:
    whole = planned(("flips", "datamodelling"), Sizes(), 18, 1.0, None)
    assert whole.left_out == ()
    assert whole.trainings == 3 + 20 + 240
    some = planned(("datamodelling",), Sizes(), 18, 1.0, 60.0)  # 3 runs, then 114 halves
    assert (some.sizes["datamodelling"].masks, some.sizes["datamodelling"].seeds) == (80, 1)
    assert some.left_out == ("datamodelling: 1 of 3 seeds",)
    few = planned(("removal", "datamodelling"), Sizes(), 18, 1.0, 30.0)
    assert list(few.sizes) == ["datamodelling"]
    assert few.left_out == ("removal: left out", "datamodelling: 54 of 80 masks, 1 of 3 seeds")
    assert few.seconds <= 30.0


@pytest.mark.parametrize(
    ("setup", "words"),
    [
        ({"parts": ("flip",)}, "`parts` should be among flips, removal"),
        ({"flip_share": 0.0}, "`flip_share` is 0"),
        ({"flip_share": 0.5}, "below 50%"),
        ({"drop": (1.0,)}, "`drop`"),
    ],
)
def test_what_is_wrong_in_itself(setup: dict[str, object], words: str) -> None:
    with pytest.raises(ti.UsageError, match=words):
        Setup(**setup)  # type: ignore[arg-type]


def test_an_unknown_method_is_named() -> None:
    with pytest.raises(ti.UsageError, match="`methods` should be among tracin, tracin-last"):
        chosen(["tracinn"])


def test_a_pairwise_scorer_and_a_task_without_held_out_pairs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ti.InputError, match="needs held-out pairs"):
        evaluate(replace(small(), held_out=None), recipe=RECIPE, folder=tmp_path)
    with pytest.raises(ti.InputError, match="pairwise scorer"):
        evaluate(replace(small(), joint=True), recipe=RECIPE, folder=tmp_path)

"""Runs of the package and what is asserted of them."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import tracin_func as ti
from tests.support import calls
from tests.support.cases.reference import RATES, TEST, TRAIN, Right, Table

TOLERANCE = 1e-6  # deviation allowed, relative to the largest right score
REFUSALS = (ti.InputError, ti.UsageError)
Words = str | tuple[str, ...]  # a word, or alternatives of which one is enough


@dataclass(frozen=True)
class Found:
    """What a run gave: `own` [train_pairs], `cross` [train_pairs, test_pairs], and what it said."""

    own: Tensor
    cross: Tensor
    engine: Mapping[str, Any]
    notices: tuple[str, ...]
    result: ti.Influence


def pairs(table: Table) -> ti.Pairs:
    return ti.Pairs(table.first, table.second, table.target)


def score(
    module: nn.Module,
    items: Any,
    sources: Sequence[Any],
    *,
    rates: Sequence[float | None] = RATES,
    loss: Any = None,
    train: Table = TRAIN,
    test: Table = TEST,
    item_ids: Any = None,
    **compute: Any,
) -> Found:
    """Self-influence and influence at the checkpoints `sources`, on the CPU."""
    checkpoints = [ti.Checkpoint(source, rate) for source, rate in zip(sources, rates, strict=True)]
    loss = ti.LogisticLoss() if loss is None else loss
    task = ti.Task(module, items, pairs(train), checkpoints, pairs(test), loss, item_ids=item_ids)
    notices: list[str] = []
    scores = calls.score(task, calls.how(device="cpu", notice=notices.append, **compute), influence=True)
    assert scores.self_influence is not None
    assert scores.influence is not None
    own, cross = scores.self_influence.scores, scores.influence.scores
    return Found(own, cross, scores.influence.run.engine, tuple(notices), scores.influence)


def assert_right(found: Found, right: Right, tolerance: float = TOLERANCE) -> None:
    """Every score deviates by at most `tolerance` times the largest right one."""
    for name, given, wanted in (("self-influence", found.own, right.own), ("influence", found.cross, right.cross)):
        assert given.shape == wanted.shape
        assert bool(given.isfinite().all()), f"{name} is not finite"
        deviation = float((given - wanted).abs().max() / wanted.abs().max())
        assert deviation <= tolerance, f"{name} deviates by {deviation:.2e} of the largest right value"


def assert_each_right(found: Found, right: Right, tolerance: float) -> None:
    """Every self-influence deviates by at most `tolerance` of itself, small ones too."""
    deviation = float((found.own / right.own - 1).abs().max())
    assert deviation <= tolerance, f"a self-influence deviates by {deviation:.2e} of itself"


def without_folders(text: str) -> str:
    """Paths become file names: the folder of a test is named after the test."""
    return re.sub(r"[^\s'`\"]*/(?=[^\s/])", "", text)


def assert_says(text: str, *words: Words) -> None:
    """Each of `words` occurs in `text`, whatever the case."""
    lowered = without_folders(text).lower()
    for word in words:
        alternatives = (word,) if isinstance(word, str) else word
        assert any(each.lower() in lowered for each in alternatives), f"{text!r} does not say {word!r}"


def refusal(run: Callable[[], Any]) -> str:
    """The one line with which `run` refuses its input; other exceptions are not caught."""
    try:
        run()
    except REFUSALS as error:
        text = str(error)
        assert "\n" not in text
        return text
    raise AssertionError("the input was accepted")


def scores_or_refusal(
    run: Callable[[], Found],
    right: Right,
    *words: Words,
    never: Sequence[str] = (),
) -> None:
    """Either is correct: the right scores, or a refusal in one line that holds `words` and none of `never`."""
    try:
        found = run()
    except REFUSALS as error:
        text = str(error)
        assert "\n" not in text
        assert_says(text, *words)
        for wrong in never:
            assert wrong not in without_folders(text), f"{text!r} says {wrong!r}"
    else:
        assert_right(found, right)


def said(run: Callable[[], Found]) -> str:
    """Every notice of a run, or its refusal where it refuses."""
    try:
        return "\n".join(run().notices)
    except REFUSALS as error:
        return str(error)


def float64(module: nn.Module, items: Any) -> tuple[nn.Module, Any]:
    """A module and its tensor of items in float64."""
    return module.double(), items.double() if isinstance(items, Tensor) and items.is_floating_point() else items


def unchanged(before: Mapping[str, Tensor], module: nn.Module) -> bool:
    """Whether the state of `module` equals `before`, bit for bit."""
    after = module.state_dict()
    return before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)

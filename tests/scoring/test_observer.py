"""Progress in Python: a bar on stderr, or a callback that receives the share done."""

import pytest
import torch
from torch import nn

import tracin_func as ti

ITEMS = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))


def task() -> ti.Task:
    states = [ti.Checkpoint({"weight": torch.full((1, 3), weight)}, 0.1) for weight in (0.5, 1.0, 2.0)]
    return ti.Task(nn.Linear(3, 1, bias=False), ITEMS, ti.Pairs([0, 1, 2], [3, 4, 5], [1, -1, 1]), states)


def test_a_callback_receives_growing_shares_that_end_at_one() -> None:
    seen: list[float] = []
    own: list[float] = []
    ti.self_influence(task(), observer=ti.Observer(progress=own.append), progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    assert sum(own) == pytest.approx(3)


def test_a_bar_leaves_stdout_alone(capsys: pytest.CaptureFixture[str]) -> None:
    ti.self_influence(task(), progress=True)
    assert capsys.readouterr().out == ""


def test_what_is_neither_is_refused() -> None:
    with pytest.raises(ti.UsageError, match="`progress` should be True, False or a callback. Got 'yes'."):
        ti.self_influence(task(), progress="yes")  # type: ignore[arg-type]


def test_a_store_may_be_named_by_a_text(tmp_path: object) -> None:
    compute = ti.Compute(store=f"{tmp_path}/store")  # type: ignore[arg-type]
    assert ti.fill_store(task(), compute)[0].missing == 0


def test_only_all_scores_can_be_verified() -> None:
    of = ti.Task(nn.Linear(3, 1), ITEMS, task().train, [{"weight": torch.ones(1, 3), "bias": torch.zeros(1)}])  # type: ignore[list-item]
    found = ti.self_influence(of, method=ti.Method(checkpoint_weights="uniform"))
    assert repr(ti.verify(of, found)).count("\n") == 0
    with pytest.raises(ti.UsageError, match="`result` is a str. Expected the result of"):
        ti.verify(of, "scores.json")  # type: ignore[arg-type]

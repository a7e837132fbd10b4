"""What a run returns and saves from Python."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call

import tracin_func as ti
from tests.support import calls


def small(ids: list[str] | None = None, learning_rate: object = 0.1) -> dict[str, object]:
    """A linear scorer over five items; four training pairs, the last inactive."""
    scorer = nn.Linear(1, 1)
    with torch.no_grad():
        scorer.weight.fill_(1.0)
        scorer.bias.fill_(0.0)
    items = torch.tensor([[0.0], [0.5], [1.0], [3.0], [3.25]])
    pairs = ti.Pairs([1, 0, 2, 3], [0, 1, 1, 0], [1, 1, 1, 1], count=[1, 3, 1, 1], ids=ids)
    checkpoints = [ti.Checkpoint(scorer.state_dict(), learning_rate, "first")]  # type: ignore[arg-type]
    return {"scorer": scorer, "items": items, "pairs": pairs, "checkpoints": checkpoints}


def test_a_case_that_can_be_done_by_hand() -> None:
    # s = x, hinge of margin 1: ∂ℓ/∂w = −y (x_a − x_b) where active, so self = η (x_a − x_b)².
    result = calls.self_influence(**small())  # type: ignore[arg-type]
    torch.testing.assert_close(result.scores, torch.tensor([0.025, 0.025, 0.025, 0.0], dtype=torch.float64))
    assert result.inactive.tolist() == [[False, False, False, True]]
    assert result.pairs.loss.tolist() == [[0.5, 1.5, 0.5, 0.0]]
    assert result.hardest(2) == [("1_0", pytest.approx(0.025)), ("0_1", pytest.approx(0.025))]
    table = result.to_arrow(long=True).to_pydict()
    assert table["pair"] == ["1_0", "0_1", "2_1", "3_0"]
    assert table["count"] == [1, 3, 1, 1]
    assert table["active_share"] == [1.0, 1.0, 1.0, 0.0]
    job = small()
    # Training on 0_1 (which is ranked wrong) lowers w, and so raises the loss of 4_3, ranked right.
    influence = calls.influence(job["scorer"], job["items"], job["pairs"], ti.Pairs([4], [3], [1]), job["checkpoints"])  # type: ignore[arg-type]
    expected = 0.1 * 0.25 * torch.tensor([[0.5], [-0.5], [0.5], [0.0]], dtype=torch.float64)
    torch.testing.assert_close(influence.scores, expected)
    assert influence.proponents(0, 1) == [("1_0", pytest.approx(0.0125))]
    assert influence.opponents(0, 1) == [("0_1", pytest.approx(-0.0125))]
    assert influence.zero_columns == []


def test_saved_scores_are_those_of_the_run(tmp_path: Path) -> None:
    result = calls.self_influence(**small(learning_rate=torch.tensor(0.1)))  # type: ignore[arg-type]
    path = tmp_path / "scores.json"
    assert result.save(path) == path.resolve()
    saved = {pair: values["tracin_self_influence"] for pair, values in json.loads(path.read_text()).items()}
    assert saved == dict(zip(result.ids, result.scores.tolist(), strict=True))
    record = json.loads((tmp_path / "scores.json.provenance.json").read_text())["columns"]["tracin_self_influence"]
    assert record["checkpoints"][0]["learning_rate"] == pytest.approx(0.1)
    assert record["pairs"] == {"rows": 4, "drawn": 6, "inactive": 1}
    assert record["command"] is None


def test_two_pairs_of_one_name_are_not_saved_over_each_other(tmp_path: Path) -> None:
    result = calls.self_influence(**small(ids=["x", "y", "x", "z"]))  # type: ignore[arg-type]
    with pytest.raises(ti.InputError, match="two pairs are called 'x'"):
        result.save(tmp_path / "scores.json")
    assert not (tmp_path / "scores.json").exists()


def test_learning_rates_may_be_numpy_scalars() -> None:
    rates = {"weight": np.float32(0.5), "bias": torch.tensor(0.25)}
    checkpoint = ti.Checkpoint({}, rates)  # type: ignore[arg-type]
    assert checkpoint.learning_rate == {"weight": 0.5, "bias": 0.25}
    with pytest.raises(ti.UsageError, match="`learning_rate` should be finite and at least 0. Got -1.0"):
        ti.Checkpoint({}, torch.tensor(-1))  # type: ignore[arg-type]


class Remembers(nn.Module):
    """Keeps what it computes on itself, as the old weight_norm and RNNs do."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(1, 1)
        self.product: torch.Tensor | None = None
        self.cache: list[torch.Tensor] = [torch.zeros(1)]

    def forward(self, items: torch.Tensor) -> torch.Tensor:
        self.product = self.cache[0] = self.inner.weight * 2
        return items @ self.product + self.inner.bias


def test_what_a_forward_leaves_on_the_module_is_taken_away_again() -> None:
    scorer = Remembers()
    cache, first = scorer.cache, scorer.cache[0]
    job = small() | {"scorer": scorer, "checkpoints": [ti.Checkpoint(scorer.state_dict(), 0.1)]}
    for engine in ("item", "loop"):
        assert float(calls.self_influence(**job, engine=engine).scores.sum()) > 0  # type: ignore[arg-type]
        assert scorer.product is None
        assert scorer.cache is cache
        assert scorer.cache[0] is first
    # The same forward outside of a run does leave something: the check above can fail.
    functional_call(scorer, dict(scorer.named_parameters()), torch.ones(1, 1))
    assert scorer.product is not None

"""What a run returns and saves from Python."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call

import tracin_func as ti
from tests.support import calls
from tests.support.scored import small_scores, small_self


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
    with pytest.raises(ti.InputError, match="two pairs have the id 'x'"):
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


# What a notebook shows


def test_a_result_is_one_line() -> None:
    own, cross = small_self(), small_scores()
    assert (
        repr(own)
        == f"SelfInfluence(4 pairs, 2 checkpoints, 0 inactive at all of them; hardest é0_é1 {own.scores[0]:.3g})"
    )
    assert re.fullmatch(
        r"Influence\(4 training × 3 test pairs, 2 checkpoints, 0 inactive at all of them; strongest é\d_é\d on é\d_é\d "
        r"[+-][\d.]+\)",
        repr(cross),
    )
    assert (len(own), len(cross), repr(own.pairs)) == (4, 4, "PairRecord(4 pairs)")


def test_html_is_short_and_escaped() -> None:
    job = small(ids=["<b>", "x", "&y", "z"])
    own = calls.self_influence(**job)  # type: ignore[arg-type]
    html = own._repr_html_()
    assert html.startswith("<table><caption>SelfInfluence(4 pairs")
    assert ("&lt;b&gt;" in html, "<b>" in html, "&amp;y" in html) == (True, False, True)
    html = small_scores()._repr_html_()
    assert html.count("<tr>") <= 1 + 3 * 2 * 3
    for test in small_scores().test_ids:
        assert test in html


def test_the_strongest_pairs_of_a_test_pair() -> None:
    cross = small_scores()
    scores = dict(zip(cross.ids, cross.scores[:, 1].tolist(), strict=True))
    helped = sorted((each for each in scores.items() if each[1] > 0), key=lambda each: -each[1])
    harmed = sorted((each for each in scores.items() if each[1] < 0), key=lambda each: each[1])
    assert helped
    test = cross.test_ids[1]
    assert cross.proponents(1) == cross.proponents(test) == cross.proponents(-2) == helped
    assert cross.opponents(1) == cross.opponents(test) == harmed
    assert cross.proponents(1, 1) == helped[:1]
    assert repr(cross.proponents(1)).splitlines()[1].split() == [helped[0][0], f"{helped[0][1]:.3g}"]
    assert repr(cross.proponents(1)[:0]) == "[]"
    for wrong, words in (
        ("e5_é1", "'e5_é1' not found among 3 test pairs, such as é5_é1"),
        (3, "should be a position below 3, or an id. Got 3."),
    ):
        with pytest.raises(ti.UsageError, match=words):
            cross.proponents(wrong)  # type: ignore[arg-type]
    with pytest.raises(ti.UsageError, match="`k` should be at least 1. Got 0."):
        small_self().hardest(0)


def test_views_by_item_and_class() -> None:
    own, cross = small_self(), small_scores()
    scores = dict(zip(own.ids, own.scores.tolist(), strict=True))
    items = {name: sum(score for pair, score in scores.items() if name in pair.split("_")) for name in ("é0", "é1")}
    found = {group.name: group for group in own.by("item")}
    assert {name: found[name].sum for name in items} == pytest.approx(items)
    assert [group.mean for group in own.by("item")] == sorted((group.mean for group in own.by("item")), reverse=True)
    both = {group.name: group.sum for group in own.by("class-pair")}
    of_lows = scores["é0_é1"]
    assert both["low–low"] == pytest.approx(of_lows)
    other = {group.name: group.pairs for group in own.by("class", classes={f"é{place}": "one" for place in range(4)})}
    assert other == {"one": 4}
    of_test = {group.name: group.sum for group in cross.by("class", test=cross.test_ids[2])}
    assert of_test["high"] == pytest.approx(float(cross.scores[1:, 2].sum()))
    total = {group.name: group.sum for group in cross.by("item")}
    assert total["é3"] == pytest.approx(float(cross.scores[2:].sum()))
    assert repr(own.by("class")).splitlines()[0].split()[:3] == ["name", "pairs", "active"]
    with pytest.raises(ti.UsageError, match="should be 'item', 'class' or 'class-pair'. Got 'pair'."):
        own.by("pair")
    unknown = calls.self_influence(**small())  # type: ignore[arg-type]
    with pytest.raises(ti.InputError, match="the class of '0' and 3 more is unknown"):
        unknown.by("class")


def test_tables_for_pandas_and_arrow() -> None:
    own, cross = small_self(), small_scores()
    wide = cross.to_pandas()
    assert (list(wide.index), list(wide.columns)) == (list(cross.ids), list(cross.test_ids))
    assert wide.to_numpy().tolist() == cross.scores.tolist()
    steps = cross.to_pandas(per_checkpoint=True)
    assert list(steps.columns)[:2] == [f"{cross.test_ids[0]}_c_1.pt", f"{cross.test_ids[0]}_c_2.pt"]
    assert steps[f"{cross.test_ids[2]}_c_2.pt"].tolist() == cross.per_checkpoint[1, :, 2].tolist()
    long = cross.to_pandas(long=True, per_checkpoint=True)
    assert len(long) == 4 * 3 * 2
    row = long[(long["pair"] == cross.ids[2]) & (long["test_pair"] == cross.test_ids[1])].iloc[1]
    assert (row["checkpoint"], row["tracin_influence"]) == ("c_2.pt", float(cross.per_checkpoint[1, 2, 1]))
    assert (row["first"], row["second"], row["count"]) == ("é2", "é3", 1)
    assert row["loss"] == float(cross.train.loss[1, 2])
    assert own.to_pandas()["tracin_self_influence"].tolist() == own.scores.tolist()
    assert list(own.to_pandas(per_checkpoint=True).columns) == ["c_1.pt", "c_2.pt"]
    assert own.to_arrow().column_names == ["pair", "tracin_self_influence"]


def test_test_pairs_of_one_name_keep_a_column_each() -> None:
    job = small()
    test = ti.Pairs([4, 3], [3, 4], [1, 1], ids=["same", "same"])
    cross = calls.influence(job["scorer"], job["items"], job["pairs"], test, job["checkpoints"])
    assert list(cross.to_pandas().columns) == ["same", "same"]
    assert cross.to_pandas().to_numpy().tolist() == cross.scores.tolist()


def test_without_pandas_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ti.UsageError, match="to_pandas needs pandas. Install it with `pip install pandas`"):
        small_self().to_pandas()


def test_provenance_is_what_is_saved(tmp_path: Path) -> None:
    cross = small_scores()
    path = cross.save(tmp_path / "scores.csv")
    record = json.loads(Path(f"{path}.provenance.json").read_text())["columns"]["tracin_influence"]
    assert record == json.loads(json.dumps(cross.provenance))

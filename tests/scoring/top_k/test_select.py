"""Queries over tables read in blocks, against a plain computation of all scores in float64."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from torch import Tensor

import tracin_func as ti
from tests.support.random_pairs import ITEMS, NAMES, table, write
from tracin_func.gradients.protocol import Combination
from tracin_func.losses.custom import as_loss
from tracin_func.losses.terms import Terms, loss_terms, weigh_by
from tracin_func.results.files.format import Sheet
from tracin_func.results.files.origins import provenance_path
from tracin_func.results.files.scores_parquet import PARQUET
from tracin_func.results.frame import PairRecord
from tracin_func.results.partial import held
from tracin_func.results.run import Run
from tracin_func.results.top import StreamedSelfInfluence, Strongest, TopInfluences
from tracin_func.scoring.self_influence import self_scores
from tracin_func.scoring.top_k.screen import LANES, Screen, screen
from tracin_func.scoring.top_k.select import Columns, _Group, strongest
from tracin_func.task.loss import PairLoss, Weigh
from tracin_func.task.pair_table import PairTable
from tracin_func.task.pairs import PairBlock


def squared(first: Tensor, second: Tensor, target: Tensor) -> Tensor:
    """A loss that is no function of s_a − s_b."""
    return (first - target) ** 2 + 0.5 * (second + target).clamp(min=0) ** 2


class Focused(PairLoss):
    """Squares of what is missing to the margin; the share of misranked training pairs is the weight of ranked ones."""

    of_difference = True
    weighted = True

    def __call__(self, first: Tensor, second: Tensor, target: Tensor, margin: Any = None) -> Tensor:
        return torch.relu((0.5 if margin is None else margin) - target * (first - second)) ** 2

    def tally(self, first: Tensor, second: Tensor, target: Tensor, margin: Any, count: Tensor) -> Tensor:
        misranked = target * (first - second) <= 0
        return torch.stack([(misranked * count).sum(), count.sum()])

    def weights(self, tally: Tensor) -> Weigh:
        share = tally[0].double() / tally[1]
        return lambda first, second, target, margin: torch.where(target * (first - second) <= 0, 1.0, share)


LOSSES: dict[str, Any] = {
    "margin": ti.MarginRankingLoss(0.7),
    "logistic": ti.LogisticLoss(0.1),
    "ghm": ti.GHMRankingLoss(0.7, batch_size=16),
    "ghm of the lab": ti.GHMRankingLoss(0.7, bins=6, batch_size=None, variant="lab"),
    "callable": squared,
    "callable of the difference": lambda first, second, target: torch.sigmoid(target * (second - first)) ** 2,
    "class with weights": Focused(),
}


def arrays(pairs: ti.Pairs) -> PairTable:
    """The table in narrow types."""
    own = {name: getattr(pairs, name) for name in ("weight", "margin", "count")}
    return PairTable(first=pairs.first.int(), second=pairs.second.int().numpy(), target=pairs.target, **own)


def columns(checkpoints: int, tests: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> list[Columns]:
    generator = torch.Generator().manual_seed(seed)
    return [
        Columns(
            f"model_epoch_{step}.pt",
            torch.randn(ITEMS, generator=generator).to(dtype),
            torch.randn(ITEMS, tests, generator=generator, dtype=torch.float64),
        )
        for step in range(checkpoints)
    ]


def terms_at(loss: PairLoss, s_a: Tensor, s_b: Tensor, pairs: ti.Pairs) -> Terms:
    """The terms of pairs which are all training pairs."""
    return loss_terms(loss, weigh_by(loss, s_a, s_b, pairs), s_a, s_b, pairs)


def dense(pairs: ti.Pairs, loss: Any, checkpoints: Sequence[Columns]) -> tuple[Tensor, float]:
    """All scores, float64 [pairs, tests], and the share of inactive pairs."""
    scores, inactive = torch.zeros(len(pairs), checkpoints[0].products.shape[1], dtype=torch.float64), 0
    for checkpoint in checkpoints:
        s_a, s_b = checkpoint.values[pairs.first], checkpoint.values[pairs.second]
        at = terms_at(loss, s_a, s_b, pairs)
        u, v = at.first_slope[:, None], at.second_slope[:, None]
        scores += u * checkpoint.products[pairs.first] + v * checkpoint.products[pairs.second]
        inactive += int((~at.active).sum())
    return scores, inactive / (len(pairs) * len(checkpoints))


def require_same(found: Strongest, pairs: ti.Pairs, loss: Any, checkpoints: Sequence[Columns], k: int) -> None:
    """`found` is what sorting all scores gives, to the last bit."""
    scores, inactive = dense(pairs, loss, checkpoints)
    assert found.pairs == len(pairs)
    assert found.inactive == inactive
    for sign, side in ((1, found.proponents), (-1, found.opponents)):
        assert len(side) == scores.shape[1]
        for column, winners in enumerate(side):
            signed = (sign * scores[:, column]).tolist()
            right = sorted((row for row, value in enumerate(signed) if value > 0), key=lambda row: -signed[row])[:k]
            assert winners.rows.tolist() == right
            if isinstance(loss, ti.LogisticLoss):  # torch's exp depends on the place in a tensor, in the last digit
                torch.testing.assert_close(winners.scores, scores[right, column], rtol=1e-6, atol=1e-7)
            else:
                assert winners.scores.tolist() == scores[right, column].tolist()
            assert winners.first.tolist() == pairs.first[right].tolist()
            assert winners.second.tolist() == pairs.second[right].tolist()
            assert winners.target.tolist() == pairs.target[right].tolist()


class TestStrongest:
    @pytest.mark.parametrize("name", LOSSES)
    @pytest.mark.parametrize("block", [1, 7, 10_000])
    def test_all_scores_sorted(self, name: str, block: int) -> None:
        loss, pairs, checkpoints = as_loss(LOSSES[name]), table(300, count=True), columns(3, 3)
        require_same(strongest(arrays(pairs), loss, checkpoints, 5, block=block), pairs, loss, checkpoints, 5)

    @pytest.mark.parametrize("name", LOSSES)
    @pytest.mark.parametrize(("rows", "sizes"), [(1500, (7, 64, 1500)), (40_000, (1024, 32_000, 40_000))])
    def test_no_bit_depends_on_the_blocks(self, name: str, rows: int, sizes: tuple[int, ...]) -> None:
        loss, pairs, of = as_loss(LOSSES[name]), table(rows, count=True), columns(1, 1)
        found = [strongest(arrays(pairs), loss, of, 1000, block=size) for size in sizes]
        for other in found[1:]:
            both = zip(found[0].proponents + found[0].opponents, other.proponents + other.opponents, strict=True)
            for left, right in both:
                assert torch.equal(left.rows, right.rows)
                assert torch.equal(left.scores, right.scores)

    @pytest.mark.parametrize("name", LOSSES)
    @pytest.mark.parametrize("checkpoints", [1, 3, 11])
    def test_a_long_table_of_many_test_pairs(self, name: str, checkpoints: int) -> None:
        """Long enough for thresholds to rise, so that most pairs are screened out; two groups of columns."""
        loss, pairs, of = as_loss(LOSSES[name]), table(12_000, count=True, weight=True), columns(checkpoints, 9)
        require_same(strongest(arrays(pairs), loss, of, 20, block=500), pairs, loss, of, 20)

    @pytest.mark.parametrize("name", ["margin", "logistic", "ghm"])
    def test_weights_and_margins_of_the_pairs(self, name: str) -> None:
        loss, of = as_loss(LOSSES[name]), columns(2, 2, dtype=torch.float64)
        pairs = table(5000, weight=True, margin=True, count=True)
        require_same(strongest(arrays(pairs), loss, of, 9, block=100), pairs, loss, of, 9)

    def test_of_equal_scores_the_earlier_pair_wins(self) -> None:
        loss, pairs = ti.MarginRankingLoss(100.0), table(20_000)
        of = [Columns("c", torch.zeros(ITEMS), (torch.arange(ITEMS) % 3).double()[:, None])]
        for block in (200, 5000, 20_000):
            require_same(strongest(arrays(pairs), loss, of, 50, block=block), pairs, loss, of, 50)

    def test_more_are_asked_for_than_there_are(self) -> None:
        loss, pairs, of = ti.MarginRankingLoss(), table(50), columns(1, 2)
        found = strongest(arrays(pairs), loss, of, 1000)
        require_same(found, pairs, loss, of, 1000)
        assert len(found.proponents[0]) + len(found.opponents[0]) < 50

    @pytest.mark.parametrize("scale", [1e-200, 1e-3, 1e9, 1e150])
    def test_products_of_any_size_and_far_from_zero(self, scale: float) -> None:
        """What the columns have in common cancels, and the rounding of the scores with it."""
        loss, pairs, of = ti.MarginRankingLoss(), table(20_000, weight=True), columns(3, 4)
        for offset in (0.0, 1e12, 1e16):
            moved = [Columns(c.name, c.values, (c.products + offset) * scale) for c in of]
            require_same(strongest(arrays(pairs), loss, moved, 10, block=500), pairs, loss, moved, 10)

    def test_one_item_may_exceed_all_others(self) -> None:
        """As the items of a test pair do; whole steps of its size would tell the others apart no longer."""
        loss, pairs, of = ti.MarginRankingLoss(5.0), table(20_000), columns(2, 2)
        kept = pairs.select((pairs.first != 3) & (pairs.second != 3))
        for size in (1e2, 1e4, 1e9):
            of[0].products[3] = size
            require_same(strongest(arrays(kept), loss, of, 10, block=500), kept, loss, of, 10)

    def test_test_pairs_without_gradient_have_no_winners(self) -> None:
        loss, pairs, of = ti.MarginRankingLoss(), table(2000), columns(2, 3)
        for checkpoint in of:
            checkpoint.products[:, 1] = 0
        found = strongest(arrays(pairs), loss, of, 10, block=100)
        require_same(found, pairs, loss, of, 10)
        assert len(found.proponents[1]) == len(found.opponents[1]) == 0

    def test_half_precision_scores_are_compared_in_float32(self) -> None:
        loss, pairs, of = ti.LogisticLoss(), table(500), columns(1, 1, dtype=torch.bfloat16)
        wide = [Columns(c.name, c.values.float(), c.products) for c in of]
        require_same(strongest(arrays(pairs), loss, of, 10), pairs, loss, wide, 10)

    def test_progress_adds_up_to_all_of_it(self) -> None:
        for name in ("margin", "ghm"):
            shares: list[float] = []
            strongest(arrays(table(300)), LOSSES[name], columns(1, 1), 5, block=100, progress=shares.append)
            assert sum(shares) == pytest.approx(1)
            assert len(shares) == (3 if name == "margin" else 6)

    def test_the_same_with_one_thread(self) -> None:
        pairs, of, threads = table(30_000), columns(2, 5), torch.get_num_threads()
        try:
            for count in (1, 3):
                torch.set_num_threads(count)
                require_same(
                    strongest(arrays(pairs), LOSSES["margin"], of, 20, block=999), pairs, LOSSES["margin"], of, 20
                )
        finally:
            torch.set_num_threads(threads)


class TestGroup:
    def test_candidates_do_not_wait_without_end(self) -> None:
        """Blocks of few pairs are sorted in together, and then let fewer pairs pass."""
        products = [columns(1, 1)[0].products]
        group, passed = _Group(products, 1, screened=True), []
        pairs = torch.combinations(torch.arange(ITEMS))[:500].T.contiguous()
        block = PairBlock(*pairs, torch.ones(500, dtype=torch.int8))
        for start in range(0, 10_000, 500):
            found = group.candidates(start, block, [torch.ones(1, 500)], np.ones(500, dtype=bool))
            group.add(found)
            passed.append(len(found))
        assert passed[0] == 500
        assert passed[-1] < 50


class TestScreen:
    @pytest.mark.parametrize("offset", [0.0, 1e12, 1e16])
    @pytest.mark.parametrize("checkpoints", [1, 3])
    @pytest.mark.parametrize("lane", [torch.int8, torch.int16])
    def test_no_pair_is_missed_by_its_own_score(self, lane: torch.dtype, checkpoints: int, offset: float) -> None:
        """Each pair is asked for with its score as computed, rounding and all, as the threshold."""
        products = [c.products + offset for c in columns(checkpoints, 1)]
        first, second = torch.combinations(torch.arange(ITEMS)).T.contiguous()
        found, missed = screen(products, lane), 0
        for slope in (0.3, 1.0, 7.7):
            scores = sum(slope * table[first] + -slope * table[second] for table in products).abs()
            for a, b, score in zip(first, second, scores, strict=True):
                carries = found.carries(found.limits(score, slope))
                missed += not found.passes(a[None], b[None], carries)[0] and bool(score > 0)
        assert missed == 0

    @pytest.mark.parametrize("steps", [1, 100, 32_000])
    def test_a_pair_at_the_threshold_passes(self, steps: int) -> None:
        """With a step of 1 and no slack it needs as many steps, whatever the rounding of the division."""
        of_ones = Screen((), torch.int16, torch.ones(LANES).double(), torch.zeros(LANES).double())
        for slope in (1.0, 0.1, 7.7):
            limits = of_ones.limits(torch.tensor([steps * slope], dtype=torch.float64), slope)
            assert limits.tolist() == [steps] + [0] * (LANES - 1)


class TestSlopes:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("smoothing", [0.0, 0.2])
    @pytest.mark.parametrize("own", [False, True])
    def test_in_closed_form_as_autograd_gives_them(self, dtype: torch.dtype, smoothing: float, own: bool) -> None:
        generator = torch.Generator().manual_seed(0)
        s_a, s_b = (torch.randn(10_007, generator=generator, dtype=dtype) * 20 for _ in range(2))
        s_b[:100] = s_a[:100] - 1  # some of them at the kink
        target = torch.where(torch.rand(10_007, generator=generator) < 0.5, 1.0, -1.0).to(dtype)
        margin = torch.randn(10_007, generator=generator).to(dtype) if own else None
        for loss in (ti.MarginRankingLoss(1.0), ti.GHMRankingLoss(0.3), ti.LogisticLoss(smoothing)):
            a, b = s_a.clone().requires_grad_(), s_b.clone().requires_grad_()
            u, v = torch.autograd.grad(loss(a, b, target, margin).sum(), (a, b))
            found = loss.derivative(s_a, s_b, target, margin)
            assert torch.equal(found, u)
            assert torch.equal(-found, v)


class Kernel:
    """Gradients of known inner products."""

    def __init__(self, rows: Tensor) -> None:
        self._rows = rows
        self.values = rows.sum(dim=1)

    def columns(self, right: Combination) -> Tensor:
        raise AssertionError("self-influence needs norms alone")

    def squared_norm(self, combination: Combination) -> Tensor:
        index, coefficient = combination.index, combination.coefficient
        return sum(coefficient[:, j, None] * self._rows[index[:, j]] for j in range(2)).square().sum(dim=1)


class TestSelf:
    @pytest.mark.parametrize("name", LOSSES)
    @pytest.mark.parametrize("block", [1, 7, 10_000])
    def test_norms_of_all_pairs(self, name: str, block: int) -> None:
        loss, pairs, of = as_loss(LOSSES[name]), table(300, count=True, weight=True), columns(2, 6)
        right = torch.zeros(300, dtype=torch.float64)
        for checkpoint in of:
            s_a, s_b = checkpoint.values[pairs.first], checkpoint.values[pairs.second]
            at = terms_at(loss, s_a, s_b, pairs)
            u, v = at.first_slope[:, None], at.second_slope[:, None]
            right += (u * checkpoint.products[pairs.first] + v * checkpoint.products[pairs.second]).square().sum(dim=1)
        found = torch.zeros(300, dtype=torch.float64)
        for checkpoint in of:
            parts = list(self_scores(arrays(pairs), loss, "", checkpoint.values, Kernel(checkpoint.products), block))
            assert [start for start, _ in parts] == list(range(0, 300, block))
            found += torch.cat([scores for _, scores in parts])
        torch.testing.assert_close(found, right, rtol=1e-6, atol=1e-7)
        assert bool((right == 0).any())


class TestPairs:
    def test_winners_as_from_memory(self, tmp_path: Path) -> None:
        pairs, of = table(5000, count=True), columns(2, 3)
        found = PairTable(write(tmp_path / "p.parquet", pairs), NAMES)
        for name in ("margin", "ghm"):
            require_same(strongest(found, LOSSES[name], of, 10, block=64), pairs, LOSSES[name], of, 10)

    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({"first": [0, 1, 2]}, "'second' has 2 rows, 'first' has 3; expected one per pair"),
            ({"first": [[0, 1]]}, "'first' should have one axis"),
            ({"first": [0.0, 1.5]}, "row 1: 'first' is 1.5; expected the position of an item"),
            ({"first": ["a", "b"]}, "'first' should contain positions of items, integers; row 0 is the text 'a'"),
            ({"target": [True, False]}, "row 1: 'target' is False; expected 1"),
            ({"target": torch.tensor([1j, 1])}, "'target' should contain numbers; row 0 is 1j"),
            ({"target": [1, 257]}, "pairs, row 1: 'target' is 257; expected 1 .first above second. or -1"),
            ({"target": np.array([1, 255], np.uint8)}, "row 1: 'target' is 255"),
            ({"target": [1.0, 0.5]}, "row 1: 'target' is 0.5"),
            ({"first": [0, -1]}, "pairs, row 1: 'first' is -1; expected the position of an item, 0 or more"),
            ({"second": [5, 40]}, "pairs, row 1: 'second' is 40; expected the position of an item, below 40"),
            ({"second": [5, 1]}, "pairs, row 1: 'second' is 1; expected another item than 'first'"),
        ],
    )
    @pytest.mark.parametrize("name", ["margin", "ghm"])
    def test_what_is_no_pair_is_named(self, changed: dict[str, Any], message: str, name: str) -> None:
        given = {"first": [0, 1], "second": [2, 3], "target": [1, 1]} | changed
        with pytest.raises(ti.InputError, match=message):
            strongest(PairTable(**given), LOSSES[name], columns(1, 1), 1, block=1)


class TestRefusals:
    def test_numbers_that_are_not_finite(self) -> None:
        of = columns(2, 1)
        of[1].products[7] = torch.nan
        with pytest.raises(ti.NumericalError, match="model_epoch_1.pt: a product of item 7 is NaN or infinite"):
            strongest(arrays(table(5)), LOSSES["margin"], of, 1)
        of[1].products[7] = 1e301
        with pytest.raises(ti.NumericalError, match="a product of item 7 is NaN or infinite, or above 1e.300"):
            strongest(arrays(table(5)), LOSSES["margin"], of, 1)
        of = columns(2, 1)
        of[0].values[3] = torch.inf
        with pytest.raises(ti.NumericalError, match="model_epoch_0.pt: a score of item 3 is NaN or infinite"):
            strongest(arrays(table(5)), LOSSES["margin"], of, 1)

        def loss(first: Tensor, second: Tensor, target: Tensor) -> Tensor:
            return (target * (first - second) - 100) ** 0.5

        with pytest.raises(ti.NumericalError, match="model_epoch_0.pt: the loss of pair 0, or its derivative, is NaN"):
            strongest(arrays(table(5)), as_loss(loss), columns(2, 1), 1)
        of = columns(1, 1)
        of[0].products[:] = torch.linspace(-1e299, 1e299, ITEMS, dtype=torch.float64)[:, None]
        heavy = ti.Pairs([0, 1], [2, ITEMS - 1], [1, 1], weight=[1.0, 1e10])
        with pytest.raises(ti.NumericalError, match="the influence of pair 1 overflows"):
            strongest(arrays(heavy), ti.MarginRankingLoss(100.0), of, 1)

    def test_margins_that_a_callable_would_not_see(self) -> None:
        with pytest.raises(ti.UsageError, match="`pairs.margin` was given, and the loss takes no margin"):
            strongest(arrays(table(5, margin=True)), as_loss(squared), columns(1, 1), 1)

    def test_a_loss_that_has_no_weights_as_it_declares(self) -> None:
        class Wrong(PairLoss):
            weighted = True

            def __call__(self, first: Tensor, second: Tensor, target: Tensor, margin: Any = None) -> Tensor:
                return squared(first, second, target)

        with pytest.raises(ti.UsageError, match="declares 'weighted'. Define its methods tally and weights."):
            strongest(arrays(table(5)), Wrong(), columns(1, 1), 1)

    def test_a_loss_that_is_no_function_of_the_difference_as_it_declares(self) -> None:
        class Wrong(PairLoss):
            of_difference = True

            def __call__(self, first: Tensor, second: Tensor, target: Tensor, margin: Any = None) -> Tensor:
                return squared(first, second, target)

        with pytest.raises(
            ti.UsageError, match="`loss` Wrong declares `of_difference=True`, but a pair has the derivatives"
        ):
            strongest(arrays(table(5)), Wrong(), columns(1, 1), 1)


RUN = Run((), {}, {}, {"kind": "tones"}, ())


def top_influences(found: Strongest, tests: tuple[str, ...]) -> TopInfluences:
    return TopInfluences(found, held(PairRecord, Path(), ids=tests), RUN, NAMES)


class TestFiles:
    def test_winners_by_their_ids(self, tmp_path: Path) -> None:
        pairs, of = table(2000), columns(1, 2)
        found = strongest(arrays(pairs), LOSSES["margin"], of, 4)
        path = top_influences(found, ("p_q", "r_s")).save(tmp_path / "w.parquet")
        content = pyarrow.parquet.read_table(path)
        assert content.column_names == ["pair", "first", "second", "test_pair", "side", "rank", "score"]
        rows = content.to_pylist()
        assert len(rows) == 16
        at = 0
        for test, sides in zip(["p_q", "r_s"], zip(found.proponents, found.opponents, strict=True), strict=True):
            for side, winners in zip(["proponent", "opponent"], sides, strict=True):
                for rank, (row, score) in enumerate(zip(winners.rows.tolist(), winners.scores.tolist(), strict=True)):
                    names = {"first": NAMES[pairs.first[row]], "second": NAMES[pairs.second[row]]}
                    place = {"test_pair": test, "side": side, "rank": rank + 1}
                    assert rows[at] == {"pair": row, **names, **place, "score": score}
                    at += 1
        metadata = content.schema.metadata
        beside = json.loads(provenance_path(path).read_text())
        record = beside["columns"]["score"]
        assert (metadata[b"sign"].decode(), metadata[b"unit"].decode()) == (record["sign"], record["unit"])
        assert "proponent" in record["sign"]
        assert (record["source"], record["pairs"]["rows"]) == ({"kind": "tones"}, 2000)
        assert json.loads(metadata[b"provenance"]) == beside

    def test_no_winner_at_all(self, tmp_path: Path) -> None:
        nothing = strongest(
            arrays(table(5)), LOSSES["margin"], [Columns("c", torch.zeros(ITEMS), torch.zeros(ITEMS, 1).double())], 3
        )
        result = top_influences(nothing, ("x",))
        assert (result.proponents("x"), len(result.to_pandas())) == ([], 0)
        assert pyarrow.parquet.read_table(result.save(tmp_path / "w.parquet")).num_rows == 0

    def test_self_influence_in_row_groups(self, tmp_path: Path) -> None:
        pairs, rows = table(1000), torch.randn(ITEMS, 5, dtype=torch.float64)
        source = arrays(pairs)
        whole = [part for _, part in self_scores(source, LOSSES["margin"], "", rows.sum(dim=1), Kernel(rows))]
        result = StreamedSelfInfluence(torch.cat(whole), source, RUN, NAMES)
        sheet = Sheet("score", lambda: result.blocks(300))
        file = pyarrow.parquet.ParquetFile(PARQUET.write(tmp_path / "s.parquet", sheet))
        assert [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)] == [300, 300, 300, 100]
        content = file.read().to_pydict()
        assert content["pair"] == list(range(1000))
        assert content["first"] == [NAMES[place] for place in pairs.first.tolist()]
        assert content["second"] == [NAMES[place] for place in pairs.second.tolist()]
        assert content["score"] == result.scores.tolist()
        assert pyarrow.parquet.read_table(result.save(tmp_path / "s.parquet")).to_pydict() == content
        assert result.hardest(3)[2][1] == sorted(content["score"])[-3]
        for ending in ("parquet", "csv"):
            assert ti.load(result.save(tmp_path / f"s.{ending}")).hardest(5) == result.hardest(5)

    def test_what_goes_wrong_half_way_leaves_the_old_file(self, tmp_path: Path) -> None:
        path = tmp_path / "s.parquet"
        path.write_bytes(b"old")

        class Broken(PairTable):
            def blocks(self, size: int) -> Iterator[tuple[int, PairBlock]]:
                yield next(super().blocks(1))
                raise ti.InputError("row 1 is no pair")

        pairs = table(2)
        result = StreamedSelfInfluence(
            torch.zeros(2).double(), Broken(first=pairs.first, second=pairs.second, target=pairs.target), RUN, NAMES
        )
        with pytest.raises(ti.InputError, match="row 1 is no pair"):
            result.save(path)
        assert path.read_bytes() == b"old"
        assert [file.name for file in tmp_path.iterdir() if file.suffix == ".tmp"] == []
        with pytest.raises(ti.UsageError, match="`path` should end in .csv or .parquet"):
            result.save(tmp_path / "s.json")
        (tmp_path / "folder.parquet").mkdir()
        with pytest.raises(ti.OutputError, match="is a folder or a device"):
            result.save(tmp_path / "folder.parquet")

"""Ways in which correct-looking code gave wrong numbers, or refused what can be scored; one test each."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import tracin_func as ti
from tests.support import calls
from tracin_func.gradients.device import _full_float32

PAIRS = ti.Pairs([0, 1, 2, 3, 4], [1, 2, 3, 4, 0], [1, -1, 1, 1, -1])


def two_states(module: nn.Module, rates: tuple[float, float] = (0.1, 0.2)) -> list[ti.Checkpoint]:
    """The module's state, and one whose weights are half as large."""
    state = copy.deepcopy(module.state_dict())
    half = {name: tensor / 2 if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    return [ti.Checkpoint(state, rates[0], "first"), ti.Checkpoint(half, rates[1], "second")]


def scores(module: nn.Module, items: object, engine: str = "auto", **more: object) -> Tensor:
    """Per checkpoint self-influence with a loss that is active everywhere."""
    more = {"checkpoints": two_states(module), "pairs": PAIRS, "loss": ti.LogisticLoss()} | more
    return calls.self_influence(module, items, engine=engine, **more).per_checkpoint  # type: ignore[arg-type]


class Doubled(nn.Module):
    """Scores with twice its weight; may keep the product, register a buffer, or squeeze its output."""

    def __init__(self, keep: str = "nothing") -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)
        self.keep = keep
        self.product: Tensor | None = None
        self.cache: dict[str, Tensor] = {}

    def forward(self, items: Tensor) -> Tensor:
        weight = self.layer.weight * 2
        if self.keep == "an attribute":
            weight = self.product = weight if self.product is None else self.product
        elif self.keep == "a dict":
            weight = self.cache.setdefault("weight", weight)
        elif self.keep == "a buffer" and "weight" not in self._buffers:
            self.register_buffer("weight", weight.detach())
        return (items @ weight.T + self.layer.bias).squeeze()


@pytest.fixture
def items() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(5, 3)


@pytest.mark.parametrize("engine", ["item", "pair", "loop"])
@pytest.mark.parametrize("keep", ["an attribute", "a dict", "a buffer"])
def test_what_a_forward_keeps_does_not_serve_the_next_call(keep: str, engine: str, items: Tensor) -> None:
    plain, keeping = Doubled(), Doubled(keep)
    keeping.load_state_dict(plain.state_dict())
    torch.testing.assert_close(scores(keeping, items, engine), scores(plain, items, "loop"), rtol=1e-5, atol=0)
    assert keeping.product is None
    assert keeping.cache == {}
    assert "weight" not in keeping._buffers


def test_the_callers_autocast_and_inference_mode_change_nothing(items: Tensor) -> None:
    module = nn.Sequential(nn.Linear(3, 64), nn.Tanh(), nn.Linear(64, 1))
    expected = scores(module, items)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(scores(module, items), expected)
        assert torch.is_autocast_enabled("cpu")
    with torch.inference_mode():
        assert torch.equal(scores(module, items.clone()), expected)


@pytest.mark.parametrize("engine", ["item", "pair", "loop"])
def test_losses_of_half_precision_scores_are_taken_in_float32(engine: str, items: Tensor) -> None:
    module = nn.Linear(3, 1).bfloat16()
    pairs = ti.Pairs(PAIRS.first, PAIRS.second, PAIRS.target, weight=[0.1] * 5, margin=[10.3] * 5)
    loss = ti.MarginRankingLoss()
    checkpoint = [ti.Checkpoint(module.state_dict(), 0.1)]
    found = calls.self_influence(module, items.bfloat16(), pairs, checkpoint, loss=loss, engine=engine)
    # In bfloat16 the margin would be 10.3125, and a loss near 10 a multiple of 1/16.
    torch.testing.assert_close(found.pairs.loss[0], 10.3 - found.pairs.score_margin[0], rtol=1e-6, atol=0)
    assert found.pairs.weight[0].tolist() == [0.1] * 5


def test_tiny_slopes_do_not_underflow() -> None:
    module = nn.Linear(1, 1)
    with torch.no_grad():
        module.weight.fill_(1.0)
    pairs, items = ti.Pairs([0, 1], [1, 0], [1, -1]), torch.tensor([[60.0], [0.0]])
    for engine in ("item", "pair", "loop"):
        found = scores(module, items, engine, pairs=pairs, checkpoints=[ti.Checkpoint(module.state_dict(), 1.0)])
        slope = torch.sigmoid(torch.tensor(-60.0, dtype=torch.float64))
        torch.testing.assert_close(found[0], (slope * 60.0).square().expand(2), rtol=1e-5, atol=0)


def test_large_finite_gradients_are_no_error() -> None:
    module = nn.Linear(1, 1)
    items = torch.tensor([[1e19], [-1e19], [3e19]])
    pairs = ti.Pairs([0, 1], [1, 2], [-1, 1])
    checkpoints = [ti.Checkpoint({"weight": torch.ones(1, 1), "bias": torch.zeros(1)}, 1.0)]
    found = calls.self_influence(module, items, pairs, checkpoints, engine="item")
    torch.testing.assert_close(found.scores, torch.tensor([4e38, 16e38], dtype=torch.float64), rtol=1e-5, atol=0)


def test_states_collected_without_a_copy_are_refused(items: Tensor) -> None:
    module = nn.Linear(3, 1)
    checkpoints = [ti.Checkpoint(module.state_dict(), 0.1) for _ in range(3)]
    with pytest.raises(ti.InputError, match="`checkpoints` 1 and 2 share memory.*copy.deepcopy"):
        scores(module, items, checkpoints=checkpoints)


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)
        self.register_buffer("mask", torch.ones(3), persistent=False)

    def forward(self, items: Tensor) -> Tensor:
        return self.layer(items * self.mask)


def test_a_file_does_not_replace_what_the_model_makes_itself(items: Tensor) -> None:
    module = Masked()
    state = dict(module.state_dict())
    same = ti.Checkpoint(state | {"mask": torch.ones(3)}, 0.1)
    plain = scores(module, items, checkpoints=[ti.Checkpoint(state, 0.1)])
    assert torch.equal(scores(module, items, checkpoints=[same]), plain)
    with pytest.raises(ti.InputError, match="unexpected mask"):
        scores(module, items, checkpoints=[ti.Checkpoint(state | {"mask": torch.zeros(3)}, 0.1)])


def test_an_optimiser_that_trained_the_head_only_gives_no_rate_to_the_rest(tmp_path: Path, items: Tensor) -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    optimizer = torch.optim.Adam(module[2].parameters(), lr=0.01)
    path = tmp_path / "head.pt"
    torch.save({"model_state_dict": module.state_dict(), "optimizer_state_dict": optimizer.state_dict()}, path)
    with pytest.raises(ti.InputError, match="has 2 parameters, the model has 4 trainable ones. Freeze what"):
        scores(module, items, checkpoints=[ti.Checkpoint(path)])
    module[0].requires_grad_(False)
    assert scores(module, items, checkpoints=[ti.Checkpoint(path)]).shape == (1, 5)


def test_a_checkpoint_of_adapters_leaves_the_frozen_base_to_the_model(items: Tensor) -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    module[0].requires_grad_(False)
    adapter = {name: tensor for name, tensor in module.state_dict().items() if name.startswith("2.")}
    whole = scores(module, items, checkpoints=[ti.Checkpoint(module.state_dict(), 0.1)])
    found = calls.self_influence(module, items, PAIRS, [ti.Checkpoint(adapter, 0.1)], loss=ti.LogisticLoss())
    assert torch.equal(found.per_checkpoint, whole)
    assert "lacks 2 frozen parameters; the model's own are used" in found.run.notices[0]


def test_wrapped_modules_are_unwrapped(items: Tensor) -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    expected = scores(module, items)
    states = two_states(nn.DataParallel(module))
    assert torch.equal(scores(nn.DataParallel(module), items, checkpoints=states), expected)
    assert torch.equal(scores(module, items, checkpoints=states), expected)


class Louder(nn.Module):
    """Normalises by the largest of its batch, which the largest itself does not show."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def forward(self, items: Tensor) -> Tensor:
        return self.layer(items / items.abs().max())


def test_coupling_is_found_where_the_first_item_dominates(items: Tensor) -> None:
    items[0] *= 100
    module = Louder()
    found = calls.self_influence(module, items, PAIRS, two_states(module), loss=ti.LogisticLoss())
    assert "depends on the others in its batch, first through div" in found.run.notices[0]


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(7, 4), nn.Linear(4, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.embed(tokens).mean(dim=1))


@pytest.mark.parametrize("budget", [None, 1], ids=["rows held", "rows recomputed"])
@pytest.mark.parametrize("engine", ["ghost", "item", "pair", "loop"])
def test_items_of_different_lengths_are_taken_one_by_one(engine: str, budget: int | None) -> None:
    torch.manual_seed(0)
    module = Tokens()
    texts = [torch.randint(0, 7, (length,)) for length in (2, 2, 3, 5, 3)]
    states, loss = two_states(module), ti.LogisticLoss()
    found = calls.self_influence(module, texts, PAIRS, states, loss=loss, engine=engine, memory_budget=budget)
    assert not any("scored alone" in notice for notice in found.run.notices)
    alone = [float(module(text[None]).detach()) for text in texts]
    margins = [(alone[a] - alone[b]) * y for a, b, y in zip(PAIRS.first, PAIRS.second, PAIRS.target, strict=True)]
    torch.testing.assert_close(found.pairs.score_margin[0].float(), torch.tensor(margins, dtype=torch.float32))
    torch.testing.assert_close(found.scores, scores(module, texts, "loop").sum(dim=0), rtol=1e-5, atol=0)


class Routed(nn.Module):
    """Long items go another way than short ones; which way is decided for a whole batch, of one length."""

    def __init__(self) -> None:
        super().__init__()
        self.short, self.long = nn.Linear(2, 1), nn.Linear(2, 1)

    def forward(self, items: Tensor) -> Tensor:
        return (self.short if items.shape[1] < 3 else self.long)(items[:, :2])


def test_a_parameter_that_some_items_do_not_use_is_not_lost() -> None:
    torch.manual_seed(0)
    module = Routed()
    items = [torch.randn(length) for length in (2, 2, 2, 5, 5)]
    message = (
        '`engine="ghost"` cannot .* uses long.bias, long.weight, short.bias, short.weight for some items only. Use'
    )
    with pytest.raises(ti.InputError, match=message):
        scores(module, items, "ghost")
    found = calls.self_influence(module, items, PAIRS, two_states(module), loss=ti.LogisticLoss())
    torch.testing.assert_close(found.per_checkpoint, scores(module, items, "loop"), rtol=1e-5, atol=0)
    assert found.run.engine["engine"] == "item"
    assert "first: engine ghost failed (the scorer uses long.bias" in found.run.notices[0]


def test_a_dataset_of_one_tensor_gives_the_model_tensors(items: Tensor) -> None:
    module = nn.Linear(3, 1)
    assert torch.equal(scores(module, TensorDataset(items)), scores(module, items))


def test_a_forward_that_asserts_a_batch_of_one_can_be_scored(items: Tensor) -> None:
    class Alone(nn.Linear):
        def forward(self, items: Tensor) -> Tensor:
            assert items.shape[0] == 1
            return super().forward(items)

    module = Alone(3, 1)
    job = module, items, PAIRS, two_states(module)
    with pytest.raises(ti.InputError, match="scores one item but fails on a batch: assert 3 == 1 .in Alone.. Fix the"):
        calls.self_influence(*job, loss=ti.LogisticLoss())
    found = calls.self_influence(*job, loss=ti.LogisticLoss(), batch_size=1)
    assert torch.equal(found.per_checkpoint, scores(nn.Linear(3, 1), items, checkpoints=job[3], batch_size=1))


def test_rates_by_name_are_all_known_and_cover_all(items: Tensor) -> None:
    module = nn.Linear(3, 1)
    state = copy.deepcopy(module.state_dict())
    wrapped = ti.Checkpoint(state, {"module.weight": 0.1, "module.bias": 0.1})
    assert torch.equal(
        scores(module, items, checkpoints=[wrapped]), scores(module, items, checkpoints=[ti.Checkpoint(state, 0.1)])
    )
    with pytest.raises(ti.InputError, match="Missing: none; unknown: typo"):
        scores(module, items, checkpoints=[ti.Checkpoint(state, {"weight": 0.1, "bias": 0.1, "typo": 9.0})])


def test_progress_of_a_checkpoint_adds_up_to_one(items: Tensor) -> None:
    module = nn.Linear(3, 1)
    for engine, budget in (("item", None), ("item", 50), ("pair", 50), ("loop", 50)):
        told: list[float] = []
        task = ti.Task(module, items, PAIRS, two_states(module), loss=ti.LogisticLoss())
        calls.score(task, calls.how(engine=engine, memory_budget=budget, progress=told.append))
        assert sum(told) == pytest.approx(2.0)


def test_missing_files_are_told_before_anything_is_scored(items: Tensor, tmp_path: Path) -> None:
    module = nn.Linear(3, 1)
    told: list[float] = []
    checkpoints = [ti.Checkpoint(module.state_dict(), 0.1), ti.Checkpoint(tmp_path / "gone.pt", 0.1)]
    task = ti.Task(module, items, PAIRS, checkpoints)
    with pytest.raises(ti.InputError, match="gone.pt: no such checkpoint file"):
        calls.score(task, calls.how(progress=told.append))
    assert told == []


def test_tf32_is_off_in_scope_by_whichever_interface_there_is() -> None:
    matmul = torch.backends.cuda.matmul
    setting = "fp32_precision" if hasattr(matmul, "fp32_precision") else "allow_tf32"
    before = getattr(matmul, setting)
    with _full_float32(torch.device("cuda")):
        assert getattr(matmul, setting) in ("ieee", False)
    assert getattr(matmul, setting) == before


class HalfAlone(nn.Module):
    """Fails with weights in float32."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.arange(1.0, 4.0).half())

    def forward(self, items: Tensor) -> Tensor:
        return (items.half() @ self.weight).tanh()


def test_a_model_that_runs_in_half_precision_alone_is_scored_there(items: Tensor) -> None:
    module = HalfAlone()
    states = [ti.Checkpoint({"weight": scale * module.weight.detach()}, 0.1) for scale in (0.5, 0.25)]
    found = calls.self_influence(module, items, PAIRS, states, loss=ti.LogisticLoss())
    assert any("fails in float32. Its gradients are float16" in notice for notice in found.run.notices)
    wide = nn.Sequential(nn.Linear(3, 1, bias=False), nn.Tanh())
    same = [ti.Checkpoint({"0.weight": each.source["weight"][None].float()}, 0.1) for each in states]  # type: ignore[index]
    right = calls.self_influence(wide, items, PAIRS, same, loss=ti.LogisticLoss())
    torch.testing.assert_close(found.scores, right.scores, rtol=2e-2, atol=1e-4)

"""The user's module as a function of weights: what fits it, what does not, and what is said then."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

import tracin_func as ti
from tests.support import calls
from tests.support.architectures import BY_NAME, ITEMS

PAIRS = ti.Pairs([0, 1, 2], [1, 2, 3], [1, -1, 1])


def scored(module: nn.Module, items: Any, weights: Any = None, rate: Any = 0.1, **options: Any) -> Tensor:
    checkpoint = ti.Checkpoint(module.state_dict() if weights is None else weights, rate, "epoch 1")
    return calls.self_influence(module, items, PAIRS, [checkpoint], **options).scores


@pytest.fixture
def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(3, 1)


@pytest.fixture
def items() -> Tensor:
    return torch.randn(ITEMS, 3, generator=torch.Generator().manual_seed(1))


def test_what_is_no_scorer(linear: nn.Module, items: Tensor) -> None:
    checkpoint = [ti.Checkpoint(linear.state_dict(), 0.1)]
    with pytest.raises(ti.UsageError, match="`scorer` should be a torch.nn.Module. Got function"):
        calls.self_influence(lambda x: x, items, PAIRS, checkpoint)  # type: ignore[arg-type]
    linear.requires_grad_(False)
    with pytest.raises(ti.UsageError, match="`scorer` Linear has frozen parameters only, so no gradient exists"):
        calls.self_influence(linear, items, PAIRS, checkpoint)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w | {"extra": torch.ones(1)}, "epoch 1: .* do not fit the model Linear: unexpected extra. Give the"),
        (lambda w: {"weight": w["weight"]}, "missing bias. Give the class it was trained with"),
        (
            lambda w: w | {"weight": torch.ones(1, 4)},
            r"wrong shape weight: \[1, 4\] in the file, \[1, 3\] in the model",
        ),
        (lambda w: {"a": w["weight"], "b": w["bias"]}, "missing weight, bias; unexpected a, b"),
        (lambda w: w | {str(n): torch.ones(1) for n in range(9)}, "unexpected 0, 1, 2, 3 and 5 more"),
        (lambda w: w | {"bias": torch.tensor([float("nan")])}, "epoch 1: weight 'bias' holds NaN or Inf. Leave this"),
        (lambda w: w | {"weight": w["weight"] / 0}, "epoch 1: weight 'weight' holds NaN or Inf"),
    ],
)
def test_weights_that_do_not_fit(linear: nn.Module, items: Tensor, change: Any, message: str) -> None:
    with pytest.raises(ti.InputError, match=message):
        scored(linear, items, change(dict(linear.state_dict())))


def test_nan_in_a_buffer_is_found() -> None:
    module, items = BY_NAME["a buffer that enters the score"]()
    with pytest.raises(ti.InputError, match="weight 'window' holds NaN"):
        scored(module, items, dict(module.state_dict()) | {"window": torch.full((4,), float("nan"))})


def test_wrapper_prefixes(linear: nn.Module, items: Tensor) -> None:
    right = scored(linear, items)
    for prefix in ("module.", "_orig_mod.", "module._orig_mod."):
        weights = {prefix + name: tensor for name, tensor in linear.state_dict().items()}
        assert torch.equal(scored(linear, items, weights), right)


class Wrapper(nn.Module):
    """Its one part is really called `module`."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x)


def test_a_scorer_whose_part_is_called_module(linear: nn.Module, items: Tensor) -> None:
    assert torch.equal(scored(Wrapper(linear), items), scored(linear, items))


def test_old_files_without_a_batch_counter() -> None:
    module, items = BY_NAME["batch normalisation of features, eval"]()
    weights = {name: t for name, t in module.state_dict().items() if not name.endswith("num_batches_tracked")}
    assert torch.equal(scored(module, items, weights), scored(module, items))


def tied(frozen: bool = False) -> tuple[nn.Module, Tensor]:
    module, items = BY_NAME["tied weights: an embedding is also the output layer"]()
    if frozen:
        module.embed.weight.requires_grad_(False)
        module = nn.Sequential(module, nn.Unflatten(0, (-1, 1)), nn.Linear(1, 1))
    return module, items


@pytest.mark.parametrize("frozen", [False, True])
def test_tied_weights_saved_under_one_name(tmp_path: Path, frozen: bool) -> None:
    module, items = tied(frozen)
    safetensors.torch.save_model(module, str(tmp_path / "model.safetensors"))
    checkpoint = ti.Checkpoint(tmp_path / "model.safetensors", 0.1)
    found = calls.self_influence(module, items, PAIRS, [checkpoint]).scores
    assert torch.equal(found, scored(module, items))
    assert bool((found > 0).any())


def test_tied_weights_that_differ_are_refused() -> None:
    module, items = tied()
    weights = dict(module.state_dict())
    weights["out.weight"] = weights["out.weight"] + 1e-9 + weights["out.weight"] * 1e-3
    with pytest.raises(
        ti.InputError, match="'embed.weight' and 'out.weight' are one weight of the model; their values differ"
    ):
        scored(module, items, weights)


def test_two_names_of_one_module_that_differ_are_refused() -> None:
    module, items = BY_NAME["siamese: one module under two names"]()
    weights = dict(module.state_dict())
    weights["right.0.weight"] = weights["right.0.weight"] + 1
    with pytest.raises(ti.InputError, match="values differ"):
        scored(module, items, weights)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_weights_saved_in_another_precision(linear: nn.Module, items: Tensor, dtype: torch.dtype) -> None:
    """load_state_dict would cast them to the module's."""
    weights = {name: tensor.to(dtype) for name, tensor in linear.state_dict().items()}
    assert torch.allclose(scored(linear, items, weights), scored(linear, items), rtol=0.05)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_precision_of_ones_choice(linear: nn.Module, items: Tensor, dtype: torch.dtype) -> None:
    right = scored(linear.double(), items.double())
    torch.testing.assert_close(scored(linear.float(), items, dtype=dtype), right, rtol=1e-5, atol=1e-8)


class Odd(nn.Module):
    """Returns what `shape` makes of its scores."""

    def __init__(self, shape: Any) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)
        self.shape = shape

    def forward(self, x: Tensor) -> Any:
        return self.shape(self.layer(x))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (
            lambda s: s.expand(-1, 2),
            r"should return floating-point scores \[items\] or .* Got torch.float32 of shape \(1, 2\)",
        ),
        (lambda s: s[:, :, None], r"Got torch.float32 of shape \(1, 1, 1\)"),
        (lambda s: (s, s), r"`scorer` Odd should return one tensor \[items\] or \[items, 1\]. Got tuple."),
        (lambda s: (s > 0)[:, 0], r"Got torch.bool of shape \(1,\)"),
    ],
)
def test_what_a_scorer_may_return(items: Tensor, shape: Any, message: str) -> None:
    with pytest.raises(ti.InputError, match=message):
        scored(Odd(shape), items)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.compile itself
def test_compiled_modules_are_unwrapped(linear: nn.Module, items: Tensor) -> None:
    compiled = torch.compile(linear)
    assert torch.equal(scored(compiled, items), scored(linear, items))


def test_scripted_modules_are_refused(linear: nn.Module, items: Tensor) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(linear)
    with pytest.raises(ti.UsageError, match="`scorer` should be an eager module. Got a ScriptModule"):
        scored(scripted, items)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "ghosts"}, "`engine` should be one of auto, loop, pair, item, ghost. Got 'ghosts'."),
        ({"batch_size": 0}, '`batch_size` should be at least 1, or "auto". Got 0.'),
        ({"device": "abacus"}, "`device` should be auto, cuda, mps, cpu, or one of these with an index. Got 'abacus'."),
        ({"device": "meta"}, "`device` should be auto, cuda, mps, cpu"),
    ],
)
def test_options_are_checked(linear: nn.Module, items: Tensor, options: Any, message: str) -> None:
    with pytest.raises(ti.UsageError, match=message):
        scored(linear, items, **options)


@pytest.mark.parametrize(
    ("pairs", "changes", "message"),
    [
        (ti.Pairs([0], [9], [1]), {}, "train pair 0: 'second' is 9; expected the position of an item, below 6. Use"),
        (ti.Pairs([], [], []), {}, "`train` has no pairs. Give at least one."),
        (PAIRS, {"item_ids": ["a"]}, "`item_ids` has 1 entries for 6 items. Expected one per item."),
        (
            PAIRS,
            {"item_ids": list("abcdea")},
            "two items have the id 'a': `item_ids` 0 and 5, compared as text. Rename one of them.",
        ),
        (PAIRS, {"checkpoints": []}, "`checkpoints` is empty. Give at least one."),
        (
            PAIRS,
            {"items": {"x": torch.ones(3), "y": torch.ones(4)}},
            r"`items` should share their .* Got lengths \[3, 4\]",
        ),
        (
            PAIRS,
            {"items": 3},
            "`items` should be a tensor, a dict or tuple of tensors, or a map-style dataset. Got int.",
        ),
        (PAIRS, {"items": {"x": "text"}}, r"`items\['x'\]` should be a tensor. Got str."),
    ],
)
def test_jobs_are_checked(linear: nn.Module, items: Tensor, pairs: ti.Pairs, changes: Any, message: str) -> None:
    job: dict[str, Any] = {"items": items, "checkpoints": [ti.Checkpoint(linear.state_dict(), 0.1)], **changes}
    with pytest.raises(ti.InputError, match=message):
        calls.self_influence(linear, job.pop("items"), pairs, job.pop("checkpoints"), **job)


def test_a_dataset_of_single_items(linear: nn.Module, items: Tensor) -> None:
    assert torch.equal(scored(linear, list(items)), scored(linear, items))

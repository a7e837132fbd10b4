"""Whether the score of one item depends on its companions, and which operation is named."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from tests.support.architectures import ARCHITECTURES, BY_NAME, Body
from tracin_func.gradients.coupling import mixing_operation


def first_mixing(forward: Any, items: Any, count: int | None = None) -> str | None:
    return mixing_operation(lambda index: forward(items[index]).flatten(), len(items) if count is None else count)


def line_of(text: str) -> int:
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    return next(number for number, line in enumerate(lines, start=1) if text in line)


def whole_batch(self: Any, x: Tensor) -> Tensor:
    x = self.layer(x).tanh()
    centred = x - x.mean()  # the line that mixes
    return self.out(centred)


def test_whole_batch_normalisation_is_named_with_its_line() -> None:
    torch.manual_seed(0)
    module = Body(whole_batch, layer=nn.Linear(3, 4), out=nn.Linear(4, 1)).eval()
    found = first_mixing(module, torch.randn(8, 3))
    assert found is not None
    named = re.fullmatch(r"(\w+) \(test_coupling.py:(\d+)\)", found)
    assert named is not None
    assert named.group(1) in ("sub", "mean", "__sub__", "rsub")
    assert int(named.group(2)) == line_of("# the line that mixes")


@pytest.mark.parametrize("count", [2, 3, 4, 5, 8])
def test_few_items_are_enough_to_see_it(count: int) -> None:
    torch.manual_seed(0)
    assert first_mixing(lambda x: (x - x.mean()).sum(1), torch.randn(count, 3)) is not None
    assert first_mixing(lambda x: x.sum(1), torch.randn(count, 3)) is None


def test_one_item_has_no_companions() -> None:
    assert first_mixing(lambda x: (x - x.mean()).sum(1), torch.randn(1, 3)) is None


@pytest.mark.parametrize(
    "mix",
    [
        lambda x: x.cumsum(0),
        lambda x: x.flip(0).cumsum(0),
        lambda x: x + x.roll(1, 0),
        lambda x: x.softmax(0),
        lambda x: (x @ x.mT).softmax(-1) @ x,
        lambda x: x / x.norm(),
        lambda x: x - x.amax(0),
        lambda x: nn.functional.batch_norm(x, None, None, training=True),
    ],
    ids=["looks back", "looks ahead", "neighbour", "softmax", "attention over items", "norm", "maximum", "batch norm"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_mixing_over_the_batch_axis(mix: Any, dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    layer = nn.Linear(3, 1).to(dtype)
    assert first_mixing(lambda x: layer(mix(x).tanh()), torch.randn(8, 3, dtype=dtype)) is not None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("architecture", [row for row in ARCHITECTURES if row.on_meta], ids=lambda row: row.name)
def test_architectures(architecture: Any, dtype: torch.dtype) -> None:
    """In eval mode none of them mixes but the one that is meant to: no false alarm by rounding, either."""
    if dtype == torch.bfloat16 and "orthogonal" in architecture.name:
        pytest.skip("no solver in half precision")
    module, items = architecture()
    cast = pytree.tree_map(lambda leaf: leaf.to(dtype) if leaf.is_floating_point() else leaf, items)
    module = module.to(dtype).eval()

    def forward(index: Tensor) -> Tensor:
        return module(pytree.tree_map(lambda leaf: leaf[index], cast)).flatten()

    assert (mixing_operation(forward, 6) is not None) == architecture.coupled


def test_sequence_first_attention_is_not_flagged() -> None:
    module, items = BY_NAME["attention with the sequence first"]()
    assert first_mixing(module.eval(), items) is None


def test_attention_along_the_wrong_axis_is_flagged() -> None:
    """The classic slip: batch_first forgotten, so that items attend to each other."""
    torch.manual_seed(0)
    attend, out = nn.MultiheadAttention(4, 2), nn.Linear(4, 1)
    assert first_mixing(lambda x: out(attend(x, x, x)[0].mean(1)), torch.randn(8, 5, 4)) is not None


def test_a_forward_that_takes_one_item_only() -> None:
    def forward(x: Tensor) -> Tensor:
        return x.reshape(1, 3).sum(1)

    with pytest.raises(RuntimeError, match="invalid for input of size 9"):
        first_mixing(forward, torch.randn(8, 3))


def test_outside_torch() -> None:
    found = first_mixing(lambda x: torch.from_numpy(x.numpy() - x.numpy().mean()).sum(1), torch.randn(8, 3))
    assert found is not None

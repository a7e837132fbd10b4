"""The embedded ranker: its size, its shapes, and that an item's score is its own."""

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap

from tracin_func.sources.demo.ranker import AngleRanker


@pytest.fixture(scope="module")
def ranker() -> AngleRanker:
    """In eval mode, with running statistics as a training leaves them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AngleRanker()
        for _ in range(3):
            model(torch.randn(6, 1, 129, 126))
    return model.eval()


def random_items(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def test_about_four_hundred_thousand_parameters(ranker: AngleRanker) -> None:
    assert 380_000 <= sum(parameter.numel() for parameter in ranker.parameters()) <= 450_000


@pytest.mark.parametrize("size", [(1025, 188), (129, 126), (40, 20), (5, 3), (1, 1)])
@pytest.mark.parametrize("items", [1, 3])
def test_one_score_an_item_whatever_the_size(ranker: AngleRanker, items: int, size: tuple[int, int]) -> None:
    scores = ranker(random_items(items, 1, *size))
    assert scores.shape == (items,)
    assert scores.isfinite().all()


def test_a_score_does_not_depend_on_the_companions(ranker: AngleRanker) -> None:
    items = random_items(4, 1, 129, 126)
    others = torch.cat([items[:1], 50 + 30 * items[1:]])
    torch.testing.assert_close(ranker(items)[0], ranker(others)[0], rtol=0, atol=1e-6)


def test_level_and_spread_of_an_item_are_normalised_away(ranker: AngleRanker) -> None:
    items = random_items(3, 1, 129, 126)
    torch.testing.assert_close(ranker(7 * items - 40), ranker(items), rtol=1e-4, atol=1e-5)
    assert ranker(torch.zeros(2, 1, 129, 126)).isfinite().all()


def test_the_input_is_left_alone(ranker: AngleRanker) -> None:
    items = random_items(2, 1, 129, 126)
    before = items.clone()
    ranker(items).sum().backward()
    assert torch.equal(items, before)


def test_one_gradient_an_item_under_vmap(ranker: AngleRanker) -> None:
    items = random_items(3, 1, 129, 126)
    parameters = {name: parameter.detach() for name, parameter in ranker.named_parameters()}
    buffers = dict(ranker.named_buffers())

    def score(parameters: dict[str, Tensor], item: Tensor) -> Tensor:
        return functional_call(ranker, (parameters, buffers), (item.unsqueeze(0),))[0]

    with torch.no_grad():
        gradients = vmap(grad(score), (None, 0))(parameters, items)
    expected = torch.autograd.grad(ranker(items[1:2]).sum(), list(ranker.parameters()))
    for name, gradient in zip(parameters, expected, strict=True):
        torch.testing.assert_close(gradients[name][1], gradient, rtol=1e-4, atol=1e-5)

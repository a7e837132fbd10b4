"""Procedures that are wrong for one kind of module: both the comparison with the reference and `verify` refuse each."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

import tracin_func as ti
from tests.support import calls
from tests.support.cases import aliases, backwards, companions, encoders
from tests.support.cases.reference import RATES, TEST, TRAIN, Make, noise, reference, seeded, two_states
from tests.support.cases.runs import pairs
from tests.support.kinds import Running

Gradients = Callable[[nn.Module, Any, dict[str, Tensor]], list[tuple[Tensor, Tensor]]]  # a score and gradient per item


@dataclass(frozen=True)
class Wrong:
    """A module, its items, and a wrong way to the score and the gradient of each item at a state."""

    make: Make
    items: Any
    gradients: Gradients


def _flat(score: Tensor, parameters: list[Tensor]) -> Tensor:
    found = torch.autograd.grad(score, parameters, allow_unused=True)
    zeros = (torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True))
    return torch.cat([part.flatten() for part in zeros]).double()


def loaded(module: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    module.load_state_dict(state)
    return module.eval()


def weights_substituted(module: nn.Module, items: Any, state: dict[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """By functional_call, which does not reach what a list holds."""
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in state.items()}
    scores = [functional_call(module, leaves, (items[i : i + 1],)).reshape(()) for i in range(len(items))]
    return [(score, _flat(score, list(leaves.values()))) for score in scores]


def scores_on_the_fast_path(module: nn.Module, items: Any, state: dict[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Scores without gradients, which torch computes otherwise for padded items."""
    module, found = loaded(module, state), []
    for i in range(len(items)):
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            score = module(items[i : i + 1]).reshape(())
        found.append((score, _flat(module(items[i : i + 1]).reshape(()), list(module.parameters()))))
    return found


def all_in_one_batch(module: nn.Module, items: Any, state: dict[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    module = loaded(module, state)
    scores = module(items).flatten()
    found = []
    for i in range(len(items)):
        gradients = torch.autograd.grad(scores[i], list(module.parameters()), retain_graph=True)
        found.append((scores[i], torch.cat([part.flatten() for part in gradients]).double()))
    return found


def one_gradient_per_item(module: nn.Module, items: Any, state: dict[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """As if the backward were linear, or `eval()` harmless."""
    module = loaded(module, state)
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    scores = [module(items[i : i + 1]).reshape(()) for i in range(len(items))]
    return [(score, _flat(score, parameters)) for score in scores]


def gradients_in_float16(module: nn.Module, items: Any, state: dict[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    return one_gradient_per_item(module.half(), items.half(), {name: tensor.half() for name, tensor in state.items()})


class Small(nn.Module):
    """Its gradients are below what float16 holds; its scores are not."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 1)

    def forward(self, items: Tensor) -> Tensor:
        return (self.layer(items)[:, 0] * 1e-5) * 1e-3


KINDS: dict[str, Wrong] = {
    "weights reached by a list": Wrong(aliases.Listed, noise(6, 5), weights_substituted),
    "the fast path of encoders": Wrong(lambda: encoders.Encoder("mean"), encoders.texts(), scores_on_the_fast_path),
    "a rare companion": Wrong(companions.Limiting, companions.small_items_and_a_large_one(6, 3), all_in_one_batch),
    "a backward that is not linear": Wrong(
        lambda: backwards.Hooked(backwards.clamped), noise(6, 5), one_gradient_per_item
    ),
    "a buffer that forward updates": Wrong(Running, noise(6, 5), one_gradient_per_item),
    "half precision": Wrong(Small, noise(6, 5), gradients_in_float16),
}


def scores_of(kind: Wrong) -> tuple[Tensor, Tensor]:
    """Σ_t η_t ⟨∇ℓ_p, ∇ℓ_q⟩ from these gradients and the slopes of the logistic loss, per checkpoint."""
    own, cross = [], []
    module = seeded(kind.make)
    for state, rate in zip(two_states(seeded(kind.make)), RATES, strict=True):
        found = kind.gradients(module, kind.items, state)

        def rows(table: Any, found: list[tuple[Tensor, Tensor]] = found) -> Tensor:
            made = []
            for a, b, y in table.rows():
                slope = -y * torch.sigmoid(-y * (found[a][0] - found[b][0]).detach().double())
                made.append(slope * (found[a][1] - found[b][1]))
            return torch.stack(made)

        train, test = rows(TRAIN), rows(TEST)
        own.append(rate * train.square().sum(dim=1))
        cross.append(rate * train @ test.T)
    return torch.stack(own), torch.stack(cross)


def task_of(kind: Wrong) -> ti.Task:
    module = seeded(kind.make)
    checkpoints = [ti.Checkpoint(state, rate) for state, rate in zip(two_states(module), RATES, strict=True)]
    return ti.Task(module, kind.items, pairs(TRAIN), checkpoints, pairs(TEST), ti.LogisticLoss())


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("name", KINDS)
def test_a_wrong_procedure_is_caught_by_the_reference_and_by_verify(name: str) -> None:
    kind = KINDS[name]
    task = task_of(kind)
    right = calls.score(task, calls.how(device="cpu"), self_influence=True, influence=True)
    assert right.self_influence is not None
    assert right.influence is not None
    own, cross = scores_of(kind)
    if name != "a buffer that forward updates":  # whose reference is in test_working
        expected = reference(kind.make, kind.items, two_states(seeded(kind.make)))
        for found, wanted in ((right.self_influence.scores, expected.own), (right.influence.scores, expected.cross)):
            assert float((found - wanted).abs().max() / wanted.abs().max()) < 1e-5
        assert float((own.sum(dim=0) - expected.own).abs().max() / expected.own.abs().max()) > 1e-3
    assert calls.verified(task, calls.how(), right, 20).passed
    spoiled = replace(
        right,
        self_influence=replace(right.self_influence, per_checkpoint=own),
        influence=replace(right.influence, per_checkpoint=cross),
    )
    assert not calls.verified(task, calls.how(), spoiled, 20).passed

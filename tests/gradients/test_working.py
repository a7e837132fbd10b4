"""Which module runs for each kind of module, how transforms substitute its weights, and that the scores are right."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

import tracin_func as ti
from tests.support.cases.reference import RATES, TEST, TRAIN, noise, seeded, two_states
from tests.support.cases.runs import pairs
from tests.support.kinds import KINDS
from tracin_func.gradients.model import Scorer
from tracin_func.gradients.working import Snapshot

ITEMS = noise(6, 5)
pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated")


def adopted(module: nn.Module) -> Scorer:
    """A scorer that has tried two items at a state other than the module's own."""
    scorer = Scorer(module)
    state = scorer.state("second", two_states(module)[1], torch.device("cpu"), None)
    scorer.adopt(state, ITEMS[:2])
    return scorer


@pytest.mark.parametrize("name", KINDS)
def test_the_route_of_each_kind(name: str) -> None:
    runs, substitution, build = KINDS[name]
    scorer = adopted(seeded(build))
    found = "private" if scorer.is_private else "own"
    assert (found, scorer.substitution or "none") == (runs, substitution)


def right_scores(build: Callable[[], nn.Module]) -> tuple[torch.Tensor, torch.Tensor]:
    """By hand, in float64, on a module that `load_state_dict` fills; modes are attributes, not calls of `eval()`."""
    module = seeded(build).double()
    own, cross = torch.zeros(()), torch.zeros(())
    for state, rate in zip(two_states(seeded(build)), RATES, strict=True):

        def gradient(a: int, b: int, y: int, state: dict[str, torch.Tensor] = state) -> torch.Tensor:
            scores = []
            fresh = copy.copy(vars(module))
            for item in (a, b):
                with torch.no_grad():
                    for key, buffer in module.named_buffers():
                        buffer.data.copy_(state[key])
                scores.append(module(ITEMS[item : item + 1].double()).reshape(()))
                vars(module).update(fresh)
            loss = torch.nn.functional.softplus(-y * (scores[0] - scores[1]))
            parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
            found = torch.autograd.grad(loss, parameters, allow_unused=True)
            zeros = (torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True))
            return torch.cat([part.flatten() for part in zeros])

        for submodule in module.modules():
            submodule.training = False
        module.load_state_dict(state)
        train, test = (torch.stack([gradient(*row) for row in table.rows()]) for table in (TRAIN, TEST))
        own = own + rate * train.square().sum(dim=1)
        cross = cross + rate * train @ test.T
    return own, cross


@pytest.mark.parametrize("engine", ["auto", "loop", "item", "pair"])
@pytest.mark.parametrize("name", KINDS)
def test_every_kind_has_the_right_scores(name: str, engine: str) -> None:
    """An engine of transforms may refuse what it cannot follow; `auto` and `loop` may not."""
    build = KINDS[name][2]
    module = seeded(build)
    checkpoints = [ti.Checkpoint(state, rate) for state, rate in zip(two_states(module), RATES, strict=True)]
    task = ti.Task(module, ITEMS, pairs(TRAIN), checkpoints, pairs(TEST), ti.LogisticLoss())
    if name == "a `.data` alias":  # which float64 would break: the reference is the module's own type
        pytest.skip("compared in test_an_alias_is_read_at_the_checkpoint")
    try:
        found = ti.score(task, ti.Compute(engine=engine, device="cpu"), self_influence=True, influence=True)
    except ti.InputError as error:
        if engine not in ("item", "pair") or "cannot differentiate this scorer: " not in str(error):
            raise
        return
    assert found.self_influence is not None
    assert found.influence is not None
    own, cross = right_scores(build)
    for given, wanted in ((found.self_influence.scores, own), (found.influence.scores, cross)):
        assert float((given - wanted).abs().max() / wanted.abs().max()) < 1e-5


def test_an_alias_is_read_at_the_checkpoint() -> None:
    module = seeded(KINDS["a `.data` alias"][2])
    state = two_states(module)[1]
    scorer = adopted(module)
    held = scorer.state("second", state, torch.device("cpu"), None)
    with scorer.holding(held), torch.no_grad():
        found = scorer.run(ITEMS)
    right = (ITEMS @ state["layer.weight"].T + state["layer.bias"]).tanh().sum(1) * state["layer.bias"].sum()
    torch.testing.assert_close(found, right)
    assert torch.equal(module.layer.bias, two_states(seeded(KINDS["a `.data` alias"][2]))[0]["layer.bias"])


def test_a_snapshot_puts_back_attributes_and_containers() -> None:
    module = nn.Linear(1, 1)
    module.cache, module.words = {"a": 1}, {str(n): n for n in range(2000)}
    snapshot = Snapshot(module)
    module.cache["b"] = 2
    module.words["more"] = 1
    module.new, module.cache = 3, {"c": 1}
    snapshot.restore()
    assert module.cache == {"a": 1}
    assert len(module.words) == 2000
    assert not hasattr(module, "new")

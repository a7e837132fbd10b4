"""Which module runs for each kind of module, how transforms substitute its weights, and that the scores are right."""

import contextlib
import copy
import functools
from collections.abc import Callable

import pytest
import torch
from torch import nn

import tracin_func as ti
from tests.support import calls
from tests.support.cases.reference import RATES, TEST, TRAIN, noise, seeded, two_states
from tests.support.cases.runs import pairs
from tests.support.kinds import KINDS
from tracin_func.gradients.model import Scorer, State
from tracin_func.gradients.snapshot import Snapshot

ITEMS = noise(6, 5)
pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated")


def adopted(module: nn.Module) -> Scorer:
    """A scorer that has tried two items at a state other than the module's own."""
    scorer = Scorer(module)
    state = scorer.state("second", two_states(module)[1], torch.device("cpu"), None)
    scorer.adopt(state, ITEMS[:2])
    substituted(scorer, state, ITEMS[:2])
    return scorer


def substituted(scorer: Scorer, state: State, items: torch.Tensor) -> None:
    """The first call with substituted weights, which seeks the way."""
    with contextlib.suppress(RuntimeError), torch.no_grad():
        scorer.score(state.parameters, state.constants, items)


@pytest.mark.parametrize("name", KINDS)
def test_the_route_of_each_kind(name: str) -> None:
    runs, substitution, build = KINDS[name]
    scorer = adopted(seeded(build))
    found = "private" if scorer._working.private else "own"
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
        found = calls.score(task, calls.how(engine=engine, device="cpu"), self_influence=True, influence=True)
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


def test_memory_that_numpy_shares_is_read_at_the_checkpoint() -> None:
    """A copy would keep the values that the module has now, which may be those of the first checkpoint."""
    module = nn.Sequential(nn.Linear(5, 1))
    values = module[0].bias.detach().numpy()
    module.register_forward_hook(lambda _, __, scores: scores * (2 + float(values[0])))
    states = two_states(module)
    scorer = Scorer(module)
    now = scorer.state("now", module.state_dict(), torch.device("cpu"), None)
    scorer.adopt(now, ITEMS[:1])
    substituted(scorer, now, ITEMS[:1])
    assert (scorer._working.private, scorer.substitution) == (False, None)
    with scorer.holding(scorer.state("second", states[1], torch.device("cpu"), None)), torch.no_grad():
        found = scorer.run(ITEMS)
    weight, bias = states[1]["0.weight"], states[1]["0.bias"]
    torch.testing.assert_close(found, (ITEMS @ weight[0] + bias) * (2 + bias))


class Remembering(nn.Module):
    """Keeps a scale between forwards, outside itself."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 1)

    @functools.lru_cache  # noqa: B019
    def scale(self) -> float:
        return float(self.layer.weight.detach().norm())

    def forward(self, items: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.layer(items) * self.scale()
        return scores


def test_memory_of_former_weights_is_refused() -> None:
    module = Remembering()
    scorer = Scorer(module)
    with pytest.raises(ti.InputError, match="`scorer` Remembering caches values of earlier weights"):
        scorer.adopt(scorer.state("first", two_states(module)[0], torch.device("cpu"), None), ITEMS[:1])


@pytest.mark.parametrize("keep", [lambda view: view, lambda view: (1, [view])])
def test_a_view_from_before_the_forward_is_refused(keep: Callable[[torch.Tensor], object]) -> None:
    module = nn.Linear(5, 1)
    module.row = keep(module.weight[0])
    with pytest.raises(ti.UsageError, match="`scorer` Linear has an attribute 'row' that is a view of a parameter"):
        Scorer(module)


def doubled(module: nn.Module, state: dict[str, torch.Tensor], *_: object) -> None:
    state["weight"] = 2 * state["weight"]


def marked(module: nn.Module, _: object) -> None:
    module.scale = 2.0


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda module: module.register_load_state_dict_pre_hook(doubled), "changes the weight 'weight'"),
        (
            lambda module: module.register_load_state_dict_post_hook(marked),
            "sets the attribute 'scale', which is no weight",
        ),
    ],
)
def test_loading_that_does_more_is_refused(prepare: Callable[[nn.Module], object], message: str) -> None:
    module = nn.Linear(5, 1)
    module.scale = 1.0
    prepare(module)
    scorer = Scorer(module)
    with pytest.raises(ti.InputError, match=f"first: `load_state_dict` of Linear {message}"):
        scorer.state("first", module.state_dict(), torch.device("cpu"), None)


def test_loading_by_a_hook_that_changes_nothing_is_fine() -> None:
    module = nn.Linear(5, 1)
    module.register_load_state_dict_post_hook(lambda *_: None)
    assert Scorer(module).state("first", module.state_dict(), torch.device("cpu"), None).name == "first"


def test_a_random_scorer_runs_the_hooks_of_its_parameters() -> None:
    """And says both, although no later check applies to random scores."""
    module = nn.Linear(5, 1)
    module.weight.register_hook(lambda gradient: 0 * gradient)
    module.bias.requires_grad_(False)
    module.register_forward_hook(lambda _, __, scores: scores + torch.rand(()))
    task = ti.Task(module, ITEMS, pairs(TRAIN), [ti.Checkpoint(module.state_dict(), 0.1)], loss=ti.LogisticLoss())
    found = calls.score(task, calls.how(device="cpu")).self_influence
    assert found is not None
    for words in ("the scorer is random", "a hook changes the gradient of a parameter"):
        assert any(words in notice for notice in found.run.notices)
    assert not bool(found.scores.any())

"""An engine of one's own: one class and one entry in the registry, then usable in Python and by name."""

import json
from functools import partial

import pytest
import torch
from torch import Tensor, nn

import tracin_func as ti
from tests.support.jobs import check, job_of, scores
from tests.support.lab import Lab, refused, run
from tests.support.reference import reference
from tracin_func.gradients.backward import by_leaves
from tracin_func.gradients.budget import plan_singles
from tracin_func.gradients.engines.registry import ENGINES, Registered
from tracin_func.gradients.factors import Contribution
from tracin_func.gradients.model import State
from tracin_func.gradients.protocol import Differentiate, Plan, Planner, Sketch, Units, UnsuitableError, sketched, whole
from tracin_func.task.items import Batch, each


class BatchesOfOne:
    """One backward per item, by the batched objective of a batch of one."""

    name, factored = "batches of one", False

    def tried(self, units: Units, state: State) -> Planner:
        if units.batched is None:
            raise UnsuitableError("it scores batches")
        return partial(plan_singles, units, state)

    def values(self, units: Units, state: State, plan: Plan) -> Tensor:
        assert units.batched is not None
        with torch.no_grad(), units.holding(state):
            return torch.cat([units.batched(units.take(torch.tensor([unit]))) for unit in range(units.count)])

    def differentiate(self, units: Units, state: State, plan: Plan, sketch: Sketch = whole) -> Differentiate:
        def work(batch: Batch, index: Tensor) -> tuple[dict[str, Contribution], Tensor]:
            batched, found, values = units.batched, [], []
            assert batched is not None
            for unit in range(len(index)):
                one = each(lambda leaf, unit=unit: leaf[unit : unit + 1], batch)
                with units.holding(state) as leaves:
                    value, own = by_leaves(lambda one=one: batched(one)[0], list(leaves.values()))
                values.append(value)
                found.append(own)
            gradients = {name: torch.stack(own) for name, own in zip(leaves, zip(*found, strict=True), strict=True)}
            return sketched(dict(gradients), torch.stack(values), sketch)

        return work


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENGINES, "toy", Registered(BatchesOfOne(), "items", {}))


@pytest.mark.usefixtures("toy")
def test_an_engine_of_ones_own_gives_the_scores() -> None:
    job = job_of(nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1)).double(), torch.randn(6, 5).double())
    found = check(job, reference(job), "toy", torch.float64)
    assert found.self_influence is not None
    assert found.self_influence.run.engine["gradients"] == "batches of one over items"


@pytest.mark.usefixtures("toy")
def test_what_it_gives_is_projected_as_any_gradient() -> None:
    job = job_of(nn.Linear(5, 1).double(), torch.randn(6, 5).double())
    toy, ghost = (
        scores(job, engine, projection=ti.Projection("sjlt", 64)).self_influence for engine in ("toy", "ghost")
    )
    assert toy is not None
    assert ghost is not None
    torch.testing.assert_close(toy.scores, ghost.scores)


@pytest.mark.usefixtures("toy")
def test_it_is_an_option_of_the_command_line(lab: Lab) -> None:
    code, _, stderr = run("self", lab, "--engine", "toy")
    assert code == 0, stderr
    record = json.loads((lab.results / "box_500hz_metadata.json.provenance.json").read_text(encoding="utf-8"))
    assert record["columns"]["tracin_self_influence"]["engine"]["engine"] == "toy"
    assert "auto, loop, pair, item, ghost, toy" in refused("self", lab, "--engine", "x", code=2)


def test_without_its_entry_it_is_refused() -> None:
    job = job_of(nn.Linear(5, 1).double(), torch.randn(6, 5).double())
    with pytest.raises(ti.UsageError, match="`engine` should be one of auto, loop, pair, item, ghost. Got 'toy'"):
        check(job, reference(job), "toy", torch.float64)

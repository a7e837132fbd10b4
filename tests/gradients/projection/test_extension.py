"""A projection of one's own: one class and one entry in the registry, then usable in Python and by name."""

import json

import pytest
import torch
from torch import Tensor

import tracin_func as ti
from tests.support import calls
from tests.support.jobs import TEST, TRAIN
from tests.support.lab import Lab, refused, run
from tracin_func.gradients.factors import Contribution, flat
from tracin_func.gradients.projection.layout import Shapes
from tracin_func.gradients.projection.registry import PROJECTIONS, Kind


class Folding:
    """Coordinate i of a parameter goes to number i mod k, with a sign drawn by `seed`: what `sjlt` does, unrotated."""

    gathered = False
    halves = None

    def __init__(self, shapes: Shapes, width: int, seed: int, checkpoint: str) -> None:
        self.width, self._shapes, self._seed = width, shapes, seed

    def place(self, name: str) -> slice:
        return slice(0, self.width)

    def sketch(self, name: str, part: Contribution) -> Tensor:
        rows = flat(part)
        draw = torch.Generator().manual_seed(self._seed + sorted(self._shapes).index(name))
        signs = torch.randint(2, (rows.shape[1],), generator=draw).to(rows) * 2 - 1
        into = torch.arange(rows.shape[1]) % self.width
        return rows.new_zeros(len(rows), self.width).index_add_(1, into, rows * signs)

    def form(self, name: str) -> tuple[str, float]:
        return f"folded to {self.width}", float(self._shapes[name].numel())


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROJECTIONS, "toy", Kind(64, Folding))


def scored(projection: ti.Projection) -> calls.Scores:
    module = torch.nn.Sequential(torch.nn.Linear(300, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) / 10)
    items = torch.randn(6, 300, generator=torch.Generator().manual_seed(0))
    task = ti.Task(module, items, TRAIN, [ti.Checkpoint(module.state_dict(), 0.1)], TEST, ti.LogisticLoss())
    return calls.score(task, calls.how(projection=projection, device="cpu"), self_influence=True, influence=True)


@pytest.mark.usefixtures("toy")
def test_a_projection_of_ones_own_estimates_scores() -> None:
    exact, found = scored(ti.Projection("none")), scored(ti.Projection("toy", 1024))
    assert exact.influence is not None
    assert found.influence is not None
    assert found.influence.standard_error is not None
    off = (found.influence.scores - exact.influence.scores).abs()
    assert bool((off > 0).any())
    assert bool((off <= 6 * found.influence.standard_error).all())
    assert found.influence.run.engine["projection"]["kind"] == "toy"
    assert found.influence.run.engine["parts"][0]["reason"] == "folded to 1024"


@pytest.mark.usefixtures("toy")
def test_its_row_has_the_default_dimension() -> None:
    found = scored(ti.Projection("toy"))
    assert found.influence is not None
    assert found.influence.run.engine["parts"][0]["reason"] == "folded to 64"


@pytest.mark.usefixtures("toy")
def test_it_is_an_option_of_the_command_line(lab: Lab) -> None:
    code, _, stderr = run("self", lab, "--projection", "toy", "--proj-dim", "48")
    assert code == 0, stderr
    record = json.loads((lab.results / "box_500hz_metadata.json.provenance.json").read_text(encoding="utf-8"))
    projection = record["columns"]["tracin_self_influence"]["projection"]
    assert (projection["kind"], projection["dim"]) == ("toy", 48)
    assert "none, auto, rademacher, gaussian, sjlt, kronecker, toy" in refused("self", lab, "--projection", "x", code=2)


def test_without_its_entry_it_is_refused() -> None:
    with pytest.raises(ti.UsageError, match="`projection` should be one of .*kronecker. Got 'toy'"):
        scored(ti.Projection("toy"))

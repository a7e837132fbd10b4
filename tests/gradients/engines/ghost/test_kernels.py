"""Weight gradients of convolutions in every form: each kernel, factors, and the choice among them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

import tracin_func as ti
from tests.support.jobs import check, job_of, scores
from tests.support.reference import reference
from tracin_func.errors import UsageError
from tracin_func.files import CACHE_VARIABLE
from tracin_func.gradients import remembered
from tracin_func.gradients.engines.ghost.kernels import KERNELS, Convolved, kernels_for
from tracin_func.gradients.engines.ghost.rules import convolution
from tracin_func.gradients.protocol import Kernels

FORMS = [*KERNELS, "factors"]
ITEMS = 5

# name -> (input channels and sizes, shape of the weight, arguments)
CALLS: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "plain": ((3, 7, 6), (4, 3, 3, 3), {}),
    "one position": ((3, 3, 2), (4, 3, 3, 2), {}),
    "stride and padding": ((3, 9, 8), (4, 3, 3, 5), {"stride": (2, 3), "padding": (1, 2)}),
    "dilation": ((3, 9, 8), (4, 3, 3, 2), {"dilation": (2, 3), "padding": 1}),
    "groups": ((4, 7, 6), (6, 2, 3, 3), {"groups": 2, "padding": 1}),
    "depthwise": ((4, 7, 6), (8, 1, 3, 3), {"groups": 4, "stride": 2}),
    "same, an even filter": ((3, 7, 6), (4, 3, 2, 4), {"padding": "same"}),
    "a stride that leaves a rest": ((2, 8, 8), (3, 2, 3, 3), {"stride": 4}),
    "one axis": ((3, 9), (4, 3, 3), {"stride": 2, "padding": 1, "dilation": 2}),
    "one axis, groups": ((4, 9), (4, 2, 3), {"groups": 2}),
    "three axes": ((2, 5, 4, 6), (3, 2, 2, 3, 2), {"padding": (1, 0, 1), "stride": (1, 1, 2)}),
}


def use_of(name: str, dtype: torch.dtype, last: bool) -> tuple[Convolved, Tensor]:
    """What the rule makes of a call, and the weight gradient of every item by autograd in float64."""
    size, shape, arguments = CALLS[name]
    torch.manual_seed(len(name))
    operation = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}[len(shape)]
    x, weight = torch.randn(ITEMS, *size).to(dtype), torch.randn(shape).to(dtype).requires_grad_()
    output = operation(x, weight, None, **arguments)
    gradient = torch.randn(output.shape).to(dtype)
    exact = weight.detach().double().requires_grad_()
    rows = [
        torch.autograd.grad(operation(one[None].double(), exact, None, **arguments)[0], exact, of_one.double())[0]
        for one, of_one in zip(x, gradient, strict=True)
    ]
    if last and x.ndim == 4:
        x, gradient = (part.contiguous(memory_format=torch.channels_last) for part in (x, gradient))
    found = convolution({"input": x, "weight": weight, **arguments}, gradient)
    assert found is not None
    use = found["weight"]
    assert isinstance(use, Convolved)
    return use, torch.stack(rows)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", CALLS)
def test_every_form_is_autograds(name: str, form: str, last: bool) -> None:
    use, right = use_of(name, torch.float64, last)
    if form == "factors":
        if use.groups > 1:
            pytest.skip("groups have no factors")
        found = use.factors().dense().view(right.shape)
        norms = use.factors().matched(use.factors())
        torch.testing.assert_close(norms, right.flatten(1).square().sum(dim=1), rtol=1e-12, atol=0)
    else:
        if form not in kernels_for(use):
            pytest.skip("not for groups, one or three axes, or long filters")
        found = use.built(form)
    torch.testing.assert_close(found, right, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["plain", "groups", "one axis"])
def test_half_precision_rounds_the_result_only(name: str, form: str) -> None:
    use, right = use_of(name, torch.bfloat16, last=False)
    if form == "factors" and use.groups > 1:
        pytest.skip("groups have no factors")
    found = use.factors().to(torch.float32).dense() if form == "factors" else use.built(form)
    rounding = 1e-5 if form == "factors" else 0.02
    largest = float(right.abs().max())
    torch.testing.assert_close(found.double().view(right.shape), right, rtol=0, atol=rounding * largest)


class Strided(nn.Module):
    """Convolutions with few positions, one of them used twice, with padding modes, groups and dilation."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, stride=2, padding=1, padding_mode="reflect")
        self.twice = nn.Conv2d(4, 4, 3, padding=2, dilation=2, padding_mode="circular", bias=False)
        self.apart = nn.Conv2d(4, 6, 2, stride=2, groups=2)
        self.last = nn.Conv2d(6, 8, 2)
        self.head = nn.Linear(8, 1)

    def forward(self, items: Tensor) -> Tensor:
        """Scores [items]."""
        hidden = self.twice(self.twice(self.first(items)).tanh()).tanh()
        return self.head(self.last(self.apart(hidden).tanh()).tanh().mean(dim=(2, 3)))


WEIGHTS = ("first.weight", "twice.weight", "apart.weight", "last.weight")


def strided() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return Strided(), torch.randn(6, 1, 9, 8)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_scores_do_not_depend_on_the_form(form: str, last: bool, dtype: torch.dtype) -> None:
    job = job_of(*strided())
    asked = {"channels_last": last, "convolutions": dict.fromkeys(WEIGHTS, form)}
    found = check(job, reference(job), "ghost", dtype, kernels=asked).self_influence
    assert found is not None
    taken = found.run.engine["kernels"]
    assert taken["channels_last"] is last
    assert taken["convolutions"]["last.weight"] == form
    assert taken["convolutions"].get("apart.weight") == (None if form == "factors" else form)  # groups have no factors


def test_positions_and_pairs_decide_between_factors_and_rows() -> None:
    """The last convolution has 2 positions: its factors cost less. The first has 20, and 4 × 9 elements."""
    parts = scores(job_of(*strided()), "ghost").self_influence.run.engine["parts"]
    forms = {part["parameter"]: part["form"] for part in parts}
    assert forms["first.weight"] == forms["apart.weight"] == "built"
    assert forms["last.weight"] == "factors"


def test_nearly_equal_items_of_a_convolution_in_factors() -> None:
    """A norm of differences, 1e-3 of its terms, in float32."""
    torch.manual_seed(0)
    module = Strided()
    items = torch.randn(6, 1, 9, 8)
    items[1::2] = items[::2] + 1e-4 * torch.randn(3, 1, 9, 8)
    pairs = ti.Pairs([0, 2, 4], [1, 3, 5], [1, -1, 1])
    job = job_of(module, items, train=pairs)
    right = reference(job).own.sum(dim=0)
    for form in ("factors", "grouped"):
        asked = {"channels_last": False, "convolutions": dict.fromkeys(WEIGHTS, form)}
        found = scores(job.at(torch.float32), "ghost", kernels=asked).self_influence
        assert float(((found.scores - right) / right).abs().max()) < 0.01
        assert bool((found.scores > 0).all())


def choices(folder: Path) -> dict[str, Any]:
    return json.loads((folder / remembered.MEASURED_FILE).read_text(encoding="utf-8"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, and nothing remembered in this process."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(remembered, "_here", {})
    return tmp_path / "cache"


def engine_of(job: Any, **compute: Any) -> dict[str, Any]:
    found = scores(job, "ghost", **compute).self_influence
    assert found is not None
    return dict(found.run.engine)


def test_a_choice_is_measured_once_and_remembered(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process reads it from the cache; what is kept there decides, whatever a measurement would say now."""
    job = job_of(*strided())
    first = engine_of(job)
    known = choices(cache)
    assert set(first["kernels"]["convolutions"]) == set(WEIGHTS)
    timed = [entry for entry in known.values() if "seconds" in entry]
    assert all(set(entry["seconds"]) <= set(KERNELS) and entry["usual"] in KERNELS for entry in timed)
    for entry in timed:
        entry["seconds"]["patches"] = 1e-12
    (cache / remembered.MEASURED_FILE).write_text(json.dumps(known), encoding="utf-8")
    monkeypatch.setattr(remembered, "_here", {})
    again = engine_of(job)
    assert {again["kernels"]["convolutions"][name] for name in WEIGHTS[:3]} == {"patches"}
    assert choices(cache) == known
    reason = next(part["reason"] for part in again["parts"] if part["parameter"] == "first.weight")
    assert "kernel patches, measured (" in reason


def test_a_recorded_choice_is_taken_without_measuring(cache: Path) -> None:
    job = job_of(*strided())
    asked = {"channels_last": True, "convolutions": {"first.weight": "each", "apart.weight": "grouped"}}
    engine = engine_of(job, kernels=asked)
    assert engine["kernels"] == asked
    assert not (cache / remembered.MEASURED_FILE).exists()
    with pytest.raises(UsageError, match='`kernels` should be the `run.engine\\["kernels"\\]` of a result'):
        ti.Compute(kernels={"channels_last": "yes"})


@pytest.mark.parametrize("fault", ["a file in the way", "damaged"])
def test_a_cache_that_cannot_serve_costs_a_measurement_only(
    fault: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fault == "damaged":
        cache.mkdir()
        (cache / remembered.MEASURED_FILE).write_text('{"a": ', encoding="utf-8")
    else:
        cache.write_text("", encoding="utf-8")
    job = job_of(*strided())
    assert engine_of(job)["kernels"] == engine_of(job)["kernels"]


def test_a_store_keeps_its_kernels(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that resumes it on a machine with other choices computes as it was begun, and does not warn."""
    job = job_of(*strided())
    asked = {"channels_last": False, "convolutions": dict.fromkeys(WEIGHTS, "each")}
    notices: list[str] = []
    engine_of(job, kernels=asked, store=tmp_path / "store")
    again = engine_of(job, store=tmp_path / "store", notice=notices.append)
    assert again["kernels"] == asked
    assert not [text for text in notices if "kernels" in text]


def test_kernels_are_read_as_they_are_described() -> None:
    kernels = Kernels(True, {"a.weight": "factors"})
    assert Kernels.read(json.loads(json.dumps(kernels.describe()))) == kernels

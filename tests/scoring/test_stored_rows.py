"""Projections, stores and shards at their edges."""

import json
import shutil

import pytest
import torch
from torch import nn

import tracin_func as ti
from tests.support import calls


class Net(nn.Module):
    def __init__(self, *, wide: int = 40, scalar: bool = False, act=torch.relu) -> None:
        super().__init__()
        self.first, self.last, self.act = nn.Linear(6, wide), nn.Linear(wide, 1), act
        self.temperature = nn.Parameter(torch.tensor(1.3)) if scalar else 1.0

    def forward(self, x):
        return self.last(self.act(self.first(x))) * self.temperature


def task_of(model, rates=(0.1,), items=12):
    x = torch.randn(items, 6, generator=torch.Generator().manual_seed(1))
    first = torch.arange(items - 1)
    pairs = ti.Pairs(first, first + 1, torch.ones(items - 1))
    tests = ti.Pairs(torch.tensor([0, 3]), torch.tensor([5, 7]), torch.tensor([1, -1]))
    weights = [{name: tensor + 0.01 * t for name, tensor in model.state_dict().items()} for t in range(len(rates))]
    checkpoints = [
        ti.Checkpoint(each, rate, f"c{t}") for t, (each, rate) in enumerate(zip(weights, rates, strict=True))
    ]
    return ti.Task(scorer=model, items=x, train=pairs, test=tests, checkpoints=checkpoints, loss=ti.LogisticLoss())


@pytest.mark.parametrize("engine", ["ghost", "item"])
@pytest.mark.parametrize("kind", ["sjlt", "rademacher", "kronecker", "none"])
def test_a_scalar_parameter_is_projected(kind, engine, tmp_path):
    task = task_of(Net(scalar=True))
    asked = ti.Projection(kind, None if kind == "none" else 4096)
    found = calls.score(task, calls.how(engine=engine, projection=asked, store=tmp_path / "s")).self_influence
    exact = calls.score(task, calls.how(engine="loop")).self_influence
    assert torch.allclose(found.scores, exact.scores, rtol=1e-4 if kind in ("kronecker", "none") else 0.5)


def test_a_rate_of_zero_leaves_a_variance_at_every_checkpoint(tmp_path):
    task = task_of(Net(), rates=(0.1, 0.0, 0.1))
    found = calls.score(task, calls.how(projection=ti.Projection("sjlt", 64)), influence=True).influence
    assert found.variance.shape == found.per_checkpoint.shape
    assert not found.variance[1].any()
    assert found.variance[2].any()
    found.save(tmp_path / "scores.json", per_checkpoint=True)


def test_auto_does_not_fill_a_store_with_whole_gradients_for_influence_alone(tmp_path):
    task = task_of(Net(wide=1000), items=4200)
    compute = calls.how(store=tmp_path / "s", projection=ti.Projection("auto"))
    calls.score(task, compute, self_influence=False, influence=True)
    manifest = json.loads((tmp_path / "s" / "manifest.json").read_text())
    assert manifest["width"] <= 4096 < 8001


class Branching(Net):
    """A scorer that uses a parameter for some items only, so that captures fail on the way and vmap from the start."""

    def __init__(self) -> None:
        super().__init__()
        self.extra = nn.Linear(6, 1)

    def forward(self, x):
        score = super().forward(x)
        far = x[:, :1] > 50
        return score + torch.where(far, self.extra(x), torch.zeros_like(score)) if bool(far.any()) else score


def branching():
    task = task_of(Branching(), items=40)
    task.items.content[5, 0] = 100.0
    return task


def test_another_engine_goes_on_with_a_store_that_was_begun_in_batches(tmp_path):
    task = branching()  # once: another one has other random weights
    found = calls.score(task, calls.how(store=tmp_path / "s", batch_size=4)).self_influence.scores
    assert torch.allclose(found, calls.score(task, calls.how()).self_influence.scores, rtol=1e-4)


def NotANumber(model):  # noqa: N802 - in the place of a class, and of its name in a store
    class Net(type(model)):
        def forward(self, x):
            return super().forward(x) * float("nan")

    Net.__qualname__ = "Net"
    other = Net()
    other.load_state_dict(model.state_dict())
    return other


def test_a_model_of_other_code_is_refused_by_its_scores(tmp_path):
    """Class, names, shapes and weights are equal, and the activation is not."""
    model = Net()
    calls.score(task_of(model), calls.how(store=tmp_path / "store"))
    other = Net(act=torch.tanh)
    other.load_state_dict(model.state_dict())
    for now in (other, NotANumber(other)):
        with pytest.raises(ti.InputError, match=r"at c0 the score of item 0 was .* and is .* now, with equal weights"):
            calls.score(task_of(now), calls.how(store=tmp_path / "store"))
    calls.score(task_of(model), calls.how(store=tmp_path / "store"))


def test_half_precision_is_reported_and_recorded(tmp_path):
    found = calls.score(task_of(Net()), calls.how(store=tmp_path / "store", store_dtype="bfloat16")).self_influence
    assert any(notice.startswith("warning: bfloat16 rounding in the store (4e-03") for notice in found.run.notices)
    assert found.run.engine["store"] == {"path": str(tmp_path / "store"), "dtype": "bfloat16"}


def test_checkpoints_of_one_block_are_shared_by_shards(tmp_path):
    task = task_of(Net(), rates=(0.1, 0.2, 0.3))
    shares = [calls.filled(task, calls.how(store=tmp_path / "store", shard=(shard, 2))) for shard in (1, 2)]
    assert [[each.made for each in share] for share in shares] == [[1, 0, 1], [0, 1, 0]]
    assert [each.blocks for each in shares[1]] == [1, 1, 1]
    assert not any(each.missing for each in calls.filled(task, calls.how(store=tmp_path / "store")))


class Wide(nn.Module):
    """A scorer of 1 + 6 × `wide` parameters."""

    def __init__(self, wide: int) -> None:
        super().__init__()
        self.out = nn.Linear(6 * wide, 1)

    def forward(self, x):
        return self.out(x.repeat(1, self.out.in_features // 6))


LONG = 100 * 32 // 6 + 1  # so wide that rows of 32 are a hundredth
AUTO = ti.Projection("auto", 32)


def folder_of(tmp_path, wide, projection, rates=(0.1,), **compute):
    """What a run with a store of rows of that scorer says, and the store."""
    said = []
    torch.manual_seed(0)
    calls.score(
        task_of(Wide(wide), rates),
        calls.how(store=tmp_path / "s", projection=projection, notice=said.append, **compute),
    )
    return said, json.loads((tmp_path / "s" / "manifest.json").read_text())


def test_exact_gradients_a_hundred_times_as_large_have_to_be_confirmed(tmp_path):
    with pytest.raises(ti.InputError) as error:
        folder_of(tmp_path, LONG, AUTO)
    assert str(error.value) == (
        f"`store` {tmp_path / 's'} would take 154 kB for exact gradients of 3,205 dimensions; projected to 32 they "
        'take 1.54 kB. Confirm with `projection="none"`, or estimate scores with `projection="sjlt"`.'
    )
    assert not (tmp_path / "s").exists()
    said, manifest = folder_of(tmp_path, LONG, ti.Projection("none"))
    assert manifest["width"] == 3205
    assert (
        f"note: writing 154 kB to the new store {tmp_path / 's'}: 12 gradients of 3,205 dimensions at 1 checkpoint."
        in said
    )
    said, manifest = folder_of(tmp_path, LONG, ti.Projection("none"))  # it is there
    assert not [sentence for sentence in said if "new store" in sentence]


def test_projected_rows_need_no_confirmation(tmp_path):
    said, manifest = folder_of(tmp_path, LONG, ti.Projection("sjlt", 32))
    assert manifest["width"] == 32
    assert [
        sentence
        for sentence in said
        if "writing 1.54 kB to the new" in sentence and ": 12 gradients of 32 dim" in sentence
    ]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_smaller_exact_gradients_are_announced(dtype, tmp_path):
    said, manifest = folder_of(tmp_path, LONG - 20, AUTO, store_dtype=dtype)
    assert manifest["width"] == 3085
    size = "148 kB" if dtype == "float32" else "74 kB"
    assert [sentence for sentence in said if sentence.startswith(f"note: writing {size} to the new store")]


def test_exact_gradients_above_a_gigabyte_have_to_be_confirmed(tmp_path):
    """They need not be a hundred times as large as projected ones."""
    with pytest.raises(ti.InputError, match="would take 1.02 GB for exact .* projected to 100,000 they take 408 MB"):
        folder_of(tmp_path, 41_667, ti.Projection("auto", 100_000), [0.1] * 85)


def test_a_new_store_has_to_fit_on_its_disk(tmp_path, monkeypatch):
    size, real = 12 * 3205 * 4, shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: real._replace(free=size - 1))
    with pytest.raises(ti.OutputError, match="s takes 154 kB, and its disk has 154 kB free"):
        folder_of(tmp_path, LONG, ti.Projection("none"))
    assert not (tmp_path / "s").exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: real._replace(free=size))
    said, _ = folder_of(tmp_path, LONG, ti.Projection("none"))
    assert [sentence for sentence in said if sentence.startswith("note: writing 154 kB to the new store")]


def test_a_store_of_exact_gradients_goes_on_unasked(tmp_path):
    folder_of(tmp_path, LONG, ti.Projection("none"), shard=None)
    said, _ = folder_of(tmp_path, LONG, ti.Projection("none"))
    assert not [sentence for sentence in said if "takes" in sentence]

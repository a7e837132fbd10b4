"""Checkpoint files: every layout that is read, every fault that is named, and nothing that is executed."""

import contextlib
import random
import re
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

import tracin_func as ti
from tracin_func.task.checkpoints import Checkpoint, load, read, unwrapped
from tracin_func.task.learning_rates import learning_rates


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))


def same(found: dict[str, Tensor], model: nn.Module) -> bool:
    expected = model.state_dict()
    return list(found) == list(expected) and all(torch.equal(found[name], expected[name]) for name in expected)


def saved(tmp_path: Path, content: Any, name: str = "model.pt") -> Path:
    torch.save(content, tmp_path / name)
    return tmp_path / name


@pytest.mark.parametrize("key", ["model_state_dict", "state_dict", "model", None])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
@pytest.mark.parametrize("suffix", [".pt", ".pth"])
def test_layouts_and_prefixes(tmp_path: Path, model: nn.Module, key: str | None, prefix: str, suffix: str) -> None:
    weights = {prefix + name: tensor for name, tensor in model.state_dict().items()}
    path = saved(tmp_path, weights if key is None else {key: weights, "epoch": 3}, f"model{suffix}")
    assert same(unwrapped(read(path, "x").weights, model.state_dict()), model)


def test_a_prefix_of_some_keys_only_is_a_name() -> None:
    weights = {"module.weight": torch.ones(1), "head.weight": torch.ones(1)}
    assert list(unwrapped(weights, ["weight"])) == ["module.weight", "head.weight"]


def test_safetensors(tmp_path: Path, model: nn.Module) -> None:
    safetensors.torch.save_file(model.state_dict(), tmp_path / "model.safetensors")
    found = read(tmp_path / "model.safetensors", "x").weights
    assert set(found) == set(model.state_dict())
    (tmp_path / "model.safetensors").write_bytes((tmp_path / "model.safetensors").read_bytes()[:40])
    with pytest.raises(ti.InputError, match="model.safetensors: not a readable safetensors file: "):
        read(tmp_path / "model.safetensors", "x")


def test_names(tmp_path: Path, model: nn.Module) -> None:
    path = saved(tmp_path, model.state_dict())
    assert load(Checkpoint(path, 0.1), 4).name == "model.pt"
    assert load(Checkpoint(path, 0.1, "mine"), 4).name == "mine"
    assert load(Checkpoint(model.state_dict(), 0.1), 4).name == "checkpoint 4"


def test_numpy_scalars_beside_the_weights(tmp_path: Path, model: nn.Module) -> None:
    content = {
        "model_state_dict": model.state_dict(),
        "accuracy": np.float64(0.5),
        "loss": np.float32(0.25),
        "epoch": np.int64(7),
        "best": np.bool_(True),
        "history": np.arange(3.0),
        "args": {"margin": np.float64(10), "seed": 3, "names": ["a"], "nested": {"x": (1, 2)}},
    }
    loaded = read(saved(tmp_path, content), "x")
    assert same(loaded.weights, model)
    assert (loaded.recorded["accuracy"], loaded.recorded["epoch"]) == (0.5, 7)
    assert loaded.args["margin"] == 10


class Bomb:
    """Unpickling it would leave a mark."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return exec, ("import sys; sys.modules['tracin_func_bomb'] = sys",)


class Plain:
    pass


def test_pickled_objects_are_refused_by_name_and_not_run(tmp_path: Path, model: nn.Module) -> None:
    for thing, name in ((Plain(), "Plain"), (Bomb(), "exec"), (model, "Sequential")):
        path = saved(tmp_path, {"model_state_dict": model.state_dict(), "thing": thing})
        with pytest.raises(ti.InputError, match=rf"model.pt: holds an object of [\w.]*{name}.*, which is refused"):
            read(path, "x")
    assert "tracin_func_bomb" not in sys.modules


def test_a_whole_pickled_model_is_refused(tmp_path: Path, model: nn.Module) -> None:
    with pytest.raises(ti.InputError, match="Save the state dict alone"):
        read(saved(tmp_path, model), "x")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds a list. Expected a dict with `model_state_dict`, `state_dict`, `model` or a bare state dict"),
        ({}, r"no weights found among its keys \(nothing\)"),
        ({"epoch": 3, "loss": 0.1}, r"no weights found among its keys \(epoch, loss\)"),
        ({"model_state_dict": {"w": 3.0}}, r"no weights found among its keys \(model_state_dict\)"),
        ({0: torch.ones(1)}, r"no weights found among its keys \(0\)"),
    ],
)
def test_files_without_weights(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(ti.InputError, match=message):
        read(saved(tmp_path, content), "x")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ti.InputError, match="gone.pt: no such checkpoint file"):
        read(tmp_path / "gone.pt", "x")


@pytest.mark.parametrize("zipped", [True, False])
def test_truncated_files(tmp_path: Path, model: nn.Module, zipped: bool) -> None:
    path = tmp_path / "model.pt"
    torch.save({"model_state_dict": model.state_dict()}, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    for length in (0, 1, 10, len(whole) // 3, len(whole) // 2, len(whole) - 30):
        path.write_bytes(whole[:length])
        with pytest.raises(ti.InputError, match="model.pt: not a readable checkpoint") as error:
            read(path, "x")
        assert "internal" not in str(error.value), "what torch says to its developers"


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_damaged_files_never_raise_anything_else(tmp_path: Path, model: nn.Module) -> None:
    path = tmp_path / "model.pt"
    torch.save({"model_state_dict": model.state_dict()}, path, _use_new_zipfile_serialization=False)
    whole, chance = path.read_bytes(), random.Random(0)
    for _ in range(400):
        damaged = bytearray(whole[: chance.randrange(1, len(whole))])
        damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged)
        with contextlib.suppress(ti.InputError):  # a flipped bit in a weight is none of its business
            read(path, "x")


# Finding them


def test_natural_order(tmp_path: Path) -> None:
    for name in ("model_epoch_10.pt", "model_epoch_2.pt", "model_epoch_1.pth", "other_3.pt", "model_epoch_9.txt"):
        (tmp_path / name).touch()
    names = [path.name for path in ti.find_checkpoints(tmp_path)]
    assert names == ["model_epoch_1.pth", "model_epoch_2.pt", "model_epoch_10.pt"]
    assert [path.name for path in ti.find_checkpoints(tmp_path, "other")] == ["other_3.pt"]
    with pytest.raises(
        ti.InputError, match="no checkpoint whose name starts with 'epoch'; there is: model_epoch_1.pth"
    ):
        ti.find_checkpoints(tmp_path, "epoch")
    with pytest.raises(ti.InputError, match=re.escape(f"{tmp_path / 'gone'}: no such folder")):
        ti.find_checkpoints(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ti.InputError, match="no checkpoint file at all"):
        ti.find_checkpoints(tmp_path / "empty")


# Learning rates


def stepped(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Any]:
    model(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    return optimizer.state_dict()


def rates(tmp_path: Path, model: nn.Module, given: Any = None, **content: Any) -> Any:
    loaded = read(saved(tmp_path, {"model_state_dict": model.state_dict(), **content}), "epoch 1")
    return learning_rates(loaded, dict(model.named_parameters()), given)


def test_one_rate(tmp_path: Path, model: nn.Module) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    state = stepped(optimizer, model)
    assert rates(tmp_path, model, optimizer_state_dict=state, args={"lr": 9.0}) == (0.02, "optimizer")
    assert rates(tmp_path, model, optimizer=state) == (0.02, "optimizer")
    assert rates(tmp_path, model, 0.5, optimizer_state_dict=state) == (0.5, "given")


def test_the_rate_of_args(tmp_path: Path, model: nn.Module) -> None:
    assert rates(tmp_path, model, args={"learning_rate": 0.3, "lr": 9.0}) == (0.3, "args.learning_rate")
    assert rates(tmp_path, model, args={"lr": 0.3}) == (0.3, "args.lr")
    with pytest.raises(ti.InputError, match="epoch 1: records no learning rate.*--learning-rate"):
        rates(tmp_path, model, args={"margin": 1})
    with pytest.raises(ti.InputError, match="epoch 1: records no learning rate"):
        rates(tmp_path, model)


def test_args_in_an_ordered_dict(tmp_path: Path, model: nn.Module) -> None:
    assert rates(tmp_path, model, args=OrderedDict(lr=0.3)) == (0.3, "args.lr")


def test_an_optimizers_name(tmp_path: Path, model: nn.Module) -> None:
    assert rates(tmp_path, model, optimizer="adam", args={"lr": 0.3}) == (0.3, "args.lr")


@pytest.mark.parametrize("rate", [-0.1, float("nan"), float("inf")])
def test_recorded_rates_are_checked(tmp_path: Path, model: nn.Module, rate: float) -> None:
    with pytest.raises(ti.InputError, match="learning rate"):
        rates(tmp_path, model, args={"lr": rate})


def test_groups_with_names(tmp_path: Path, model: nn.Module) -> None:
    named = [(f"module.{name}", parameter) for name, parameter in model.named_parameters()]
    optimizer = torch.optim.SGD([{"params": named[:2], "lr": 0.1}, {"params": named[2:], "lr": 0.2}])
    found, source = rates(tmp_path, model, optimizer_state_dict=stepped(optimizer, model))
    assert found == {"0.weight": 0.1, "0.bias": 0.1, "1.weight": 0.2, "1.bias": 0.2}
    assert source == "optimizer"


def test_groups_told_by_shapes(tmp_path: Path, model: nn.Module) -> None:
    groups = [{"params": model[0].parameters(), "lr": 0.1}, {"params": model[1].parameters(), "lr": 0.2}]
    found, _ = rates(tmp_path, model, optimizer_state_dict=stepped(torch.optim.Adam(groups), model))
    assert found == {"0.weight": 0.1, "0.bias": 0.1, "1.weight": 0.2, "1.bias": 0.2}


def test_groups_that_cannot_be_told_are_refused(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    groups = [{"params": model[0].parameters(), "lr": 0.1}, {"params": model[1].parameters(), "lr": 0.2}]
    message = r"groups with learning rates \[0.1, 0.2\], and the group of parameter '0.weight' cannot be told"
    for optimizer in (torch.optim.Adam(groups), torch.optim.SGD(groups)):
        with pytest.raises(ti.InputError, match=message):
            rates(tmp_path, model, optimizer_state_dict=stepped(optimizer, model))


@pytest.mark.parametrize("rate", [-1.0, float("nan"), float("inf"), {"weight": -1.0}])
def test_given_rates_are_checked(rate: Any) -> None:
    with pytest.raises(ti.UsageError, match="`learning_rate` should be finite and at least 0. Got (-1|nan|inf)"):
        ti.Checkpoint({}, rate)


def scored(model: nn.Module, checkpoint: ti.Checkpoint) -> ti.SelfInfluence:
    items = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    return ti.self_influence(model, items, ti.Pairs([0, 1], [1, 2], [1, -1]), [checkpoint])


def test_a_rate_of_every_parameter_is_needed(model: nn.Module) -> None:
    with pytest.raises(ti.InputError, match="`learning_rate` has 0.bias, 1.weight, 1.bias missing"):
        scored(model, ti.Checkpoint(model.state_dict(), {"0.weight": 0.1}))


def test_a_rate_of_zero_is_told(model: nn.Module) -> None:
    last = ti.Checkpoint(model.state_dict(), 0.0, "last")
    with pytest.raises(ti.InputError, match=r"the learning rate is 0 at every checkpoint \(last\), so every score"):
        scored(model, last)
    first = ti.Checkpoint({name: 2 * weight for name, weight in model.state_dict().items()}, 0.1, "first")
    pairs = ti.Pairs([0, 1], [1, 2], [1, 1])
    task = ti.Task(model, torch.randn(3, 3), pairs, [first, last], loss=ti.LogisticLoss())
    found = ti.score(task, ti.Compute()).self_influence
    assert found is not None
    assert "last: its learning rate is 0, so it adds nothing to any score." in found.run.notices
    assert not bool(found.per_checkpoint[1].any())


def test_numpy_scalars_can_be_written_into_the_record(tmp_path: Path, model: nn.Module) -> None:
    content = {"model_state_dict": model.state_dict(), "accuracy": np.float32(0.5), "epoch": np.int64(3)}
    scored(model, ti.Checkpoint(saved(tmp_path, content), 0.1)).save(tmp_path / "scores.json")

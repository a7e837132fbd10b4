"""Checkpoint files: every layout that is read, every fault that is named, and nothing that is executed."""

import contextlib
import json
import random
import re
import shlex
import subprocess
import sys
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

import tracin_func as ti
from tests.support import calls
from tracin_func.task.checkpoints import Checkpoint, load, named_apart, read
from tracin_func.task.learning_rates import learning_rates
from tracin_func.task.weight_names import renamed, unwrapped


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
        with pytest.raises(ti.InputError, match=rf"model.pt: contains an object of [\w.]*{name}.*, which is refused"):
            read(path, "x")
    assert "tracin_func_bomb" not in sys.modules


def args_beside(model: nn.Module) -> dict[str, Any]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.25)
    args = Namespace(lr=0.1, out=Path("runs"))
    weights = {"model_state_dict": model.state_dict(), "optimizer": optimizer.state_dict()}
    return {**weights, "args": args, "epoch": 3, "loss": np.float64(0.5)}


@pytest.mark.parametrize("content", [args_beside, lambda model: model], ids=["args", "module"])
@pytest.mark.parametrize("zipped", [True, False])
def test_the_command_that_a_refusal_offers_works(
    tmp_path: Path, model: nn.Module, content: Callable[[nn.Module], Any], zipped: bool
) -> None:
    paths = [tmp_path / name for name in ("model epoch 1.pt", "model epoch 2.pt")]
    for path in paths:
        torch.save(content(model), path, _use_new_zipfile_serialization=zipped)
    before = paths[0].read_bytes()
    with pytest.raises(ti.InputError, match="which is refused") as error:
        read(paths[0], "x")
    found = re.search(r"(python -c .*) \(the original", str(error.value))
    assert found is not None
    command = [sys.executable, *shlex.split(found[1])[1:], str(paths[1])]
    subprocess.run(command, check=True, timeout=120)
    assert Path(f"{paths[0]}.full").read_bytes() == before
    for path in paths:
        loaded = read(path, "x")
        assert same(loaded.weights, model)
        if content is args_beside:
            assert learning_rates(loaded, dict(model.named_parameters()), None) == (0.25, "optimizer")
            assert (dict(loaded.args), loaded.recorded) == ({"lr": 0.1}, {"epoch": 3, "loss": 0.5})
    assert ti.find_checkpoints(tmp_path, "model") == paths


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            [1, 2],
            "contains a list. Expected a dict with 'model_state_dict', 'state_dict', 'model' or a bare state dict",
        ),
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
    with pytest.raises(ti.InputError, match="`checkpoint_prefix` 'epoch' not found in .* Available: model_epoch_1.pth"):
        ti.find_checkpoints(tmp_path, "epoch")
    with pytest.raises(ti.InputError, match=re.escape(f"folder not found: {tmp_path / 'gone'}.")):
        ti.find_checkpoints(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ti.InputError, match="Available: no checkpoint"):
        ti.find_checkpoints(tmp_path / "empty")


def test_folders_of_steps(tmp_path: Path, model: nn.Module) -> None:
    for step, file in ((1000, "model.safetensors"), (500, "model.safetensors"), (1500, "pytorch_model.bin")):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if file.endswith(".bin"):
            torch.save(model.state_dict(), folder / file)
        else:
            safetensors.torch.save_file(model.state_dict(), folder / file)
        torch.save(torch.optim.AdamW(model.parameters(), lr=step / 1e6).state_dict(), folder / "optimizer.pt")
    (tmp_path / "checkpoint-2000").mkdir()  # an empty one is none
    with pytest.raises(ti.InputError, match="Available: checkpoint-500, checkpoint-1000, checkpoint-1500"):
        ti.find_checkpoints(str(tmp_path))
    found = ti.find_checkpoints(tmp_path, "checkpoint-")
    assert [path.name for path in found] == ["checkpoint-500", "checkpoint-1000", "checkpoint-1500"]
    for path, rate in zip(found, (5e-4, 1e-3, 1.5e-3), strict=True):
        loaded = read(path, "x")
        assert same(loaded.weights, model) or set(loaded.weights) == set(model.state_dict())
        assert learning_rates(loaded, dict(model.named_parameters()), None) == (rate, "optimizer")
    with pytest.raises(ti.InputError, match="checkpoint-2000: a folder without model.safetensors.*Got nothing"):
        read(tmp_path / "checkpoint-2000", "x")


def test_a_file_of_shards_stays_in_its_folder(tmp_path: Path, model: nn.Module) -> None:
    torch.save(model.state_dict(), tmp_path / "secret.bin")
    folder = tmp_path / "checkpoint-1"
    folder.mkdir()
    own = {"0.weight": "pytorch_model.bin.index.json"}
    for listed in ({"0.weight": "../secret.bin"}, {"0.weight": ".."}, own, {"0.weight": 3}, ["0.weight"]):
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": listed}))
        with pytest.raises(ti.InputError, match="not a readable index of shards"):
            read(folder, "x")
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"0.weight": "gone.bin"}}))
    with pytest.raises(ti.InputError, match="gone.bin: no such checkpoint file"):
        read(folder, "x")


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["r/model_epoch_1.pt", "r/model_epoch_2.pt"], ["model_epoch_1.pt", "model_epoch_2.pt"]),
        (["c-5/model.safetensors", "c-10/model.safetensors"], ["c-5", "c-10"]),
        (["s0/last/model.bin", "s1/last/model.bin"], ["s0", "s1"]),
        (["s0/c-5/m.bin", "s0/c-9/m.bin", "s1/c-5/m.bin"], ["s0/c-5", "s0/c-9", "s1/c-5"]),
        (
            ["s0/e1.pt", "s0/e2.pt", "s1/e1.pt", "s1/e2.pt", "s1/e3.pt"],
            ["s0/e1.pt", "s0/e2.pt", "s1/e1.pt", "s1/e2.pt", "s1/e3.pt"],
        ),
        (["m.pt", "x/m.pt"], None),
    ],
)
def test_names_are_the_shortest_that_differ(tmp_path: Path, paths: list[str], names: list[str] | None) -> None:
    found = [each.known_as(1) for each in named_apart([ti.Checkpoint(tmp_path / path) for path in paths])]
    assert len(set(found)) == len(found)
    assert names is None or found == names


def test_one_state_given_twice_is_refused(tmp_path: Path, model: nn.Module) -> None:
    path = saved(tmp_path, model.state_dict())
    twice = [ti.Checkpoint(path, 0.1), ti.Checkpoint(path, 0.1)]
    named = [ti.Checkpoint(model.state_dict(), 0.1, "a"), ti.Checkpoint(path, 0.1, "a")]
    for checkpoints, name in ((twice, "model.pt"), (named, "a")):
        with pytest.raises(ti.InputError, match=f"`checkpoints`: two have the name '{name}'"):
            ti.Task(model, torch.zeros(2, 3), ti.Pairs([0], [1], [1]), checkpoints)


def test_a_module_is_copied_when_it_is_given(model: nn.Module) -> None:
    checkpoint = ti.Checkpoint(model, 0.1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        model[0].weight.add_(1)
    found = load(checkpoint, 1).weights
    assert all(torch.equal(found[name], before[name]) for name in before)


@pytest.mark.parametrize("source", [None, 3, [torch.zeros(1)], b"model.pt"])
def test_a_source_of_another_type_is_refused(source: Any) -> None:
    with pytest.raises(ti.UsageError, match="`source` of a checkpoint should be a state dict, .*Got "):
        ti.Checkpoint(source)


# Names of weights


KNOWN = ["0.weight", "0.bias", "1.weight", "1.bias"]


@pytest.mark.parametrize(
    ("before", "words"),
    [
        ("model.{}", "without the prefix 'model.'"),
        ("model._orig_mod.{}", "without the prefix 'model._orig_mod.'"),
        ("ranker.net.{}", "without the prefix 'ranker.net.'"),
    ],
)
def test_prefixes(before: str, words: str) -> None:
    names = [before.format(name) for name in KNOWN]
    assert renamed(names, KNOWN) == (dict(zip(names, KNOWN, strict=True)), words)


def test_names_of_wrappers_inside() -> None:
    names = ["0.module.weight", "0.module.bias", "1._orig_mod.weight", "1._orig_mod.bias"]
    assert renamed(names, KNOWN)[0] == dict(zip(names, KNOWN, strict=True))


def test_the_names_of_a_part_that_is_there_twice_are_not_guessed() -> None:
    known = [f"{part}.{name}" for part in ("query", "document") for name in KNOWN]
    assert renamed(KNOWN, known) == (dict(zip(KNOWN, KNOWN, strict=True)), "")
    assert renamed(KNOWN, [f"query.{name}" for name in KNOWN])[1] == "with the prefix 'query.'"


def test_a_model_whose_names_fit_keeps_them() -> None:
    known = ["model.weight", "weight"]
    assert renamed(["model.weight", "weight"], known) == ({name: name for name in known}, "")


def test_two_adapters_are_not_guessed() -> None:
    known = [f"q.lora_A.{adapter}.weight" for adapter in ("first", "second")]
    assert renamed(["q.lora_A.weight"], known) == ({"q.lora_A.weight": "q.lora_A.weight"}, "")


def test_what_lies_beside_the_prefix_is_named(tmp_path: Path, model: nn.Module) -> None:
    weights = {f"model.{name}": value for name, value in model.state_dict().items()}
    path = saved(tmp_path, {"state_dict": {**weights, "criterion.pos_weight": torch.ones(1)}})
    with pytest.raises(ti.InputError, match=r"read without the prefix 'model\.', .*unexpected criterion.pos_weight\."):
        scored(model, ti.Checkpoint(path, 0.1))


def test_changed_names_are_reported_once(tmp_path: Path, model: nn.Module) -> None:
    states = [{f"model.{name}": (n + 1) * value for name, value in model.state_dict().items()} for n in range(3)]
    task = ti.Task(model, torch.randn(3, 3), ti.Pairs([0], [1], [1]), [ti.Checkpoint(state, 0.1) for state in states])
    notices: list[str] = []
    calls.score(task, calls.how(device="cpu", notice=notices.append))
    assert [line for line in notices if "prefix" in line] == [
        "checkpoint 1: the names of its weights are read without the prefix 'model.'."
    ]


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
    with pytest.raises(ti.InputError, match="epoch 1: records no learning rate.*Give `learning_rate`"):
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


def test_groups_of_equal_shapes_are_distinguished_by_their_order(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 2, bias=False), nn.Linear(2, 3, bias=False))
    model.append(nn.Linear(3, 3, bias=False))
    groups = [{"params": model[:2].parameters(), "lr": 0.1}, {"params": model[2:].parameters(), "lr": 0.2}]
    found, _ = rates(tmp_path, model, optimizer_state_dict=stepped(torch.optim.Adam(groups), model))
    assert found == {"0.weight": 0.1, "1.weight": 0.1, "2.weight": 0.2, "3.weight": 0.2}


def test_groups_that_cannot_be_told_are_refused(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    groups = [{"params": model[0].parameters(), "lr": 0.1}, {"params": model[1].parameters(), "lr": 0.2}]
    message = r"2 groups without 'param_names', and the shapes of parameter .* fit several of them.*learning_rate"
    for optimizer in (torch.optim.Adam(groups), torch.optim.SGD(groups)):
        with pytest.raises(ti.InputError, match=message):
            rates(tmp_path, model, optimizer_state_dict=stepped(optimizer, model))


@pytest.mark.parametrize("rate", [-1.0, float("nan"), float("inf"), {"weight": -1.0}])
def test_given_rates_are_checked(rate: Any) -> None:
    with pytest.raises(ti.UsageError, match="`learning_rate` should be finite and at least 0. Got (-1|nan|inf)"):
        ti.Checkpoint({}, rate)


def scored(model: nn.Module, checkpoint: ti.Checkpoint) -> ti.SelfInfluence:
    items = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    return calls.self_influence(model, items, ti.Pairs([0, 1], [1, 2], [1, -1]), [checkpoint])


def test_a_rate_of_every_parameter_is_needed(model: nn.Module) -> None:
    with pytest.raises(
        ti.InputError, match="`learning_rate` should have one entry .* Missing: 0.bias, 1.weight, 1.bias; unknown: none"
    ):
        scored(model, ti.Checkpoint(model.state_dict(), {"0.weight": 0.1}))


def test_a_rate_of_zero_is_told(model: nn.Module) -> None:
    last = ti.Checkpoint(model.state_dict(), 0.0, "last")
    with pytest.raises(ti.InputError, match=r"`learning_rate` is 0 at every checkpoint \(last\), so every score"):
        scored(model, last)
    first = ti.Checkpoint({name: 2 * weight for name, weight in model.state_dict().items()}, 0.1, "first")
    pairs = ti.Pairs([0, 1], [1, 2], [1, 1])
    task = ti.Task(model, torch.randn(3, 3), pairs, [first, last], loss=ti.LogisticLoss())
    found = calls.score(task, calls.how()).self_influence
    assert found is not None
    assert any(each.startswith("warning: last adds nothing to any score, as its") for each in found.run.notices)
    assert not bool(found.per_checkpoint[1].any())


def test_numpy_scalars_can_be_written_into_the_record(tmp_path: Path, model: nn.Module) -> None:
    content = {"model_state_dict": model.state_dict(), "accuracy": np.float32(0.5), "epoch": np.int64(3)}
    scored(model, ti.Checkpoint(saved(tmp_path, content), 0.1)).save(tmp_path / "scores.json")

"""What people hand in as a checkpoint."""

import argparse
import collections
import datetime
import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from tests.support.cases.reference import State


class Extra(nn.Module):
    """Keeps something that is no weight in its state dict."""

    def __init__(self, extra: Any) -> None:
        super().__init__()
        self.body, self.extra = nn.Linear(5, 1), extra

    def get_extra_state(self) -> Any:
        return self.extra

    def set_extra_state(self, state: Any) -> None:
        pass

    def forward(self, items: Tensor) -> Tensor:
        return self.body(items)


class Adapted(nn.Module):
    """A frozen layer with a low-rank adapter called `default`, and a head that is saved beside it."""

    def __init__(self) -> None:
        super().__init__()
        query, score = nn.Module(), nn.Module()
        query.base_layer = nn.Linear(5, 4).requires_grad_(False)
        query.lora_A = nn.ModuleDict({"default": nn.Linear(5, 2, bias=False)})
        query.lora_B = nn.ModuleDict({"default": nn.Linear(2, 4, bias=False)})
        score.original_module = nn.Linear(4, 1).requires_grad_(False)
        score.modules_to_save = nn.ModuleDict({"default": nn.Linear(4, 1)})
        self.base_model = nn.Module()
        self.base_model.model = nn.ModuleDict({"query": query, "score": score})

    def forward(self, items: Tensor) -> Tensor:
        query, score = self.base_model.model["query"], self.base_model.model["score"]
        hidden = query.base_layer(items) + query.lora_B["default"](query.lora_A["default"](items))
        return score.modules_to_save["default"](hidden.tanh())


def adapter_of(state: State) -> State:
    """What an adapter file holds: trained tensors, without the adapter's name."""
    return {
        name.replace(".modules_to_save", "").replace(".default", ""): value
        for name, value in state.items()
        if "lora_" in name or "modules_to_save" in name
    }


class Wrapped(nn.Module):
    """A model inside a scorer: every name begins with `m.`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.m = model

    def forward(self, items: Tensor) -> Tensor:
        return self.m(items)


def lightning(state: State) -> dict[str, Any]:
    """The layout of a Lightning checkpoint, whose names begin with `model.`."""
    return {
        "state_dict": {f"model.{name}": value for name, value in state.items()},
        "optimizer_states": [],
        "lr_schedulers": [],
        "epoch": 3,
        "global_step": 9,
        "hyper_parameters": {"lr": 0.1},
    }


def averaged(module: nn.Module) -> State:
    """The state of an averaged model: `n_averaged`, and names that begin with `module.`."""
    return dict(torch.optim.swa_utils.AveragedModel(module).state_dict())


# What argument parsers and trainers leave beside the weights.
ARGUMENTS: dict[str, Any] = {
    "namespace": argparse.Namespace(lr=0.1),
    "path": {"lr": 0.1, "out": Path("runs")},
    "defaultdict": collections.defaultdict(list, loss=[1.0]),
    "datetime": datetime.datetime(2024, 1, 1),
}
NUMPY: dict[str, Any] = {
    "datetime64": np.datetime64("2024-01-01"),
    "objects": np.array(["a", None], dtype=object),
}


def sharded(folder: Path, state: State) -> Path:
    """Two shards and their index, as large models are saved; the path of the index."""
    folder.mkdir()
    names = list(state)
    shards = {"model-00001-of-00002.safetensors": names[:2], "model-00002-of-00002.safetensors": names[2:]}
    for file, held in shards.items():
        safetensors.torch.save_file({name: state[name] for name in held}, folder / file)
    weight_map = {name: file for file, held in shards.items() for name in held}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return index


def saved(folder: Path, state: State) -> Path:
    """A folder of one training step with `model.safetensors` in it."""
    folder.mkdir(parents=True)
    safetensors.torch.save_file(state, folder / "model.safetensors")
    return folder

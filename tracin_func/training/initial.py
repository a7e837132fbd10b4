"""Copies of a scorer with fresh initial weights."""

import copy

import torch
from torch import nn


def initialised(scorer: nn.Module, seed: int) -> nn.Module:
    """A copy of `scorer` on the CPU whose trainable parameters are drawn anew by `seed`.

    Every submodule with trainable parameters of its own draws them by its `reset_parameters`, as the layers of torch do
    when they are created. Frozen parameters stay as they are, and so do those of `kept_weights`. The scorer and torch's
    global random state are not changed.
    """
    made = copy.deepcopy(scorer).cpu()
    frozen = {name: each.detach().clone() for name, each in made.named_parameters() if not each.requires_grad}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in made.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset) and any(each.requires_grad for each in module.parameters(recurse=False)):
                reset()
    with torch.no_grad():
        for name, value in frozen.items():
            made.get_parameter(name).copy_(value)
    return made


def kept_weights(scorer: nn.Module) -> list[str]:
    """Names of trainable parameters that `initialised` leaves as they are: of modules without `reset_parameters`."""
    return [
        name
        for name, each in scorer.named_parameters()
        if each.requires_grad and not callable(getattr(_owner(scorer, name), "reset_parameters", None))
    ]


def _owner(scorer: nn.Module, name: str) -> nn.Module:
    return scorer.get_submodule(name.rpartition(".")[0])

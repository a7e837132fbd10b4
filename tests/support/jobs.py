"""Small jobs for engines, scored and compared with the reference."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tracin_func as ti
from tests.support import calls
from tests.support.reference import TOLERANCE, Job, Trace, assert_same

PRECISIONS = [pytest.param(torch.float64, id="float64"), pytest.param(torch.float32, id="float32")]


TRAIN = ti.Pairs(first=[0, 1, 2, 3, 4, 0, 3, 1], second=[1, 2, 3, 4, 0, 2, 0, 0], target=[1, -1, 1, 1, -1, -1, 1, 1])


TEST = ti.Pairs(first=[5, 1, 2], second=[0, 5, 4], target=[1, 1, -1])


def job_of(module: nn.Module, items: Any, loss: Any = None, **changes: Any) -> Job:
    """Two states of the module: one rate for all at the first, a rate of its own for each parameter at the second."""
    later = copy.deepcopy(module)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in later.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator).to(parameter)
    rates = {name: 0.02 * (position + 1) for position, (name, _) in enumerate(later.named_parameters())}
    checkpoints = [
        ti.Checkpoint({name: tensor.clone() for name, tensor in module.state_dict().items()}, 0.1, "first"),
        ti.Checkpoint({name: tensor.clone() for name, tensor in later.state_dict().items()}, rates, "second"),
    ]
    job = Job(module, items, TRAIN, TEST, checkpoints, ti.LogisticLoss() if loss is None else loss)
    return replace(job, **changes)


def scores(job: Job, engine: str, **compute: Any) -> calls.Scores:
    task = ti.Task(job.module, job.items, job.train, job.checkpoints, job.test, job.loss, joint=job.joint)
    settings = calls.how(
        engine=engine,
        device="cpu",
        test_functional=job.test_functional,
        weight_test_pairs=job.weight_test_pairs,
        **compute,
    )
    return calls.score(task, settings, self_influence=True, influence=True)


def check(job: Job, right: Trace, engine: str, dtype: torch.dtype, **compute: Any) -> calls.Scores:
    found = scores(job.at(dtype), engine, **compute)
    assert found.self_influence is not None
    assert found.influence is not None
    assert_same(found.self_influence.per_checkpoint, found.influence.per_checkpoint, right, TOLERANCE[dtype])
    assert bool((found.self_influence.per_checkpoint >= 0).all())
    return found


RICH_TRAIN = ti.Pairs(
    TRAIN.first,
    TRAIN.second,
    TRAIN.target,
    weight=[1.0, 0.5, 0.0, 2.0, 1.0, 3.0, 0.1, 1.0],
    margin=[0.1, 0.5, 1.0, -0.2, 0.0, 2.0, 0.3, 0.4],
    count=[1, 3, 1, 2, 1, 1, 5, 1],
)


DEVICES = [
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA here")),
    pytest.param("mps", marks=pytest.mark.skipif(not torch.backends.mps.is_available(), reason="no MPS here")),
]


class RootOfSquare(nn.Module):
    """Finite scores; at x = 0 the gradient is not."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).square().sqrt()

"""Jobs for `--task` whose items have unusual ids or classes."""

from collections.abc import Sequence

import numpy as np
import torch

import tracin_func as ti
from tests.support.cases.jobs import job


def named(pattern: str) -> list[str]:
    return [pattern.format(number) for number in range(8)]


def chat() -> ti.Task:
    return job(named("[INST] text {} [/INST]"), ["a", "b"] * 4)


def closing() -> ti.Task:
    return job(named("x{} [/]"))


def bold() -> ti.Task:
    return job(named("[bold]{}"))


def smile() -> ti.Task:
    return job(named("a:smile:{}"))


def classes() -> ti.Task:
    return job(named("d{}"), ["[/a]", "[b]"] * 4)


def integers() -> ti.Task:
    return job(list(range(101, 109)), [0, 1] * 4)


def arrays() -> ti.Task:
    return job(np.array(named("d{}")), np.array([0, 1] * 4))


def tensors() -> ti.Task:
    return job(torch.arange(101, 109), torch.tensor([0, 1] * 4))


def quoted() -> ti.Task:
    return job(named('te"xt, {}\nsecond line'))


def formula() -> ti.Task:
    return job(named("=SUM(A{})"))


def plain(ids: Sequence[str] | None = None) -> ti.Task:
    return job(ids)

"""Jobs for `--task` whose items have unusual ids or classes."""

from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
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


def numbers() -> ti.Task:
    return job(np.arange(101, 109), np.array([0, 1] * 4, dtype=np.uint8))


def raw() -> ti.Task:
    return job([name.encode() for name in named("d{}")], [b"a", b"b"] * 4)


def zeros() -> ti.Task:
    """Of Arrow, numpy and torch, without an axis."""
    return job([pa.scalar(101), np.array(102), torch.tensor(103), *range(104, 109)], [pa.scalar("a"), True] * 4)


def paths() -> ti.Task:
    return job((PurePosixPath(name) for name in named("d{}")), [np.str_("a"), False] * 4)


def quoted() -> ti.Task:
    return job(named('te"xt, {}\nsecond line'))


def formula() -> ti.Task:
    return job(named("=SUM(A{})"))


def plain(ids: Any = None) -> ti.Task:
    return job(ids)

"""Outcomes of retrainings, kept on disk: a retraining that was done for one method serves every other one."""

import contextlib
import hashlib
import inspect
import json
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from tracin_func.evaluation.workers import unordered
from tracin_func.files import cache_folder, locked, replace
from tracin_func.losses.custom import as_loss
from tracin_func.task.checkpoints import digest
from tracin_func.task.pairs import COLUMNS, Pairs
from tracin_func.task.task import Task
from tracin_func.training import retrain as training
from tracin_func.training.retrain import Recipe, Retrained, retrain

FOLDER = "retrained"
_LOCK_SECONDS = 60.0


@dataclass(frozen=True, eq=False)
class Training:
    """One retraining: on which pairs, with which seed, and whether its checkpoints are needed."""

    pairs: Pairs
    seed: int
    states: bool = False


@dataclass(eq=False)
class Outcomes:
    """Retrains the scorer of a task, unless the outcome is known.

    An outcome depends on items, scorer, loss, pairs, seed and recipe, and on the code that trains; these are its name.

    Args:
        task: its scorer, items and loss.
        recipe: how it is trained.
        folder: where outcomes are kept; None: nowhere. By default in the cache of this package.
        processes: at most; one per core when None.
        computed: retrainings that were done.
        found: outcomes that were known.
        seconds: that each outcome took, per visit of a pair and epoch, in the order in which they were used.
    """

    task: Task
    recipe: Recipe
    folder: Path | None = field(default_factory=lambda: outcomes_folder())
    processes: int | None = None
    computed: int = 0
    found: int = 0
    seconds: list[float] = field(default_factory=list)

    def __call__(
        self, trainings: Sequence[Training], advance: Callable[[float], None] = lambda amount: None
    ) -> list[Retrained]:
        """The outcome of each training; `advance` is called with 1 for each that is there.

        What is done is on disk at once, so that an interrupted evaluation continues where it stopped.

        Raises:
            InputError, NumericalError: see `retrain`.
        """
        names = [self._name(each) for each in trainings]
        known: dict[str, Retrained] = {}
        for name, each in zip(names, trainings, strict=True):
            if (outcome := self._read(name, each.states)) is not None:
                known[name] = outcome
                self.found += 1
                advance(1)
        wanted = {name: each for name, each in zip(names, trainings, strict=True) if name not in known}
        rows = list(wanted)

        def work(name: str) -> tuple[float, bytes]:
            began, own = monotonic(), wanted[name]
            done = retrain(self.task, own.pairs, own.seed, self.recipe, states=own.states)
            return monotonic() - began, pickle.dumps(done)  # plain bytes: tensors would travel as shared memory

        for position, (seconds, content) in unordered(work, rows, self.processes):
            known[rows[position]] = done = pickle.loads(content)
            self.seconds.append(seconds / int(wanted[rows[position]].pairs.counts.sum()))
            self._write(rows[position], done, self.seconds[-1])
            self.computed += 1
            advance(1)
        return [known[name] for name in names]

    @cached_property
    def _base(self) -> str:
        """The name of what all outcomes share."""
        task = self.task
        base = hashlib.sha256()
        for part in (
            inspect.getsource(training),
            json.dumps([self.recipe.describe(), as_loss(task.loss).describe(), str(task.scorer)], default=str),
            digest({name: value for name, value in task.scorer.state_dict().items() if isinstance(value, Tensor)}),
            torch.__version__,
        ):
            base.update(part.encode())
        for position in range(len(task.items)):
            item = task.items.take(torch.tensor([position]))
            base.update(digest({str(place): leaf for place, leaf in enumerate(pytree.tree_leaves(item))}).encode())
        return base.hexdigest()[:16]

    def _name(self, each: Training) -> str:
        own = hashlib.sha256(f"{self._base} {each.seed}".encode())
        own.update(
            digest({name: column for name in COLUMNS if (column := getattr(each.pairs, name)) is not None}).encode()
        )
        return own.hexdigest()[:24]

    def _path(self, name: str, states: bool) -> Path | None:
        return None if self.folder is None else self.folder / self._base / f"{name}{'.states' if states else ''}.pt"

    def _read(self, name: str, states: bool) -> Retrained | None:
        for with_states in (False, True) if not states else (True,):
            path = self._path(name, with_states)
            if path is None or not path.is_file():
                continue
            with contextlib.suppress(Exception):  # damaged, or cut off: it is computed again
                content: dict[str, Any] = torch.load(path, weights_only=True)
                outcome = Retrained(content["scores"], tuple(content["states"]))
                self.seconds.append(content["seconds"])
                return outcome
        return None

    def _write(self, name: str, done: Retrained, seconds: float) -> None:
        path = self._path(name, bool(done.states))
        if path is None:
            return
        content = {"scores": done.scores, "states": list(done.states), "seconds": seconds}
        lock = path.with_name("outcomes")  # one for all files of the folder
        with locked(lock, _LOCK_SECONDS):
            replace(lock, [(path, lambda stream: torch.save(content, stream))], setting="cache_dir")


def outcomes_folder() -> Path | None:
    """The folder of outcomes in the cache; None without a home folder."""
    folder = cache_folder()
    return None if folder is None else folder / FOLDER

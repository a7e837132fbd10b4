"""Tones as a source: the lab's tree of recordings, its split and its pairs, as a `Task`."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tracin_func.checkpoints import Checkpoint
from tracin_func.errors import InputError
from tracin_func.losses import PairLoss
from tracin_func.pairs import Pairs
from tracin_func.sources.drawing import (
    all_pairs,
    draw_sequence,
    exclude,
    merge_repeats,
    read_exclusions,
    read_pairs,
    sample_test_pairs,
    split_items,
)
from tracin_func.sources.frontend import FrontEnd
from tracin_func.sources.tree import Clip, find_clips, load_items
from tracin_func.task import Task

NUM_TEST = 5
DRAWN, ALL = "drawn", "all"


@dataclass(frozen=True)
class Tones:
    """Which recordings are scored, and which pairs of them.

    Args:
        data_root: folder of the tree `ROOT/deg036/plastic/plastic_deg036_500hz_04.wav`.
        material, frequency, classes, takes: what of it; all classes and takes present when None.
        sample_rate: the rate all files must have, in Hz.
        clip_seconds: use this much of each clip; the whole when None.
        seed: of split, drawing and the sample of test pairs.
        pairs: `drawn` as the lab trained, `all` unequal pairs of the training items once, or a CSV file.
        num_test: how many test pairs, None for all; "default" for as many as there are, up to 5.
        exclusions: file of item or pair ids to leave out, after the split.
    """

    data_root: Path
    material: str = "plastic"
    frequency: str = "500hz"
    classes: Sequence[str] | None = None
    takes: Sequence[int] | None = None
    sample_rate: int = 48000
    clip_seconds: float | None = None
    seed: int = 42
    pairs: str = DRAWN
    num_test: int | str | None = "default"
    exclusions: Path | None = None

    def task(
        self,
        scorer: nn.Module,
        checkpoints: Sequence[Checkpoint],
        loss: PairLoss,
        *,
        kind: str,
        with_test: bool,
        workers: int = 0,
        loaded: Callable[[int, int], None] = lambda done, total: None,
        notice: Callable[[str], None] = lambda sentence: None,
    ) -> Task:
        """The job of scoring these recordings; `kind` says in provenance whose they are.

        Raises:
            InputError: recordings, pairs or exclusions do not fit; see `find_clips`, `read_wav`, `read_pairs`.
        """
        clips = find_clips(
            self.data_root, material=self.material, frequency=self.frequency, classes=self.classes, takes=self.takes
        )
        ids = [clip.id for clip in clips]
        front_end = FrontEnd()
        train, test = self.choose_pairs(clips, with_test=with_test, notice=notice)
        items = load_items(
            clips,
            front_end,
            sample_rate=self.sample_rate,
            clip_seconds=self.clip_seconds,
            workers=workers,
            progress=lambda done: loaded(done, len(clips)),
        )
        describe = self._describe(kind, clips, front_end) | {"model": type(scorer).__qualname__}
        return Task(scorer, items, train, checkpoints, test, loss, ids, describe=describe)

    def choose_pairs(
        self, clips: Sequence[Clip], *, with_test: bool, notice: Callable[[str], None]
    ) -> tuple[Pairs, Pairs | None]:
        """Training and test pairs over `clips`, as positions in them."""
        ids = [clip.id for clip in clips]
        train, test = self._from_file(ids) if self.pairs not in (DRAWN, ALL) else self._from_split(clips, with_test)
        if self.exclusions is not None:
            excluded = read_exclusions(self.exclusions)
            before = len(train)
            train, unknown = exclude(train, ids, excluded)
            if test is not None:
                test, unknown_of_test = exclude(test, ids, excluded)
                unknown &= unknown_of_test
            if not len(train):
                raise InputError(f"{self.exclusions} excludes all {before} training pairs. Expected some to be left.")
            if unknown:
                some = ", ".join(sorted(unknown)[:3])
                notice(f"{self.exclusions}: {len(unknown)} of its ids name no item or pair here, such as {some}.")
        if not with_test:
            return train, None
        if test is None or not len(test):
            raise InputError(f"--pairs {self.pairs}: no test pair is there. Expected rows whose `split` is test.")
        return train, test

    def _from_split(self, clips: Sequence[Clip], with_test: bool) -> tuple[Pairs, Pairs | None]:
        degrees = torch.tensor([clip.degree for clip in clips])
        train_items, test_items = split_items(len(clips), self.seed)
        rng = np.random.RandomState(self.seed)  # one stream: the test drawing goes on where training stopped
        drawn = merge_repeats(draw_sequence(train_items, degrees, rng))
        train = all_pairs(train_items, degrees) if self.pairs == ALL else drawn
        if not with_test:
            return train, None
        drawn_test = draw_sequence(test_items, degrees, rng)
        return train, sample_test_pairs(drawn_test, self._wanted(len(set(drawn_test))), self.seed)

    def _from_file(self, ids: Sequence[str]) -> tuple[Pairs, Pairs | None]:
        train, test = read_pairs(self.pairs, ids)
        if test is None:
            return train, None
        wanted = self._wanted(len(test))
        if wanted is None or wanted == len(test):
            return train, test
        if wanted > len(test):
            raise InputError(f"--num-test {wanted}: {self.pairs} has {len(test)} test pairs. Use --num-test all.")
        return train, test.select(torch.tensor(random.Random(self.seed).sample(range(len(test)), wanted)))

    def _wanted(self, there: int) -> int | None:
        if self.num_test == "default":
            return min(NUM_TEST, there) or NUM_TEST
        assert not isinstance(self.num_test, str)
        return self.num_test

    def _describe(self, kind: str, clips: Sequence[Clip], front_end: FrontEnd) -> dict[str, Any]:
        return {
            "kind": kind,
            "data_root": str(self.data_root),
            "material": self.material,
            "frequency": self.frequency,
            "classes": sorted({clip.degree_class for clip in clips}),
            "takes": sorted({clip.take for clip in clips}),
            "items": len(clips),
            "seed": self.seed,
            "split": {"train_share": 0.70, "by": "torch.utils.data.random_split"},
            "pairs": self.pairs,
            "num_test": self.num_test,
            "exclusions": None if self.exclusions is None else str(self.exclusions),
            "sample_rate": self.sample_rate,
            "clip_seconds": self.clip_seconds,
            "front_end": front_end.describe(),
        }

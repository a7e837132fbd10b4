"""Tones as a source: the lab's tree of recordings, its split and its pairs, as a `Task`."""

import hashlib
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
    DrawnPair,
    all_pairs,
    draw_pairs,
    draw_sequence,
    exclude,
    kept_rows,
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
DRAWN, ALL = WORDS = "drawn", "all"


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
            self.data_root,
            material=self.material,
            frequency=self.frequency,
            classes=self.classes,
            takes=self.takes,
            notice=notice,
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
        excluded = frozenset[str]() if self.exclusions is None else read_exclusions(self.exclusions)
        train, test, drawn = self._from_split(clips) if self.pairs in WORDS else self._from_file(ids)
        left, unknown = exclude(train, ids, excluded)
        kept, unknown_of_test = kept_rows(test, ids, excluded)
        if some := sorted(unknown & unknown_of_test):
            notice(
                f"{self.exclusions}: {len(some)} of its ids name no item or pair here, such as {', '.join(some[:3])}."
            )
        self._require_some(len(train), len(left), "training")
        if not with_test:
            return left, None
        if not len(test) and self.pairs not in WORDS:
            raise InputError(f"--pairs {self.pairs}: no test pair is there. Expected rows whose `split` is test.")
        self._require_some(len(test), len(kept), "test")
        wanted = (min(NUM_TEST, len(kept)) or NUM_TEST) if self.num_test == "default" else self.num_test
        assert not isinstance(wanted, str)
        return left, sample_test_pairs(drawn, wanted, self.seed, table=test, kept=kept)

    def _from_split(self, clips: Sequence[Clip]) -> tuple[Pairs, Pairs, list[DrawnPair]]:
        """Training pairs, distinct test pairs, and the draws these come from."""
        degrees = torch.tensor([clip.degree for clip in clips])
        train_items, test_items = split_items(len(clips), self.seed)
        rng = np.random.RandomState(self.seed)  # one stream: the test drawing goes on where training stopped
        train = draw_pairs(train_items, degrees, rng)
        test = draw_sequence(test_items, degrees, rng)
        return all_pairs(train_items, degrees) if self.pairs == ALL else train, merge_repeats(test), test

    def _from_file(self, ids: Sequence[str]) -> tuple[Pairs, Pairs, list[DrawnPair]]:
        """The same of a table, in which every row is one draw."""
        train, test = read_pairs(self.pairs, ids)
        if test is None:
            return train, merge_repeats([]), []
        rows = zip(test.first.tolist(), test.second.tolist(), test.target.int().tolist(), strict=True)
        return train, test, [DrawnPair(*row) for row in rows]

    def _require_some(self, before: int, left: int, role: str) -> None:
        if before and not left:
            raise InputError(f"{self.exclusions} excludes all {before} {role} pairs. Expected some to be left.")

    def _describe(self, kind: str, clips: Sequence[Clip], front_end: FrontEnd) -> dict[str, Any]:
        return {
            "kind": kind,
            "data_root": str(self.data_root.absolute()),
            "material": self.material,
            "frequency": self.frequency,
            "classes": sorted({clip.degree_class for clip in clips}),
            "takes": sorted({clip.take for clip in clips}),
            "items": len(clips),
            "seed": self.seed,
            "split": {"train_share": 0.70, "by": "torch.utils.data.random_split"},
            "pairs": self.pairs if self.pairs in WORDS else _file(Path(self.pairs)),
            "num_test": self.num_test,
            "exclusions": None if self.exclusions is None else _file(self.exclusions),
            "sample_rate": self.sample_rate,
            "clip_seconds": self.clip_seconds,
            "front_end": front_end.describe(),
        }


def _file(path: Path) -> dict[str, str | None]:
    """A file that was read, for provenance; what came through a pipe cannot be read again."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
    return {"path": str(path.absolute()), "sha256": digest}

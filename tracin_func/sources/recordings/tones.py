"""Tones as a source: the lab's tree of recordings, its split and its pairs, as a `Task`."""

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tracin_func.errors import InputError
from tracin_func.files import one_form
from tracin_func.results.exclusions import exclude, kept_rows, read_exclusions
from tracin_func.sources.groups import ALL, DRAWN, WORDS
from tracin_func.sources.recordings.drawing import (
    all_pairs,
    draw_pairs,
    draw_sequence,
    merge_repeats,
    sample_test_pairs,
    split_items,
)
from tracin_func.sources.recordings.frontend import FrontEnd
from tracin_func.sources.recordings.tree import Clip, find_clips, load_items
from tracin_func.sources.source import Listener
from tracin_func.sources.values import NUM_TEST
from tracin_func.task.checkpoints import Checkpoint
from tracin_func.task.loss import PairLoss
from tracin_func.task.pair_files import first_pairs, named_pairs, read_pairs, read_test_pairs
from tracin_func.task.pairs import DrawnPair, Pairs
from tracin_func.task.task import Task


@dataclass(frozen=True)
class Tones:
    """Which recordings are scored, and which pairs of them.

    Args:
        data_root: folder of the tree `ROOT/deg036/plastic/plastic_deg036_500hz_04.wav`.
        material, frequency, classes, takes: what of it; all classes and takes present when None.
        sample_rate: the rate all files must have, in Hz.
        clip_seconds: use this much of each clip; the whole when None.
        seed: of split, drawing and the sample of test pairs.
        pairs: `drawn` as the lab trained, `all` unequal pairs of the training items once, or a CSV or Parquet
            file.
        ids: what such a file names items by: `names` or `positions`; see `read_pairs`.
        num_test: how many test pairs, None for all; "default" for as many as there are, up to 5.
        test_pairs: ids of the test pairs, instead of a sample; their items may be any.
        exclusions: file of item or pair ids to leave out, after the split.
        exclude_before_split: items that the exclusions name are gone before the split: as the lab did, and other items
            then come to be training or test items.
        skip_bad: pairs of recordings that cannot be read are left out, after the split; else they are an error.
        streamed: the training pairs of the Parquet file `pairs` are read in blocks, by others; the first ones stand for
            them in the task.
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
    ids: str | None = None
    num_test: int | str | None = "default"
    test_pairs: Sequence[str] | None = None
    exclusions: Path | None = None
    exclude_before_split: bool = False
    skip_bad: bool = False
    streamed: bool = False

    def task(
        self,
        scorer: nn.Module,
        checkpoints: Sequence[Checkpoint],
        loss: PairLoss,
        *,
        kind: str,
        with_test: bool,
        listener: Listener,
        workers: int = 0,
    ) -> Task:
        """The task of scoring these recordings; `kind` says in provenance whose they are.

        Raises:
            InputError: recordings, pairs or exclusions do not fit; see `find_clips`, `read_wav`, `read_pairs`.
        """

        def notice(sentence: str) -> None:
            listener.tell(f"note: {sentence}")

        clips = find_clips(
            self.data_root,
            material=self.material,
            frequency=self.frequency,
            classes=self.classes,
            takes=self.takes,
            notice=notice,
        )
        clips, excluded = self._without_excluded(clips)
        # Chosen before the recordings are read, which takes long, so that faults of the choice are told at once.
        train, test, held_out = self.choose_pairs(clips, excluded, with_test=with_test, notice=notice)
        listener.chosen()
        front_end, bad = FrontEnd(), dict[str, str]()
        with listener.progress("reading clips", 1) as advance:
            items = load_items(
                clips,
                front_end,
                sample_rate=self.sample_rate,
                clip_seconds=self.clip_seconds,
                workers=workers,
                progress=lambda done: advance(1 / len(clips)),
                bad=bad if self.skip_bad else None,
            )
        if bad:
            notice(
                f"{len(bad)} of {len(clips)} recordings cannot be used and are left out, with their pairs, after the "
                f"split: {'; '.join(list(bad.values())[:3])}{' ...' if len(bad) > 3 else ''}"
            )
            train, test, held_out = self.choose_pairs(clips, excluded | bad.keys(), with_test=with_test)
            self._require_usable(test, clips, bad)
        describe = self._describe(kind, clips, front_end) | {"model": type(scorer).__qualname__, "bad": list(bad)}
        ids, classes = [clip.id for clip in clips], [clip.degree_class for clip in clips]
        return Task(
            *(scorer, items, train, checkpoints, test, loss, ids),
            item_classes=classes,
            held_out=held_out,
            describe=describe,
        )

    def _without_excluded(self, clips: list[Clip]) -> tuple[list[Clip], frozenset[str]]:
        """The recordings to split, and the exclusions that apply after the split."""
        excluded = frozenset[str]() if self.exclusions is None else read_exclusions(self.exclusions)
        if not self.exclude_before_split or self.pairs not in WORDS:  # a table of pairs has no split to come before
            return clips, excluded
        gone = set(map(one_form, excluded)).intersection(one_form(clip.id) for clip in clips)
        kept = [clip for clip in clips if one_form(clip.id) not in gone]
        return kept, frozenset(name for name in excluded if not any(_is_of(item, one_form(name)) for item in gone))

    def choose_pairs(
        self,
        clips: Sequence[Clip],
        excluded: Collection[str] = (),
        *,
        with_test: bool,
        notice: Callable[[str], None] = lambda sentence: None,
    ) -> tuple[Pairs, Pairs | None, Pairs | None]:
        """Training pairs, the test pairs to explain and all there are over `clips`, as positions in them, without those
        that ids `excluded` name."""
        ids = [clip.id for clip in clips]
        if self.streamed and excluded:
            raise InputError(
                f"{self.pairs} is read in blocks, where no pair can be left out, and {len(excluded)} ids of items or "
                "pairs are to be. Leave these rows out of the file, and give --exclusions-file none."
            )
        train, test, drawn = self._from_split(clips) if self.pairs in WORDS else self._from_file(ids)
        left, unknown = exclude(train, ids, excluded)
        kept, unknown_of_test = kept_rows(test, ids, excluded)
        if some := sorted(unknown & unknown_of_test):
            notice(
                f"{self.exclusions}: {len(some)} of its ids name no item or pair here, such as {', '.join(some[:3])}."
            )
        self._require_some(len(train), len(left), "training")
        held_out = test.select(torch.tensor(kept, dtype=torch.int64)) if kept else None
        if not with_test:
            return left, None, held_out
        if self.test_pairs is not None:
            return left, self._named(clips, test, left, notice), held_out
        if not len(test) and self.pairs not in WORDS:
            raise InputError(f"--pairs {self.pairs}: no test pair is there. Expected rows whose `split` is test.")
        self._require_some(len(test), len(kept), "test")
        wanted = (min(NUM_TEST, len(kept)) or NUM_TEST) if self.num_test == "default" else self.num_test
        assert not isinstance(wanted, str)
        return left, sample_test_pairs(drawn, wanted, self.seed, table=test, kept=kept), held_out

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
        train, test = (
            (first_pairs(self.pairs, ids, ids=self.ids), read_test_pairs(self.pairs, ids, ids=self.ids))
            if self.streamed
            else read_pairs(self.pairs, ids, ids=self.ids)
        )
        if test is None:
            return train, merge_repeats([]), []
        rows = zip(test.first.tolist(), test.second.tolist(), test.target.int().tolist(), strict=True)
        return train, test, [DrawnPair(*row) for row in rows]

    def _named(self, clips: Sequence[Clip], test: Pairs, train: Pairs, notice: Callable[[str], None]) -> Pairs:
        """The test pairs that `test_pairs` names: rows of the user's own table, or any two recordings."""
        assert self.test_pairs is not None
        ids = [clip.id for clip in clips]
        if self.pairs not in WORDS:
            rows = zip(test.first.tolist(), test.second.tolist(), strict=True)
            row_of = {one_form(f"{ids[first]}_{ids[second]}"): row for row, (first, second) in enumerate(rows)}
            if missing := [name for name in self.test_pairs if one_form(name) not in row_of]:
                raise InputError(f"test pair {missing[0]!r} is no row of {self.pairs} whose `split` is test.")
            return test.select(torch.tensor([row_of[one_form(name)] for name in self.test_pairs]))
        named = named_pairs(self.test_pairs, ids, torch.tensor([clip.degree for clip in clips]))
        trained = torch.isin(torch.stack([named.first, named.second]), torch.cat([train.first, train.second])).any(0)
        if count := int(trained.sum()):
            notice(f"{count} of {len(named)} test pairs compare recordings that training pairs compare too.")
        return named

    def _require_some(self, before: int, left: int, role: str) -> None:
        if not before or left:
            return
        if self.exclusions is None:
            raise InputError(f"all {before} {role} pairs are of recordings that cannot be used. Expected some others.")
        raise InputError(f"{self.exclusions} excludes all {before} {role} pairs. Expected some to be left.")

    def _require_usable(self, test: Pairs | None, clips: Sequence[Clip], bad: Collection[str]) -> None:
        """Test pairs that were named are not exchanged for others."""
        for first, second in () if test is None else zip(test.first.tolist(), test.second.tolist(), strict=True):
            ids = clips[first].id, clips[second].id
            if unusable := [item for item in ids if item in bad]:
                raise InputError(
                    f"test pair {'_'.join(ids)!r} compares {unusable[0]}, which cannot be used. Name another pair."
                )

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
            "test_pairs": None if self.test_pairs is None else list(self.test_pairs),
            "exclusions": None if self.exclusions is None else _file(self.exclusions),
            "exclude_before_split": self.exclude_before_split,
            "recordings_sha256": _digest([clip.path for clip in clips]),
            "sample_rate": self.sample_rate,
            "clip_seconds": self.clip_seconds,
            "front_end": front_end.describe(),
        }


def _is_of(item: str, name: str) -> bool:
    """Whether an id is that of the item, or of a pair of it."""
    return name == item or name.startswith(f"{item}_") or name.endswith(f"_{item}")


def _digest(paths: Sequence[Path]) -> str:
    """One digest of the content of all files, in their order."""
    every = hashlib.sha256()
    for path in paths:
        every.update(hashlib.sha256(path.read_bytes()).digest())
    return every.hexdigest()


def _file(path: Path) -> dict[str, str | None]:
    """A file that was read, for provenance; what came through a pipe cannot be read again."""
    if not path.is_file():
        return {"path": str(path.absolute()), "sha256": None}
    with path.open("rb") as file:  # a table of pairs may be larger than the memory
        return {"path": str(path.absolute()), "sha256": hashlib.file_digest(file, "sha256").hexdigest()}

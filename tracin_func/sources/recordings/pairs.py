"""Which pairs of recordings are scored: of the lab's split and drawing, or a file, without what is excluded."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tracin_func.errors import InputError
from tracin_func.files import one_form
from tracin_func.results.exclusions import exclude, kept_rows, read_exclusions
from tracin_func.sources.groups import ALL, DRAWN, WORDS, PairOptions
from tracin_func.sources.recordings.drawing import (
    all_pairs,
    draw_pairs,
    draw_sequence,
    merge_repeats,
    sample_test_pairs,
    split_items,
)
from tracin_func.sources.recordings.tree import Clip
from tracin_func.sources.values import NUM_TEST
from tracin_func.task.pair_files import first_pairs, named_pairs, read_pairs, read_test_pairs
from tracin_func.task.pairs import DrawnPair, Pairs


@dataclass(frozen=True)
class PairChoice:
    """What decides which pairs of recordings are scored.

    Args:
        asked: the options of training pairs.
        seed: of split, drawing and the sample of test pairs.
        num_test: how many test pairs, None for all; "default" for as many as there are, up to 5.
        named: ids of the test pairs, instead of a sample; their items may be any.
        exclusions: file of item or pair ids to leave out, after the split.
        streamed: the training pairs of a Parquet file are read in blocks, by others; the first ones stand for them.
    """

    asked: PairOptions
    seed: int
    num_test: int | str | None
    named: Sequence[str] | None
    exclusions: Path | None
    streamed: bool

    @property
    def words(self) -> str:
        """`drawn` as the lab trained, `all` unequal pairs of the training items once, or a file."""
        return self.asked.pairs or DRAWN

    def without_excluded(self, clips: list[Clip]) -> tuple[list[Clip], frozenset[str]]:
        """The recordings to split, and the exclusions that apply after the split.

        With --exclude-before-split items that the exclusions name are gone before: as the lab did, and other items then
        come to be training or test items.
        """
        excluded = frozenset[str]() if self.exclusions is None else read_exclusions(self.exclusions)
        if not self.asked.exclude_before_split or self.words not in WORDS:  # a file has no split to come before
            return clips, excluded
        gone = set(map(one_form, excluded)).intersection(one_form(clip.id) for clip in clips)
        kept = [clip for clip in clips if one_form(clip.id) not in gone]
        return kept, frozenset(name for name in excluded if not any(_is_of(item, one_form(name)) for item in gone))

    def choose(
        self,
        clips: Sequence[Clip],
        excluded: Collection[str] = (),
        *,
        with_test: bool,
        notice: Callable[[str], None] = lambda sentence: None,
    ) -> tuple[Pairs, Pairs | None, Pairs | None]:
        """Training pairs, the test pairs to explain and all there are over `clips`, as positions in them, without those
        that ids `excluded` name.

        Raises:
            InputError: none is left, or pairs do not fit; see `read_pairs`.
        """
        ids = [clip.id for clip in clips]
        if self.streamed and excluded:
            raise InputError(
                f"{self.words} is read in blocks, where no pair can be left out, and {len(excluded)} ids of items or "
                "pairs are to be. Leave these rows out of the file, and give --exclusions-file none."
            )
        train, test, drawn = self._from_split(clips) if self.words in WORDS else self._from_file(ids)
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
        if self.named is not None:
            return left, self._named(clips, test, left, notice), held_out
        if not len(test) and self.words not in WORDS:
            raise InputError(f"--pairs {self.words}: no test pair is there. Expected rows whose `split` is test.")
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
        return all_pairs(train_items, degrees) if self.words == ALL else train, merge_repeats(test), test

    def _from_file(self, ids: Sequence[str]) -> tuple[Pairs, Pairs, list[DrawnPair]]:
        """The same of a table, in which every row is one draw."""
        train, test = (
            (first_pairs(self.words, ids, ids=self.asked.ids), read_test_pairs(self.words, ids, ids=self.asked.ids))
            if self.streamed
            else read_pairs(self.words, ids, ids=self.asked.ids)
        )
        if test is None:
            return train, merge_repeats([]), []
        rows = zip(test.first.tolist(), test.second.tolist(), test.target.int().tolist(), strict=True)
        return train, test, [DrawnPair(*row) for row in rows]

    def _named(self, clips: Sequence[Clip], test: Pairs, train: Pairs, notice: Callable[[str], None]) -> Pairs:
        """The test pairs that `test_pairs` names: rows of the user's own table, or any two recordings."""
        assert self.named is not None
        ids = [clip.id for clip in clips]
        if self.words not in WORDS:
            rows = zip(test.first.tolist(), test.second.tolist(), strict=True)
            row_of = {one_form(f"{ids[first]}_{ids[second]}"): row for row, (first, second) in enumerate(rows)}
            if missing := [name for name in self.named if one_form(name) not in row_of]:
                raise InputError(f"test pair {missing[0]!r} is no row of {self.words} whose `split` is test.")
            return test.select(torch.tensor([row_of[one_form(name)] for name in self.named]))
        named = named_pairs(self.named, ids, torch.tensor([clip.degree for clip in clips]))
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

    def require_usable(self, test: Pairs | None, clips: Sequence[Clip], bad: Collection[str]) -> None:
        """Test pairs that were named are not exchanged for others."""
        for first, second in () if test is None else zip(test.first.tolist(), test.second.tolist(), strict=True):
            ids = clips[first].id, clips[second].id
            if unusable := [item for item in ids if item in bad]:
                raise InputError(
                    f"test pair {'_'.join(ids)!r} compares {unusable[0]}, which cannot be used. Name another pair."
                )


def _is_of(item: str, name: str) -> bool:
    """Whether an id is that of the item, or of a pair of it."""
    return name == item or name.startswith(f"{item}_") or name.endswith(f"_{item}")

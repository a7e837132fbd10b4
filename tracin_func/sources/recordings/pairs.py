"""Which pairs of recordings are scored: those of the split and the drawing, or of a file, less the excluded ones."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tracin_func.errors import InputError
from tracin_func.files import one_form, read_lines
from tracin_func.results.exclusions import flipped, kept_rows
from tracin_func.results.names import counted
from tracin_func.sources.groups import ALL, DRAWN, WORDS, PairOptions
from tracin_func.sources.recordings.drawing import (
    all_pairs,
    draw_sequence,
    merge_repeats,
    sample_test_pairs,
    split_items,
)
from tracin_func.sources.recordings.tree import Clip
from tracin_func.sources.training import ids_in
from tracin_func.sources.values import NUM_TEST
from tracin_func.task.pair_files import first_pairs, named_pairs, read_pairs, read_test_pairs
from tracin_func.task.pairs import DrawnPair, Pairs


@dataclass(frozen=True)
class PairChoice:
    """The settings that decide which pairs of recordings are scored.

    Args:
        asked: the options of training pairs.
        seed: of split, drawing and the sample of test pairs.
        num_test: number of test pairs, None for all; "default" for 5, or all if there are fewer.
        named: ids of the test pairs, of any items, instead of a sample.
        exclusions: file of item or pair ids to leave out after the split.
        streamed: training pairs of a Parquet file are read in blocks later; only the first ones are read here.
        flips: file of ids of training pairs whose target is inverted.
    """

    asked: PairOptions
    seed: int
    num_test: int | str | None
    named: Sequence[str] | None
    exclusions: Path | None
    streamed: bool
    flips: Path | None = None

    @property
    def words(self) -> str:
        """`drawn` as in the training, `all` unequal pairs of the training items once, or a file."""
        return self.asked.pairs or DRAWN

    def without_excluded(self, clips: list[Clip]) -> tuple[list[Clip], frozenset[str]]:
        """The recordings to split, and the exclusions that apply after the split.

        With `exclude_before_split` excluded items are removed before it, and other items may change sides.
        """
        if self.exclusions is not None and not self.exclusions.exists():
            raise InputError(f"`exclusions_file`: file not found: {self.exclusions}. Check the path, or set `none`.")
        excluded = frozenset([] if self.exclusions is None else read_lines(self.exclusions))
        if not self.asked.exclude_before_split or self.words not in WORDS:  # pairs of a file are not split
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
        """Training pairs, test pairs to explain and all test pairs, as positions in `clips`, without the excluded ones.

        Raises:
            InputError: no pair is left, or pairs do not fit; see `read_pairs`.
        """
        ids = [clip.id for clip in clips]
        if self.streamed and excluded:
            raise InputError(
                f"`exclusions_file` has {counted(len(excluded), 'id')}, and {self.words} is read in blocks, from which "
                'no pair can be left out. Remove these rows from the file and set `exclusions_file="none"`.'
            )
        train, test, drawn = self._from_split(clips) if self.words in WORDS else self._from_file(ids)
        rows, unknown = kept_rows(train, ids, excluded)
        left = train.select(torch.tensor(rows, dtype=torch.int64))
        kept, unknown_of_test = kept_rows(test, ids, excluded)
        if some := sorted(unknown & unknown_of_test):
            notice(f"{self.exclusions}: no item or pair found for {counted(len(some), 'id')}: {', '.join(some[:3])}.")
        self._require_some(len(train), len(left), "training")
        left = self._flipped(left, ids, notice)
        held_out = test.select(torch.tensor(kept, dtype=torch.int64)) if kept else None
        if not with_test:
            return left, None, held_out
        if self.named is not None:
            return left, self._named(clips, test, left, notice), held_out
        if not len(test) and self.words not in WORDS:
            raise InputError(f"{self.words} has no test pairs. Add rows with 'split' test.")
        self._require_some(len(test), len(kept), "test")
        wanted = (min(NUM_TEST, len(kept)) or NUM_TEST) if self.num_test == "default" else self.num_test
        assert not isinstance(wanted, str)
        return left, sample_test_pairs(drawn, wanted, self.seed, table=test, kept=kept), held_out

    def _flipped(self, train: Pairs, ids: Sequence[str], notice: Callable[[str], None]) -> Pairs:
        flips = ids_in("flips_file", self.flips)
        if flips and self.streamed:
            raise InputError(
                f"`flips_file` has {counted(len(flips), 'id')}, and {self.words} is read in blocks, in which no target "
                'can be inverted. Invert these targets in the file and set `flips_file="none"`.'
            )
        found, unknown = flipped(train, ids, flips)
        if unknown:
            notice(f"{self.flips}: no training pair found for {counted(len(unknown), 'id')}: {sorted(unknown)[0]}.")
        return found

    def _from_split(self, clips: Sequence[Clip]) -> tuple[Pairs, Pairs, list[DrawnPair]]:
        """Training pairs, distinct test pairs, and the drawn test pairs."""
        degrees = torch.tensor([clip.degree for clip in clips])
        train_items, test_items = split_items(len(clips), self.seed)
        rng = np.random.RandomState(self.seed)  # one stream: the test drawing continues that of training
        train = merge_repeats(draw_sequence(train_items, degrees, rng))
        test = draw_sequence(test_items, degrees, rng)
        return all_pairs(train_items, degrees) if self.words == ALL else train, merge_repeats(test), test

    def _from_file(self, ids: Sequence[str]) -> tuple[Pairs, Pairs, list[DrawnPair]]:
        """The same of a table, in which every row is drawn once."""
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
        """The test pairs that `named` lists: rows of the user's table, or any two recordings."""
        assert self.named is not None
        ids = [clip.id for clip in clips]
        if self.words not in WORDS:
            rows = zip(test.first.tolist(), test.second.tolist(), strict=True)
            row_of = {one_form(f"{ids[first]}_{ids[second]}"): row for row, (first, second) in enumerate(rows)}
            if missing := [name for name in self.named if one_form(name) not in row_of]:
                raise InputError(
                    f"`test_pairs`: {missing[0]!r} not found among the rows of {self.words} with 'split' test."
                )
            return test.select(torch.tensor([row_of[one_form(name)] for name in self.named]))
        named = named_pairs(self.named, ids, torch.tensor([clip.degree for clip in clips]))
        trained = torch.isin(torch.stack([named.first, named.second]), torch.cat([train.first, train.second])).any(0)
        if count := int(trained.sum()):
            notice(f"{count} of {len(named)} test pairs compare two recordings of the training.")
        return named

    def _require_some(self, before: int, left: int, role: str) -> None:
        if not before or left:
            return
        if self.exclusions is None:
            raise InputError(f"all {before} {role} pairs contain recordings that cannot be used. Replace some files.")
        raise InputError(f"{self.exclusions} excludes all {before} {role} pairs. Remove some of its ids.")

    def require_usable(self, test: Sequence[Sequence[int]], clips: Sequence[Clip], bad: Collection[str]) -> None:
        """Refuse test pairs, as positions of two recordings, of which one cannot be used."""
        for both in test:
            ids = [clips[place].id for place in both]
            if unusable := [item for item in ids if item in bad]:
                raise InputError(
                    f"test pair {'_'.join(ids)!r} contains {unusable[0]}, which cannot be used. Choose another pair."
                )


def _is_of(item: str, name: str) -> bool:
    """Whether `name` is the id of the item, or of a pair with it."""
    return name == item or name.startswith(f"{item}_") or name.endswith(f"_{item}")

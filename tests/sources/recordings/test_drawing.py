"""The lab's split and drawing against its own result file; tables of pairs and exclusions."""

import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import random_split

from tests.support.places import DATA
from tracin_func.errors import InputError, UsageError
from tracin_func.files import read_lines
from tracin_func.results.exclusions import kept_rows
from tracin_func.sources.recordings.drawing import (
    all_pairs,
    draw_sequence,
    merge_repeats,
    sample_test_pairs,
    split_items,
)
from tracin_func.task.pair_files import read_pairs
from tracin_func.task.pairs import DrawnPair, Pairs

LAB = json.loads((DATA / "lab_drawing_seed42.json").read_text())
CLASSES = torch.arange(len(LAB["classes"])).repeat_interleave(LAB["takes"])
IDS = [f"clip{position}" for position in range(6)]


def rows(pairs: Pairs) -> list[list[int]]:
    return torch.stack([pairs.first, pairs.second], dim=1).tolist()


def lab_drawing() -> tuple[Pairs, list[DrawnPair]]:
    train, test = split_items(len(CLASSES), seed=42)
    rng = np.random.RandomState(42)
    return merge_repeats(draw_sequence(train, CLASSES, rng)), draw_sequence(test, CLASSES, rng)


def test_training_pairs_are_the_labs_in_order() -> None:
    train, _ = lab_drawing()
    assert rows(train) == LAB["train_pairs"]
    assert len(train) == 441
    assert int(train.counts.sum()) == 566
    ordered = set(map(tuple, rows(train)))
    assert sum((second, first) in ordered for first, second in ordered) == 2 * 80


def test_sampled_test_pairs_are_the_labs_in_order() -> None:
    _, drawn = lab_drawing()
    assert len(drawn) == 120
    assert rows(sample_test_pairs(drawn, 5, seed=42)) == LAB["test_pairs"]


def test_targets_say_which_class_is_higher() -> None:
    train, drawn = lab_drawing()
    for pairs in (train, merge_repeats(drawn)):
        sign = (CLASSES[pairs.first] - CLASSES[pairs.second]).sign()
        assert torch.equal(pairs.target.long(), sign)
        assert sign.abs().min() == 1


@pytest.mark.parametrize(("items", "seed"), [(54, 42), (54, 0), (10, 7), (90, 3)])
def test_the_split_is_that_of_random_split(items: int, seed: int) -> None:
    n = int(0.70 * items)
    generator = torch.Generator().manual_seed(seed)
    expected = random_split(range(items), [n, items - n], generator=generator)
    state = torch.get_rng_state()
    train, test = split_items(items, seed)
    assert [train.tolist(), test.tolist()] == [list(part.indices) for part in expected]
    assert torch.equal(torch.get_rng_state(), state)


def test_a_split_that_leaves_nothing_to_compare_is_refused() -> None:
    with pytest.raises(InputError, match="2 items leave 1 for training"):
        split_items(2, seed=42)
    with pytest.raises(UsageError, match="`train_share` should be above 0 and at most 1. Got 1.5"):
        split_items(54, seed=42, train_share=1.5)


def test_all_pairs_holds_each_unequal_pair_once() -> None:
    train, _ = split_items(len(CLASSES), seed=42)
    pairs = all_pairs(train, CLASSES)
    assert len(pairs) == 567
    assert len({frozenset(row) for row in rows(pairs)}) == 567
    assert torch.equal(pairs.target.long(), (CLASSES[pairs.first] - CLASSES[pairs.second]).sign())
    assert set(pairs.first.tolist() + pairs.second.tolist()) == set(train.tolist())
    assert len(all_pairs(train[:0], CLASSES)) == 0


def test_a_split_of_one_class_draws_nothing() -> None:
    drawn = draw_sequence(torch.arange(5), torch.zeros(5), np.random.RandomState(0))
    assert drawn == []
    assert len(merge_repeats(drawn)) == 0


def test_repeats_are_counted_in_first_drawn_order() -> None:
    a, b, swapped = DrawnPair(3, 1, 1), DrawnPair(0, 2, -1), DrawnPair(1, 3, -1)
    pairs = merge_repeats([a, b, a, swapped, a])
    assert rows(pairs) == [[3, 1], [0, 2], [1, 3]]
    assert pairs.counts.tolist() == [3, 1, 1]
    assert pairs.target.tolist() == [1, -1, -1]


def test_a_sampled_repeat_gives_way_to_the_next_draw() -> None:
    drawn = [DrawnPair(0, 1, -1), DrawnPair(2, 1, 1), DrawnPair(0, 1, -1), DrawnPair(0, 1, -1)]
    seed = next(s for s in range(100) if random.Random(s).sample(range(4), 2) == [0, 2])
    assert rows(sample_test_pairs(drawn, 2, seed)) == [[0, 1], [2, 1]]  # 2 repeats 0; so do 3 and 0: 1 is next


def test_an_excluded_draw_gives_way_like_a_repeat() -> None:
    drawn = [DrawnPair(0, 1, -1), DrawnPair(2, 1, 1), DrawnPair(0, 1, -1), DrawnPair(3, 1, 1)]
    seed = next(s for s in range(100) if random.Random(s).sample(range(4), 2) == [0, 3])
    assert rows(sample_test_pairs(drawn, 2, seed, kept=[1, 2])) == [[2, 1], [3, 1]]  # 0 is excluded: 1 is next
    assert rows(sample_test_pairs(drawn, None, seed, kept=[1, 2])) == [[2, 1], [3, 1]]
    table = Pairs([0, 2, 3], [1, 1, 1], [-1, 1, 1], weight=[1.0, 2.0, 3.0])
    picked = sample_test_pairs(drawn, 2, seed, table=table, kept=[1, 2])
    assert picked.weight is not None
    assert picked.weight.tolist() == [2, 3]
    with pytest.raises(InputError, match="`num_test=3` is more than the 2 distinct"):
        sample_test_pairs(drawn, 3, seed, kept=[1, 2])


def test_every_sample_is_distinct_and_keeps_the_sampled_draws() -> None:
    _, drawn = lab_drawing()
    counts = Counter(drawn)
    for k in (5, 40, len(counts)):
        sampled = sample_test_pairs(drawn, k, seed=1)
        keys = [DrawnPair(*row, target) for row, target in zip(rows(sampled), sampled.target.tolist(), strict=True)]
        assert len(set(keys)) == len(sampled) == k
        assert keys[0] == drawn[random.Random(1).sample(range(len(drawn)), k)[0]]
        assert sampled.counts.tolist() == [counts[key] for key in keys]


def test_all_test_pairs_come_in_first_drawn_order() -> None:
    _, drawn = lab_drawing()
    pairs = sample_test_pairs(drawn, None, seed=42)
    assert rows(pairs) == [[first, second] for first, second, _ in dict.fromkeys(drawn)]
    assert int(pairs.counts.sum()) == 120


def test_more_test_pairs_than_there_are_is_refused() -> None:
    _, drawn = lab_drawing()
    with pytest.raises(InputError, match='`num_test=100` is more than the 93 distinct test pairs.*`num_test="all"`'):
        sample_test_pairs(drawn, 100, seed=42)
    with pytest.raises(InputError, match="no test pair was drawn"):
        sample_test_pairs([], None, seed=42)
    with pytest.raises(UsageError, match="`k` should be at least 1"):
        sample_test_pairs(drawn, 0, seed=42)


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "pairs.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_table_of_pairs_is_read(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "\ufeffsplit, target,second,first,weight\n"
        "train,1,clip0,clip3,0.5\n"
        "test,-1,clip4,clip1,\n"
        "\n"
        ",-1.0,clip5,clip2,2\n"
        "train,+1,clip0,clip3,0.5\n",
    )
    train, test = read_pairs(path, IDS)
    assert rows(train) == [[3, 0], [2, 5]]
    assert train.target.tolist() == [1, -1]
    assert train.counts.tolist() == [2, 1]
    assert train.weight is not None
    assert train.weight.tolist() == [0.5, 2]
    assert test is not None
    assert rows(test) == [[1, 4]]
    assert test.weight is None


def test_the_columns_at_choice_may_be_left_out(tmp_path: Path) -> None:
    train, test = read_pairs(write(tmp_path, 'first,second,target\n"clip0",clip1,-1\r\n'), IDS)
    assert rows(train) == [[0, 1]]
    assert train.weight is None
    assert test is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; expected a header first,second,target"),
        ("\n \n", "is empty"),
        ("first,second\nclip0,clip1\n", "header 'first, second': .*Missing: target; unknown: none"),
        ("first;second;target\n", "separated by commas. Missing: first, second, target"),
        ("first,second,target,wieght\n", "unknown: wieght"),
        ("first,second,target,target\n", "each once"),
        ("first,second,target\n", "has no training pair"),
        ("first,second,target,split\nclip0,clip1,1,test\n", "has no training pair"),
        ("first,second,target\nclip0,clip1,1\n\nclip0,clip9,1\n", "line 4: 'second' is 'clip9', which is no item"),
        ("first,second,target\nclip9,clip1,1\n", "line 2: 'first' is 'clip9'.* such as 'clip"),
        ("first,second,target\nclip1,clip1,1\n", "line 2: 'second' is 'clip1'; expected another item than 'first'"),
        ("first,second,target\nclip0,clip1,0\n", "line 2: 'target' is '0'; expected 1"),
        ("first,second,target\nclip0,clip1,higher\n", "line 2: 'target' is 'higher'"),
        ("first,second,target,split\nclip0,clip1,1,valid\n", "line 2: 'split' is 'valid'; expected one of train, test"),
        ("first,second,target,weight\nclip0,clip1,1,-2\n", "line 2: 'weight' is '-2'"),
        ("first,second,target,weight\nclip0,clip1,1,inf\n", "line 2: 'weight' is 'inf'"),
        ("first,second,target\nclip0,clip1\n", "line 2: 2 fields; expected 3"),
        ('first,second,target\nclip0,"clip1,1\n', "line 2: not CSV"),
        ("first,second,target\nclip0,clip1,1\nclip0,clip1,-1\n", "line 3 repeats the pair of line 2"),
        ("first,second,target,weight\nclip0,clip1,1,1\nclip0,clip1,1,2\n", "line 3 repeats the pair of line 2"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=f"pairs.csv.*{message}"):
        read_pairs(write(tmp_path, text), IDS)


def test_the_remedy_for_a_pair_of_two_meanings_works(tmp_path: Path) -> None:
    train, _ = read_pairs(write(tmp_path, "first,second,target\nclip0,clip1,1\nclip1,clip0,1\n"), IDS)
    assert rows(train) == [[0, 1], [1, 0]]


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="absent.csv cannot be read: No such file"):
        read_pairs(tmp_path / "absent.csv", IDS)
    with pytest.raises(InputError, match="absent.txt cannot be read"):
        read_lines(tmp_path / "absent.txt")
    (tmp_path / "latin.csv").write_bytes("first,second,target\nflöte,clip1,1\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"latin.csv is not UTF-8 text \(byte 22\)"):
        read_pairs(tmp_path / "latin.csv", IDS)
    with pytest.raises(InputError, match="two items have the id"):
        read_pairs(write(tmp_path, "first,second,target\na,b,1\n"), ["a", "b", "a"])


def test_exclusions_are_read_without_comments(tmp_path: Path) -> None:
    path = tmp_path / "exclusions.txt"
    path.write_text("# hard ones\nclip0\n\n  clip1_clip2  \r\n#clip3\nclip4#5\n")
    assert read_lines(path) == ["clip0", "clip1_clip2", "clip4#5"]


def test_excluded_items_and_pairs_are_dropped() -> None:
    pairs = Pairs([0, 1, 3, 4, 5], [1, 2, 4, 3, 2], [1, -1, 1, -1, 1], count=[1, 2, 3, 4, 5])
    kept, unmatched = kept_rows(pairs, IDS, ["clip0", "clip4_clip3", "clip2_clip4", "clip77"])
    assert kept == [1, 4]  # 3_4 and 4_3 are both dropped
    assert unmatched == {"clip2_clip4", "clip77"}


def test_pairs_with_ids_of_their_own_are_dropped_by_them() -> None:
    pairs = Pairs([0, 1], [1, 2], [1, -1], ids=["question 1", "question 2"])
    assert kept_rows(pairs, IDS, {"question 2"}) == ([0], frozenset())


def test_excluding_everything_leaves_an_empty_table() -> None:
    assert kept_rows(Pairs([0], [1], [1]), IDS, {"clip1"}) == ([], frozenset())


def test_an_item_that_no_pair_uses_counts_as_found() -> None:
    _, unmatched = kept_rows(Pairs([0], [1], [1]), IDS, {"clip5"})
    assert not unmatched

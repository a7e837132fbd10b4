"""Ids of items and pairs to leave out, and the pairs that are left."""

from collections.abc import Collection, Sequence
from pathlib import Path

import torch

from tracin_func.files import one_form, read_lines
from tracin_func.task.pairs import Pairs


def read_exclusions(path: str | Path) -> frozenset[str]:
    """Ids of items or pairs from a text file, one a line; a line that starts with `#` is a comment.

    Raises:
        InputError: the file cannot be read or is not UTF-8 text.
    """
    return frozenset(read_lines(Path(path)))


def kept_rows(pairs: Pairs, item_ids: Sequence[str], excluded: Collection[str]) -> tuple[list[int], frozenset[str]]:
    """The rows that no id of `excluded` names, and the ids that name nothing.

    A pair is named by either of its items' ids, by its own id, or by `ID1_ID2` in either order. To find the
    ids that name nothing in several tables, intersect what the calls return.

    Args:
        pairs: positions into the items.
        item_ids: id of each item, [items].
        excluded: ids of items or pairs, as from `read_exclusions`.
    """
    excluded = {one_form(name): name for name in excluded}
    known = excluded.keys() & set(map(one_form, item_ids))
    kept = []
    for row, (first, second) in enumerate(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)):
        a, b = one_form(item_ids[first]), one_form(item_ids[second])
        names = {a, b, f"{a}_{b}", f"{b}_{a}"} | ({one_form(pairs.ids[row])} if pairs.ids is not None else set())
        hits = names & excluded.keys()
        known |= hits
        if not hits:
            kept.append(row)
    return kept, frozenset(excluded[name] for name in excluded.keys() - known)


def exclude(pairs: Pairs, item_ids: Sequence[str], excluded: Collection[str]) -> tuple[Pairs, frozenset[str]]:
    """The pairs left when those are dropped that an id of `excluded` names, and the ids that name nothing.

    See `kept_rows`.
    """
    kept, unknown = kept_rows(pairs, item_ids, excluded)
    return pairs.select(torch.tensor(kept, dtype=torch.int64)), unknown

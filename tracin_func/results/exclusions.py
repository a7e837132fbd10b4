"""Ids of items and pairs to leave out, and the pairs that remain."""

from collections.abc import Collection, Sequence

from tracin_func.files import one_form
from tracin_func.task.pairs import Pairs


def kept_rows(pairs: Pairs, item_ids: Sequence[str], excluded: Collection[str]) -> tuple[list[int], frozenset[str]]:
    """The rows that no id of `excluded` names, and the ids that name nothing.

    A pair is named by the id of either item, by its own id, or by `ID1_ID2` in either order.
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

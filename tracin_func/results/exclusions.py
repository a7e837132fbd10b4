"""Ids of items and pairs to leave out: chosen by their scores, and applied to a table of pairs."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from tracin_func.errors import InputError
from tracin_func.files import one_form
from tracin_func.results.exclusion_rule import FULL_PAIR, Rule, occurrences, share_of
from tracin_func.results.files.id_list import write_ids
from tracin_func.results.listing import Listing, html_table, shown
from tracin_func.results.names import counted
from tracin_func.results.score_table import ScoreTable, TrainingPairs
from tracin_func.task.pairs import Pairs


class Excluded(NamedTuple):
    """An id to leave out.

    `occurrences` is the number of live columns beyond a threshold, `score` is the lowest influence or the
    self-influence, and `total` is the sum over the live columns; of an item, those of its most harmful chosen pair.
    """

    id: str
    occurrences: int
    score: float
    total: float
    reason: str


@dataclass(frozen=True, repr=False, eq=False)
class Exclusions:
    """Ids of pairs or items with the reason for each, the most harmful first.

    Args:
        rows: the ids.
        kind: `"pair"` or `"item"`.
        verb: what is to be done with them: `"exclude"` or `"flip"`.
        lower, upper: the thresholds as numbers; None where there was none.
        pairs: every training pair, in the order of the files.
        kept: whether each is outside the list, bool [pairs].
        mirrored: how many pairs outside the list have the two items of a listed pair in the other order. A list that is
            applied leaves them out too.

    Example:
        >>> found = ti.influence(task).exclusions(drop="25%")
        >>> found
        Exclusions(1 pair of 4; first d_a)
        >>> found.ids
        ['d_a']
    """

    rows: Listing[Excluded]
    kind: str
    verb: str
    lower: float | None
    upper: float | None
    pairs: tuple[str, ...]
    kept: Tensor
    mirrored: int

    @property
    def ids(self) -> list[str]:
        """The ids."""
        return [row.id for row in self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        first = f"; first {self.rows[0].id}" if self.rows else ""
        name = "Flips" if self.verb == "flip" else "Exclusions"
        if self.kind == "item":
            return f"{name}({counted(len(self), 'item')}, {int((~self.kept).sum())} of {len(self.kept)} pairs{first})"
        return f"{name}({counted(len(self), 'pair')} of {len(self.kept)}{first})"

    def _repr_html_(self) -> str:
        rows = [(row.id, shown(row.score, sign=True), row.reason) for row in self.rows[:10]]
        return html_table(repr(self), ("id", "score", "reason"), rows)

    def save(self, path: str | Path, *, format: str | None = None) -> Path:
        """Write the list to `path`, whole or not at all; an earlier list is replaced.

        Args:
            path: the file.
            format: `"text"` (one id per line, the reason in a `#` line above it), `"parquet"` (a row per id) or
                `"mask"` (a NumPy file of one bool per training pair, True where it is kept); None for that of the
                ending: .parquet, .npy, otherwise text.

        Returns:
            The real path of the file.

        Raises:
            UsageError: the format is unknown.
            InputError: an id cannot be a line of text, or `path` is a file that is not such a list.
            OutputError: it could not be written; the old file is unchanged.
        """
        head = f"{counted(len(self), self.kind)} to {self.verb}, of {counted(len(self.pairs), 'training pair')}"
        return write_ids(
            Path(path), format, head, [row._asdict() | {"kind": self.kind} for row in self.rows], self.kept
        )


def choose(rule: Rule, table: ScoreTable) -> Exclusions:
    """The ids that a rule chooses.

    Raises:
        UsageError: the rule does not fit this kind of scores.
        InputError: no column is live, the items are unknown, or the list would empty a class or the training set.
    """
    lower, upper = rule.limits(table)
    rows = _chosen(rule, table, lower, upper)
    found = _items(rule, table, rows) if rule.mode == FULL_PAIR else _pairs(rule, table, rows)
    result = listed(table, found, "item" if rule.mode == FULL_PAIR else "pair", "exclude", (lower, upper))
    for part in table.parts:
        _require_remaining(part, set(result.ids), rule)
    return result


def listed(
    table: ScoreTable, rows: Sequence[Excluded], kind: str, verb: str, limits: tuple[float | None, float | None]
) -> Exclusions:
    """A list of ids with the pairs outside it."""
    ids = {row.id for row in rows}
    gone = [pair in ids or not ids.isdisjoint(table.items.get(pair, ())) for pair in table.ids]
    mirrored = sum(out and not gone[place] for place, out in enumerate(_mirror_listed(table, ids)))
    kept = ~torch.tensor(gone, dtype=torch.bool)
    return Exclusions(Listing(rows), kind, verb, *limits, pairs=table.ids, kept=kept, mirrored=mirrored)


def counts(table: ScoreTable, rule: Rule, least: Sequence[int]) -> list[int]:
    """The number of pairs (of items in the mode full_pair) beyond a threshold, by the least number of occurrences."""
    found = occurrences(table, *rule.limits(table))
    chosen = [(found >= times).nonzero()[:, 0].tolist() for times in least]
    if rule.mode != FULL_PAIR:
        return [len(rows) for rows in chosen]
    _require_items(table)
    return [len({item for row in rows for item in table.items[table.ids[row]]}) for rows in chosen]


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


def flipped(pairs: Pairs, item_ids: Sequence[str], flips: Collection[str]) -> tuple[Pairs, frozenset[str]]:
    """The pairs with the target of those that `flips` names inverted, and the ids that name none.

    A pair is named by its own id, or by `ID1_ID2`. Only if no pair has this id, `ID2_ID1` is looked for.
    """
    columns = zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)
    rows: dict[str, list[int]] = {}
    mirrored: dict[str, list[int]] = {}
    for row, (first, second) in enumerate(columns):
        a, b = one_form(item_ids[first]), one_form(item_ids[second])
        for name in {f"{a}_{b}"} | ({one_form(pairs.ids[row])} if pairs.ids is not None else set()):
            rows.setdefault(name, []).append(row)
        mirrored.setdefault(f"{b}_{a}", []).append(row)
    found = {name: rows.get(one_form(name), mirrored.get(one_form(name), [])) for name in flips}
    named = torch.zeros(len(pairs), dtype=torch.bool)
    named[[row for each in found.values() for row in each]] = True
    target = torch.where(named, -pairs.target, pairs.target)
    unknown = frozenset(name for name, each in found.items() if not each)
    return Pairs(pairs.first, pairs.second, target, pairs.weight, pairs.margin, pairs.count, pairs.ids), unknown


# The choice


def _chosen(rule: Rule, table: ScoreTable, lower: float | None, upper: float | None) -> list[Excluded]:
    """The chosen pairs, the most harmful first."""
    sums, scores = table.sums, table.live_scores
    order = torch.sort(sums, descending=table.of_self, stable=True).indices.tolist()
    if rule.drop is not None:
        harmful = sums > 0 if table.of_self else sums < 0
        most = int(share_of(rule.drop, "drop") * len(table.ids) + 1e-9)
        order = [row for row in order if harmful[row]][:most]
        times = torch.zeros(len(table.ids), dtype=torch.int64)
    else:
        times = occurrences(table, lower, upper)
        order = [row for row in order if times[row] >= rule.min_occurrences]
    extremes, columns = torch.nan_to_num(scores, nan=-torch.inf if table.of_self else torch.inf), len(table.live)
    lowest = extremes.amax(dim=1) if table.of_self else extremes.amin(dim=1)
    found = []
    for rank, row in enumerate(order, start=1):
        pair, count, score, total = table.ids[row], int(times[row]), float(lowest[row]), float(sums[row])
        if rule.drop is not None:
            what = "self-influence" if table.of_self else f"sum of influence on {counted(columns, 'live test pair')}"
            reason = f"{what} {total:.6g}, rank {rank} of {len(table.ids)}"
        elif table.of_self:
            reason = f"self-influence {score:.6g}, above {upper:.6g}"
        else:
            beyond = " or ".join(
                f"{side} {limit:.6g}" for side, limit in (("below", lower), ("above", upper)) if limit is not None
            )
            reason = f"influence {beyond} on {count} of {counted(columns, 'live test pair')}; lowest {score:.6g}"
            reason += f", sum {total:.6g}"
        found.append(Excluded(pair, count, score, total, reason))
    return found


def _pairs(rule: Rule, table: ScoreTable, chosen: Sequence[Excluded]) -> list[Excluded]:
    """Chosen pairs, with their mirrors if asked for, up to the limit."""
    found: dict[str, Excluded] = {}
    for each in chosen:
        mirror = table.mirror(each.id) if rule.with_mirrors else None
        new = {each.id: each}
        if mirror is not None and mirror not in found:
            new[mirror] = each._replace(id=mirror, reason=f"the other order of {each.id}")
        if rule.max_exclusions is None or len(found | new) <= rule.max_exclusions:
            found |= new
    return list(found.values())


def _items(rule: Rule, table: ScoreTable, chosen: Sequence[Excluded]) -> list[Excluded]:
    """The items of chosen pairs, up to the limit."""
    _require_items(table)
    times = Counter(item for each in chosen for item in table.items[each.id])
    found: dict[str, Excluded] = {}
    for each in chosen:
        for item in table.items[each.id]:
            if item not in found and (rule.max_exclusions is None or len(found) < rule.max_exclusions):
                words = f"in {counted(times[item], 'chosen pair')}; first {each.id}: {each.reason}"
                found[item] = each._replace(id=item, reason=words)
    return list(found.values())


def _require_items(table: ScoreTable) -> None:
    if unknown := [pair for pair in table.ids if pair not in table.items]:
        raise InputError(
            f'{table.words}: `mode="{FULL_PAIR}"` needs pair ids of the form ID1_ID2. Got {unknown[0]!r}. Set '
            '`mode="ranking_pair"`, which lists pairs.'
        )


# What remains


def _mirror_listed(table: ScoreTable, ids: Collection[str]) -> Iterator[bool]:
    """Whether the other order of each pair is in the list."""
    for pair in table.ids:
        yield table.mirror(pair) in ids


def _require_remaining(part: TrainingPairs, ids: Collection[str], rule: Rule) -> None:
    """Refuse a list that leaves no pair, or no pair of some class; as it is applied, in either order of two items."""
    step = "Set a stricter threshold, `min_occurrences` or `max_exclusions`."
    remaining = list(_remaining(part, ids))
    if not remaining:
        items = {item for both in part.items.values() for item in both}
        what = (
            f"{counted(len(items), 'training item')}" if rule.mode == FULL_PAIR else f"{len(part.ids):,} training pairs"
        )
        raise InputError(f"{part.words}: {_of_rule(rule)} excludes all {what}. Expected some to remain. {step}")
    before, after = _by_class(part, part.ids), _by_class(part, remaining)
    if empty := sorted(before.keys() - after.keys()):
        more = f" (and of {', '.join(empty[1:])})" if len(empty) > 1 else ""
        raise InputError(
            f"{part.words}: {_of_rule(rule)} excludes all {counted(before[empty[0]], 'pair')} of class "
            f"{empty[0]}{more}. Expected some of each class to remain. {step}"
        )


def _remaining(part: TrainingPairs, ids: Collection[str]) -> Iterator[str]:
    by_items = {frozenset(part.items[pair]) for pair in ids if pair in part.items}
    for pair in part.ids:
        both = part.items.get(pair, ())
        if pair not in ids and not any(item in ids for item in both) and (not both or frozenset(both) not in by_items):
            yield pair


def _by_class(part: TrainingPairs, pairs: Collection[str]) -> Counter[str]:
    """The number of pairs with an item of each class."""
    found: Counter[str] = Counter()
    for pair in pairs:
        found.update({part.classes[item] for item in part.items.get(pair, ()) if item in part.classes})
    return found


def _of_rule(rule: Rule) -> str:
    return f'`mode="{rule.mode}"`' if rule.mode == FULL_PAIR else "this list"

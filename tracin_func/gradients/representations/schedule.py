"""The order in which rows that do not all fit into memory are computed, so that few are computed twice.

Some rows are kept. Others are computed a group at a time, multiplied with the kept ones and with each other, and
dropped. A unit makes room as soon as all its pairs are done.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

GROUPS = 4  # a quarter of the rows is computed at a time: more would save batches and passes, less would save gradients


@dataclass(frozen=True, eq=False)
class Step:
    """What is computed at a time.

    Args:
        units: whose rows are computed [n].
        pairs: positions of the pairs of two of `units`, or of one of them and a kept one [m].
        stay: positions in `units` of the rows that are kept from now on [k].
        places: of these among the kept rows [k].
    """

    units: Tensor
    pairs: Tensor
    stay: Tensor
    places: Tensor


def sizes(rows: int) -> tuple[int, int]:
    """The rows that are kept, and those that are computed at a time, with memory for `rows`; each at least one."""
    group = max(1, rows // GROUPS)
    return max(1, rows - group), group


def schedule(index: Tensor, rows: int) -> list[Step]:
    """Steps that serve each of the pairs `index` [pairs, 2] once, with memory for `rows` rows, at least 2.

    As long as there is room, the unit with the most pairs with kept ones is kept, and of these the one with the fewest
    others. Then units are computed that complete the kept ones with the fewest pairs to come. At most two rows per pair
    are computed; one per unit if the pairs allow an order in which few units wait. Equal pairs give equal steps.
    """
    units, local = torch.unique(index, return_inverse=True)
    low, high = local.amin(dim=1), local.amax(dim=1)
    edges, edge = torch.unique(low * len(units) + high, return_inverse=True)
    keep, group = sizes(rows)
    graph = _Graph(len(units), (edges // len(units)).tolist(), (edges % len(units)).tolist(), keep)
    chosen, kept = [], []
    while graph.unserved:
        some = graph.to_keep(group)
        some += graph.to_complete(group - len(some), some)
        chosen.append(some)
        kept.append(torch.tensor(graph.serve(some), dtype=torch.int64).reshape(-1, 2))
    step = torch.tensor(graph.step, dtype=torch.int64)[edge]
    pairs = torch.argsort(step, stable=True).split(torch.bincount(step, minlength=len(chosen)).tolist())
    return [
        Step(units[torch.tensor(some)], served, *places.unbind(1))
        for some, served, places in zip(chosen, pairs, kept, strict=True)
    ]


class _Graph:
    """Units and the pairs between them that are not served yet.

    Args:
        units: their number.
        low, high: the two units of each pair; no pair occurs twice.
        keep: the number of rows that can be kept.

    Attributes:
        unserved: the number of pairs to come.
        step: in which each pair was served.
    """

    def __init__(self, units: int, low: list[int], high: list[int], keep: int) -> None:
        self.unserved, self.step = len(low), [0] * len(low)
        self._others: list[dict[int, int]] = [{} for _ in range(units)]  # unit -> pair, by unit
        for pair, (a, b) in enumerate(zip(low, high, strict=True)):
            self._others[a][b] = self._others[b][a] = pair
        self._kept: set[int] = set()
        self._places: dict[int, int] = {}  # of kept rows
        self._free = list(range(keep))
        self._links = [0] * units  # pairs of a unit with kept ones, while it is not kept
        # Heaps with outdated entries, which are skipped. A pair changes each at most twice.
        self._linked: list[tuple[int, int, int]] = []
        self._nearly: list[tuple[int, int]] = []
        self._starts = sorted(range(units), key=lambda unit: (-len(self._others[unit]), -unit))  # used from the end
        self._steps = 0

    def to_keep(self, most: int) -> list[int]:
        """Units to compute and keep, while there is room."""
        chosen: list[int] = []
        while len(chosen) < most and len(self._kept) < len(self._free) + len(self._places):
            unit = self._most_linked()
            if unit is None:
                break
            chosen.append(unit)
            self._enter(unit)
        return chosen

    def to_complete(self, most: int, chosen: Sequence[int]) -> list[int]:
        """Further units to compute once, which complete those that are kept."""
        found: list[int] = []
        seen, again = set(chosen), []
        while len(found) < most and self._nearly:
            left, unit = entry = heapq.heappop(self._nearly)
            if unit not in self._kept or len(self._others[unit]) != left:
                continue
            again.append(entry)
            for other in sorted(self._others[unit], key=lambda other: (-self._links[other], other)):
                if len(found) < most and other not in self._kept and other not in seen:
                    found.append(other)
                    seen.add(other)
        for entry in dict.fromkeys(again):
            heapq.heappush(self._nearly, entry)
        return found

    def serve(self, chosen: Sequence[int]) -> list[tuple[int, int]]:
        """Serve all pairs of the chosen units with each other and with kept ones; the rows that stay, with places."""
        present = self._kept | set(chosen)
        touched = set(chosen)
        for unit in chosen:
            for other in sorted(self._others[unit].keys() & present):
                self._served(unit, other)
                touched.add(other)
        for unit in sorted(touched & self._kept):
            if self._others[unit]:
                heapq.heappush(self._nearly, (len(self._others[unit]), unit))
            else:
                self._kept.remove(unit)
                if unit in self._places:
                    heapq.heappush(self._free, self._places.pop(unit))
        waiting = [unit for unit in chosen if self._others[unit] and unit not in self._kept]
        for unit in sorted(waiting, key=lambda unit: (len(self._others[unit]), unit)):
            if len(self._kept) < len(self._free) + len(self._places):
                self._enter(unit)
        stay = []
        for position, unit in enumerate(chosen):
            if unit in self._kept and unit not in self._places:
                self._places[unit] = heapq.heappop(self._free)
                stay.append((position, self._places[unit]))
        self._steps += 1
        return stay

    def _most_linked(self) -> int | None:
        """The unit with the most pairs with kept ones, or one to start from, with few pairs."""
        while self._linked:
            links, _, unit = heapq.heappop(self._linked)
            if unit not in self._kept and self._links[unit] == -links:
                return unit
        while self._starts:
            unit = self._starts.pop()
            if self._others[unit] and unit not in self._kept:
                return unit
        return None

    def _enter(self, unit: int) -> None:
        self._kept.add(unit)
        self._links[unit] = 0
        heapq.heappush(self._nearly, (len(self._others[unit]), unit))
        for other in self._others[unit]:
            if other not in self._kept:
                self._links[other] += 1
                entry = (-self._links[other], len(self._others[other]) - self._links[other], other)
                heapq.heappush(self._linked, entry)

    def _served(self, unit: int, other: int) -> None:
        self.step[self._others[unit][other]] = self._steps
        del self._others[unit][other]
        self._others[other].pop(unit, None)  # gone already where the two are one
        self.unserved -= 1
        for one, two in ((unit, other), (other, unit)):
            if one not in self._kept and two in self._kept:
                self._links[one] -= 1

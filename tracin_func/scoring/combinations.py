"""The pairs of a task at one checkpoint: scores and losses, and each pair as a combination of gradients.

∇ℓ_p = u g_a + v g_b over items,   u (g_a − g_b) over score differences,   1 g_p over whole pairs
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tracin_func.errors import NumericalError
from tracin_func.gradients.model import State
from tracin_func.gradients.processes import World
from tracin_func.gradients.protocol import Combination, Gradients, Need, Units
from tracin_func.losses.terms import Terms, functional_terms, loss_terms, scored_pairs, tally_of
from tracin_func.scoring.observer import Observer
from tracin_func.scoring.plan import Prepared
from tracin_func.scoring.repeats import PAIR_RUN
from tracin_func.scoring.units import loss_type
from tracin_func.task.items import Batch
from tracin_func.task.pairs import Pairs

PairScores = tuple[Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class TracedPairs:
    """The pairs of one table at one checkpoint: scores, terms, and each as a combination of unit gradients.

    `scores` are s_a and s_b, each [pairs]; Δ and 0 where the units have a Δ.
    """

    scores: PairScores
    terms: Terms
    combination: Combination


def over_units(
    prepared: Prepared, observer: Observer, state: State, scales: dict[str, float], asked: Need
) -> tuple[Gradients | None, list[TracedPairs]]:
    """Gradients of items, ∇ℓ_p = u g_a + v g_b; or of score differences, ∇ℓ_p = u (g_a − g_b), as u + v = 0."""
    units, done = reporting(prepared.scored, observer)
    gradients = prepared.keep(units, state, scales, asked)
    done()
    make, tables, start = prepared.make, [], 0
    for pairs, (scores, terms) in zip(make.tables, terms_of(prepared, observer, gradients.values), strict=True):
        if make.by_difference:
            index, slopes = torch.arange(start, start + len(pairs))[:, None], terms.first_slope[:, None]
        else:
            index = torch.searchsorted(make.used_items, torch.stack([pairs.first, pairs.second], dim=1))
            slopes = torch.stack([terms.first_slope, terms.second_slope], dim=1)
        tables.append(TracedPairs(scores, terms, Combination(index, slopes)))
        start += len(pairs)
    return gradients, tables


def over_pairs(
    prepared: Prepared, observer: Observer, state: State, scales: dict[str, float], asked: Need
) -> tuple[Gradients | None, list[TracedPairs]]:
    """Gradients of whole weighted pair losses, of active pairs only."""
    values = prepared.choice.engine.values(prepared.scored, state, prepared.plan)
    tables = terms_of(prepared, observer, values)
    active = torch.cat([terms.active for _, terms in tables])
    if not bool(active.any()):
        return None, without_gradients(tables, observer)
    units = prepared.make.pairs(torch.cat([terms.weight for _, terms in tables]), active.nonzero()[:, 0])
    rows = active.nonzero()[:, 0]
    asked = replace(asked, right=(rows >= len(tables[0][1].active)).nonzero()[:, 0])
    units, done = reporting(units, observer)
    gradients = prepared.keep(units, state, scales, asked)
    done()
    unit = (active.cumsum(0) - 1).clamp(min=0)[:, None]
    sizes = [len(terms.active) for _, terms in tables]
    combined = zip(tables, unit.split(sizes), active[:, None].double().split(sizes), strict=True)
    return gradients, [TracedPairs(*table, Combination(index, ones)) for table, index, ones in combined]


def without_gradients(tables: list[tuple[PairScores, Terms]], observer: Observer) -> list[TracedPairs]:
    """Terms alone, where no gradient is worth computing."""
    observer.progress(1.0)
    zeros = [torch.zeros(len(terms.active), 1, dtype=torch.int64) for _, terms in tables]
    return [TracedPairs(*table, Combination(zero, zero.double())) for table, zero in zip(tables, zeros, strict=True)]


def terms_of(prepared: Prepared, observer: Observer, values: Tensor) -> list[tuple[PairScores, Terms]]:
    """Scores and terms of both tables; the loss takes its weights from all training pairs."""
    make, scores = prepared.make, pair_scores(prepared, values)
    tally = tally_of(make.loss, *scores[0], make.tables[0])
    weigh = None if tally is None else make.loss.weights(tally)
    tables = [loss_terms(make.loss, weigh, *scores[0], make.tables[0])]
    if len(scores) > 1:
        test_weigh = weigh if make.method.weight_test_pairs else None
        tables.append(functional_terms(make.method.test_functional, make.loss, test_weigh, *scores[1], make.tables[1]))
        scored = scored_pairs(*scores[1], make.tables[1])
        if tally is not None and make.method.weight_test_pairs and (remark := make.loss.remark(tally, *scored)):
            observer.notice(remark)
    for terms, offset in zip(tables, (0, len(make.tables[0])), strict=False):
        if (row := terms.not_finite()) is not None:
            raise NumericalError(f"the loss of {make.pair_label(offset + row)}, or its derivative, is NaN or infinite.")
    return list(zip(scores, tables, strict=True))


def pair_scores(prepared: Prepared, values: Tensor) -> list[PairScores]:
    """s_a and s_b of each table's pairs; Δ and 0 where the units have a Δ.

    Raises:
        NumericalError: one of the `values` of the units is NaN or infinite.
    """
    finite = values.isfinite()
    if not bool(finite.all()):
        label = prepared.scored.label(int((~finite).nonzero()[0]))
        raise NumericalError(f"the score of {label} is NaN or infinite.")
    values = values.to(loss_type(values))
    tables: list[Pairs] = prepared.make.tables
    if prepared.make.task.joint or prepared.make.by_difference:
        return [(part, torch.zeros_like(part)) for part in values.split([len(pairs) for pairs in tables])]
    used = prepared.make.used_items

    def scores(column: Tensor) -> Tensor:
        return values[torch.searchsorted(used, column.contiguous()).to(values.device)]  # else torch warns

    return [(scores(pairs.first), scores(pairs.second)) for pairs in tables]


def reporting(units: Units, observer: Observer) -> tuple[Units, Callable[[], None]]:
    """`units` that report the share of them that is begun, and what to call at the end: others may have been there.

    Units taken again are not counted again.
    """
    left = 1.0

    def report(share: float) -> None:
        nonlocal left
        share = min(share, left)
        left -= share
        observer.progress(share)

    def take(index: Tensor) -> Batch:
        batch = units.take(index)
        report(len(index) / units.count)
        return batch

    return replace(units, take=take), lambda: report(1.0)


def own_chunks(rows: Tensor, world: World) -> list[Tensor]:
    """The blocks of pairs that this process scores; the blocks do not depend on the number of processes."""
    blocks = rows.split(PAIR_RUN)
    return [blocks[number] for number in world.mine(range(len(blocks)))]

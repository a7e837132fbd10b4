"""Projected gradients: one short row per unit, dot products as estimates, and the variance of these."""

from collections.abc import Callable

import torch
from torch import Tensor

from tracin_func.gradients.batches import Work
from tracin_func.gradients.budget import row_bytes
from tracin_func.gradients.factors import Contribution, dense, flat
from tracin_func.gradients.model import State
from tracin_func.gradients.projection.registry import Projector, projector
from tracin_func.gradients.protocol import Combination
from tracin_func.gradients.representations.products import DIRECT, combine, inner, row_norms
from tracin_func.gradients.representations.rows import Fetch, Rows, are_exact
from tracin_func.task.method import Projection

GATHERED = 1 << 28  # bytes of gradients collected so that drawn values serve many of them
HALVES_TOGETHER = 1 << 24  # products of halves held at a time


def projection_of(projection: Projection, state: State) -> Projector:
    """Π of the checkpoint of `state`."""
    return projector(projection, {name: tensor.shape for name, tensor in state.parameters.items()}, state.name)


def projected(work: Work, projection: Projection) -> "ProjectedGradients":
    """Rows Π √M g_i of all units, recomputed in blocks if they are not all held."""
    into = projection_of(projection, work.state)
    return of_rows(work, row_maker(work, into), work.values, into, are_exact(work.state))


def of_rows(
    work: Work, fetch: Fetch, values: Callable[[], Tensor], into: Projector, exact: bool
) -> "ProjectedGradients":
    """Gradients from the rows that `fetch` computes; see `Rows`."""
    units = work.units
    rows = Rows(units.count, fetch, work.plan.block, values, lambda unit, _: units.label(unit), exact)
    return ProjectedGradients(rows, into)


def row_maker(work: Work, into: Projector) -> Fetch:
    """A function from positions [n] to rows Π √M g_i [n, width] and objectives [n] of these units."""
    state, chunk, dtype = work.state, work.plan.chunk, work.state.row_dtype

    def sketch(name: str, part: Contribution) -> Tensor:
        return into.sketch(name, part.to(dtype))

    def gather(_: str, part: Contribution) -> Tensor:
        return flat(part).to(dtype)

    differentiate = work.engine.differentiate(work.units, state, work.plan, gather if into.gathered else sketch)
    together = max(chunk, GATHERED // row_bytes(state)) if into.gathered else chunk

    def fetch(index: Tensor) -> tuple[Tensor, Tensor]:
        rows = torch.zeros(len(index), into.width, dtype=dtype, device=state.example.device)
        objectives, start = [], 0
        for some in index.split(together):
            found = []
            for batch, mine in work.batches(some):
                parts, values = differentiate(batch, mine)
                found.append(parts)
                objectives.append(values)
            for name in list(found[0]):
                own = [dense(parts.pop(name)) for parts in found]
                part = own[0] if len(own) == 1 else torch.cat(own)
                sketched = sketch(name, part) if into.gathered else part
                rows[start : start + len(some), into.place(name)].add_(sketched, alpha=work.root_rate[name])
            start += len(some)
        return rows, torch.cat(objectives)

    return fetch


class ProjectedGradients:
    """Rows Π g_i, whose dot products equal those of the g_i on average over projections."""

    def __init__(self, rows: Rows, projector: Projector) -> None:
        self._rows = rows
        self._width = projector.width
        self._halves = projector.halves

    @property
    def values(self) -> Tensor:
        return self._rows.values

    def columns(self, right: Combination) -> Tensor:
        return self._rows.columns(right)

    def squared_norm(self, combination: Combination) -> Tensor:
        return self._rows.squared_norm(combination)

    def norm_variance(self, combination: Combination, found: Tensor) -> Tensor:
        """An estimate [n] of the variance, over projections, of `found` [n], the squared norms of combinations.

        2 ‖Πx‖⁴ / k, or from independent halves of every matrix: Σ (e₁ − e₂)²/4 over matrices, with the estimates e₁ and
        e₂ of each half.
        """
        if self._halves is None:
            return 2 * found**2 / self._width
        result = torch.zeros(len(combination), dtype=torch.float64)
        if not self._halves:
            return result
        index, coefficient = combination.index.cpu(), combination.coefficient.to("cpu", torch.float64)
        order = torch.argsort(index.min(dim=1).values, stable=True)
        for chosen in order.split(max(1, min(DIRECT, self._rows.block // 2))):
            rows = self._combined(Combination(index[chosen], coefficient[chosen])).square_()
            for first, second in self._halves:
                of_halves = rows[:, first].sum(dim=1) - rows[:, second].sum(dim=1)
                result[chosen] += of_halves.to("cpu", torch.float64) ** 2
        return result

    def product_variance(
        self, left: Combination, right: Combination, found: Tensor, shares: Tensor | None = None
    ) -> Tensor:
        """The same for `found` [n, m], the products of combinations `left` [n] and `right` [m]; [n, m].

        (‖Πx‖²‖Πy‖² + ⟨Πx, Πy⟩²) / k, or from the halves. With `shares` [m], for products [n, 1] with Σ_m share_m y_m.
        """
        basis = self._combined(right)
        if shares is not None:
            basis = shares.to(basis)[None, :] @ basis
        if self._halves is None:
            return (torch.outer(self.squared_norm(left), row_norms(basis)) + found**2) / self._width
        result = torch.zeros(len(left), len(basis), dtype=torch.float64)
        if not self._halves:
            return result
        step = max(1, HALVES_TOGETHER // (len(self.values) * len(self._halves)))
        for chosen in torch.arange(len(basis)).split(step):
            of_units = self._differences(basis[chosen.to(basis.device)])
            for some in torch.arange(len(left)).split(max(1, HALVES_TOGETHER // (len(chosen) * len(self._halves)))):
                part = left.select(some)
                of_pairs = torch.zeros(len(some), *of_units.shape[1:], dtype=torch.float64)
                for j in range(part.index.shape[1]):
                    of_pairs += part.coefficient[:, j, None, None].to(of_pairs) * of_units[part.index[:, j]]
                result[some[:, None], chosen] = of_pairs.square().sum(dim=1)
        return result

    def _differences(self, basis: Tensor) -> Tensor:
        """Products of units with `basis` [m, width] by the first half of each matrix minus those by the second, float64
        [units, matrices, m]."""
        halves = self._halves or ()
        result = torch.zeros(len(self.values), len(halves), len(basis), dtype=torch.float64)
        for start, rows in self._rows.blocks():
            for position, both in enumerate(halves):
                first, second = (inner(rows[:, half], basis[:, half], torch.float64) for half in both)
                result[start : start + len(rows), position] = first - second
        return result

    def _combined(self, combination: Combination) -> Tensor:
        needed, local = torch.unique(combination.index.cpu(), return_inverse=True)
        rows = self._rows.take(needed)
        return combine(rows, rows, Combination(local, combination.coefficient))

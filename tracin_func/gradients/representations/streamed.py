"""Norms of single units and products with a few others, computed chunk by chunk: no row is kept."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.profiler import record_function

from tracin_func.errors import NumericalError
from tracin_func.gradients.batches import Work
from tracin_func.gradients.device import wide_type
from tracin_func.gradients.factors import Contribution, Factors, Lookup, dense, flat
from tracin_func.gradients.protocol import Combination, Need
from tracin_func.gradients.representations.factored import keeps_factors
from tracin_func.gradients.representations.products import inner, narrow, plain_norms, row_norms

LOOKUP_ADVANTAGE = 32  # multiply-adds at the cost of filling and reading one entry of a table


@dataclass(frozen=True)
class _Chunk:
    """Units at `index`: their gradients by parameter, as factors or rows [units, size], and their objectives."""

    index: Tensor
    parts: dict[str, Contribution]
    objectives: Tensor


def streamed(work: Work, need: Need) -> "Streamed":
    """Norms of all units if they are needed, and their products with `need.right`.

    The gradients of `need.right` are held, a block of them at a time. All other units are differentiated once per such
    block, a chunk at a time, and freed after use.
    """
    sums = Streamed(work, need)
    differentiate = work.engine.differentiate(work.units, work.state, work.plan)

    def chunks(index: Tensor) -> Iterator[_Chunk]:
        for batch, mine in work.batches(index):
            yield _Chunk(mine, *differentiate(batch, mine))

    for block, columns in enumerate(torch.arange(len(need.right)).split(work.plan.block)):
        few = None
        others = torch.ones(work.units.count, dtype=torch.bool)
        if len(columns):
            few = _joined([sums.held(chunk) for chunk in chunks(need.right[columns])])
            sums.add(few, few, columns, norms=block == 0)
            others[few.index] = False
        for chunk in chunks(others.nonzero()[:, 0]):
            with record_function("norms and products of units"):
                sums.add(chunk, few, columns, norms=block == 0)
    return sums


class Streamed:
    """Norms of single units, and products of all units with those of `need.right`, added up over parameters and chunks.

    A gradient that is not finite is an error when gradients are used.
    """

    def __init__(self, work: Work, need: Need) -> None:
        self._units, self._need = work.units, need
        self._rates = {name: root**2 for name, root in work.root_rate.items()}
        self._dtype = work.state.row_dtype
        # Errors in products of single units are relative to their norms; products of items may cancel.
        self._products_dtype = wide_type(work.state.example) if need.combined else self._dtype
        self._norms = torch.zeros(self._units.count, dtype=torch.float64)
        self._products = torch.zeros(self._units.count, len(need.right), dtype=torch.float64)
        self._objectives: list[tuple[Tensor, Tensor]] = []
        self._fault: str | None = None

    @cached_property
    def values(self) -> Tensor:
        example = self._objectives[0][1]
        values = torch.empty(self._units.count, dtype=example.dtype, device=example.device)
        for index, objectives in self._objectives:
            values[index.to(values.device)] = objectives
        return values

    def columns(self, right: Combination) -> Tensor:
        """⟨g_i, right_j⟩, float64 [units, right]; `right` combines only units of `need.right`."""
        self._require_finite()
        few = self._need.right
        index, coefficient = torch.searchsorted(few, right.index.cpu()), right.coefficient.to(torch.float64)
        assert bool((few[index] == right.index).all())
        result = torch.zeros(len(self._products), len(right), dtype=torch.float64)
        for j in range(index.shape[1]):
            result += self._products[:, index[:, j]] * coefficient[:, j]
        return result

    def squared_norm(self, combination: Combination) -> Tensor:
        """‖c g_i‖², float64 [n]."""
        self._require_finite()
        assert combination.index.shape[1] == 1
        return combination.coefficient[:, 0].to(torch.float64) ** 2 * self._norms[combination.index[:, 0]]

    def held(self, chunk: _Chunk) -> _Chunk:
        """The gradients of `chunk` in the form of right-hand sides: looked-up tables as rows."""
        formed = {name: self._form(part) for name, part in chunk.parts.items()}
        built = {name: part if isinstance(part, Factors) else dense(part) for name, part in formed.items()}
        return replace(chunk, parts={name: part.to(self._products_dtype) for name, part in built.items()})

    def add(self, chunk: _Chunk, few: _Chunk | None, columns: Tensor, *, norms: bool) -> None:
        """Add the norms of a chunk, if `norms`, and its products with the few at `columns` of `right`."""
        self._objectives.append((chunk.index, chunk.objectives))
        squares: dict[str, Tensor] = {}
        products = torch.zeros(len(chunk.index), len(columns), dtype=torch.float64)
        for name, unformed in chunk.parts.items():
            part = self._form(unformed)  # used at once and freed, so that it stays in the cache
            if self._need.norms and norms:
                plain = plain_norms(part) if isinstance(part, Tensor) else _norms(part)
                squares[name] = plain.to("cpu", torch.float64)
            if few is not None and name in few.parts:
                products += self._rates[name] * _products(part, few.parts[name], self._products_dtype)
        used = products
        if squares:
            used = torch.cat([used, self._squares(chunk, squares)[:, None]], dim=1)
            self._norms[chunk.index] = used[:, -1]
        if few is not None:
            self._products[chunk.index[:, None], columns] = products
        if self._fault is None and not bool(used.isfinite().all()):
            self._fault = self._not_finite(chunk)

    def _squares(self, chunk: _Chunk, norms: dict[str, Tensor]) -> Tensor:
        """‖g_i‖² of a chunk from the plain ones by parameter, recomputed where these are too narrow."""
        squares = torch.stack(list(norms.values()))
        for position in narrow(squares).any(dim=1).nonzero()[:, 0].tolist():
            squares[position] = _norms(self._form(chunk.parts[list(norms)[position]]))
        rates = torch.tensor([self._rates[name] for name in norms], dtype=torch.float64)
        return rates @ squares

    def _not_finite(self, chunk: _Chunk) -> str | None:
        """The first unit and parameter whose gradient is not, if any."""
        for name, part in chunk.parts.items():
            for position in (~_norms(self._form(part)).isfinite()).nonzero()[:1, 0].tolist():
                unit = self._units.label(int(chunk.index[position]))
                return f"the gradient of {unit} with respect to {name!r} is NaN or infinite."
        return None

    def _require_finite(self) -> None:
        if self._fault is not None:
            raise NumericalError(self._fault)

    def _form(self, part: Contribution) -> Contribution:
        """Factors if the Gram entries needed per unit cost less from them, else rows [units, size]."""
        kept = isinstance(part, Lookup) and part.index.shape[1] ** 2 <= LOOKUP_ADVANTAGE * part.size
        if isinstance(part, Factors):
            shape = part.positions, part.rows.shape[-1], part.columns.shape[-1]
            kept = keeps_factors(*shape, self._need.entries)
        return (part if kept else flat(part)).to(self._dtype)


def _joined(chunks: Sequence[_Chunk]) -> _Chunk:
    """The units of several chunks as one."""
    parts: dict[str, Contribution] = {}
    for name in list(chunks[0].parts):
        own = [chunk.parts.pop(name) for chunk in chunks]  # freed once joined
        factors = [part for part in own if isinstance(part, Factors)]
        if len(factors) == len(own) and len({part.positions for part in factors}) == 1:
            rows = torch.cat([part.rows for part in factors])
            parts[name] = replace(factors[0], rows=rows, columns=torch.cat([part.columns for part in factors]))
        else:
            parts[name] = torch.cat([flat(part) for part in own])
    index = torch.cat([chunk.index for chunk in chunks])
    return _Chunk(index, parts, torch.cat([chunk.objectives for chunk in chunks]))


def _norms(part: Contribution) -> Tensor:
    """‖g_i‖², float64 [units]."""
    if isinstance(part, Factors):
        wide = part.to(wide_type(part.rows))
        return wide.matched(wide).clamp(min=0)
    if isinstance(part, Lookup):
        return part.to(wide_type(part.rows)).norms().clamp(min=0).to("cpu", torch.float64)
    return row_norms(part)


def _products(part: Contribution, few: Contribution, dtype: torch.dtype) -> Tensor:
    """⟨g_i, g_r⟩, float64 [units, few]."""
    if isinstance(part, Factors) and isinstance(few, Factors):
        # The halves of differences may cancel on both sides.
        wide = wide_type(part.rows)
        return part.to(wide).products(few.to(wide)).to("cpu", torch.float64)
    if isinstance(part, Lookup):
        tables = dense(few).reshape(-1, part.size, part.rows.shape[-1])
        return part.to(tables.dtype).dotted(tables).to("cpu", torch.float64)
    mine, theirs = dense(part).flatten(1), dense(few).flatten(1)
    if mine.dtype == dtype:
        return (mine @ theirs.T).to("cpu", torch.float64)
    return inner(mine, theirs, dtype)

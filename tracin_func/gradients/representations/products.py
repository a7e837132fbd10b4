"""Dot products of gradient rows [rows, params], and norms of their combinations.

Products of runs of a few thousand columns, which stay in cache, are summed in float64, so that the rounding of long
float32 sums does not build up.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from tracin_func.gradients.device import wide_type
from tracin_func.gradients.protocol import Combination
from tracin_func.gradients.representations.sampled import sampled_norms, samples

COLUMN_RUN = 8192  # columns per product: a few hundred rows of them stay in cache
NORM_RUN = 1 << 16  # columns per norm, which needs no copy of them
GRAM_ADVANTAGE = 64  # a Gram entry costs about 1/64 of a combination's passes over two rows
CANCELLED = 0.02  # below this share of its terms, the rounding of a float32 Gram entry shows in the norm
CANCELLED_WIDE = 1e-5  # the same of a float64 one
TINY = 1e-24  # below, squares of float32 numbers lose digits
DIRECT = 512  # combinations formed at a time: 512 × COLUMN_RUN floats are 16 MB


def inner(left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    """⟨left_i, right_j⟩, float64 [left, right]: products of `dtype` within a run of columns."""
    wide = wide_type(left)
    total = torch.zeros(len(left), len(right), dtype=wide, device=left.device)
    dtype = dtype if wide == torch.float64 else left.dtype
    for columns in _runs(left):
        a, b = left[:, columns].to(dtype), right[:, columns].to(dtype)
        total += (a @ b.T).to(wide)
    return total.to("cpu", torch.float64)


def row_norms(rows: Tensor) -> Tensor:
    """Squared norms of rows, float64 [rows]; squared in float64 where a float32 square would under- or overflow."""
    squares = plain_norms(rows)
    if not rows.is_meta and rows.dtype != squares.dtype:
        again = narrow(squares).nonzero()[:, 0]
        if len(again):
            squares[again] = plain_norms(rows[again].to(squares.dtype))
    return squares.to("cpu", torch.float64)


def plain_norms(rows: Tensor) -> Tensor:
    """Squared norms of rows, in the widest type of the device [rows]; `narrow` ones have lost digits."""
    runs = rows.split(NORM_RUN, dim=1)
    squares = [torch.linalg.vector_norm(run, dim=1).to(wide_type(rows)).square() for run in runs]
    return squares[0] if len(squares) == 1 else torch.stack(squares).sum(dim=0)


def narrow(squares: Tensor) -> Tensor:
    """Where a sum of squares of float32 numbers may have lost digits: too small, too large or NaN."""
    return ~((squares > TINY) & squares.isfinite())


def pair_norms(left: Tensor, right: Tensor, combination: Combination, dtype: torch.dtype | None = None) -> Tensor:
    """‖u left_i + v right_j‖², float64 [n], by a Gram matrix where pairs are dense in rows.

    Otherwise only the entries of the pairs are computed, or few pairs of many rows directly.

    The matrix is of `dtype`, the rows' own by default. If float32 is too narrow for a pair, because the norm is small
    beside its terms or these are tiny, the matrix is recomputed in float64. If that cancels too, the norm is computed
    directly.
    """
    dtype, wide = dtype or left.dtype, wide_type(left)
    dense = len(left) * len(right) <= GRAM_ADVANTAGE * len(combination)
    if not dense and not samples(left, right, len(combination)):
        return direct_norms(left, right, combination)
    result, terms = (_gram_norms if dense else sampled_norms)(left, right, combination, dtype)
    if dtype == wide:
        doubtful = (result <= CANCELLED_WIDE * terms) & (terms > 0)
    else:
        doubtful = ~((result > CANCELLED * terms) & (terms > TINY))  # NaN counts: an overflow
    rows = doubtful.nonzero()[:, 0]
    if len(rows):
        part = combination.select(rows)
        again = direct_norms(left, right, part) if dtype == wide else pair_norms(left, right, part, wide)
        result[rows] = again
    return result


def _gram_norms(left: Tensor, right: Tensor, combination: Combination, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """u² C_aa + 2uv C_ab + v² C_bb + 2(u + v)(u m_a + v m_b) + (u + v)² M, and the sum of its squares alone.

    C is the Gram matrix of c_i = g_i − r, m_i = ⟨c_i, r⟩ and M = ‖r‖² with r the mean row. Gradients have much in
    common, which cancels in differences: subtracting it first leaves little to cancel.
    """
    wide = wide_type(left)
    shapes = ((len(left) + 1, len(right) + 1), (len(left) + 1,), (len(right) + 1,))
    sums = [torch.zeros(shape, dtype=wide, device=left.device) for shape in shapes]
    for columns in _runs(left):
        shared = left[:, columns].mean(dim=0, keepdim=True).to(dtype)
        a = _centred(left[:, columns], shared)
        b = a if right is left else _centred(right[:, columns], shared)
        gram = a @ b.T
        squares = (gram.diagonal(),) * 2 if b is a else (torch.linalg.vecdot(a, a), torch.linalg.vecdot(b, b))
        sums = [total + part.to(wide) for total, part in zip(sums, (gram, *squares), strict=True)]
    gram, of_a, of_b = (total.to("cpu", torch.float64) for total in sums)
    cross, along_a, along_b, of_shared = gram[:-1, :-1], gram[:-1, -1], gram[-1, :-1], gram[-1, -1]
    first, second = combination.index[:, 0], combination.index[:, 1]
    u, v = combination.coefficient[:, 0], combination.coefficient[:, 1]
    terms = u**2 * of_a[first] + v**2 * of_b[second] + (u + v) ** 2 * of_shared
    along = 2 * (u + v) * (u * along_a[first] + v * along_b[second])
    return terms + 2 * u * v * cross[first, second] + along, terms


def _centred(rows: Tensor, shared: Tensor) -> Tensor:
    """rows − shared, and `shared` as one more row, so that one product gives C, m and M."""
    centred = torch.empty(len(rows) + 1, rows.shape[1], dtype=shared.dtype, device=rows.device)
    torch.sub(rows, shared, out=centred[:-1])
    centred[-1:] = shared
    return centred


def direct_norms(left: Tensor, right: Tensor, combination: Combination) -> Tensor:
    """‖u left_i + v right_j‖², float64 [n], subtracting before anything is rounded; 3 passes over two rows per pair.

    For losses of s_a − s_b, u + v = 0 in `combine`, and nearly equal rows subtract exactly.
    """
    total = torch.zeros(len(combination), dtype=torch.float64)
    # Relative to the larger coefficient: derivatives may be too small for float32.
    scale = combination.coefficient.abs().amax(dim=1, keepdim=True).clamp(min=1e-300)
    relative = Combination(combination.index, combination.coefficient / scale)
    for start in range(0, len(combination), DIRECT):
        part = relative.select(slice(start, start + DIRECT))
        for columns in _runs(left):
            rows = combine(left[:, columns], right[:, columns], part)
            total[start : start + DIRECT] += row_norms(rows)
    return total * scale[:, 0] ** 2


def combine(left: Tensor, right: Tensor, combination: Combination) -> Tensor:
    """u left_i + v right_j as rows [n, params], written u (left_i − right_j) + (u + v) right_j."""
    index, coefficient = combination.index.to(left.device), combination.coefficient.to(left.device, left.dtype)
    if index.shape[1] == 1:
        return left[index[:, 0]] * coefficient
    base = right[index[:, 1]]
    rows = (left[index[:, 0]] - base).mul_(coefficient[:, :1])
    return rows.add_(base.mul_(coefficient.sum(dim=1, keepdim=True)))


def _runs(rows: Tensor) -> Iterator[slice]:
    for start in range(0, rows.shape[1], COLUMN_RUN):
        yield slice(start, start + COLUMN_RUN)

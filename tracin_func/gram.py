"""Inner products of gradient rows [rows, params], and norms of their combinations.

Products within a run of columns are summed across runs in float64: a run of a few thousand columns stays in
cache, and the rounding of long float32 sums does not build up.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from tracin_func.gradients import Combination

COLUMN_RUN = 8192  # columns a product takes at a time: a few hundred rows of them stay in cache
GRAM_ADVANTAGE = 16  # a Gram entry costs about 1/16 of a combination's pass over two rows
CANCELLED = 0.02  # below this share of its terms, a Gram entry's rounding shows in the norm
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
    """Squared norms of rows, float64 [rows]; squared in float64, where a float32 square would underflow."""
    wide = wide_type(rows)
    total = torch.zeros(len(rows), dtype=wide, device=rows.device)
    for columns in _runs(rows):
        total += rows[:, columns].to(wide).square().sum(dim=1)
    return total.to("cpu", torch.float64)


def pair_norms(left: Tensor, right: Tensor, combination: Combination, norms: tuple[Tensor, Tensor]) -> Tensor:
    """‖u left_i + v right_j‖², float64 [n], by a Gram matrix where pairs are dense in rows, else directly.

    `norms` are the squared norms of left_i and right_j, [n] each. A norm that is small beside its terms is computed
    again directly: u² K_aa + 2uv K_ab + v² K_bb in float32 is wrong by factors on nearly equal rows.
    """
    if len(left) * len(right) > GRAM_ADVANTAGE * len(combination):
        return direct_norms(left, right, combination)
    index, coefficient = combination.index, combination.coefficient
    cross = inner(left, right, left.dtype)[index[:, 0], index[:, 1]]
    terms = coefficient[:, 0] ** 2 * norms[0] + coefficient[:, 1] ** 2 * norms[1]
    result = terms + 2 * coefficient[:, 0] * coefficient[:, 1] * cross
    doubtful = ((result <= CANCELLED * terms) & (terms > 0)).nonzero()[:, 0]
    if len(doubtful):
        result[doubtful] = direct_norms(left, right, combination.select(doubtful))
    return result


def direct_norms(left: Tensor, right: Tensor, combination: Combination) -> Tensor:
    """‖u left_i + v right_j‖², float64 [n], subtracting before anything is rounded; 3 passes over two rows a pair.

    For losses of s_a − s_b, u + v = 0 in `combine`, and nearly equal rows subtract exactly.
    """
    total = torch.zeros(len(combination), dtype=torch.float64)
    # Relative to the larger coefficient: slopes may be so small that float32 does not hold them.
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


def wide_type(rows: Tensor) -> torch.dtype:
    """float64, where the device has it (MPS does not)."""
    return torch.float32 if rows.device.type == "mps" else torch.float64


def _runs(rows: Tensor) -> Iterator[slice]:
    for start in range(0, rows.shape[1], COLUMN_RUN):
        yield slice(start, start + COLUMN_RUN)

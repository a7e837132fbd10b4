"""Norms of combinations of two rows for sparse pairs: dot products of the pairs alone, from columns that stay in cache.

A product of all rows with all would compute many entries that no pair needs, and gathering two whole rows per pair
reads each of them from memory again and again.
"""

import functools
import warnings

import torch
from torch import Tensor

from tracin_func.gradients.device import wide_type
from tracin_func.gradients.protocol import Combination

TILE = 1 << 18  # elements of all rows that are worked on together
NARROWEST, WIDEST = 64, 1024  # columns of them


def samples(left: Tensor, right: Tensor, pairs: int) -> bool:
    """Whether `sampled_norms` serves this number of pairs of rows: on CPUs, unless most rows are in no pair."""
    return left.device.type == "cpu" and 2 * pairs >= len(left) + len(right) and _available()


def sampled_norms(left: Tensor, right: Tensor, combination: Combination, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """‖u left_i + v right_j‖², and the sum of the squares of its terms, float64 [n] each.

    As with all products of rows, what rows have in common is subtracted first: with c_i = g_i − r for the mean row r,

        u² C_aa + 2uv C_ab + v² C_bb + 2(u + v)(u m_a + v m_b) + (u + v)² M,   m_i = ⟨c_i, r⟩, M = ‖r‖².
    """
    wide, same = wide_type(left), right is left
    first, second = combination.index[:, 0], combination.index[:, 1]
    u, v = combination.coefficient[:, 0], combination.coefficient[:, 1]
    entries, place = torch.unique(first * len(right) + second, return_inverse=True)
    pattern = _pattern(entries // len(right), entries % len(right), len(left), len(right), dtype)
    cross = torch.zeros(len(entries), dtype=wide)
    of_a, along_a = torch.zeros(2, len(left), dtype=wide)
    of_b, along_b = (of_a, along_a) if same else torch.zeros(2, len(right), dtype=wide)
    of_shared = 0.0
    width = min(WIDEST, max(NARROWEST, TILE // (len(left) + (0 if same else len(right)))))
    for start in range(0, left.shape[1], width):
        columns = slice(start, start + width)
        shared = left[:, columns].mean(dim=0, keepdim=True).to(dtype)
        a = left[:, columns].to(dtype) - shared
        b = a if same else right[:, columns].to(dtype) - shared
        cross += torch.sparse.sampled_addmm(pattern, a, b.T, beta=0.0).values().to(wide)
        for rows, own, along in ((a, of_a, along_a),) if same else ((a, of_a, along_a), (b, of_b, along_b)):
            own += torch.linalg.vecdot(rows, rows).to(wide)
            along += (rows @ shared[0]).to(wide)
        of_shared += float(shared.to(wide).square().sum())
    terms = u**2 * of_a[first] + v**2 * of_b[second] + (u + v) ** 2 * of_shared
    return terms + 2 * u * v * cross[place] + 2 * (u + v) * (u * along_a[first] + v * along_b[second]), terms


def _pattern(rows: Tensor, columns: Tensor, height: int, width: int, dtype: torch.dtype) -> Tensor:
    """A sparse matrix with entries at these places, sorted by row."""
    starts = torch.cat([torch.zeros(1, dtype=torch.int64), torch.bincount(rows, minlength=height).cumsum(0)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "in beta state"
        return torch.sparse_csr_tensor(starts, columns, torch.zeros(len(columns), dtype=dtype), size=(height, width))


@functools.cache
def _available() -> bool:
    """Whether this build of torch has the product of the pairs alone."""
    one = torch.ones(1, 1)
    try:
        place = torch.zeros(1, dtype=torch.int64)
        return bool(torch.sparse.sampled_addmm(_pattern(place, place, 1, 1, one.dtype), one, one, beta=0.0).values()[0])
    except (RuntimeError, NotImplementedError):
        return False

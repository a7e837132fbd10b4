"""Random numbers that depend only on a seed and names; the global generators are not touched.

They are drawn on the CPU, whatever the device and the order: all processes of a run, and later runs on the same store,
draw the same.
"""

import hashlib

import numpy as np
import torch
from torch import Tensor


def generator(seed: int, *names: str | int) -> torch.Generator:
    """The generator of `names`: parameter, side, checkpoint."""
    text = "\0".join(map(str, (seed, *names)))
    digest = hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little", signed=True))


def signs(shape: tuple[int, ...], draw: torch.Generator, dtype: torch.dtype) -> Tensor:
    """Independent ±1 with equal probability; one random bit each."""
    count = int(np.prod(shape, dtype=np.int64))
    words = torch.empty(-(-count // 64), dtype=torch.int64)
    words.random_(torch.iinfo(torch.int64).min, None, generator=draw)
    bits = np.unpackbits(words.numpy().view(np.uint8), count=count)
    return torch.from_numpy(bits).to(dtype).mul_(2).sub_(1).reshape(shape)


def orthonormal(size: int, columns: int, draw: torch.Generator) -> Tensor:
    """R [size, columns], float64, with R Rᵀ the identity on average: √(size/columns) U, U uniform (Haar) with UᵀU = 1.

    With as many columns as the size nothing is lost; with few columns it is nearly a Gaussian matrix / √columns.
    """
    normal = torch.randn(size, columns, dtype=torch.float64, generator=draw)
    q, r = torch.linalg.qr(normal)
    uniform = q * torch.where(r.diagonal() < 0, -1.0, 1.0)  # QR fixes the signs otherwise
    scaled: Tensor = uniform * (size / columns) ** 0.5
    return scaled

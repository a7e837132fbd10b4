"""The places of parameters in a projected row of `kronecker`, and which sides of matrices are projected."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from tracin_func.errors import UsageError

Shapes = Mapping[str, torch.Size]


@dataclass(frozen=True)
class Block:
    """The dimensions `offset` to `offset + width` of a row, for one matrix or one other parameter.

    Args:
        weight: name of the parameter.
        bias: name of the bias of the same layer, which is one more input column of ones; None for none.
        d_out, d_in: sides of the matrix; the bias counts as one more d_in. A vector has d_out = 1.
        k_out, k_in: sides after projection, of each of two independent halves; 0 if nothing is projected.
    """

    weight: str
    bias: str | None
    d_out: int
    d_in: int
    k_out: int
    k_in: int
    offset: int

    @property
    def exact(self) -> bool:
        """Whether the gradient is kept unprojected."""
        return self.k_out == 0

    @property
    def width(self) -> int:
        return self.d_out * self.d_in if self.exact else 2 * self.k_out * self.k_in

    @property
    def halves(self) -> tuple[slice, slice]:
        """The places of the two independent halves in a row."""
        middle = self.offset + self.width // 2
        return slice(self.offset, middle), slice(middle, self.offset + self.width)


def blocks(shapes: Shapes, side: int) -> list[Block]:
    """The row of all parameters; each half of a matrix has `side` for its shorter and `side`/2 for its longer side.

    The other way round costs more and loses more. A side that is no longer, and a matrix that projection would not
    make smaller, is kept. Vectors without a matrix, such as the weights of norms, are projected to side² dimensions if
    they have more.
    """
    found: list[Block] = []
    offset = 0
    biases = {bias: weight for weight in shapes if (bias := _bias_of(weight, shapes)) is not None}
    for name, shape in shapes.items():
        if name in biases:
            continue
        bias = _bias_of(name, shapes)
        d_out = shape[0] if len(shape) > 1 else 1
        d_in = shape.numel() // d_out + (bias is not None)
        k_out, k_in = _sides(d_out, d_in, side)
        kept = d_out * d_in <= 2 * k_out * k_in
        block = Block(name, bias, d_out, d_in, 0 if kept else k_out, 0 if kept else k_in, offset)
        found.append(block)
        offset += block.width
    return found


def _sides(d_out: int, d_in: int, side: int) -> tuple[int, int]:
    if d_out == 1:
        return 1, min(d_in, side**2 // 2)
    short, long = min(d_out, d_in, side), max(1, side // 2)
    return (short, min(d_in, long)) if d_out <= d_in else (min(d_out, long), short)


def widest_side(shapes: Shapes, dim: int) -> int:
    """The largest side with which a row has at most `dim` dimensions; UsageError where even 2 is too large."""
    low, high = 1, max(2, *(max(shape, default=1) for shape in shapes.values()), 2)
    while low < high:
        middle = (low + high + 1) // 2
        if row_width(blocks(shapes, middle)) <= dim:
            low = middle
        else:
            high = middle - 1
    if low < 2:
        least = row_width(blocks(shapes, 2))
        raise UsageError(
            f'`dim` should be at least {least} with `projection="kronecker"` for the {len(shapes)} parameters of this '
            f'model. Got {dim}; `projection="sjlt"` takes any.'
        )
    return low


def row_width(row: list[Block]) -> int:
    return row[-1].offset + row[-1].width


def _bias_of(name: str, shapes: Shapes) -> str | None:
    """The bias of the layer whose matrix is `name`, by the names of torch's modules."""
    head, _, last = name.rpartition(".")
    bias = f"{head}.bias" if head else "bias"
    if last != "weight" or len(shapes[name]) < 2 or bias not in shapes:
        return None
    return bias if tuple(shapes[bias]) == (shapes[name][0],) else None

"""Per-item weight gradients of a convolution: its patches as factors, and the ways to build them.

∂W_i = D_iᵀ A_i with the output gradient D_i [positions, d_out] and the patches A_i [positions, d_in]: row τ of A_i is
what the filter sees at τ. Every way gives the same gradients up to rounding; which one is fast depends on shapes,
memory layout and machine.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F  # noqa: N812
from einops import rearrange
from torch import Tensor

from tracin_func.gradients.factors import Contribution, Factors

FEW_COLUMNS = 32  # elements per filter, up to which unfolded input and one product beat the convolution's own backward
WORTH_A_CALL = 1 << 13  # elements of a weight, from which a call per item costs less than a copy for one call
PATCHES_TOGETHER = 1 << 20  # elements of patches that are copied at a time, so that they stay in the cache
MOST_PATCHES = 1 << 22  # elements of one item's patches, beyond which their copy is not worth its memory


@dataclass(frozen=True)
class Convolved:
    """One use of a convolution: its input `x`, padded where that is asymmetric, and the gradient of its output.

    The values of the weight are not read.
    """

    x: Tensor
    gradient: Tensor
    weight: Tensor
    stride: list[int]
    padding: list[int]
    dilation: list[int]
    groups: int

    @property
    def positions(self) -> int:
        return self.gradient[0, 0].numel()

    @property
    def shape(self) -> "Shape":
        """What the speed of a kernel depends on, besides the machine and the number of items."""
        sizes = tuple(self.x.shape[1:]), tuple(self.weight.shape)
        return *sizes, *map(tuple, (self.stride, self.padding, self.dilation)), self.groups

    def built(self, kernel: str | None = None) -> Tensor:
        """The weight gradient of every item by a kernel, the usual one by default, [items, *weight.shape]."""
        own = kernel if kernel in kernels_for(self) else usual(self)
        return KERNELS[own](self)

    def factors(self) -> Factors:
        """The same as factors; only without groups."""
        assert self.groups == 1
        patches = _patches(self)
        spatial = tuple(range(2, 2 + len(self.stride)))
        columns = patches.permute(0, *spatial, 1, *(axis + len(spatial) for axis in spatial))
        return Factors(self.gradient.flatten(2).transpose(1, 2), columns.reshape(len(self.x), self.positions, -1))

    def select(self, items: slice) -> "Convolved":
        return replace(self, x=self.x[items], gradient=self.gradient[items])


Kernel = Callable[[Convolved], Tensor]
Shape = tuple[object, ...]
Form = Callable[[str, Convolved], Contribution]  # of the parameter with this name


def usual_form(_: str, use: Convolved) -> Contribution:
    """The built gradient, by the kernel that is taken without a measurement."""
    return use.built()


def chosen_form(choice: Mapping[str, str]) -> Form:
    """The form by parameter name: "factors", or the name of a kernel."""

    def form(name: str, use: Convolved) -> Contribution:
        chosen = choice.get(name)
        return use.factors() if chosen == "factors" and use.groups == 1 else use.built(chosen)

    return form


def usual(use: Convolved) -> str:
    """The kernel for a use that was not measured."""
    last = _channels_last(use.gradient)
    if last and use.groups == 1 and use.weight[0].numel() <= FEW_COLUMNS:
        return "columns"
    return "each" if last and use.weight.numel() >= WORTH_A_CALL else "grouped"


def kernels_for(use: Convolved) -> list[str]:
    """The names of the kernels that can serve a use."""
    planar, filter_ = use.x.ndim == 4 and use.groups == 1, use.weight[0].numel()
    few = use.positions * filter_ * use.groups <= MOST_PATCHES
    serves = {"columns": planar and filter_ <= FEW_COLUMNS, "unfold": planar and few, "patches": few}
    return [name for name in KERNELS if serves.get(name, True)]


def grouped(use: Convolved) -> Tensor:
    """The weight gradients of all items in one call, as fast as a batch's sum: an item is a group of channels."""
    items, weight = len(use.x), use.weight
    x, gradient = (part.reshape(1, -1, *part.shape[2:]) for part in (use.x, use.gradient))
    weights = weight.new_empty(items * weight.shape[0], *weight.shape[1:])
    every = replace(use, x=x, gradient=gradient, weight=weights, groups=items * use.groups)
    return _summed(every).view(items, *weight.shape)


def each(use: Convolved) -> Tensor:
    """One call of the framework's own backward per item."""
    result = use.weight.new_empty(len(use.x), *use.weight.shape)
    for item, (x, gradient) in enumerate(zip(use.x.split(1), use.gradient.split(1), strict=True)):
        result[item] = _summed(replace(use, x=x, gradient=gradient))
    return result


def columns(use: Convolved) -> Tensor:
    """Unfolded input times output gradients, items first."""
    rows = rearrange(use.gradient, "items rows h w -> items (h w) rows")  # a view
    return torch.bmm(_unfolded(use), rows).transpose(1, 2).reshape(-1, *use.weight.shape)


def unfold(use: Convolved) -> Tensor:
    """Output gradients times unfolded input, a few items at a time."""

    def part(some: Convolved, out: Tensor) -> None:
        torch.bmm(some.gradient.flatten(2), _unfolded(some).transpose(1, 2), out=out)

    return _in_parts(use, part)


def patches(use: Convolved) -> Tensor:
    """The same with patches that are copied channel by channel last, in runs that lie together in memory."""
    groups, outputs = use.groups, use.weight.shape[0] // use.groups
    spatial = len(use.stride)

    def part(some: Convolved, out: Tensor) -> None:
        view = _patches(replace(some, x=_last(some.x)))
        order = *range(2, 2 + 2 * spatial), 1
        laid = view.permute(0, *order)  # [items, *positions, *filter, channels]
        every = laid.reshape(len(some.x), some.positions, -1, groups, view.shape[1] // groups)
        of_group = every.permute(0, 3, 1, 2, 4).reshape(len(some.x) * groups, some.positions, -1)
        rows = some.gradient.flatten(2).reshape(len(some.x) * groups, outputs, some.positions)
        built = torch.bmm(rows, of_group).view(len(some.x), use.weight.shape[0], -1, use.weight.shape[1])
        out.view(built.shape[0], built.shape[1], built.shape[3], built.shape[2]).copy_(built.transpose(2, 3))

    return _in_parts(use, part)


KERNELS: dict[str, Kernel] = {
    "grouped": grouped,
    "each": each,
    "columns": columns,
    "unfold": unfold,
    "patches": patches,
}


def _summed(use: Convolved) -> Tensor:
    """The framework's own weight gradient, summed over the batch."""
    fixed = use.stride, use.padding, use.dilation, False, [0] * len(use.stride), use.groups, [False, True, False]
    result: Tensor = torch.ops.aten.convolution_backward(use.gradient, use.x, use.weight, None, *fixed)[1]
    return result


def _in_parts(use: Convolved, compute: Callable[[Convolved, Tensor], None]) -> Tensor:
    """[items, *weight.shape], computed for as many items at a time as have few patches."""
    numbers = use.weight.shape[0], use.weight[0].numel()
    result = use.weight.new_empty(len(use.x), *numbers)
    together = max(1, PATCHES_TOGETHER // max(1, use.positions * numbers[1] * use.groups))
    for start in range(0, len(use.x), together):
        some = slice(start, start + together)
        compute(use.select(some), result[some])
    return result.view(-1, *use.weight.shape)


def _unfolded(use: Convolved) -> Tensor:
    """[items, d_in, positions]; two spatial axes only."""
    sides = tuple(use.dilation), tuple(use.padding), tuple(use.stride)
    return F.unfold(use.x, use.weight.shape[2:], *sides)


def _patches(use: Convolved) -> Tensor:
    """A view [items, channels, *positions, *filter] of the padded input."""
    x = use.x
    if any(use.padding):
        x = F.pad(x, [side for total in reversed(use.padding) for side in (total, total)])
    filter_, positions = use.weight.shape[2:], use.gradient.shape[2:]
    own = x.stride()[2:]
    along = [step * size for step, size in zip(use.stride, own, strict=True)]
    inside = [step * size for step, size in zip(use.dilation, own, strict=True)]
    return x.as_strided((*x.shape[:2], *positions, *filter_), (*x.stride()[:2], *along, *inside), x.storage_offset())


def _last(x: Tensor) -> Tensor:
    """`x` with the channels as the last axis in memory."""
    return x.movedim(1, -1).contiguous().movedim(-1, 1)


def _channels_last(x: Tensor) -> bool:
    return x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()

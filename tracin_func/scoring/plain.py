"""The slow and obvious way to the gradient of a pair, for verification: no engine, no substitution, no batch.

A checkpoint is loaded into the user's own module by `load_state_dict`, items are scored alone, and every pair takes one
autograd call, in float64 where the module runs in it. The module is restored at the end.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from tracin_func.errors import InputError
from tracin_func.gradients.coupling import FORWARD_FAULTS
from tracin_func.gradients.device import exact_products
from tracin_func.gradients.snapshot import Snapshot
from tracin_func.gradients.working import random_numbers_kept, uncompiled
from tracin_func.task.items import Batch, Items, each
from tracin_func.task.weight_names import unwrapped

MOVED = 1.1  # factor of the weights with which the module is tried in float64
AGREE = 1e-2  # relative difference between a score in float64 and in the module's own dtype that is rounding
_CPU = torch.device("cpu")


class PlainModel:
    """The user's module with the weights of one checkpoint at a time.

    Args:
        module: the scorer.
        items: its items.
        names: the parameters to differentiate, by their names in `named_parameters`.
        tried: the item, or the two items of a pairwise scorer, on which the module is tried in float64.
        rounding: the dtype that weights are rounded to before they are loaded; none when None.
    """

    def __init__(
        self,
        module: nn.Module,
        items: Items,
        names: Sequence[str],
        tried: Sequence[int],
        rounding: torch.dtype | None = None,
    ) -> None:
        self._module, self._items, self._rounding = module, items, rounding
        self._names, self._tried = list(names), tried
        self._double: bool | None = None  # whether it runs in float64; known from the first checkpoint on
        self._buffers: dict[str, Tensor] = {}
        self._kept: Snapshot | None = None

    @contextmanager
    def borrowed(self) -> Iterator[None]:
        """The module, its tensors and torch's settings are restored after the block, byte for byte."""
        module = self._module
        before = Snapshot(module)
        tensors = [*module.parameters(), *module.buffers()]
        saved = [(each, each.data, each.data.clone(), each.grad) for each in tensors]
        for tensor in tensors:
            tensor.grad = None  # its dtype would not fit
        fast = torch.backends.mha.get_fastpath_enabled()
        try:
            torch.backends.mha.set_fastpath_enabled(False)  # it changes the scores of padded items
            with random_numbers_kept(), exact_products(_CPU), uncompiled():
                yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)
            self._kept = None
            before.restore()
            for tensor, data, content, gradient in saved:
                tensor.data = data
                tensor.data.copy_(content)
                tensor.grad = gradient

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Load a checkpoint into the module.

        Raises:
            InputError: the module does not score an item on the CPU.
        """
        module = self._module
        known = module.state_dict(keep_vars=True).keys()
        named = {name: self._rounded(tensor) for name, tensor in weights.items() if isinstance(tensor, Tensor)}
        named = {name: tensor for name, tensor in unwrapped(named, known).items() if name in known}
        module.to(_CPU)
        if self._double:
            module.double()
        self._place(named)
        if self._double is None:
            self._double = self._runs_in_float64(named)

    def score(self, *items: int) -> Tensor:
        """The score of one item, or of one pair for a pairwise scorer; a scalar."""
        assert self._kept is not None
        batch = [self._taken(item) for item in items]
        for name, buffer in self._module.named_buffers():
            if name in self._buffers:
                buffer.data.copy_(self._buffers[name])
        try:
            scores: Tensor = self._module(*batch)
            return scores.reshape(-1)[0]
        finally:
            self._kept.restore()

    def gradient(self, value: Callable[[], Tensor]) -> dict[str, Tensor]:
        """∂value/∂θ by parameter name, float64, dense; 0 for parameters on which the value does not depend."""
        own = dict(self._module.named_parameters())
        parameters = [own[name] for name in self._names]
        with torch.enable_grad():
            result = value()
        found: Sequence[Tensor | None] = [None] * len(parameters)
        if result.requires_grad:
            try:
                found = torch.autograd.grad(result, parameters, allow_unused=True)
            except RuntimeError:  # reentrant checkpointing takes `.backward()` alone
                found = self._backward(value, parameters)
        every = zip(self._names, parameters, found, strict=True)
        return {name: _dense(torch.zeros_like(leaf) if part is None else part) for name, leaf, part in every}

    def _backward(self, value: Callable[[], Tensor], parameters: Sequence[Tensor]) -> list[Tensor | None]:
        for parameter in parameters:
            parameter.grad = None
        with torch.enable_grad():
            torch.autograd.backward(value())
        found = [parameter.grad for parameter in parameters]
        for parameter in parameters:
            parameter.grad = None
        return found

    def _place(self, named: Mapping[str, Tensor]) -> None:
        module = self._module
        if self._kept is not None:
            self._kept.restore()
        for submodule in module.modules():
            submodule.training = False
        module.load_state_dict(dict(named), strict=False)
        self._buffers = {name: buffer.detach().clone() for name, buffer in module.named_buffers()}
        self._kept = Snapshot(module)

    def _runs_in_float64(self, named: Mapping[str, Tensor]) -> bool:
        """Whether the module gives the same score in float64; it is in float64 afterwards if so."""
        module, before = self._module, Snapshot(self._module)
        moved = {name: tensor * MOVED if tensor.is_floating_point() else tensor for name, tensor in named.items()}
        self._place(moved)
        saved = [(each, each.data) for each in (*module.parameters(), *module.buffers())]
        own, fault = self._tried_score()
        self._place(named)  # aliases that float64 breaks keep these, which makes the scores differ
        module.double()
        self._double = True
        self._place(moved)
        wide, _ = self._tried_score()
        if wide is not None and (own is None or abs(wide - own) <= AGREE * max(abs(wide), abs(own), 1e-6)):
            self._place(named)
            return True
        if own is None:
            raise InputError(
                f"`verify` failed, as the scorer does not run on the CPU: {fault}. The scores are not affected. Leave "
                "`verify` out."
            )
        before.restore()
        for tensor, data in saved:
            tensor.data = data
        self._double, self._kept = False, None
        self._place(named)
        return False

    def _tried_score(self) -> tuple[float | None, str]:
        """The score of the items that are tried, or None and the reason."""
        try:
            with torch.no_grad():
                return float(self.score(*self._tried)), ""
        except FORWARD_FAULTS as error:
            return None, str(error).strip().partition("\n")[0]

    def _taken(self, item: int) -> Batch:
        batch = self._items.take(torch.tensor([item]))
        wide = torch.float64 if self._double else None

        def move(leaf: Tensor) -> Tensor:
            leaf = leaf.clone() if leaf.is_inference() else leaf
            return leaf.to(_CPU, wide if leaf.is_floating_point() else None)

        return each(move, batch)

    def _rounded(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._rounding) if self._rounding is not None and tensor.is_floating_point() else tensor


def _dense(gradient: Tensor) -> Tensor:
    return (gradient.to_dense() if gradient.is_sparse else gradient).double()

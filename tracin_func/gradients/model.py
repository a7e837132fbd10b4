"""The user's module as a function of parameters, buffers and items.

It runs in two ways: with the tensors of a checkpoint put in place (`holding`, `run`), visible by every route to a
weight; and with tensors substituted for one call (`score`), as transforms such as vmap need.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from tracin_func.errors import InputError, UsageError
from tracin_func.gradients.companions import apart
from tracin_func.gradients.coupling import FORWARD_FAULTS
from tracin_func.gradients.loading import require_plain
from tracin_func.gradients.slots import fit, only_named, read_slots, require_no_views
from tracin_func.gradients.working import Touching, Working, private_copy, seeded, storages_of
from tracin_func.task.items import Batch, address_of, each

Parameters = dict[str, Tensor]

WEIGHTS_MOVED = 0.05  # change of weights for a comparison, relative and absolute
WAYS = ("call", "copy")  # to substitute weights: in the module's own slots; in a copy, wherever it refers to them
_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)


@dataclass(frozen=True, eq=False)
class State:
    """The tensors of one checkpoint on the device: `parameters` by canonical name, `constants` by slot path.

    `left` lists the frozen parameters that the checkpoint lacks; they are the module's own. `scale` is √P by canonical
    name, the optimiser's part of the metric, a factor of gradients; empty for none.
    """

    name: str
    parameters: Parameters
    constants: dict[str, Tensor]
    left: tuple[str, ...] = ()
    scale: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def example(self) -> Tensor:
        return next(iter(self.parameters.values()))

    @property
    def row_dtype(self) -> torch.dtype:
        """float64 where any parameter is, else float32: half-precision gradients are summed in float32."""
        double = any(tensor.dtype == torch.float64 for tensor in self.parameters.values())
        return torch.float64 if double else torch.float32


class Scorer:
    """A module f(x; θ) -> score, called with any θ.

    Args:
        module: batch of items [items, ...] -> [items] or [items, 1]; with `joint`, two batches -> [pairs].
        joint: the module takes both items of a pair and returns the score difference Δ.
        params: regular expression; only trainable parameters in whose name it is found are differentiated.

    Raises:
        UsageError: not an nn.Module, a ScriptModule, no trainable parameter, none that `params` finds, or as
            `read_slots`.
    """

    def __init__(self, module: nn.Module, *, joint: bool = False, params: str | None = None) -> None:
        module = getattr(module, "_orig_mod", module)  # what torch.compile wrapped; vmap cannot enter the wrapper
        if isinstance(module, _WRAPPERS):
            module = module.module
        if not isinstance(module, nn.Module):
            raise UsageError(f"`scorer` should be a torch.nn.Module. Got {type(module).__name__}.")
        if isinstance(module, torch.jit.ScriptModule):
            raise UsageError(
                "`scorer` should be an eager module. Got a ScriptModule, whose weights cannot be replaced in a call."
            )
        self.module = module
        self.joint = joint
        self._slots = read_slots(module)
        self._trained = list(dict.fromkeys(self._slots.trainable.values()))
        if not self._trained:
            raise UsageError(
                f"`scorer` {self.class_name} has frozen parameters only, so no gradient exists. Set requires_grad on "
                "the parameters to differentiate."
            )
        if params is not None:
            self._slots = only_named(self._slots, params)
        self.trainable = list(dict.fromkeys(self._slots.trainable.values()))
        self.substitution: str | None = "call"  # one of `WAYS`, or None; sought at the first call that needs it
        self._sought = False
        self._open: list[ExitStack] = []  # sessions
        self._unreached: list[str] = []  # what the last way of substitution left as it was
        self.has_parameter_hooks = any(parameter._backward_hooks for parameter in module.parameters())
        own = None if self.has_parameter_hooks else private_copy(module)  # a copy of a parameter has no hooks
        if own is None:
            require_no_views(module, self._slots)
        self._working = Working(module, private=False) if own is None else Working(own, private=True)

    @property
    def is_foreign(self) -> bool:
        """Whether any forward so far has used hooks or autograd functions, whose backward may not be linear."""
        return self._working.foreign

    @property
    def class_name(self) -> str:
        return type(self.module).__qualname__

    def current(self) -> Parameters:
        """The module's own differentiated tensors by canonical name; for shapes and names, never written."""
        return {name: self.module.get_parameter(name).detach() for name in self.trainable}

    def current_dtype(self) -> str:
        return " and ".join(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in self.current().values()}))

    def wider_dtype(self) -> torch.dtype | None:
        """float32 if any trainable parameter is of half precision, whose range is too small; else None."""
        half = any(tensor.dtype.itemsize < 4 for tensor in self.current().values())
        return torch.float32 if half else None

    def parameters(self) -> Parameters:
        """All parameters of the module by canonical name, detached; those that were trainable require a gradient."""
        named = self.module.named_parameters()
        return {name: tensor.detach().requires_grad_(name in self._trained) for name, tensor in named}

    def canonical(self) -> dict[str, str | None]:
        """Every name of a parameter -> its canonical one, None for what is not trained."""
        return {name: self._slots.trainable.get(slot) for name, slot in self._slots.names.items()}

    def state(
        self,
        name: str,
        weights: Mapping[str, Tensor],
        device: torch.device,
        dtype: torch.dtype | None,
        scale: Mapping[str, Tensor] | None = None,
    ) -> State:
        """The state dict `weights` as detached copies on `device`, in the module's types or `dtype`.

        `scale` is moved there too, in float64 if any parameter is float64, else in float32.

        Raises:
            InputError: keys or shapes do not fit the module, tied weights differ, or a weight is NaN or Inf.
        """
        tensors, left = fit(self._slots, weights, name, self.class_name)
        require_plain(self.module, self._slots, weights, tensors, name)
        parameters: Parameters = {}
        constants: dict[str, Tensor] = {}
        for slot, tensor in tensors.items():
            own = self._slots.own[slot]
            target = dtype if dtype is not None and own.is_floating_point() else own.dtype
            canonical = self._slots.trainable.get(slot)
            if canonical is None:
                constants[slot] = tensor.detach().to(device, target, copy=True)
            elif canonical not in parameters:
                parameters[canonical] = tensor.detach().to(device, target, copy=True)
        found = State(name, {name: parameters[name] for name in self.trainable}, constants, tuple(left))
        scales = {name: tensor.to(device, found.row_dtype) for name, tensor in (scale or {}).items()}
        return replace(found, scale=scales)

    @contextmanager
    def session(self) -> Iterator[None]:
        """If the user's own module has to run, it is restored at the end, whatever happens."""
        with ExitStack() as stack:
            stack.enter_context(self._working.session())
            self._open.append(stack)
            try:
                yield
            finally:
                self._open.remove(stack)

    @contextmanager
    def holding(self, state: State) -> Iterator[Parameters]:
        """The module holds the tensors of `state` in place; gives the leaves: its own parameters by canonical name."""
        with self._working.session():
            if self._working.holds is not state:
                self._hold(self._working, state)
            yield {name: self._working.slots.own[slot] for slot, name in self._slots.trainable.items()}

    def run(self, *batch: Batch) -> Tensor:
        """f of one batch (two for a joint scorer) with the held tensors, [items]; [items, 1] is flattened."""
        return self._scores(self._working.forward(*batch))

    def run_one(self, *items: Batch) -> Tensor:
        """f of one item (of one pair for a joint scorer), scored alone in a batch of one; a scalar."""
        return self.run(*(each(lambda leaf: leaf.unsqueeze(0), item) for item in items))[0]

    def score(self, parameters: Mapping[str, Tensor], constants: Mapping[str, Tensor], *batch: Batch) -> Tensor:
        """f of one batch with these tensors in the place of the module's, for transforms; [items].

        The first call has to be outside of transforms: it finds out how the weights can be substituted.
        """
        if not self._sought:
            self._seek_substitution(State("", dict(parameters), dict(constants)), batch)
        tensors = self._tensors(parameters, constants)
        tensors |= {slot: tensors[slot].clone() for slot in self._working.written}  # the forward writes to these
        with self._working.session(), self._working.undisturbed():
            if self.substitution == "call":
                return self._scores(functional_call(self._working.module, tensors, batch, tie_weights=False))
            if self.substitution == "copy":
                return self._scores(self._working.substituted(tensors)(*batch))
        if self.has_parameter_hooks:
            raise RuntimeError(f"{self.class_name} has a hook on a parameter, which transforms ignore")
        raise RuntimeError(
            f"{self.class_name} reads {', '.join(self._unreached[:4]) or 'its weights'} through a closure, a view or a "
            "reference kept elsewhere, which transforms cannot replace"
        )

    def score_one(self, parameters: Mapping[str, Tensor], constants: Mapping[str, Tensor], *items: Batch) -> Tensor:
        """`score` of one item (of one pair for a joint scorer), alone in a batch of one; a scalar."""
        return self.score(parameters, constants, *(each(lambda leaf: leaf.unsqueeze(0), item) for item in items))[0]

    def adopt(self, state: State, *batch: Batch) -> None:
        """Find out, on one batch, what may run: a private copy or the user's module.

        Raises:
            InputError: the scorer does not return scores, or those of earlier weights. Errors of the forward are
                raised, too.
        """
        if any(tensor.is_meta for tensor in state.parameters.values()):
            return
        users = Working(self.module, private=False)
        with users.session():
            moved, right = self._scores_of_moved(users, state, batch)
            self._hold(users, state)  # so that a copy which reads the user's module reads wrong values
            faithful = not self._working.private or self._is_faithful(users, state, moved, right, batch)
            if not faithful:
                self._require_no_memory(moved, right, batch)
        if not faithful:
            self._working = Working(self.module, private=False)
            for stack in self._open:
                stack.enter_context(self._working.session())

    def _scores_of_moved(self, working: Working, state: State, batch: tuple[Batch, ...]) -> tuple[State, Tensor]:
        """Other weights, as the module's own may equal those of the checkpoint and hide what reads them; the scores."""
        moved = _moved(state, WEIGHTS_MOVED)
        try:
            return moved, self._scores_of(working, moved, batch)
        except FORWARD_FAULTS:  # a forward that fails with such weights, or with any
            moved = _moved(state, by=0.0)
            return moved, self._scores_of(working, moved, batch)

    def _scores_of(self, working: Working, state: State, batch: tuple[Batch, ...]) -> Tensor:
        with torch.no_grad(), seeded(), working.session():
            self._hold(working, state)
            return self._scores(working.forward(*batch))

    def _hold(self, working: Working, state: State) -> None:
        working.hold(state, self._tensors(state.parameters, state.constants), frozenset(self._slots.trainable))

    def _is_faithful(self, users: Working, state: State, moved: State, right: Tensor, batch: tuple[Batch, ...]) -> bool:
        """Whether the private copy touches nothing of the user's module, and gives the `right` scores of `moved`.

        Since it has run with `state` before, it then keeps nothing of earlier weights either.
        """
        copied = self._working
        former = [own.detach() for own in copied.slots.own.values()]  # kept, so that no tensor reuses their memory
        foreign = storages_of([*users.slots.own.values(), *former])
        try:
            self._scores_of(copied, state, batch)
            with torch.no_grad(), seeded(), self.holding(moved), Touching(foreign) as touched:
                found = self.run(*batch)
            copied.note_written()
        except FORWARD_FAULTS:
            return False
        return not touched.found and not apart(right, found)

    def _seek_substitution(self, state: State, batch: tuple[Batch, ...]) -> None:
        """Find a way to substitute weights, if there is one: by which other weights give the right scores."""
        self._sought = True
        if state.example.is_meta:
            return
        moved, right = self._scores_of_moved(self._working, state, batch)
        with self.holding(state):
            own = storages_of(self._working.slots.own.values())
        self.substitution = next((way for way in WAYS if self._reaches(way, own, moved, right, batch)), None)

    def _reaches(self, way: str, own: frozenset[int], state: State, right: Tensor, batch: tuple[Batch, ...]) -> bool:
        """Whether a forward with substituted weights reads none of the module's own, and gives the `right` scores."""
        self.substitution, self._unreached = way, []
        if self.has_parameter_hooks:
            return False
        try:
            with self._working.session(), torch.no_grad(), seeded(), Touching(own) as touched:
                found = self.score(state.parameters, state.constants, *batch)
        except FORWARD_FAULTS:
            return False
        where = {address_of(own): slot for slot, own in self._working.slots.own.items()}
        self._unreached = sorted(where[address] for address in touched.found)
        return not touched.found and not apart(right, found)

    def _require_no_memory(self, moved: State, right: Tensor, batch: tuple[Batch, ...]) -> None:
        """Compare the private copy, which has run with other weights, with one that has not."""
        another = private_copy(self.module) if self._working.private else None
        if another is None:
            return
        try:
            fresh = self._scores_of(Working(another, private=True), moved, batch)
            found, again = (self._scores_of(self._working, moved, batch) for _ in range(2))
        except FORWARD_FAULTS:
            return
        if apart(right, found) and not apart(right, fresh) and not apart(found, again):
            raise InputError(
                f"`scorer` {self.class_name} caches values of earlier weights (functools.lru_cache?), so the scores of "
                "a second checkpoint would be wrong. Compute them in every forward."
            )

    def _scores(self, output: Any) -> Tensor:
        expected = "[pairs] or [pairs, 1]" if self.joint else "[items] or [items, 1]"
        if not isinstance(output, Tensor):
            raise InputError(
                f"`scorer` {self.class_name} should return one tensor {expected}. Got {type(output).__name__}."
            )
        if output.ndim == 2 and output.shape[1] == 1:
            output = output[:, 0]
        if output.ndim == 0:  # a squeeze() takes the axis of a batch of one, too
            output = output.reshape(1)
        if output.ndim != 1 or not output.is_floating_point():
            raise InputError(
                f"`scorer` {self.class_name} should return floating-point scores {expected}. Got {output.dtype} of "
                f"shape {tuple(output.shape)}."
            )
        scores: Tensor = output
        return scores

    def _tensors(self, parameters: Mapping[str, Tensor], constants: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {slot: parameters[name] for slot, name in self._slots.trainable.items()} | dict(constants)


def _moved(state: State, by: float) -> State:
    """Copies of the weights of `state`, changed a little."""
    generator = torch.Generator().manual_seed(0)

    def near(tensor: Tensor, shift: float) -> Tensor:
        if not tensor.is_floating_point() or tensor.layout != torch.strided:
            return tensor.clone()
        step = torch.rand(tensor.shape, generator=generator).to(tensor)
        return tensor * (1 + by * step) + shift * step

    parameters = {name: near(tensor, by) for name, tensor in state.parameters.items()}
    constants = {slot: near(tensor, 0.0) for slot, tensor in state.constants.items()}  # variances stay positive
    return replace(state, parameters=parameters, constants=constants)

"""Memory and chunk sizes: the free memory of a device, the memory per unit, and how many units to take together."""

from dataclasses import dataclass
from typing import Any

import psutil
import torch
from torch import Tensor

from tracin_func.gradients.model import State
from tracin_func.gradients.protocol import Need, Plan, Units
from tracin_func.task.items import address_of, each

SHARE = 0.5  # of the free memory; the rest is left to the model's own workspace and to other programs
MEASURED_CHUNKS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
# Bytes of an unmeasured chunk's largest tensor. A CPU's allocator returns anything above 32 MB to the system, and
# getting it again costs as much as working through it; a quarter of that was the fastest.
LARGEST_TENSOR = {"cpu": 1 << 23}
LARGEST_TENSOR_ELSEWHERE = 1 << 30
LARGEST_BUILT = 8  # times that: gradients are written once, while a forward and a backward come back to their tensors
FEW_COPIES = 3  # right-hand rows are held in float64, and one parameter's slice is copied while in use
MEASURING = 0.1  # share of the expected work that measuring may take


def available_bytes(device: torch.device) -> int:
    """The bytes a run may use on `device`: half of what is free."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
    elif device.type == "mps":
        free = torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    else:
        free = psutil.virtual_memory().available
    return int(SHARE * free)


@dataclass(frozen=True)
class Kept:
    """Bytes kept of one unit's gradient: a row, maybe in blocks, and factors, always of all units.

    `largest`: of one parameter's part of a row; the whole row when None.
    """

    row: int
    factors: int = 0
    largest: int | None = None


def plan_chunks(
    units: Units, state: State, need: Need, kept: Kept | None = None, copies: int = 1, **forms: Any
) -> Plan:
    """Chunk and block sizes for gradients of `units` within the budget: half for what is kept, half for the work.

    With batch size "auto" the chunk is that of a run too short to be measured, and the plan has the largest one.
    `copies`: how often an engine copies what a unit's forward saves. `forms`: fields of the plan that it has decided.
    """
    kept = Kept(need.row) if need.row is not None else kept or Kept(row_bytes(state), largest=_largest_bytes(state))
    own, tensor = _unit_bytes(units, state)
    work = copies * own + 2 * (kept.row + kept.factors)
    factors = kept.factors * units.count if need.held else 0
    row = kept.row if need.held or not need.combined else FEW_COPIES * kept.row
    block = block_size(units.count if need.held else len(need.right), row, need.budget - 2 * factors)
    held = _blocks_held(block, units.count, need) * row + factors
    if need.batch_size != "auto":
        chunk = min(need.batch_size, units.count)
        return Plan(chunk, block, chunk * work, "as asked", held, **forms)
    largest = max(1, min(units.count, need.budget // 2 // work))
    most = LARGEST_TENSOR.get(state.example.device.type, LARGEST_TENSOR_ELSEWHERE)
    most = min(most // tensor, LARGEST_BUILT * most // (kept.row if kept.largest is None else kept.largest))
    chunk = max(size for size in MEASURED_CHUNKS if size <= max(1, min(most, largest)))
    return Plan(chunk, block, chunk * work, "not measured", held, largest=largest, **forms)


def plan_singles(units: Units, state: State, need: Need) -> Plan:
    """The plan of an engine that takes one unit at a time."""
    row = row_bytes(state)
    block = block_size(units.count if need.held else len(need.right), row, need.budget)
    held = _blocks_held(block, units.count, need) * row
    return Plan(1, block, _unit_bytes(units, state)[0] + 2 * row, "one at a time", held)


def row_bytes(state: State) -> int:
    """Bytes of one gradient row; half-precision gradients are held in float32."""
    return sum(map(part_bytes, state.parameters.values()))


def part_bytes(parameter: Tensor) -> int:
    """Bytes of one parameter's part of a gradient row."""
    return parameter.numel() * max(parameter.element_size(), 4)


def _largest_bytes(state: State) -> int:
    return max(map(part_bytes, state.parameters.values()))


def block_size(units: int, row: int, budget: int) -> int:
    """Rows held at a time in half the budget: all, or a block that leaves room for a second one."""
    fitting = max(1, budget // 2 // row)
    return max(1, units) if fitting >= units else max(1, fitting // 2)


def _blocks_held(block: int, units: int, need: Need) -> int:
    """Rows in memory at a time: two blocks, if not all rows are held."""
    return 2 * block if need.held and block < units else block


def _unit_bytes(units: Units, state: State) -> tuple[int, int]:
    """Twice the bytes that one unit's forward saves, since its backward needs as many, and the largest of them."""
    own = {address_of(tensor) for tensor in state.parameters.values()}
    saved: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        if (address := address_of(tensor)) and address not in own:
            saved[address] = tensor.untyped_storage().nbytes()
        return tensor

    unit = each(lambda leaf: leaf.squeeze(0), units.take(torch.arange(1)))
    hooks = torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor)
    with units.holding(state), torch.enable_grad():
        try:
            with hooks:
                units.alone(unit)
        except RuntimeError:  # a forward with a transform of torch.func does not allow such hooks
            saved.clear()
    return 2 * sum(saved.values()), max(saved.values(), default=1)

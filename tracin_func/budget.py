"""Memory and chunk sizes: what a device has to spare, what a unit takes, and how many to take together."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import psutil
import torch
from torch import Tensor

from tracin_func.gradients import Engine, Plan, Units, positions
from tracin_func.items import each
from tracin_func.scorer import State

SHARE = 0.5  # of the memory that is free now; the rest is left to the model's own workspace and to others
MEASURED_CHUNKS = (1, 4, 8, 16, 32, 64, 128)
UNMEASURED_CHUNK = 16  # near the best on two cores for convolutions; on short runs it does not matter
WORTH_MEASURING = 4.0  # seconds of expected work below which measuring costs more than it saves


def available_bytes(device: torch.device) -> int:
    """The bytes a run may use on `device`: half of what is free."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
    elif device.type == "mps":
        free = torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    else:
        free = psutil.virtual_memory().available
    return int(SHARE * free)


def make_plan(
    engine: Engine, units: Units, state: State, *, batch_size: int | Literal["auto"], budget: int, visits: int
) -> Plan:
    """Chunk and block sizes for `engine` on `units` within `budget` bytes: half for rows, half for the work.

    `visits` is how often the units will be differentiated (the number of checkpoints). With `batch_size` "auto"
    the chunk is the fastest of a short measurement.
    """
    row = sum(tensor.numel() * max(tensor.element_size(), 4) for tensor in state.parameters.values())
    work = _unit_bytes(units, state) + 2 * row
    block = max(1, budget // 2 // row)
    largest = max(1, min(units.count, budget // 2 // work))
    if engine.name == "loop":
        return Plan(1, block, row, work, "one at a time")
    if batch_size != "auto":
        chunk = min(batch_size, units.count)
        return Plan(chunk, block, row, chunk * work, "as asked")

    def run(size: int) -> Tensor:
        part = replace(units, count=size)
        plan = Plan(size, size, row, size * work, "measuring")
        return engine.gradients(part, state, dict.fromkeys(state.parameters, 1.0), plan).values

    chunk, reason = _fastest_chunk(run, largest, units.count * visits)
    return Plan(chunk, block, row, chunk * work, reason)


def _unit_bytes(units: Units, state: State) -> int:
    """Bytes that one unit's forward saves for its backward, twice: the backward makes as many again."""
    own = {tensor.data_ptr() for tensor in state.parameters.values()}
    saved: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    unit = each(lambda leaf: leaf.squeeze(0), units.take(positions(0, 1)))
    parameters = {name: tensor.detach().requires_grad_() for name, tensor in state.parameters.items()}
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        units.objective(parameters, state.constants, unit)
    return 2 * sum(saved.values())


def _fastest_chunk(run: Callable[[int], Tensor], largest: int, expected_units: int) -> tuple[int, str]:
    """The chunk size of least time a unit, growing while that pays, and how it was found."""
    run(1)  # the first call pays for lazy initialisation
    best, best_seconds = 1, _seconds(run, 1)
    if best_seconds * expected_units < WORTH_MEASURING:
        return min(largest, UNMEASURED_CHUNK), "short run, not measured"
    for size in (size for size in MEASURED_CHUNKS[1:] if size <= largest):
        seconds = _seconds(run, size) / size
        if seconds < 0.97 * best_seconds:
            best, best_seconds = size, seconds
        elif seconds > 1.2 * best_seconds or size >= 4 * best:
            break
    return best, f"measured, {best_seconds * 1e3:.2f} ms a unit"


def _seconds(run: Callable[[int], Tensor], size: int) -> float:
    start = time.perf_counter()
    run(size).sum().item()  # reading a number waits for the device
    return time.perf_counter() - start

"""Where the time of `ghost` above the floor goes, in ms per use: python benchmarks/gap.py [WORKLOAD]

A use is one operation that parameters enter. Prints a table in Markdown; `rest` is what autograd does to the
activations beyond the floor's own, copies into rows and the interpreter.
"""

import sys
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import ENGINE_BATCH_SIZES, Timed, alternate, best, engine, floor, plain_pass
from benchmarks.workloads import WORKLOADS
from tracin_func import Compute

ROUNDS = 9
# what the code names for profilers
RANGES = ("use: ", "rows", "check of one unit", "norms of pairs", "norms and products")


def main() -> None:
    """Print the table."""
    name = sys.argv[1] if len(sys.argv) > 1 else "conv 54 × 129×126"
    task, device = WORKLOADS[name][0](), torch.device("cpu")
    plain, activations = plain_pass(task, device), floor(task, device)

    def ghost(size: int) -> Timed:
        return engine(task, Compute(engine="ghost", device=device, batch_size=size), self_influence=True)[0]

    ours = {size: ghost(size) for size in ENGINE_BATCH_SIZES[:4]}
    size = best(ours)
    runs = {"plain pass": plain[best(plain)], "floor": activations[best(activations)], "ghost": ours[size]}
    seconds = {run: sorted(values)[ROUNDS // 2] for run, values in alternate(runs, ROUNDS).items()}
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        runs["ghost"]()
    parts = {event.key: event.cpu_time_total / 1e3 for event in profiled.key_averages() if event.key.startswith(RANGES)}
    rest = 1e3 * (seconds["ghost"] - seconds["floor"]) - sum(parts.values())
    print(f"{name}, batch size {size}; medians of {ROUNDS} rounds\n\n| | ms |\n|---|---|")
    for run, value in seconds.items():
        print(f"| {run} | {1e3 * value:.0f} |")
    for part, value in [*parts.items(), ("rest", rest)]:
        print(f"| {part.removeprefix('use: ')} | {value:.1f} |")


if __name__ == "__main__":
    main()

"""The headline as a picture: python benchmarks/chart.py RESULTS.json PICTURE.svg

RESULTS.json is what `pytest benchmarks/test_yardstick.py --benchmark-enable --benchmark-json RESULTS.json` saved.
Needs matplotlib.
"""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt

COLOURS = {"floor": "#c9ccd1", "ghost": "#1f6feb", "item": "#e3a008"}
WORDS = {
    "floor": "forward + backward down to the activations alone, in the plain pass's batches",
    "ghost": "tracin-func, engine ghost: exact scores of all pairs",
    "item": "tracin-func, engine item: vmap(grad) over items",
}


def main() -> None:
    """Bars of ratios to the plain pass with their 90% intervals, a group a workload."""
    source, target = map(Path, sys.argv[1:3])
    rows = [bench for bench in json.loads(source.read_text())["benchmarks"] if "ratios" in bench["extra_info"]]
    rows = [bench for bench in rows if "mlp" not in bench["group"]]  # pairs cost more than items there: another scale
    mpl.rcParams |= {"font.family": "DejaVu Sans", "svg.fonttype": "path", "svg.hashsalt": "tracin-func"}
    figure, axes = plt.subplots(figsize=(9, 0.9 + 0.75 * len(rows)))
    for row, bench in enumerate(rows):
        _group(axes, row, bench["extra_info"]["ratios"])
    axes.axvline(1, color="black", linewidth=1)
    axes.text(1, -0.62, "one plain forward + backward of the items", ha="center", va="bottom", fontsize=9)
    axes.set_yticks(range(len(rows)), [_label(bench) for bench in rows], fontsize=9)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0)
    axes.set_xlabel("time of one checkpoint, as a ratio")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(left=False)
    bars, names = axes.get_legend_handles_labels()
    unique = dict(zip(names, bars, strict=True))
    figure.legend(unique.values(), unique.keys(), loc="lower center", ncols=1, frameon=False, fontsize=9)
    figure.tight_layout(rect=(0, 0.75 / figure.get_figheight(), 1, 1))
    figure.savefig(target, metadata={"Date": None} if target.suffix == ".svg" else None)


def _group(axes: Any, row: int, ratios: dict[str, list[float]]) -> None:
    there = [name for name in COLOURS if name in ratios]
    height = 0.8 / len(COLOURS)
    for place, name in enumerate(there):
        median, low, high = ratios[name]
        y = row + (place - (len(there) - 1) / 2) * height
        errors = [[median - low], [high - median]]
        axes.barh(y, median, height * 0.9, color=COLOURS[name], label=WORDS[name], xerr=errors, error_kw={"lw": 0.8})
        axes.text(high + 0.015, y, f"{median:.2f}", va="center", fontsize=8)


def _label(bench: dict[str, Any]) -> str:
    name, _, asked = bench["group"].rpartition(": ")
    return f"{name}\n{asked}, {bench['extra_info']['pairs']:,} pairs"


if __name__ == "__main__":
    main()

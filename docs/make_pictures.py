"""The pictures of the documentation, from results on the embedded example: python docs/make_pictures.py [FOLDER]

Runs the command line unless FOLDER (a temporary one by default) has the results already, and prints the figures that
the pages quote. Needs matplotlib, which the project does not depend on.
"""

import csv
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch

DOCS = Path(__file__).parent
STEM = "plastic_500hz"
FLIPPED = 22

# Each colour and its counterpart in dark mode; an SVG holds both and the reader's browser takes one.
INK, SOFT, PAPER, RULE = "#1f2328", "#59636e", "#fffffe", "#d1d9e0"
BLUE, ORANGE, GREEN, RED = "#1f6feb", "#c2570c", "#1a7f37", "#cf222e"
DARK = {
    INK: "#e6edf3",
    SOFT: "#9198a1",
    PAPER: "#0d1117",
    RULE: "#3d444d",
    BLUE: "#58a6ff",
    ORANGE: "#f0883e",
    GREEN: "#3fb950",
    RED: "#ff7b72",
}
ON_DARK, ON_LIGHT = "#fefefe", "#0b0b0b"  # words on a coloured cell, in either mode
# Seconds for the same scores, from the row "Peers" of benchmarks/README.md.
PEERS = {"tracin-func": 2.3, "captum 0.9": 116.1, "dattri 0.3": 188.6}
COST_RATIOS = {"captum 0.9": 50, "dattri 0.3": 83}  # beside its own run of tracin-func, 2.3 s each

Rows = list[dict[str, str]]

AUDIT_LABELS = {  # where each line has its name
    "plain loss": (52, 22.6),
    "self-influence, standard": (26, 16.4),
    "self-influence, GHM weights": (100, 17.6),
    "perfect": (24, 22.6),
    "random order": (160, 5.6),
}

RUNS = {
    "trained": ["self", "--per-checkpoint"],
    "standard": ["self", "--loss-type", "standard", "--per-checkpoint"],
    "misranked": ["influence", "--test-select", "misranked", "--num-test", "all"],
    "flipped_standard": ["self", "--pairs", "flipped.csv", "--loss-type", "standard", "--per-checkpoint"],
    "flipped_ghm": ["self", "--pairs", "flipped.csv", "--per-checkpoint"],
}


def main() -> None:
    """Write all pictures."""
    style = {"font.family": "DejaVu Sans", "font.size": 9, "svg.fonttype": "path", "svg.hashsalt": "tracin-func"}
    colours = {f"{part}.color": INK for part in ("text", "xtick", "ytick")}
    edges = {"axes.labelcolor": INK, "axes.edgecolor": SOFT, "figure.facecolor": PAPER, "axes.facecolor": PAPER}
    mpl.rcParams |= style | colours | edges
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else temporary)
        folder.mkdir(parents=True, exist_ok=True)
        audit(folder)
        classes(folder)
        checkpoints(folder)
        explanation(folder)
    kernel()
    cost()


# Results


def results(folder: Path, name: str) -> Path:
    """The folder with the tables of a run, which is made where it is not there."""
    if not (folder / name).is_dir():
        arguments = [*RUNS[name], "--format", "csv", "--metadata-dir", name, "--quiet"]
        subprocess.run([sys.executable, "-m", "tracin_func", *arguments], cwd=folder, check=True)
    return folder / name


def read(path: Path) -> Rows:
    """The rows of a table."""
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def sums(folder: Path, name: str, column: str = "tracin_self_influence") -> dict[str, float]:
    """A column of a self-influence run, summed over checkpoints, by pair."""
    total: dict[str, float] = {}
    for row in read(results(folder, name) / f"{STEM}_per_checkpoint_metadata.csv"):
        total[row["pair"]] = total.get(row["pair"], 0.0) + float(row[column])
    return total


def degrees(item: str) -> int:
    """36 of plastic_deg036_500hz_04."""
    found = re.search(r"deg(\d+)", item)
    assert found is not None
    return int(found[1])


# Pictures


def audit(folder: Path) -> None:
    """How soon flipped targets are found from the top of a list."""
    pairs = read(results(folder, "standard") / f"{STEM}_metadata.csv")
    flipped = {pairs[row]["pair"] for row in random.Random(0).sample(range(len(pairs)), FLIPPED)}
    with (folder / "flipped.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["first", "second", "target"])
        for pair in pairs:
            up = degrees(pair["first"]) > degrees(pair["second"])
            target = 1 if up != (pair["pair"] in flipped) else -1
            writer.writerows([[pair["first"], pair["second"], target]] * int(pair["count"]))
    _print_hardest(folder)
    lines = {
        "plain loss": (sums(folder, "flipped_standard", "loss"), SOFT),
        "self-influence, standard": (sums(folder, "flipped_standard"), BLUE),
        "self-influence, GHM weights": (sums(folder, "flipped_ghm"), ORANGE),
    }
    figure, axes = plt.subplots(figsize=(7, 3.4))
    for name, (scores, colour) in lines.items():
        order = sorted(scores, key=lambda pair: -scores[pair])
        found = [sum(pair in flipped for pair in order[:seen]) for seen in range(len(order) + 1)]
        width = 5 if colour == SOFT else 2  # the baseline shows where another line lies on it
        axes.plot(range(len(found)), found, color=colour, linewidth=width)
        axes.annotate(name.replace(", standard", ",\nstandard"), AUDIT_LABELS[name], color=colour, fontsize=9)
        print(f"audit: {name}: {found[FLIPPED]} of the first {FLIPPED}, all by {found.index(FLIPPED)}")
    axes.plot([0, FLIPPED, len(pairs)], [0, FLIPPED, FLIPPED], color=GREEN, linewidth=1, linestyle=":")
    axes.annotate("perfect", AUDIT_LABELS["perfect"], color=GREEN, fontsize=9)
    axes.plot([0, len(pairs)], [0, FLIPPED], color=SOFT, linewidth=1, linestyle="--")
    axes.annotate("random order", AUDIT_LABELS["random order"], color=SOFT, fontsize=9)
    axes.set_xlim(0, len(pairs) // 2)
    axes.set_ylim(0, FLIPPED + 2.4)
    axes.set_xlabel(f"pairs looked at, from the top of the list (of {len(pairs)})")
    axes.set_ylabel(f"flipped targets found (of {FLIPPED})")
    save(figure, axes, "audit")


def _print_hardest(folder: Path) -> None:
    """The pairs on top of both lists where nothing is flipped, and the recordings they share."""
    own, loss = (sums(folder, "standard", column) for column in ("tracin_self_influence", "loss"))
    tops = [sorted(column, key=lambda pair: -column[pair])[:FLIPPED] for column in (own, loss)]
    print(f"audit: in both lists of {FLIPPED}: {len(set(tops[0]) & set(tops[1]))}; by loss {', '.join(tops[1][:4])}")
    trained = sums(folder, "trained")
    of_item: dict[str, list[float]] = {}
    for pair, score in trained.items():
        for item in _items(pair):
            of_item.setdefault(item, []).append(score)
    order = sorted(of_item, key=lambda item: -mean(of_item[item]))
    print("audit: recordings: " + ", ".join(f"{item} {mean(of_item[item]):.2f}" for item in order[:4]))
    print(f"audit: mean of all pairs {mean(trained.values()):.3f}")


def classes(folder: Path) -> None:
    """Self-influence and what it rests on, by pair of classes."""
    cells: dict[tuple[int, int], list[tuple[float, float]]] = {}
    score = sums(folder, "trained")
    for row in read(results(folder, "trained") / f"{STEM}_metadata.csv"):
        low, high = sorted((degrees(row["first"]), degrees(row["second"])))
        cells.setdefault((low, high), []).append((score[row["pair"]], float(row["active_share"])))
    figure, axes = plt.subplots(1, 2, figsize=(7.4, 3.5))
    grids = (("mean self-influence", 0, "{:.2f}"), ("share of checkpoints at which a pair is active", 1, "{:.0%}"))
    for axis, (title, part, form) in zip(axes, grids, strict=True):
        values = {key: mean(each[part] for each in found) for key, found in cells.items()}
        _grid(axis, values, title, form)
        print(f"classes: {title}: " + ", ".join(f"{low}-{high} {values[low, high]:.3g}" for low, high in values))
    save(figure, axes, "classes")


def _grid(axes: Any, values: Mapping[tuple[int, int], float], title: str, form: str) -> None:
    names = sorted({name for key in values for name in key})
    largest = max(values.values())
    for (low, high), value in values.items():
        x, y = names.index(low), names.index(high) - 1
        share = value / largest
        red, green, blue = (round(255 + (0.06 + 0.94 * share) * (end - 255)) for end in (12, 76, 140))
        axes.add_patch(mpl.patches.Rectangle((x, y), 0.96, 0.94, facecolor=f"#{red:02x}{green:02x}{blue:02x}"))
        words = {"ha": "center", "va": "center", "color": _readable(red, green, blue)}
        axes.text(x + 0.48, y + 0.47, form.format(value), fontsize=8, **words)
    axes.set_xlim(0, len(names) - 1)
    axes.set_ylim(len(names) - 1, 0)
    axes.set_xticks([x + 0.48 for x in range(len(names) - 1)], [f"{name}°" for name in names[:-1]])
    axes.set_yticks([y + 0.47 for y in range(len(names) - 1)], [f"{name}°" for name in names[1:]])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=9, loc="left")


def _readable(*colour: int) -> str:
    """Light or dark, whichever has the higher contrast on a colour (WCAG 2)."""
    linear = [((part / 255 + 0.055) / 1.055) ** 2.4 if part > 10 else part / 255 / 12.92 for part in colour]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return ON_DARK if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05 else ON_LIGHT


def checkpoints(folder: Path) -> None:
    """What each checkpoint adds, and how many pairs it still learns from."""
    by_name: dict[str, list[dict[str, str]]] = {}
    for row in read(results(folder, "trained") / f"{STEM}_per_checkpoint_metadata.csv"):
        by_name.setdefault(row["checkpoint"].removeprefix("model_").removesuffix(".pt"), []).append(row)
    scores = [[float(row["tracin_self_influence"]) for row in rows] for rows in by_name.values()]
    total = sum(map(sum, scores))
    shares = [sum(values) / total for values in scores]
    active = [mean(value > 0 for value in values) for values in scores]
    names = [name.replace("_", " ") for name in by_name]
    print(
        "checkpoints: "
        + ", ".join(f"{n} {s:.0%} active {a:.0%}" for n, s, a in zip(names, shares, active, strict=True))
    )
    figure, axes = plt.subplots(figsize=(7, 3.1))
    places = range(len(names))
    for offset, values, colour, name in (
        (
            -0.2,
            shares,
            BLUE,
            "self-influence at this checkpoint, share of the sum over all checkpoints (adds up to 100%)",
        ),
        (0.2, active, SOFT, "active training pairs, share of all pairs (does not add up)"),
    ):
        axes.bar([place + offset for place in places], values, 0.38, color=colour, label=name)
        for place, value in zip(places, values, strict=True):
            axes.text(place + offset, value + 0.015, f"{value:.0%}", ha="center", fontsize=8, color=INK)
    axes.set_xticks(places, names)
    axes.set_yticks([])
    axes.set_ylim(0, 1.1)
    axes.set_title("Where the scores come from, by checkpoint", fontsize=10, loc="left", pad=36)
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(-0.02, 1), labelcolor=INK, fontsize=8)
    save(figure, axes, "checkpoints", left=False)


def explanation(folder: Path) -> None:
    """The strongest proponents and opponents of the test pair that is ranked wrong."""
    rows = read(results(folder, "misranked") / f"{STEM}_influence_metadata.csv")
    wrong = rows[0]["test_pair"]
    rows = sorted((row for row in rows if row["test_pair"] == wrong), key=lambda row: -float(row["tracin_influence"]))
    values = [float(row["tracin_influence"]) for row in rows]
    print(f"explanation: {wrong}: {sum(v > 0 for v in values)} proponents, {sum(v < 0 for v in values)} opponents")
    by_classes: dict[tuple[int, int], list[float]] = {}
    for row, value in zip(rows, values, strict=True):
        low, high = sorted((degrees(row["first"]), degrees(row["second"])))
        by_classes.setdefault((low, high), []).append(value)
    order = sorted(by_classes, key=lambda key: mean(by_classes[key]))
    print("explanation: " + ", ".join(f"{low}-{high} {mean(by_classes[low, high]):+.2f}" for low, high in order))
    chosen = rows[:6] + rows[-6:]
    figure, axes = plt.subplots(figsize=(7, 3.8))
    for place, row in enumerate(chosen):
        value = float(row["tracin_influence"])
        axes.barh(place, value, 0.72, color=BLUE if value > 0 else RED)
        beside = {"ha": "left" if value < 0 else "right", "va": "center", "fontsize": 8, "color": INK}
        gap = 0.04 if value < 0 else -0.04
        axes.text(gap, place, _short(row["first"], row["second"]), **beside)
        axes.text(
            value + (-0.04 if value < 0 else 0.04),
            place,
            f"{value:+.2f}".replace("-", "−"),
            **(beside | {"ha": "right" if value < 0 else "left"}),
        )
    axes.axvline(0, color=SOFT, linewidth=1)
    axes.set_ylim(len(chosen) - 0.4, -0.6)
    axes.set_xlim(min(values) * 1.25, max(max(values) * 1.5, -min(values) * 0.7))
    axes.set_yticks([])
    axes.set_xticks([])
    for side, words in ((-0.1, "← training raised its loss"), (0.1, "training lowered its loss →")):
        axes.text(side, len(chosen) - 0.2, words, ha="right" if side < 0 else "left", va="top", fontsize=9, color=INK)
    axes.set_xlabel(f"influence on the test pair {_short(*_items(wrong))}, ranked wrong", labelpad=18)
    save(figure, axes, "explanation", left=False)


def _items(pair: str) -> tuple[str, str]:
    parts = pair.split("_")
    return "_".join(parts[: len(parts) // 2]), "_".join(parts[len(parts) // 2 :])


def _short(first: str, second: str) -> str:
    """36° take 06 · 72° take 01."""
    return " · ".join(f"{degrees(item)}° take {item.rpartition('_')[2]}" for item in (first, second))


def kernel() -> None:
    """Items, their gradients, the products of these, and pairs made of them: no data."""
    figure, axes = plt.subplots(figsize=(7.6, 3))
    axes.set_xlim(0, 76)
    axes.set_ylim(0, 30)
    axes.axis("off")
    heads = ((7, "items"), (25, "gradients g"), (45.5, "dot products K"), (66, "pairs"))
    for x, words in heads:
        axes.text(x, 28, words, ha="center", fontsize=10, color=INK)
    for place, name in enumerate("abc"):
        y = 21 - 6 * place
        _box(axes, 4, y, 6, 4, f"$x_{name}$", BLUE)
        _arrow(axes, (10.6, y + 2), (17.4, y + 2))
        _box(axes, 18, y, 14, 4, f"$g_{name}$", BLUE)
        for other in range(3):
            _box(axes, 38.5 + 4.8 * other, y, 4.4, 4, f"$K_{{{name}{'abc'[other]}}}$", SOFT)
        _arrow(axes, (32.6, y + 2), (37.9, y + 2))
    for place, (words, colour) in enumerate((("p = (a, b)", GREEN), ("q = (b, c)", ORANGE))):
        _box(axes, 59, 18.8 - 6.4 * place, 14, 4.2, words, colour)
        for row in ((23, 17), (17, 11))[place]:  # p = (a, b) uses the rows a and b, q = (b, c) the rows b and c
            _arrow(axes, (53.0, row), (58.6, 20.9 - 6.4 * place), colour)
    notes = (
        (25, "one per item, whatever\nthe number of its pairs"),
        (45.5, "one per two items"),
        (65, "influence(p, q) =\n$u_p u_q K_{ab} + u_p v_q K_{ac}$\n$+ v_p u_q K_{bb} + v_p v_q K_{bc}$"),
    )
    for x, words in notes:
        axes.text(x, 7.6, words, ha="center", va="top", fontsize=9, color=SOFT if x < 60 else INK)
    save(figure, axes, "kernel", spines=False)


def cost() -> None:
    """Seconds for the same scores, beside other packages: no data but `PEERS`."""
    figure, axes = plt.subplots(figsize=(7, 1.9))
    own = min(PEERS.values())
    for place, (name, seconds) in enumerate(PEERS.items()):
        axes.barh(place, seconds, 0.62, color=BLUE if seconds == own else SOFT)
        words = (f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s") + (
            "" if seconds == own else f"  ({COST_RATIOS[name]} times as long)"
        )
        axes.text(seconds + 2, place, words, va="center", fontsize=9, color=INK)
    axes.set_yticks(range(len(PEERS)), PEERS)
    axes.tick_params(left=False)
    axes.set_ylim(len(PEERS) - 0.4, -0.6)
    axes.set_xlim(0, 1.45 * max(PEERS.values()))
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.set_xlabel("seconds for 666 pairs of 40 items, 5 test pairs, 2 checkpoints; one Intel Xeon core")
    save(figure, axes, "cost", left=False)


def _box(axes: Any, x: float, y: float, width: float, height: float, words: str, colour: str) -> None:
    form = FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0,rounding_size=0.7", fc="none", ec=colour, lw=1.4)
    axes.add_patch(form)
    axes.text(x + width / 2, y + height / 2, words, ha="center", va="center", fontsize=9, color=INK)


def _arrow(axes: Any, start: tuple[float, float], end: tuple[float, float], colour: str = SOFT) -> None:
    axes.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": colour, "lw": 1.2})


# Files


def save(figure: Any, axes: Any, name: str, *, left: bool = True, spines: bool = True) -> None:
    """Write a picture, with its colours of both modes."""
    if spines and not isinstance(axes, Sequence) and hasattr(axes, "spines"):
        axes.spines[["top", "right", *([] if left else ["left"])]].set_visible(False)
    figure.tight_layout()
    path = DOCS / f"{name}.svg"
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    plt.close(figure)
    rules = "".join(
        f'[style*="{part}: {light}"]{{{part}:{dark}!important}}'
        for part in ("fill", "stroke")
        for light, dark in DARK.items()
    )
    dark = f"<style>@media (prefers-color-scheme: dark){{{rules}}}</style>"
    text = re.sub(r"(<svg [^>]*>)", lambda match: f"{match[1]}\n {dark}", path.read_text(encoding="utf-8"), count=1)
    text = re.sub(r"\s*<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"(?<!scale\()(?<![\d.-])(-?\d+\.\d\d)\d+", r"\1", text)  # a hundredth of a point is not seen
    path.write_text("\n".join(line.rstrip() for line in text.splitlines()) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

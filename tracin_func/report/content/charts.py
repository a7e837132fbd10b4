"""Charts as SVG text: small functions from numbers to pictures, without a library.

Colours are CSS variables, which the page sets for light and dark; `standalone` adds them to a picture of its own. Every
chart is 400 units wide, so that its text can be read on a telephone.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

from tracin_func.report.content.analysis import Cell, Distribution, Heat
from tracin_func.report.content.spread import Spread

CHART_WIDTH = 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 12, 12, 40
_ROUND = (1.0, 2.0, 2.5, 5.0, 10.0)
_MOST_BARS = 20

LIGHT = (
    "--bar:#5b8ec7;--ink:#1c2430;--muted:#5b6675;"
    "--line:#d9dee6;--accent:#2563a8;--good:#2563a8;--bad:#b3461b;--card:#ffffff"
)
DARK = (
    "--bar:#3f76b5;--ink:#e8ecf2;--muted:#a3aebd;"
    "--line:#3a4452;--accent:#7db4ee;--good:#7db4ee;--bad:#f0a076;--card:#1a212b"
)
STYLE = (
    "svg.chart text{font:12px system-ui,sans-serif;fill:var(--ink)}svg.chart .axis{fill:var(--muted)}"
    "svg.chart .grid{stroke:var(--line)}svg.chart .bar{fill:var(--bar)}svg.chart .bad{fill:var(--bad)}"
    "svg.chart .rule{stroke:var(--ink);stroke-width:1.5;stroke-dasharray:4 3}"
    "svg.chart .dots{stroke-dasharray:1.5 3}svg.chart .range{stroke:var(--muted)}"
    "svg.chart .whisker{stroke:var(--ink);stroke-width:1.5}svg.chart .median{stroke:var(--card);stroke-width:2}"
    "svg.chart .mean{fill:var(--card);stroke:var(--ink);stroke-width:1.5}"
    "svg.chart .line{fill:none;stroke:var(--accent);stroke-width:2}svg.chart .line.second{stroke:var(--bad)}"
    "svg.chart .line.thin{stroke:var(--muted);stroke-width:1}svg.chart .point{fill:var(--accent)}"
    "svg.chart .point.second{fill:var(--bad)}svg.chart .point.thin{fill:var(--muted)}"
    "svg.chart .hollow{fill:none;stroke:var(--accent);stroke-width:1.5}svg.chart .hollow.second{stroke:var(--bad)}"
)


class Series(NamedTuple):
    """Points of a line chart; NaN where there is none. `hollow`: points without a line, as of another origin."""

    name: str
    values: Sequence[float]
    kind: str  # first, second or thin
    hollow: bool = False


def standalone(chart: Markup) -> str:
    """A chart as a file of its own, readable on light and on dark pages."""
    style = f":root{{{LIGHT}}}@media (prefers-color-scheme: dark){{:root{{{DARK}}}}}{STYLE}"
    head, _, rest = str(chart).partition(">")
    return f'{head} xmlns="http://www.w3.org/2000/svg"><style>{style}</style>{rest}'


def figure(value: float) -> str:
    """A number to three significant digits."""
    if value == 0:
        return "0"
    if not 1e-4 <= abs(value) < 1e6:
        return f"{value:.2e}".replace("e-0", "e-").replace("e+0", "e").replace("-", "−", 1 if value < 0 else 0)
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}".replace("-", "−")


def histogram(found: Distribution, title: str, x: str, y: str, mean: str, median: str) -> Markup:
    """Counts on a logarithmic axis, with mean and median; `mean` and `median` are their words."""
    edges, counts = found.histogram.edges, found.histogram.counts
    height = 220
    steps = (1, 2, 5) if max(counts) < 20 else (1,)
    ticks = [0, *(each * 10**power for power in range(8) for each in steps if each * 10**power <= max(counts))]
    top = math.log10(max(10, max(counts)) + 1) * 1.05
    low, high = edges[0], edges[-1] if edges[-1] > edges[0] else edges[0] + 1.0

    def across(value: float) -> float:
        return _LEFT + (value - low) / (high - low) * (CHART_WIDTH - _LEFT - _RIGHT)

    def up(count: float) -> float:
        return height - _BOTTOM - math.log10(count + 1) / top * (height - _BOTTOM - 34)

    parts = [_grid(up(tick), f"{tick:,}") for tick in ticks]
    for start, end, count in zip(edges, edges[1:], counts, strict=False):
        if count:
            words = f"{figure(start)} – {figure(end)}: {count:,}"
            kind = "bad" if start < 0 else "bar"
            left, width = across(start) + 0.5, max(1.0, across(end) - across(start) - 1)
            base = height - _BOTTOM
            parts.append(_rect(left, up(count), width, base - up(count), kind, words))
    statistics = found.statistics
    both = [(statistics.median, median, "rule dots"), (statistics.mean, mean, "rule")]
    for place, (value, word, kind) in enumerate(both):
        at = across(min(max(value, low), high))
        anchor = "start" if at < CHART_WIDTH * 0.55 else "end"
        shift = 4 if anchor == "start" else -4
        level = 12 + 13 * place
        parts.append(f'<line class="{kind}" x1="{at:.1f}" x2="{at:.1f}" y1="{level - 8}" y2="{height - _BOTTOM}"/>')
        parts.append(_text(at + shift, level + 1, f"{word} {figure(value)}", anchor))
    parts += [_below(height, across(tick), _label(tick)) for tick in _ticks(low, high, 5)]
    parts += _names(height, x, y)
    return _svg(height, title, parts)


def bars(found: Sequence[Spread], title: str, x: str, pairs: str) -> Markup:
    """Means as bars with quartiles as whiskers, one row per group; `pairs` is the heading of the counts."""
    rows = found[:_MOST_BARS]
    left = min(160, 14 + max(len(each.name) for each in rows) * 7.2)
    height, right = 24 * len(rows) + 62, 44
    low = min(0.0, *(min(each.mean, each.lower_quartile) for each in rows))
    high = max(0.0, *(max(each.mean, each.upper_quartile) for each in rows)) or 1.0

    def across(value: float) -> float:
        return left + (value - low) / (high - low) * (CHART_WIDTH - left - right)

    bottom = 22 + 24 * len(rows)
    parts = []
    for tick in _ticks(low, high, 4):
        parts.append(f'<line class="grid" x1="{across(tick):.1f}" x2="{across(tick):.1f}" y1="18" y2="{bottom}"/>')
        parts.append(_text(across(tick), bottom + 16, _label(tick), "middle", "axis"))
    parts.append(_text(CHART_WIDTH - 2, 12, pairs, "end", "axis"))
    for place, each in enumerate(rows):
        middle = 34 + 24 * place
        start, end = sorted((across(0), across(each.mean)))
        words = f"{each.name}: {figure(each.mean)} ({figure(each.lower_quartile)} – {figure(each.upper_quartile)})"
        parts.append(_text(left - 6, middle + 4, _short(each.name, 20), "end"))
        parts.append(_rect(start, middle - 7, max(1.0, end - start), 14, "bad" if each.mean < 0 else "bar", words))
        ends = across(each.lower_quartile), across(each.upper_quartile)
        parts.append(f'<line class="whisker" x1="{ends[0]:.1f}" x2="{ends[1]:.1f}" y1="{middle}" y2="{middle}"/>')
        for at in ends:
            parts.append(f'<line class="whisker" x1="{at:.1f}" x2="{at:.1f}" y1="{middle - 4}" y2="{middle + 4}"/>')
        parts.append(_text(CHART_WIDTH - 2, middle + 4, f"{each.pairs:,}", "end", "axis"))
    parts.append(_text((left + CHART_WIDTH - right) / 2, bottom + 33, x, "middle", "axis"))
    return _svg(height, title, parts)


def heat_map(found: Heat, title: str, pairs: str, *, signed: bool) -> Markup:
    """Means by pair of classes with their counts; lower triangle, since the order of a pair has no meaning."""
    names = found.names
    diagonal = any(row[-1] for row in found.cells)  # pairs within a class
    rows, columns = (names, names) if diagonal else (names[1:], names[:-1])
    left = min(110, 12 + max(map(len, names)) * 6.8)
    cell = (CHART_WIDTH - left - 4) / len(columns)
    tall = min(cell, 46.0)
    height = round(tall * len(rows) + 34)
    most = max((abs(each.mean) for row in found.cells for each in row if each), default=0.0) or 1.0
    parts = []
    for row, name in enumerate(rows):
        parts.append(_text(left - 6, tall * row + tall / 2 + 8, _short(name, 15), "end"))
        for column, each in enumerate(found.cells[names.index(name)]):
            place = left + cell * column, tall * row + 4
            if each is None:
                continue
            words = f"{name} – {names[column]}: {figure(each.mean)} ({each.pairs:,} {pairs})"
            parts += _cell(place, (cell - 2, tall - 2), each, each.mean / most, words, signed=signed)
    for column, name in enumerate(columns):
        if cell >= 7 * len(name) or len(names) <= 8:
            middle = left + cell * (column + 0.5)
            parts.append(_text(middle, tall * len(rows) + 18, _short(name, max(3, int(cell / 6.4))), "middle"))
    return _svg(height, title, parts)


def boxes(found: Sequence[Spread], title: str, x: str, y: str) -> Markup:
    """Quartiles, range and mean of groups on an ordered axis."""
    height = 240
    low, high = min(0.0, *(each.minimum for each in found)), max(each.maximum for each in found)
    high = high if high > low else low + 1.0
    step = (CHART_WIDTH - _LEFT - _RIGHT) / len(found)

    def up(value: float) -> float:
        return height - _BOTTOM - 12 - (value - low) / (high - low) * (height - _BOTTOM - _TOP - 14)

    parts = [_grid(up(tick), _label(tick)) for tick in _ticks(low, high, 5)]
    for place, each in enumerate(found):
        middle, half = _LEFT + step * (place + 0.5), min(18.0, step * 0.32)
        words = f"{each.name}: {figure(each.mean)}; {figure(each.minimum)} – {figure(each.maximum)}; {each.pairs:,}"
        ends = up(each.maximum), up(each.minimum)
        parts.append(f'<line class="range" x1="{middle:.1f}" x2="{middle:.1f}" y1="{ends[0]:.1f}" y2="{ends[1]:.1f}"/>')
        upper, lower = up(each.upper_quartile), up(each.lower_quartile)
        parts.append(_rect(middle - half, upper, 2 * half, max(1.5, lower - upper), "bar", words))
        at = up(each.median)
        left, right = middle - half, middle + half
        parts.append(f'<line class="median" x1="{left:.1f}" x2="{right:.1f}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<circle class="mean" cx="{middle:.1f}" cy="{up(each.mean):.1f}" r="3.5"/>')
        parts.append(_text(middle, height - 36, each.name, "middle", "axis"))
        parts.append(_text(middle, height - 22, f"n={each.pairs:,}", "middle", "axis"))
    parts += _names(height, x, y)
    return _svg(height, title, parts)


def lines(series: Sequence[Series], names: Sequence[str], title: str, x: str, y: str, *, percent: bool) -> Markup:
    """Values at checkpoints."""
    values = [value for each in series for value in each.values if not math.isnan(value)]
    named = [each for each in series if each.name]
    height, legend = 232 + 15 * len(named), 15 * len(named)
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    low, high = (max(0.0, low - 0.02), min(1.0, high + 0.01)) if percent else (min(0.0, low), high)
    high = high if high > low else low + 1.0

    def across(place: int) -> float:
        return _LEFT + 8 + place / max(1, len(names) - 1) * (CHART_WIDTH - _LEFT - _RIGHT - 16)

    def up(value: float) -> float:
        return height - _BOTTOM - (value - low) / (high - low) * (height - _BOTTOM - _TOP - 6 - legend)

    shown: Callable[[float], str] = (lambda value: f"{value:.4g}%") if percent else _label
    scale = 100 if percent else 1
    parts = [_grid(up(tick / scale), shown(tick)) for tick in _ticks(low * scale, high * scale, 5)]
    for each in series:
        points = [(across(place), up(value)) for place, value in enumerate(each.values) if not math.isnan(value)]
        if not each.hollow and len(points) > 1:
            path = " ".join(f"{left:.1f},{top:.1f}" for left, top in points)
            parts.append(f'<polyline class="line {each.kind}" points="{path}"/>')
        if each.kind != "thin":
            kind = f"{'hollow' if each.hollow else 'point'} {each.kind}"
            radius = 6 if each.hollow else 3
            parts += [f'<circle class="{kind}" cx="{at:.1f}" cy="{top:.1f}" r="{radius}"/>' for at, top in points]
    for place, each in enumerate(named):
        kind = f"{'hollow' if each.hollow else 'point'} {each.kind}"
        parts.append(f'<circle class="{kind}" cx="{_LEFT + 6}" cy="{10 + 15 * place}" r="4"/>')
        parts.append(_text(_LEFT + 16, 14 + 15 * place, each.name, "start"))
    every = max(1, math.ceil(len(names) / 8))
    shared = _common(names)
    for place, name in enumerate(names):
        if place % every == 0:
            parts.append(_below(height, across(place), _short(name.removeprefix(shared).removesuffix(".pt"), 8)))
    parts += _names(height, x, y)
    return _svg(height, title, parts)


# Parts


def _svg(height: float, title: str, parts: Sequence[str]) -> Markup:
    words, inner = escape(title), "".join(parts)
    box = f'class="chart" viewBox="0 0 {CHART_WIDTH} {height:.0f}" role="img" aria-label="{words}"'
    return Markup(f"<svg {box}><title>{words}</title>{inner}</svg>")


def _text(x: float, y: float, words: str, anchor: str, kind: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{named}>{escape(words)}</text>'


def _rect(x: float, y: float, width: float, height: float, kind: str, words: str) -> str:
    size = f'width="{width:.1f}" height="{height:.1f}"'
    return f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" {size}><title>{escape(words)}</title></rect>'


def _grid(y: float, words: str) -> str:
    line = f'<line class="grid" x1="{_LEFT}" x2="{CHART_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
    return line + _text(_LEFT - 5, y + 4, words, "end", "axis")


def _below(height: float, x: float, words: str) -> str:
    half = 4 * len(words)  # so that the last one does not leave the chart
    return _text(min(x, CHART_WIDTH - half), height - _BOTTOM + 16, words, "middle", "axis")


def _names(height: float, x: str, y: str) -> list[str]:
    """The names of both axes."""
    middle = (height - _BOTTOM) / 2
    upright = f'<text class="axis" transform="translate(11 {middle:.0f}) rotate(-90)" text-anchor="middle">'
    return [_text((_LEFT + CHART_WIDTH) / 2, height - 6, x, "middle", "axis"), f"{upright}{escape(y)}</text>"]


def _cell(
    place: tuple[float, float], size: tuple[float, float], each: Cell, share: float, words: str, *, signed: bool
) -> list[str]:
    """A cell of a heat map, its text black or white, whichever has more contrast."""
    red, green, blue = _shade(share, signed=signed)
    dark = 0.2126 * _linear(red) + 0.7152 * _linear(green) + 0.0722 * _linear(blue) < 0.18
    ink = "#ffffff" if dark else "#000000"
    box = f'x="{place[0]:.1f}" y="{place[1]:.1f}" width="{size[0]:.1f}" height="{size[1]:.1f}" rx="3"'
    parts = [f'<g><title>{escape(words)}</title><rect {box} fill="rgb({red},{green},{blue})"/>']
    if size[0] >= 36 and size[1] >= 28:
        middle, centre = place[0] + size[0] / 2, place[1] + size[1] / 2
        for shift, text in ((-2, _brief(each.mean)), (12, f"n={each.pairs:,}")):
            parts.append(
                f'<text x="{middle:.1f}" y="{centre + shift:.1f}" text-anchor="middle" style="fill:{ink}">{text}</text>'
            )
    return [*parts, "</g>"]


def _brief(value: float) -> str:
    """A number in six signs at most, for a small place."""
    for shown in (figure(value), f"{value:.2g}"):
        if len(shown) <= 6:
            return shown.replace("-", "−")
    return f"{value:.0e}".replace("e-0", "e-").replace("-", "−").replace("e+0", "e")


def _shade(share: float, *, signed: bool) -> tuple[int, int, int]:
    """From near white to blue for 0 to 1, and to red for 0 to −1."""
    pale, blue, red = (238, 242, 247), (24, 78, 140), (166, 58, 16)
    end = red if signed and share < 0 else blue
    weight = min(1.0, abs(share)) ** 0.7
    first, second, third = (round(a + (b - a) * weight) for a, b in zip(pale, end, strict=True))
    return first, second, third


def _linear(channel: int) -> float:
    share = channel / 255
    return float(share / 12.92 if share <= 0.03928 else ((share + 0.055) / 1.055) ** 2.4)


def _ticks(low: float, high: float, most: int) -> list[float]:
    """At most about `most` round values from `low` to `high`."""
    if not high > low:
        return [low]
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(each * power for each in _ROUND if each * power * most >= (high - low) * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [place * step for place in range(first, last + 1)]


def _label(tick: float) -> str:
    """A round value of an axis, without digits that say nothing."""
    shown = f"{tick:,.10g}"
    if len(shown) > 7 or (tick and abs(tick) < 1e-3):
        mantissa, _, power = f"{tick:.2e}".partition("e")
        shown = f"{float(mantissa):g}e{int(power)}"
    return shown.replace("-", "−")


def _short(name: str, most: int) -> str:
    """A name shortened in its middle."""
    if len(name) <= most:
        return name
    head = (most - 1) // 2
    return f"{name[:head]}…{name[-(most - 1 - head) :]}"


def _common(names: Sequence[str]) -> str:
    """The common start of names, up to its last `_`."""
    first, last = min(names, default=""), max(names, default="")
    same = next((place for place, sign in enumerate(first) if last[place : place + 1] != sign), 0)
    return first[: first[:same].rfind("_") + 1]

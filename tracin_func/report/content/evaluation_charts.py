"""The figures of an evaluation as one SVG picture."""

from collections.abc import Sequence
from itertools import count
from math import isnan, nan
from typing import NamedTuple

from markupsafe import Markup, escape

from tracin_func.evaluation.datamodelling import Datamodelling
from tracin_func.evaluation.evaluate import EvaluationReport
from tracin_func.evaluation.measures import Interval
from tracin_func.report.content.charts import CHART_WIDTH, standalone

_LEFT, _RIGHT, _ROW = 110, 46, 22


class Bar(NamedTuple):
    """A row of a chart."""

    name: str
    value: Interval


def picture(report: EvaluationReport) -> str:
    """AUC, gain by dropped pairs and datamodelling scores, one chart below the other, with 95% intervals."""
    charts = []
    if report.flips is not None:
        rows = [Bar(row.method, row.auc) for row in report.flips.rows]
        charts.append((f"AUC of {report.flips.planted} planted flips, {len(report.flips.seeds)} draws", rows, 0.5))
    if report.removal is not None:
        removal = report.removal
        for k in sorted({row.k for row in removal.rows}):
            own = [row for row in removal.rows if row.k == k]
            rows = [Bar(row.method, Interval(*(100 * each for each in row.gain))) for row in own]
            charts.append((f"Gain in pair accuracy without {k} pairs, points", rows, 0.0))
    for each in report.datamodelling:
        charts.append((_title(each), [Bar(row.method, row.mean) for row in each.rows], 0.0))
    height, parts = 0, []
    for title, rows, zero in charts:
        parts.append(f'<g transform="translate(0 {height})">{_chart(title, rows, zero)}</g>')
        height += _ROW * (len(rows) + 2)
    words = "Figures of an evaluation with 95% intervals"
    box = f'class="chart" viewBox="0 0 {CHART_WIDTH} {height}" role="img" aria-label="{words}"'
    return standalone(Markup(f"<svg {box}>{''.join(parts)}</svg>")) + "\n"


def _title(found: Datamodelling) -> str:
    return f"LDS, {found.what}: {found.masks} × {len(found.seeds)} retrainings"


def _chart(title: str, rows: Sequence[Bar], zero: float) -> Markup:
    """Bars from `zero` with intervals, the value at the right."""
    ends = [each for row in rows for each in row.value if not isnan(each)]
    low, high = min([zero, *ends]), max([zero, *ends, zero + 1e-9])
    scale = (CHART_WIDTH - _LEFT - _RIGHT) / (high - low)

    def across(value: float) -> float:
        return _LEFT + (value - low) * scale

    parts = [f'<text x="4" y="14" font-weight="600">{escape(title)}</text>']
    for top, row in zip(count(_ROW, _ROW), rows, strict=False):
        middle = top + _ROW / 2
        value = nan if isnan(row.value.value) else row.value.value
        parts.append(f'<text x="{_LEFT - 6}" y="{middle + 4}" text-anchor="end">{escape(row.name)}</text>')
        if isnan(value):
            continue
        start, end = sorted((across(zero), across(value)))
        kind = "bad" if value < zero else "bar"
        parts.append(
            f'<rect class="{kind}" x="{start:.1f}" y="{middle - 6}" width="{max(1, end - start):.1f}" height="12"/>'
        )
        if not isnan(row.value.low):
            left, right = across(row.value.low), across(row.value.high)
            parts.append(f'<line class="whisker" x1="{left:.1f}" x2="{right:.1f}" y1="{middle}" y2="{middle}"/>')
        parts.append(f'<text class="axis" x="{CHART_WIDTH - 2}" y="{middle + 4}" text-anchor="end">{value:.2f}</text>')
    return Markup("".join(parts))

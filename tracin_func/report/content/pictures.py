"""The charts of a report, by name: of the whole, and of each test pair."""

import math
from collections.abc import Sequence

from markupsafe import Markup

from tracin_func.report.content import charts
from tracin_func.report.content.analysis import Analysis, OwnAnalysis, TestAnalysis
from tracin_func.report.content.charts import Series
from tracin_func.report.languages.registry import Say


def of_self(own: OwnAnalysis, say: Say) -> dict[str, Markup]:
    """The charts of self-influence; what is not known has none."""
    score, pairs, mean = say("self_score"), say("pairs"), say("mean_unit")
    found = {
        "distribution": charts.histogram(
            own.distribution, say("distribution"), score, say("pairs_log"), say("mean"), say("median")
        )
    }
    if own.class_pairs:
        found["class_pairs"] = charts.bars(own.class_pairs, say("class_pairs"), mean, pairs)
    if own.heat:
        found["heat"] = charts.heat_map(own.heat, say("heat"), pairs, signed=False)
    if own.differences:
        across = say("difference_axis", unit=own.unit) if own.unit else say("difference_plain")
        found["difference"] = charts.boxes(own.differences, say("difference"), across, score)
    if own.steps:
        found["steps"] = _steps(own, say)
    return found


def _steps(own: OwnAnalysis, say: Say) -> Markup:
    thin = [
        Series(say("steps_hard") if place == 0 else "", scores, "thin") for place, (_, scores) in enumerate(own.lines)
    ]
    means = Series(say("steps_mean"), [each.mean for each in own.steps], "first")
    names = [each.name for each in own.steps]
    return charts.lines([means, *thin], names, say("steps"), say("step"), say("self_score"), percent=False)


def of_test(test: TestAnalysis, say: Say) -> dict[str, Markup]:
    """The charts of influence on a test pair; none where every score is 0."""
    if test.zero:
        return {}
    title = f"{say('distribution')}: {test.name}"
    words = say("influence"), say("pairs_log"), say("mean"), say("median")
    found = {"distribution": charts.histogram(test.distribution, title, *words)}
    if test.heat:
        found["heat"] = charts.heat_map(test.heat, f"{say('test_heat')}: {test.name}", say("pairs"), signed=True)
    return found


def of_accuracy(analysis: Analysis, say: Say) -> Markup | None:
    """Pair accuracy by checkpoint beside what the training recorded; None where it is unknown."""
    rows = analysis.checkpoints
    series = [
        Series(say(f"accuracy_{name}"), _known([getattr(row, name) for row in rows]), kind, name.endswith("recorded"))
        for name, kind in (
            ("train", "first"),
            ("test", "second"),
            ("train_recorded", "first"),
            ("test_recorded", "second"),
        )
    ]
    series = [each for each in series if not all(map(math.isnan, each.values))]
    if not series:
        return None
    names = [row.name for row in rows]
    return charts.lines(series, names, say("accuracy"), say("step"), say("accuracy_axis"), percent=True)


def _known(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]

"""What an evaluation shows, in sentences: who wins, and where nothing does."""

from collections.abc import Iterator

from tracin_func.evaluation.datamodelling import Datamodelling
from tracin_func.evaluation.evaluate import EvaluationReport
from tracin_func.evaluation.flips import Flips
from tracin_func.evaluation.measures import Interval
from tracin_func.evaluation.removal import ORACLE, Removal


def conclusions(report: EvaluationReport) -> list[str]:
    """One or two sentences per part. A lead whose interval holds 0 is no lead."""
    found: list[str] = []
    baselines = {name for name, each in report.methods.items() if each.is_baseline}
    if report.flips is not None:
        found += _of_flips(report.flips, baselines)
    if report.removal is not None:
        found += _of_removal(report.removal, baselines)
    for each in report.datamodelling:
        found += _of_subsets(each)
    return found


def in_figures(interval: Interval, decimals: int = 2, *, signed: bool = False, percent: bool = False) -> str:
    """A figure with its interval: 0.51 (0.44 to 0.58)."""
    sign, scale, unit = "+" if signed else "", 100 if percent else 1, "%" if percent else ""
    value, low, high = (f"{scale * each:{sign}.{decimals}f}" for each in interval)
    alone = interval.low != interval.low
    return f"{value}{unit}" if alone else f"{value}{unit} ({low} to {high})"


def _of_flips(flips: Flips, baselines: set[str]) -> Iterator[str]:
    best = {
        kind: max((row for row in flips.rows if (row.method in baselines) is kind), key=lambda row: row.auc.value)
        for kind in {row.method in baselines for row in flips.rows}
    }
    if len(best) < 2 or flips.ahead is None:
        return
    ours, plain, ahead = best[False].method, best[True].method, in_figures(flips.ahead, 3, signed=True)
    if flips.ahead.low > 0:
        yield f"Planted flips: {ours} finds them better than {plain} (AUC {ahead})."
    elif flips.ahead.high < 0:
        yield f"Planted flips: plain loss wins; {plain} finds them better than {ours} (AUC of {ours} {ahead})."
    else:
        yield f"Planted flips: {ours} and {plain} are tied (AUC {ahead}); plain loss is the cheaper one."


def _of_removal(removal: Removal, baselines: set[str]) -> Iterator[str]:
    rows = [row for row in removal.rows if row.method != ORACLE]
    best = max(rows, key=lambda row: row.gain.value)
    gain = f"{in_figures(best.gain, 1, signed=True, percent=True)} pair accuracy"
    dropped = f"{best.method} with {best.k:,} pairs dropped"
    if not best.helps:
        chance = f"within chance for the best of {len(rows)}"
        yield f"Removal: nothing dropped wins; the best ranking, {dropped}, gains {gain}, {chance}."
        return
    yield f"Removal: {dropped} gains {gain}, beyond chance for the best of {len(rows)}."
    plain = max((row for row in rows if row.method in baselines), key=lambda row: row.gain.value, default=None)
    ours = max((row for row in rows if row.method not in baselines), key=lambda row: row.gain.value, default=None)
    if plain is None or ours is None or removal.ahead is None:
        return
    ahead = in_figures(removal.ahead, 1, signed=True, percent=True)
    if removal.ahead.high < 0:
        yield f"Removal: plain loss wins; {plain.method} does better than {ours.method} ({ours.method} {ahead})."
    elif not removal.ahead.low > 0:
        yield f"Removal: {ours.method} and {plain.method}, which needs no gradients, are tied ({ahead})."


def _of_subsets(found: Datamodelling) -> Iterator[str]:
    sure = [row for row in found.rows if row.mean.low > 0]
    if not found.rows:
        return
    best = max(found.rows, key=lambda row: row.mean.value)
    name = found.what[0].upper() + found.what[1:]
    if not sure:
        yield f"{name}: no score foresees retraining beyond chance ({found.masks} subsets)."
        return
    yield f"{name}: {best.method} foresees retraining best, LDS {in_figures(best.mean)}."
    if best.lead is not None and best.lead.holds(0):
        yield f"{name}: its lead over {found.rows[0].method} may be chance."

"""The scores of a report beside those of another file, as sentences and tables of words."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tracin_func.errors import InputError
from tracin_func.report.content.charts import figure
from tracin_func.report.content.evidence import Evidence
from tracin_func.report.content.sentences import named, percent
from tracin_func.report.languages.registry import Say
from tracin_func.results.agreement import OVERVIEW, Agreement, Overlap
from tracin_func.results.comparison import Comparison, compare
from tracin_func.results.views import CLASS_PAIR

ROWS = 10  # of each table
_STEP = "Choose one of each with `column`, given twice."  # a report compares what both files have


class Rows(NamedTuple):
    """A table of words; the first `names` cells of a row are ids."""

    heading: str
    about: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    names: int


class Compared(NamedTuple):
    """What a comparison says."""

    sentences: tuple[str, ...]
    tables: tuple[Rows, ...]


def compared_with(evidence: Evidence, other: Path) -> Comparison:
    """The comparison of the first file of a report that has a column in common with `other`.

    Raises:
        InputError: none has, or `other` cannot be read.
    """
    faults = []
    for path in evidence.files:
        try:
            return compare(path, other)
        except InputError as error:
            faults.append(str(error))
    raise InputError(faults[0].replace(_STEP, "Compare scores of the same kind."))


def comparison(found: Comparison, evidence: Evidence, other: Path, say: Say) -> Compared:
    """What changed from the scores of the report to those of the other file."""
    whole = found.whole
    sentences = [say("compare_file", file=named(str(other)))]
    if found.identical:
        return Compared((*sentences, say("compare_identical")), ())
    tables = [_overview(found.agreements, say)] if len(found.agreements) > 1 else []
    if whole is None:
        return Compared((*sentences, say("compare_no_sum")), tuple(tables))
    if len(found.agreements) > 1:
        sentences.append(say("compare_sum", count=len(found.agreements)))
    here, there = whole.only
    words = {"count": f"{len(whole.pairs):,}", "here": f"{here:,}", "there": f"{there:,}"}
    sentences.append(say("compare_pairs", **words))
    if whole.correlation is None:
        return Compared((*sentences, say("compare_undefined")), tuple(tables))
    sentences.append(say("compare_correlation", correlation=_signed(whole.correlation)))
    tables += [_tops(whole, say), _moves(found, whole, say), _shifts(found, evidence, say)]
    return Compared(tuple(sentences), tuple(each for each in tables if each.rows))


def _overview(agreements: Sequence[Agreement], say: Say) -> Rows:
    heads = say("column"), say("pairs"), say("compare_rank"), say("compare_highest", top=OVERVIEW)
    rows = [(each.name, f"{len(each.pairs):,}", _correlation(each), _share(each.highest)) for each in agreements]
    return Rows(say("compare_columns"), "", heads, tuple(rows[:ROWS]), 1)


def _tops(whole: Agreement, say: Say) -> Rows:
    heads = say("compare_top"), say("pairs"), say("compare_shared"), say("compare_chance")
    sides = [(say("compare_highest", top=each.asked), each) for each in whole.highest]
    sides += [(say("compare_lowest", top=each.asked), each) for each in whole.lowest]
    rows = [
        (name, f"{each.top:,}", percent(each.shared / each.top), percent(each.chance / each.top))
        for name, each in sides
    ]
    return Rows(say("compare_tops"), say("compare_tops_about"), heads, tuple(rows), 0)


def _moves(found: Comparison, whole: Agreement, say: Say) -> Rows:
    heads = say("first"), say("second"), say("compare_here"), say("compare_there"), say("compare_change")
    rows = []
    for each in whole.moves()[:ROWS]:
        first, second = found.items.get(each.pair, (each.pair, ""))
        rows.append((first, second, _rank(each.first_rank), _rank(each.second_rank), _moved(each.change)))
    return Rows(say("compare_moves"), say("compare_moves_about"), heads, tuple(rows), 2)


def _shifts(found: Comparison, evidence: Evidence, say: Say) -> Rows:
    heads = say("class"), say("pairs"), say("compare_here"), say("compare_there"), say("compare_change")
    try:
        shifts = found.by(CLASS_PAIR, classes={**evidence.classes, **found.classes})
        shifts = [each for each in shifts if each.change]
    except InputError:  # no classes
        shifts = []
    rows = [
        (each.name, f"{each.pairs:,}", figure(each.first_rank), figure(each.second_rank), _tenths(each.change))
        for each in shifts[:ROWS]
    ]
    return Rows(say("compare_classes"), say("compare_classes_about"), heads, tuple(rows), 1)


def _share(overlaps: Sequence[Overlap]) -> str:
    return next((percent(each.shared / each.top) for each in overlaps if each.asked == OVERVIEW), "–")


def _correlation(each: Agreement) -> str:
    return "–" if each.correlation is None else _signed(each.correlation)


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def _rank(rank: float) -> str:
    return f"{rank:,.1f}".removesuffix(".0")


def _moved(change: float) -> str:
    return _tenths(change).removesuffix(".0")


def _tenths(change: float) -> str:
    return f"{change:+,.1f}".replace("-", "−")

"""The table of all pairs as compact JSON, which the page sorts, searches and shows a part of; packed if it is large."""

import base64
import json
import zlib
from collections.abc import Mapping
from typing import Any

from tracin_func.report.content.analysis import Analysis
from tracin_func.report.content.evidence import KNOWN_FACTS, Values
from tracin_func.report.languages.registry import Say
from tracin_func.results.views import SCORE, in_order

DIGITS = 5  # of every number
FEWER_DIGITS = 3  # of a table of many pairs: those that are shown
MANY = 20_000  # pairs
_PACKED = 500_000  # letters of JSON beyond which it is packed
MOST_CELLS = 1_000_000  # of influences on single test pairs; beyond, their sum alone is in the table

_SCRIPT = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}  # what could end a script element


def table(analysis: Analysis, say: Say) -> dict[str, Any]:
    """Items by position, pairs as positions of items, and a column of numbers per kind of score and fact."""
    evidence = analysis.evidence
    pairs = _ordered(analysis)
    items = dict.fromkeys(item for pair in pairs for item in evidence.items.get(pair, ()))
    place = {item: position for position, item in enumerate(items)}
    both = [evidence.items.get(pair) for pair in pairs]
    digits = FEWER_DIGITS if len(pairs) > MANY else DIGITS
    named = all(each is not None and "_".join(each) == pair for each, pair in zip(both, pairs, strict=True))
    return {
        "items": list(items),
        "classes": [evidence.classes.get(item, "") for item in items] if evidence.classes else [],
        "first": [-1 if each is None else place[each[0]] for each in both],
        "second": [-1 if each is None else place[each[1]] for each in both],
        "ids": [] if named else list(pairs),
        "columns": [
            {"title": title, "name": name, "values": [_short(values.get(pair), digits) for pair in pairs]}
            for name, title, values in _columns(analysis, pairs, say)
        ],
    }


def as_script(value: Any) -> str:
    """JSON that can be put into a script element, whatever texts it holds."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for sign, escaped in _SCRIPT.items():
        text = text.replace(sign, escaped)
    return text


def packed(script: str) -> tuple[str, str]:
    """JSON for a script element and its type: as it is, or deflated and in base64, which every later browser reads."""
    if len(script) < _PACKED:
        return script, "application/json"
    return base64.b64encode(zlib.compress(script.encode(), 9)).decode("ascii"), "application/deflate"


def _ordered(analysis: Analysis) -> list[str]:
    """All pairs, the largest self-influence first, as the table shows them at first."""
    evidence = analysis.evidence
    if evidence.own is None:
        return list(evidence.pairs)
    scored = in_order(evidence.own.values, SCORE)
    return [*scored, *(pair for pair in evidence.pairs if pair not in evidence.own.values)]


def _columns(analysis: Analysis, pairs: list[str], say: Say) -> list[tuple[str, str, Mapping[str, float]]]:
    """Name, title and values of each column."""
    evidence = analysis.evidence
    found: list[tuple[str, str, Mapping[str, float]]] = []
    if evidence.own is not None:
        found.append(("self", say("self_score"), evidence.own.values))
    columns = [column for column in evidence.tests if column.values]
    if len(columns) > 1:
        found.append(("sum", say("influence_sum"), _sum([column.values for column in columns])))
    found += [
        (name, say(name), evidence.facts[name]) for name in KNOWN_FACTS if name in evidence.facts and name != "target"
    ]
    if len(columns) * len(pairs) <= MOST_CELLS:
        found += [("test", say("influence_on", test=column.test), column.values) for column in columns]
    return found


def _sum(columns: list[Values]) -> Values:
    total: Values = {}
    for column in columns:
        for pair, value in column.items():
            total[pair] = total.get(pair, 0.0) + value
    return total


def _short(value: float | None, digits: int) -> float | int | None:
    if value is None:
        return None
    rounded = float(f"{value:.{digits}g}")
    return int(rounded) if rounded == int(rounded) and abs(rounded) < 1e15 else rounded

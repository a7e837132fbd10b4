"""What to record, weight or check next, as kinds with figures; each language has a sentence per kind."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from tracin_func.report.content.spread import Spread
from tracin_func.results.views import CLASS_PAIR, ITEM

# In this order: recording helps most where pairs are few, labels come before weights where they may be wrong.
ADVICE_KINDS = _FEW, _HIGH, _WRONG, _LISTEN, _NOTHING, _HELPED, _HURT = (
    *("few", "high", "wrong", "listen", "nothing"),
    *("helped", "hurt"),
)
_MOST = 3  # sentences of a kind

_FEW_SHARE = 0.6  # of the median number of pairs per class pair, below which pairs are few
_HIGH_TIMES = 1.5  # times the mean of all pairs: hard
_LISTEN_TIMES = 2.0  # times the mean of all pairs: an item to listen to or look at
_TAUGHT = 0.01  # of the mean of all pairs, below which pairs teach nothing
_LEAST_PAIRS = 3  # of an item that is judged by its mean


class Advice(NamedTuple):
    """A kind of advice about a group of pairs; `overall` is the mean of all, `usual` the median number of pairs."""

    kind: str
    group: Spread
    overall: float
    usual: float


def advise(meaning: str, scores: Sequence[float], views: Mapping[str, Sequence[Spread]]) -> list[Advice]:
    """What follows from scores of the meaning `self` or `influence`, in the order of `ADVICE_KINDS`."""
    if not scores:
        return []
    overall = sum(scores) / len(scores)
    found = _of_self(overall, views) if meaning == "self" else _of_influence(views[CLASS_PAIR])
    usual = statistics.median([each.pairs for each in views[CLASS_PAIR]] or [0])
    listed = [Advice(kind, group, overall, usual) for kind, group in found]
    return [each for kind in ADVICE_KINDS for each in [one for one in listed if one.kind == kind][:_MOST]]


def _of_self(overall: float, views: Mapping[str, Sequence[Spread]]) -> Iterator[tuple[str, Spread]]:
    class_pairs = views[CLASS_PAIR]
    usual = statistics.median([each.pairs for each in class_pairs] or [0])
    for group in class_pairs:
        if group.pairs < _FEW_SHARE * usual and group.mean > overall:
            yield _FEW, group
        elif group.mean >= _HIGH_TIMES * overall > 0:
            yield _HIGH, group
        elif group.mean < _TAUGHT * overall:
            yield _NOTHING, group
    pairs = sum(each.pairs for each in class_pairs)
    wrong = sum((each.wrong or 0.0) * each.pairs for each in class_pairs) / max(1, pairs)
    for group in sorted(class_pairs, key=lambda each: each.wrong or 0.0, reverse=True):
        if group.wrong and group.wrong > wrong:
            yield _WRONG, group
    for group in views[ITEM]:
        if group.pairs >= _LEAST_PAIRS and group.mean >= _LISTEN_TIMES * overall > 0:
            yield _LISTEN, group


def _of_influence(class_pairs: Sequence[Spread]) -> Iterator[tuple[str, Spread]]:
    for group in class_pairs:
        if group.mean > 0:
            yield _HELPED, group
    for group in reversed(class_pairs):
        if group.mean < 0:
            yield _HURT, group
        elif group.zero_share == 1:
            yield _NOTHING, group

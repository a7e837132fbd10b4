"""Short calls for tests: settings in one list of keywords, whatever object of the package takes them."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import tracin_func as ti
from tracin_func.scoring import accuracy, fill, forecast, verify
from tracin_func.scoring import score as scoring
from tracin_func.scoring import self_influence as self_influence_of
from tracin_func.scoring.score import Scores as Scores

_METHOD = {field.name for field in fields(ti.Method)}
_OBSERVER = {field.name for field in fields(ti.Observer)}


@dataclass(frozen=True)
class How:
    """Method, compute and observer of a call."""

    method: ti.Method
    compute: ti.Compute
    observer: ti.Observer

    @property
    def keywords(self) -> Mapping[str, Any]:
        return {"method": self.method, "compute": self.compute, "observer": self.observer}


def how(*compute: Any, **settings: Any) -> How:
    """Each setting where it belongs; positional ones are those of `Compute`."""
    method = {name: value for name, value in settings.items() if name in _METHOD}
    observer = {name: value for name, value in settings.items() if name in _OBSERVER}
    own = {name: value for name, value in settings.items() if name not in {*method, *observer}}
    return How(ti.Method(**method), ti.Compute(*compute, **own), ti.Observer(**observer))


def but(by: How, **settings: Any) -> How:
    """The same with other settings."""
    return How(*(_but(part, settings) for part in (by.method, by.compute, by.observer)))


def _but(part: Any, settings: Mapping[str, Any]) -> Any:
    own = {field.name for field in fields(part)}
    return replace(part, **{name: value for name, value in settings.items() if name in own})


def score(task: ti.Task, by: How | None = None, **asked: Any) -> Scores:
    by = by or how()
    return scoring.score(task, by.method, by.compute, by.observer, **asked)


_TASK = ("loss", "item_ids", "joint")


def self_influence(scorer: Any, items: Any, pairs: ti.Pairs, checkpoints: Any, **settings: Any) -> ti.SelfInfluence:
    own = {name: settings.pop(name) for name in _TASK if name in settings}
    return ti.self_influence(ti.Task(scorer, items, pairs, checkpoints, **own), **how(**settings).keywords)


def influence(
    scorer: Any, items: Any, train_pairs: ti.Pairs, test_pairs: ti.Pairs, checkpoints: Any, **settings: Any
) -> ti.Influence:
    own = {name: settings.pop(name) for name in _TASK if name in settings}
    task = ti.Task(scorer, items, train_pairs, checkpoints, test_pairs, **own)
    return ti.influence(task, **how(**settings).keywords)


def verified(task: ti.Task, by: How, scores: Scores, n: int, seed: int = 0) -> Any:
    result = scores.self_influence
    if scores.influence is not None:
        result = replace(scores.influence, self_influence=scores.self_influence)
    return verify.verify(task, result, n=n, seed=seed, compute=by.compute, observer=by.observer)


def filled(task: ti.Task, by: How, **asked: Any) -> Any:
    return fill.fill_store(task, by.compute, method=by.method, observer=by.observer, **asked)


def foreseen(task: ti.Task, by: How, **asked: Any) -> forecast.Forecast:
    return forecast.forecast(task, **asked, **by.keywords)


def selected(task: ti.Task, by: How, way: str, count: int | None, seed: int) -> ti.Pairs:
    return accuracy.select_test_pairs(task, by.method, by.compute, way, count, seed, by.observer)


def query(task: ti.Task, by: How, pairs: ti.Pairs | ti.PairTable, k: int) -> Any:
    return ti.top_influences(replace(task, train=pairs), k=k, **by.keywords)


def query_self(task: ti.Task, by: How, pairs: ti.Pairs | ti.PairTable) -> Any:
    return self_influence_of.query_self(
        replace(task, train=pairs), by.method, by.compute, by.observer, by.observer.progress
    )

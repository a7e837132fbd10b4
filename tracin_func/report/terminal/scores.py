"""What a run prints: the scores first, and in three lines how they are read; the details where they are asked for."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from tracin_func.report.terminal.tables import (
    Column,
    figure_form,
    figures,
    influence_style,
    item_columns,
    open_console,
    print_facts,
    print_line,
    print_table,
    print_words,
)
from tracin_func.report.terminal.views import print_groups
from tracin_func.results.frame import PairRecord
from tracin_func.results.influence import Influence, SelfInfluence
from tracin_func.results.listing import Estimate, Ranked
from tracin_func.results.names import counted
from tracin_func.results.run import Run
from tracin_func.results.top import StreamedSelfInfluence, TopInfluences
from tracin_func.results.views import PAIR, SCORE, groups, items_named, items_of_ids
from tracin_func.scoring.queries import is_own_ranking
from tracin_func.sources.registry import classes_of_ids
from tracin_func.task.task import Task

_STEP = {"none": "SGD", "adam": "Adam"}
_HELPED = {"loss": "lowered the loss of the test pair", "score-margin": "raised the score margin of the test pair"}
_OWN = "own ranking"  # of the model, in place of a target that is known
_GHM = "GHM hides label errors: to look for these, add --loss-type standard."


def print_self(result: SelfInfluence, by: str, top: int, *, verbose: bool = False) -> None:
    """The hardest pairs beside their rank by plain loss; or the groups of another view."""
    console, seen = open_console(), result.pairs
    if by != PAIR:
        print_words(console, f"Self-influence of {counted(len(result.ids), 'training pair')}", style="bold")
        _print_view(console, seen, result.scores, by, top, signed=False)
    else:
        order = _order(result.scores)[:top]
        loss, weighted = seen.loss.mean(dim=0), bool((seen.weight != 1).any())
        active = (~seen.inactive).sum(dim=0)[order].tolist()
        ranks = torch.tensor(_order(loss)).argsort()[order] + 1
        errors = None if result.standard_error is None else result.standard_error[order].tolist()
        names = item_columns([result.ids[pair] for pair in order], dict(zip(result.ids, seen.items, strict=True)))
        columns = [
            Column("score", _estimates(result.scores[order].tolist(), errors)),
            Column("loss rank", [f"{rank:,}" for rank in ranks.tolist()], drop=1),
            Column("active", [f"{count}/{len(seen.inactive)}" for count in active], drop=2),
            Column("mean loss", figures(loss[order].tolist()), drop=3),
        ]
        if weighted:
            columns.append(Column("weight", figures(seen.weight.mean(dim=0)[order].tolist()), drop=4))
        _print_ranked(console, len(result.ids), [*names, *columns])
        print_words(console, f"Higher score: harder for the model ({_unit(result.run)}).")
        if result.run.loss.get("loss_type") == "ghm":
            print_words(console, _GHM)
    _print_run(console, result.run, seen.inactive.double().mean(), verbose=verbose, pairs=seen)


def print_hardest(result: StreamedSelfInfluence, top: int, *, verbose: bool = False) -> None:
    """The hardest of pairs that were read in blocks."""
    console, rows = open_console(), result.hardest(top)
    pairs = [each.pair for each in rows]
    scores = Column("score", figures([each.score for each in rows]))
    _print_ranked(console, len(result.scores), [*item_columns(pairs, items_of_ids(pairs)), scores])
    print_words(console, f"Higher score: harder for the model ({_unit(result.run)}).")
    inactive = (result.scores == 0).double().mean()
    _print_run(console, result.run, inactive, of="pairs at every checkpoint", verbose=verbose)


def print_influence(result: Influence | TopInfluences, by: str, top: int, *, verbose: bool = False) -> None:
    """For each test pair its strongest proponents and opponents, or the groups of another view."""
    console, zero = open_console(), result.zero_columns
    many = result.strongest.pairs if isinstance(result, TopInfluences) else len(result.ids)
    asked = [test for test in range(len(result.test_ids)) if test not in zero]
    where = "their mean" if result.run.method.aggregate else counted(len(result.test_ids), "test pair")
    print_words(console, f"Influence of {counted(many, 'training pair')} on {where}", style="bold")
    if by != PAIR and isinstance(result, Influence):
        for test in asked:
            print_line(console, f"{result.test_ids[test]}: {_outcome(result, test)}")
            _print_view(console, result.train, result.scores[:, test], by, top, signed=True)
    elif asked:
        _print_sides(console, result, asked, top)
    functional = result.run.method.test_functional
    for test in zero:
        hint = " --test-functional score-margin does not saturate." if functional == "loss" else ""
        what = f"every influence is 0: its {functional.replace('-', ' ')} has gradient 0 at every checkpoint."
        print_words(console, f"{result.test_ids[test]}: {what}{hint}", style="yellow")
    print_words(console, f"Positive: it {_HELPED[functional]} ({_unit(result.run)}).")
    if isinstance(result, TopInfluences):
        _print_run(console, result.run, torch.tensor(result.strongest.inactive), verbose=verbose)
    else:
        _print_run(console, result.run, result.train.inactive.double().mean(), verbose=verbose, pairs=result.train)


def item_classes(task: Task) -> dict[str, str]:
    """The class of each item: the task's, otherwise the one that its id names, if any."""
    ids = [task.item_id(position) for position in range(len(task.items))]
    return classes_of_ids(ids) if task.item_classes is None else dict(zip(ids, task.item_classes, strict=True))


def print_document(command: str, runs: Sequence[Mapping[str, Any]]) -> None:
    """Everything as one JSON document."""
    print(json.dumps({"command": command, "runs": runs}, ensure_ascii=False, indent=2))


def print_plan(engine: Mapping[str, Any]) -> None:
    """What was decided before the first checkpoint is scored; on stderr, as it is no result."""
    console = open_console(stderr=True)
    print_words(
        console,
        f"Plan: engine {engine['engine']} ({engine['gradients']}): {engine['reason']}. Batch size "
        f"{engine['batch_size']} ({engine['batch_size_reason']}), {engine['rows_held']} gradient rows held at a time, "
        f"{engine['expected_bytes'] / 1e6:,.0f} MB expected.",
    )
    parts = engine["parts"]
    if not parts:
        print_words(console, "The gradient of every parameter is computed by the same transform.")
        return
    costs = [part["multiply_adds"] for part in parts]
    columns = [
        Column("parameter", [*(part["parameter"] for part in parts), "all"], left=True),
        Column("form", [*(part["form"] for part in parts), ""], left=True),
        Column("multiply-adds", [f"{cost:,.0f}" for cost in (*costs, sum(costs))]),
        Column("operations", [*(part["operations"] for part in parts), ""], left=True, drop=2),
        Column("why", [*(part["reason"] for part in parts), "per unit and checkpoint"], left=True, drop=1),
    ]
    print_table(console, columns)


def influence_document(result: Influence | TopInfluences, top: int) -> dict[str, Any]:
    """The strongest pairs of each test pair, for `--json`."""
    zero = set(result.zero_columns)
    return {
        test: {
            "zero": place in zero,
            "proponents": [each._asdict() for each in result.proponents(place, top)],
            "opponents": [each._asdict() for each in result.opponents(place, top)],
        }
        for place, test in enumerate(result.test_ids)
    }


def run_document(run: Run) -> dict[str, Any]:
    """A run in short, for `--json`."""
    return {"checkpoints": list(run.checkpoints), "loss": dict(run.loss), "engine": dict(run.engine)}


def _print_ranked(console: Console, pairs: int, columns: Sequence[Column]) -> None:
    print_words(console, f"Hardest training pairs: {counted(pairs, 'pair')}, self-influence", style="bold")
    ranks = Column("#", [str(rank + 1) for rank in range(len(columns[0].cells))])
    print_table(console, [ranks, *columns])


def _print_sides(console: Console, result: Influence | TopInfluences, tests: Sequence[int], top: int) -> None:
    """Each test pair with its proponents and opponents, in one table."""
    sides = [
        (test, name, side(test, top))
        for test in tests
        for name, side in (("proponents", result.proponents), ("opponents", result.opponents))
    ]
    listed = [each.pair for _, _, rows in sides for each in rows]
    if isinstance(result, Influence):
        items = dict(zip(result.ids, result.train.items, strict=True))
        items |= dict(zip(result.test.ids, result.test.items, strict=True))
    else:
        items = items_of_ids([*listed, *result.test_ids])
    form = figure_form([each.score for _, _, rows in sides for each in rows])
    kinds, pairs, scores = [], [], []
    for test, name, rows in sides:
        if name == "proponents":
            own = is_own_ranking(result.run.source, test)
            kinds.append(_OWN if own else "test pair")
            pairs.append(result.test_ids[test])
            scores.append(_measure(result, test) if own else _outcome(result, test))
        for place, each in enumerate(rows):
            kinds.append("" if place else name)
            pairs.append(each.pair)
            scores.append(_estimated(each, form))
    if result.run.method.aggregate is not None:
        items |= {pair: (pair, "") for pair in result.test_ids}
    columns = [
        Column("", kinds, left=True, style=lambda cell: "bold" if cell in (_OWN, "test pair") else ""),
        *item_columns(pairs, items),
        Column("influence", scores, style=influence_style),
    ]
    print_table(console, columns)


def _outcome(result: Influence | TopInfluences, test: int) -> str:
    """Whether the last checkpoint ranks a test pair correctly, and how clearly; its own ranking is not judged."""
    margin = result.test.score_margin[-1]
    if result.run.method.aggregate is not None:
        return f"{int((margin > 0).sum())} of {len(margin)} correct"
    verdict = "correct" if margin[test] > 0 else "wrong"
    return f"{_OWN if is_own_ranking(result.run.source, test) else verdict}, {_measure(result, test)}"


def _measure(result: Influence | TopInfluences, test: int) -> str:
    """The loss or the score margin of a test pair at the last checkpoint, whichever is explained."""
    if result.run.method.test_functional == "loss":
        return f"loss {float(result.test.loss[-1][test]):.3g}"
    return f"margin {float(result.test.score_margin[-1][test]):.3g}"


def _unit(run: Run) -> str:
    """The unit of a score in short; provenance has it at length."""
    method = run.method
    if method.normalize == "cosine":
        return "cosine of the gradients, from -1 to 1"
    if method.checkpoint_weights == "uniform":
        return "without learning rates: an order, no amount"
    return f"first order, per {_STEP[method.preconditioner]} visit"


def _print_view(console: Console, pairs: PairRecord, scores: Tensor, by: str, top: int, *, signed: bool) -> None:
    """Scores of pairs by item, class or pair of classes."""
    items = dict(zip(pairs.ids, pairs.items, strict=True))
    classes = pairs.classes or classes_of_ids(items_named(items))
    found = groups(dict(zip(pairs.ids, scores.tolist(), strict=True)), by, items, classes)
    print_groups(console, found, by, items, sort=SCORE, top=top, signed=signed)


def _print_run(
    console: Console,
    run: Run,
    inactive: Tensor,
    *,
    of: str = "pair-checkpoints",
    verbose: bool,
    pairs: PairRecord | None = None,
) -> None:
    """How the scores came about in a line; with `verbose` in full."""
    engine, projection = run.engine, run.method.projection
    if projection.kind != "none":
        print_words(console, f"± is one standard error: gradients are projected ({projection.kind}).")
    share, seconds = f"{float(inactive):.0%}", f"{engine['seconds']:.1f} s"
    print_words(
        console, f"Inactive (zero gradient): {share} of {of}. Engine {engine['engine']}, {engine['device']}, {seconds}."
    )
    if not verbose:
        return
    facts = {}
    if pairs is not None:
        never = int(pairs.inactive.all(dim=0).sum())
        facts["pairs"] = f"{len(pairs):,} distinct, {int(pairs.count.sum()):,} drawn; {never:,} inactive throughout"
    facts |= {
        "checkpoints": ", ".join(run.names),
        "loss": ", ".join(f"{name} {value}" for name, value in run.loss.items()),
        "engine": f"{engine['engine']} ({engine['gradients']}): {engine['reason']}; batch size {engine['batch_size']}",
    }
    if projection.kind != "none":
        facts["projection"] = f"{projection.kind}, seed {projection.seed}"
    print_facts(console, facts)


def _order(values: Tensor) -> list[int]:
    """Positions from the largest value to the smallest, ties in their order."""
    return torch.sort(values, descending=True, stable=True).indices.tolist()


def _estimates(scores: Sequence[float], errors: Sequence[float] | None) -> list[str]:
    """Scores, with their standard errors where they are estimates."""
    if errors is None:
        return figures(scores)
    form = figure_form(scores)
    return [f"{form(score, False)} ± {error:.2g}" for score, error in zip(scores, errors, strict=True)]


def _estimated(each: Ranked, form: Callable[[float, bool], str]) -> str:
    """A signed score, with its standard error where it is an estimate."""
    return form(each.score, True) + (f" ± {each.standard_error:.2g}" if isinstance(each, Estimate) else "")

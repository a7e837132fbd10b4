"""What a run prints: tables on stdout, as wide as the terminal, with the sentences needed to read them."""

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from tracin_func.report.terminal.tables import WIDE, new_table, open_console, print_words
from tracin_func.report.terminal.views import EFFECTS, folded, print_groups
from tracin_func.results.frame import PairRecord
from tracin_func.results.influence import Influence, SelfInfluence
from tracin_func.results.listing import Estimate, Ranked
from tracin_func.results.run import STEP, Run
from tracin_func.results.top import StreamedSelfInfluence, TopInfluences
from tracin_func.results.views import PAIR, SCORE, groups, items_named
from tracin_func.sources.registry import classes_of_ids
from tracin_func.task.task import Task

_EFFECT_OF_P = {"loss": "lowered the loss", "score-margin": "raised the score margin"}
_MEANINGS = {
    "loss": "influence = Σ_t ⟨∇ℓ_p, η_t ∇ℓ_q⟩: positive where training on p lowered the loss of the test pair q. "
    "Unit: first-order loss change",
    "score-margin": "influence = −Σ_t ⟨∇ℓ_p, η_t ∇m_q⟩, m = y (s_a − s_b): positive where training on p raised the "
    "score margin m of the test pair q. Unit: first-order change of the score margin",
}


def print_self(result: SelfInfluence, by: str, top: int) -> None:
    """The hardest pairs, and beside them where plain loss would have put them; or the groups of another view."""
    console = open_console()
    if by != PAIR:
        print_words(console, f"Self-influence of {len(result.ids)} training pairs")
        _print_view(console, result.pairs, result.scores, by, top, signed=False)
        _print_facts(console, result.run, result.pairs)
        return
    scores, error, seen, steps = result.scores, result.standard_error, result.pairs, len(result.run.checkpoints)
    order = _order(scores)[:top]
    loss, weighted = seen.loss.mean(dim=0), bool((seen.weight != 1).any())
    columns = {
        "rank": [str(rank + 1) for rank in range(len(order))],
        "pair": [_fitting(console, result.ids[pair]) for pair in order],
        "self-influence": [
            f"{scores[pair]:.4g}" + ("" if error is None else f" ± {error[pair]:.2g}") for pair in order
        ],
        "rank by loss": _picked(torch.tensor(_order(loss)).argsort() + 1, order, "d"),
        "mean loss": _picked(loss, order, ".4g"),
    }
    if weighted:
        columns["weight"] = _picked(seen.weight.mean(dim=0), order, ".3g")
    if console.width >= WIDE:
        for heading, where in (("ranked right", seen.score_margin > 0), ("active", ~seen.inactive)):
            columns[heading] = [f"{count} of {steps}" for count in _picked(where.sum(dim=0), order, "d")]
    table = new_table(console, f"Hardest training pairs by self-influence ({len(result.ids)} pairs)", [*columns])
    for row in zip(*columns.values(), strict=True):
        table.add_row(*row)
    console.print(table)
    preconditioner = result.run.method.preconditioner
    formula = "Σ_t η_t ‖√P_t ∇ℓ‖²" if preconditioner == "adam" else "Σ_t η_t ‖∇ℓ‖²"
    console.print(
        f"self-influence = {formula}, summed over checkpoints: large for pairs the model finds hard. Unit: first-order "
        f"loss change per visit with {STEP[preconditioner]}. The rank by plain loss (mean over checkpoints) stands "
        "beside it as the baseline."
    )
    if weighted:
        console.print(
            "The loss is weighted (mean over checkpoints: weight). GHM weights are small where many pairs are equally "
            "hard, so mislabelled pairs can stand low; --loss-type standard scores without weights."
        )
    _print_facts(console, result.run, result.pairs)


def print_influence(result: Influence | TopInfluences, by: str, top: int) -> None:
    """For each test pair its strongest proponents and opponents, or the groups of another view."""
    console = open_console()
    functional = result.run.method.test_functional
    zero = set(result.zero_columns)
    scores = result.scores if isinstance(result, Influence) and by != PAIR else None
    for test in range(len(result.test_ids)):
        title = _title(result, test)
        if test in zero:
            _print_zero(console, title, functional)
        elif isinstance(result, Influence) and scores is not None:
            print_words(console, title)
            _print_view(console, result.train, scores[:, test], by, top, signed=True)
        else:
            _print_sides(console, title, EFFECTS[functional], result.proponents(test, top), result.opponents(test, top))
    console.print(_reading(result.run))
    if isinstance(result, TopInfluences):
        inactive = f"{result.strongest.inactive:.0%} of pairs × checkpoints. {result.strongest.pairs:,} pairs"
        _print_run(console, result.run, inactive)
        return
    if zero:
        console.print(f"{len(zero)} of {len(result.test_ids)} test columns are 0 throughout.")
    _print_facts(console, result.run, result.train)


def print_hardest(result: StreamedSelfInfluence, top: int) -> None:
    """The hardest of pairs that were read in blocks."""
    console = open_console()
    title = f"Hardest training pairs by self-influence ({len(result.scores):,} pairs)"
    table = new_table(console, title, ["rank", "pair", "self-influence"])
    for rank, each in enumerate(result.hardest(top), start=1):
        table.add_row(str(rank), _fitting(console, each.pair), f"{each.score:.4g}")
    console.print(table)
    _print_run(console, result.run, f"{float((result.scores == 0).double().mean()):.0%} of pairs at every checkpoint")


def item_classes(task: Task) -> dict[str, str]:
    """The class of each item, where the task tells it, else of each whose id does."""
    ids = [task.item_id(position) for position in range(len(task.items))]
    return classes_of_ids(ids) if task.item_classes is None else dict(zip(ids, task.item_classes, strict=True))


def print_document(command: str, runs: Sequence[Mapping[str, Any]]) -> None:
    """Everything as one JSON document."""
    print(json.dumps({"command": command, "runs": runs}, ensure_ascii=False, indent=2))


def print_plan(engine: Mapping[str, Any]) -> None:
    """What was decided before the first checkpoint is scored; on stderr, as it is no result."""
    console = open_console(stderr=True)
    console.print(
        f"Plan: engine {engine['engine']} ({engine['gradients']}): {engine['reason']}. Batch size "
        f"{engine['batch_size']} ({engine['batch_size_reason']}), {engine['rows_held']} gradient rows held at a time, "
        f"{engine['expected_bytes'] / 1e6:,.0f} MB expected."
    )
    parts = engine["parts"]
    if not parts:
        console.print("Every parameter's gradient is taken by the same transform; there is no form to choose.")
        return
    table = new_table(
        console, "Gradient of each parameter", ["parameter", "operations", "form", "multiply-adds", "why"]
    )
    for part in parts:
        cells = part["parameter"], part["operations"], part["form"], f"{part['multiply_adds']:,.0f}", part["reason"]
        table.add_row(*cells)
    table.add_section()
    table.add_row("all", "", "", f"{sum(part['multiply_adds'] for part in parts):,.0f}", "per unit and checkpoint")
    console.print(table)


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


def _print_zero(console: Console, title: str, functional: str) -> None:
    """A test pair on which no training pair has an influence."""
    console.print(title)
    what = functional.replace("-", " ")
    hint = " --test-functional score-margin does not saturate." if functional == "loss" else ""
    console.print(f"  every influence is 0: its {what} has gradient 0 at every checkpoint.{hint}\n")


def _title(result: Influence | TopInfluences, test: int) -> str:
    """What a test column is of, and how the model does on it."""
    margin, loss = result.test.score_margin[-1], result.test.loss[-1]
    if result.run.method.aggregate is not None:
        right = int((margin > 0).sum())
        return f"Mean of {len(margin)} test pairs, {right} of them ranked right at the last checkpoint"
    verdict = "ranked right" if margin[test] > 0 else "ranked wrong"
    with_loss = f", loss {loss[test]:.4g}" if result.run.method.test_functional == "loss" else ""
    facts = f"score margin {margin[test]:.4g}{with_loss}"
    return f"Test pair {result.test_ids[test]}: {verdict} at the last checkpoint ({facts})"


def _reading(run: Run) -> str:
    """How influence is read: formula, sign and unit."""
    method = run.method
    adam = method.preconditioner == "adam"
    if method.normalize == "cosine":
        effect, weighted = _EFFECT_OF_P[method.test_functional], "√(η P)" if adam else "√η"
        return (
            f"Scores are cosines of the gradients at all checkpoints, {weighted}-weighted, in [-1, 1]: positive where "
            f"training on p {effect} of the test pair q."
        )
    meaning = _MEANINGS[method.test_functional]
    if adam:
        meaning = meaning.replace("η_t", "η_t P_t")
    if method.checkpoint_weights == "uniform":
        return f"{meaning}, without learning rates (η = 1): an order, no amount."
    return (
        f"{meaning} per visit of p with {STEP[method.preconditioner]}; the true change is about score × visits of p "
        "between checkpoints / batch size."
    )


def _print_view(console: Console, pairs: PairRecord, scores: Tensor, by: str, top: int, *, signed: bool) -> None:
    """Scores of pairs by item, class or pair of classes."""
    items = dict(zip(pairs.ids, pairs.items, strict=True))
    classes = pairs.classes or classes_of_ids(items_named(items))
    found = groups(dict(zip(pairs.ids, scores.tolist(), strict=True)), by, items, classes)
    print_groups(console, found, by, items, sort=SCORE, top=top, signed=signed)


def _print_sides(
    console: Console, title: str, effects: tuple[str, str], proponents: Sequence[Ranked], opponents: Sequence[Ranked]
) -> None:
    """Proponents and opponents with their scores beside each other, or one below the other on a narrow terminal."""
    headings = [f"proponents ({effects[0]})", f"opponents ({effects[1]})"]
    cells = [[(each.pair, _scored(each)) for each in side] for side in (proponents, opponents)]
    if console.width >= WIDE:
        table = new_table(console, title, [headings[0], "influence", headings[1], "influence"])
        for both in itertools.zip_longest(*cells, fillvalue=("", "")):
            table.add_row(*(cell for side in both for cell in side))
        console.print(table)
        return
    console.print(title)
    for heading, side in zip(headings, cells, strict=True):
        table = new_table(console, None, [heading, "influence"])
        for name, score in side:
            table.add_row(_fitting(console, name), score)
        console.print(table)


def _print_facts(console: Console, run: Run, pairs: PairRecord) -> None:
    inactive = pairs.inactive
    never = int(inactive.all(dim=0).sum())
    _print_run(
        console,
        run,
        f"{float(inactive.double().mean()):.0%} of pairs × checkpoints; {never} of {len(pairs.ids)} pairs at every "
        f"checkpoint. {int(pairs.count.sum())} draws of {len(pairs.ids)} pairs",
    )


def _print_run(console: Console, run: Run, inactive: str) -> None:
    if (projection := run.method.projection).kind != "none":
        console.print(
            f"Scores are estimates: gradients are projected ({projection.kind}, seed {projection.seed}); ± is "
            "one standard error, over other seeds."
        )
    console.print(f"Inactive (gradient exactly 0, skipped): {inactive}. Checkpoints: {', '.join(run.names)}.")
    engine, loss = run.engine, run.loss
    settings = ", ".join(f"{name} {value}" for name, value in loss.items())
    console.print(
        f"Loss: {settings}. Engine {engine['engine']} ({engine['gradients']}; {engine['reason']}) on "
        f"{engine['device']}, batch size {engine['batch_size']}, {engine['seconds']:.2f} s."
    )


def _fitting(console: Console, pair: str) -> str:
    """The id of a pair, on a narrow terminal an item a line."""
    return pair if console.width >= WIDE else folded(pair)


def _order(values: Tensor) -> list[int]:
    """Positions from the largest value to the smallest, ties in their order."""
    return torch.sort(values, descending=True, stable=True).indices.tolist()


def _picked(values: Tensor, order: Sequence[int], form: str) -> list[str]:
    return [format(value, form) for value in values[order].tolist()]


def _scored(each: Ranked) -> str:
    """A score, with its standard error where it is an estimate."""
    return f"{each.score:+.4g}" + (f" ± {each.standard_error:.2g}" if isinstance(each, Estimate) else "")

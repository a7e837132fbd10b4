"""What a run prints: tables on stdout, as wide as the terminal, with the sentences needed to read them."""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor

from tracin_func.results import Influence, PairRecord, Run, SelfInfluence

PLAIN_WIDTH = 150  # where stdout is no terminal
WIDE = 100  # a narrower terminal gets fewer columns
NAMES = ("pair", "proponents", "opponents", "parameter", "operations", "form", "why")  # headings of words, not numbers

# What a proponent and an opponent did to a test pair, by test functional.
_EFFECTS = {
    "loss": ("lowered its loss", "raised its loss"),
    "score-margin": ("raised its score margin", "lowered its score margin"),
}
_MEANINGS = {
    "loss": "influence = Σ_t ⟨∇ℓ_p, η_t ∇ℓ_q⟩: positive where training on p lowered the loss of the test pair q. "
    "Unit: first-order loss change",
    "score-margin": "influence = −Σ_t ⟨∇ℓ_p, η_t ∇m_q⟩, m = y (s_a − s_b): positive where training on p raised the "
    "score margin m of the test pair q. Unit: first-order change of the score margin",
}


def print_self(result: SelfInfluence, top: int) -> None:
    """The hardest pairs, and beside them where plain loss would have put them."""
    console = _console()
    scores, loss, checkpoints = result.scores, result.pairs.loss.mean(dim=0), len(result.run.checkpoints)
    by_loss, weight = _ranks(loss), result.pairs.weight.mean(dim=0)
    right = (result.pairs.score_margin > 0).sum(dim=0)
    active = (~result.inactive).sum(dim=0)
    weighted = bool((result.pairs.weight != 1).any())
    columns: dict[str, Callable[[int], str]] = {
        "pair": lambda pair: result.ids[pair],
        "self-influence": lambda pair: f"{scores[pair]:.4g}",
        "rank by loss": lambda pair: str(by_loss[pair]),
        "mean loss": lambda pair: f"{loss[pair]:.4g}",
    }
    if weighted:
        columns["weight"] = lambda pair: f"{weight[pair]:.3g}"
    if console.width >= WIDE:
        columns["ranked right"] = lambda pair: f"{int(right[pair])} of {checkpoints}"
        columns["active"] = lambda pair: f"{int(active[pair])} of {checkpoints}"
    table = _table(console, f"Hardest training pairs by self-influence ({len(result.ids)} pairs)", ["rank", *columns])
    for rank, pair in enumerate(_order(scores)[:top], start=1):
        table.add_row(str(rank), *(cell(pair) for cell in columns.values()))
    console.print(table)
    console.print(
        "self-influence = Σ_t η_t ‖∇ℓ‖², summed over checkpoints: large for pairs the model finds hard. Unit: "
        "first-order loss change per visit with SGD. The rank by plain loss (mean over checkpoints) stands beside it "
        "as the baseline.",
        highlight=False,
    )
    if weighted:
        console.print(
            "The loss is weighted (mean over checkpoints: weight). GHM weights are small where many pairs are equally "
            "hard, so mislabelled pairs can stand low; --loss-type standard scores without weights.",
            highlight=False,
        )
    _print_facts(console, result.run, result.pairs)


def print_influence(result: Influence, top: int) -> None:
    """For each test pair its strongest proponents and opponents."""
    console = _console()
    functional = result.run.test_functional
    scores, zero = result.scores, set(result.zero_columns)
    for test, name in enumerate(result.test_ids):
        margin, loss = result.test.score_margin[-1, test], result.test.loss[-1, test]
        verdict = "ranked right" if margin > 0 else "ranked wrong"
        facts = f"score margin {margin:.4g}" + (f", loss {loss:.4g}" if functional == "loss" else "")
        title = f"Test pair {name}: {verdict} at the last checkpoint ({facts})"
        if test in zero:
            console.print(title, highlight=False)
            what = functional.replace("-", " ")
            hint = " --test-functional score-margin does not saturate." if functional == "loss" else ""
            console.print(
                f"  every influence is 0: its {what} has gradient 0 at every checkpoint.{hint}\n",
                highlight=False,
            )
            continue
        column = scores[:, test]
        proponents = [pair for pair in _order(column)[:top] if column[pair] > 0]
        opponents = [pair for pair in _order(-column)[:top] if column[pair] < 0]
        _print_sides(console, title, _EFFECTS[functional], result.ids, column, (proponents, opponents))
    console.print(
        f"{_MEANINGS[functional]} per visit of p with SGD; the true change is about score × visits of p between "
        "checkpoints / batch size.",
        highlight=False,
    )
    if zero:
        console.print(f"{len(zero)} of {len(result.test_ids)} test columns are 0 throughout.", highlight=False)
    _print_facts(console, result.run, result.train)


def print_plan(engine: Mapping[str, Any]) -> None:
    """What was decided before the first checkpoint is scored; on stderr, as it is no result."""
    console = _Pipe(stderr=True) if sys.stderr.isatty() else _Pipe(stderr=True, width=PLAIN_WIDTH)
    console.print(
        f"Plan: engine {engine['engine']} ({engine['gradients']}): {engine['reason']}. Batch size "
        f"{engine['batch_size']} ({engine['batch_size_reason']}), {engine['rows_held']} gradient rows held at a time, "
        f"{engine['expected_bytes'] / 1e6:,.0f} MB expected.",
        highlight=False,
    )
    parts = engine["parts"]
    if not parts:
        console.print("Every parameter's gradient is taken by the same transform; there is no form to choose.")
        return
    table = _table(console, "Gradient of each parameter", ["parameter", "operations", "form", "multiply-adds", "why"])
    for part in parts:
        cells = part["parameter"], part["operations"], part["form"], f"{part['multiply_adds']:,.0f}", part["reason"]
        table.add_row(*cells)
    table.add_section()
    table.add_row("all", "", "", f"{sum(part['multiply_adds'] for part in parts):,.0f}", "per unit and checkpoint")
    console.print(table)


def _print_sides(
    console: Console,
    title: str,
    effects: tuple[str, str],
    ids: Sequence[str],
    column: Tensor,
    sides: tuple[Sequence[int], Sequence[int]],
) -> None:
    """Proponents and opponents beside each other, or one below the other where the terminal is narrow."""
    headings = [f"proponents ({effects[0]})", f"opponents ({effects[1]})"]
    if console.width >= WIDE:
        table = _table(console, title, [headings[0], "influence", headings[1], "influence"])
        for row in range(max(map(len, sides))):
            table.add_row(*(cell for side in sides for cell in _cells(ids, column, side, row)))
        console.print(table)
        return
    console.print(title, highlight=False)
    for heading, side in zip(headings, sides, strict=True):
        table = _table(console, None, [heading, "influence"])
        for row in range(len(side)):
            table.add_row(*_cells(ids, column, side, row))
        console.print(table)


def _table(console: Console, title: str | None, headings: Sequence[str]) -> Table:
    """Names to the left, numbers to the right; on a narrow terminal without the frame."""
    table = Table(title=title, title_justify="left", box=box.HEAVY_HEAD if console.width >= WIDE else box.SIMPLE_HEAD)
    if console.width < WIDE:
        table.padding = (0, 1, 0, 0)
        table.pad_edge = False
    for heading in headings:
        name = heading.startswith(NAMES)
        short = heading.replace(" ", "\n").replace("-", "-\n") if console.width < WIDE and not name else heading
        table.add_column(short, justify="left" if name else "right", overflow="fold")
    return table


def _print_facts(console: Console, run: Run, pairs: PairRecord) -> None:
    inactive = pairs.inactive
    never = int(inactive.all(dim=0).sum())
    console.print(
        f"Inactive (gradient exactly 0, skipped): {float(inactive.double().mean()):.0%} of pairs × checkpoints; "
        f"{never} of {len(pairs.ids)} pairs at every checkpoint. {int(pairs.count.sum())} draws of {len(pairs.ids)} "
        f"pairs. Checkpoints: {', '.join(run.names)}.",
        highlight=False,
    )
    engine, loss = run.engine, run.loss
    settings = ", ".join(f"{name} {value}" for name, value in loss.items())
    console.print(
        f"Loss: {settings}. Engine {engine['engine']} ({engine['gradients']}; {engine['reason']}) on "
        f"{engine['device']}, batch size {engine['batch_size']}, {engine['seconds']:.2f} s.",
        highlight=False,
    )


class _Pipe(Console):
    """A console that leaves a broken pipe to `guarded`: the results are in their files by then."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def _console() -> Console:
    return _Pipe() if sys.stdout.isatty() else _Pipe(width=PLAIN_WIDTH)


def _order(values: Tensor) -> list[int]:
    """Positions from the largest value to the smallest, ties in their order."""
    return torch.sort(values, descending=True, stable=True).indices.tolist()


def _ranks(values: Tensor) -> list[int]:
    ranks = [0] * len(values)
    for rank, position in enumerate(_order(values), start=1):
        ranks[position] = rank
    return ranks


def _cells(ids: Sequence[str], column: Tensor, pairs: Sequence[int], row: int) -> tuple[str, str]:
    return (ids[pairs[row]], f"{column[pairs[row]]:+.4g}") if row < len(pairs) else ("", "")

"""What a run prints: tables on stdout, as wide as the terminal, with the sentences needed to read them."""

import sys
from collections.abc import Sequence

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from tracin_func.results import Influence, PairRecord, Run, SelfInfluence

PLAIN_WIDTH = 150  # where stdout is no terminal


def print_self(result: SelfInfluence, top: int) -> None:
    """The hardest pairs, and beside them where plain loss would have put them."""
    console = _console()
    scores, loss = result.scores, result.pairs.loss.mean(dim=0)
    by_loss = _ranks(loss)
    table = Table(title=f"Hardest training pairs by self-influence ({len(result.ids)} pairs)", title_justify="left")
    for heading in ("rank", "pair", "self-influence", "rank by loss", "mean loss", "ranked right", "active"):
        table.add_column(heading, justify="left" if heading == "pair" else "right", overflow="fold")
    right = (result.pairs.score_margin > 0).sum(dim=0)
    active = (~result.inactive).sum(dim=0)
    checkpoints = len(result.run.checkpoints)
    for rank, pair in enumerate(_order(scores)[:top], start=1):
        table.add_row(
            str(rank),
            result.ids[pair],
            f"{scores[pair]:.4g}",
            str(by_loss[pair]),
            f"{loss[pair]:.4g}",
            f"{int(right[pair])} of {checkpoints}",
            f"{int(active[pair])} of {checkpoints}",
        )
    console.print(table)
    console.print(
        "self-influence = Σ_t η_t ‖∇ℓ‖², summed over checkpoints: large for pairs the model finds hard, among them "
        "mislabelled ones. Unit: first-order loss change per visit with SGD. The rank by plain loss (mean over "
        "checkpoints) stands beside it as the baseline.",
        highlight=False,
    )
    _print_facts(console, result.run, result.pairs)


def print_influence(result: Influence, top: int) -> None:
    """For each test pair its strongest proponents and opponents."""
    console = _console()
    scores, zero = result.scores, set(result.zero_columns)
    for test, name in enumerate(result.test_ids):
        margin, loss = result.test.score_margin[-1, test], result.test.loss[-1, test]
        verdict = "ranked right" if margin > 0 else "ranked wrong"
        title = f"Test pair {name}: {verdict} at the last checkpoint (score margin {margin:.4g}, loss {loss:.4g})"
        if test in zero:
            console.print(title, highlight=False)
            console.print(
                "  every influence is 0: its loss has gradient 0 at every checkpoint. "
                "--test-functional score-margin does not saturate.\n",
                highlight=False,
            )
            continue
        table = Table(title=title, title_justify="left")
        for heading in ("proponents (lowered its loss)", "influence", "opponents (raised its loss)", "influence"):
            table.add_column(heading, justify="right" if heading == "influence" else "left", overflow="fold")
        column = scores[:, test]
        proponents = [pair for pair in _order(column)[:top] if column[pair] > 0]
        opponents = [pair for pair in _order(-column)[:top] if column[pair] < 0]
        for row in range(max(len(proponents), len(opponents))):
            table.add_row(*_cells(result.ids, column, proponents, row), *_cells(result.ids, column, opponents, row))
        console.print(table)
    console.print(
        "influence = Σ_t ⟨∇ℓ_p, η_t ∇ℓ_q⟩: positive where training on p lowered the loss of the test pair q. Unit: "
        "first-order loss change per visit of p with SGD; the true change is about score × visits of p between "
        "checkpoints / batch size.",
        highlight=False,
    )
    if zero:
        console.print(f"{len(zero)} of {len(result.test_ids)} test columns are 0 throughout.", highlight=False)
    _print_facts(console, result.run, result.train)


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

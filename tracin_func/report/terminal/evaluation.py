"""An evaluation as tables and sentences, with masks and seeds beside every figure."""

from typing import Any

from rich.console import Console

from tracin_func.evaluation.conclusions import conclusions, in_figures
from tracin_func.evaluation.datamodelling import Datamodelling
from tracin_func.evaluation.evaluate import EvaluationReport
from tracin_func.evaluation.flips import Flips
from tracin_func.evaluation.removal import Removal
from tracin_func.report.terminal.tables import Column, open_console, print_table, print_words
from tracin_func.results.names import counted


def print_evaluation(report: EvaluationReport, *, verbose: bool) -> None:
    """The conclusions, then the figures of each part."""
    console, done = open_console(), report
    accuracy = f"{done.accuracy:.1%} held-out pair accuracy"
    retrained = f"{done.computed:,} retrainings, {done.cached:,} from the cache, {done.seconds:.0f} s"
    print_words(console, f"{_recipe(done)}: {accuracy}. {retrained}.")
    for sentence in conclusions(done):
        print_words(console, sentence, indent=0, style="bold")
    if done.plan.left_out:
        print_words(console, f"Left out for the budget: {'; '.join(done.plan.left_out)}.", style="yellow")
    if done.flips is not None:
        _print_flips(console, done.flips)
    if done.removal is not None:
        _print_removal(console, done.removal)
    for each in done.datamodelling:
        _print_datamodelling(console, each)
    console.print()
    print_words(
        console, "In parentheses: 95% interval, over repetitions (Student) or over subsets (bootstrap).", style="dim"
    )
    if verbose:
        for name, method in done.methods.items():
            print_words(console, f"{name}: {method.help}.", indent=2)


def evaluation_document(report: EvaluationReport) -> dict[str, Any]:
    """What the tables show, for programs; null where a figure is undefined."""
    found: dict[str, Any] = _known(report.describe() | {"conclusions": conclusions(report)})
    return found


def _known(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _known(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_known(each) for each in value]
    return None if isinstance(value, float) and value != value else value


def _recipe(report: EvaluationReport) -> str:
    own = report.recipe
    return (
        f"Trained with {own.optimizer}, learning rate {own.learning_rate:g}, batch size {own.batch_size}, "
        f"{counted(own.epochs, 'epoch')}"
    )


def _print_flips(console: Console, flips: Flips) -> None:
    console.print()
    repeated = f"{counted(len(flips.seeds), 'draw')}, {_named(flips.seeds)}"
    title = f"Planted flips: {flips.planted:,} of {flips.pairs:,} training labels flipped, then trained; {repeated}"
    print_words(console, title, style="bold")
    print_table(
        console,
        [
            Column("ranking", [row.method for row in flips.rows], left=True),
            Column("AUC", [in_figures(row.auc, 3) for row in flips.rows]),
            Column(f"precision at {flips.planted:,}", [in_figures(row.precision) for row in flips.rows]),
        ],
    )


def _print_removal(console: Console, removal: Removal) -> None:
    console.print()
    planted = f"{removal.planted:,} flips planted" if removal.planted else "labels as they are"
    repeated = f"{counted(len(removal.seeds), 'repetition')}, {_named(removal.seeds)}"
    print_words(console, f"Removal: retrained without the first pairs; {planted}; {repeated}", style="bold")
    nothing = in_figures(removal.nothing, 1, percent=True)
    print_words(console, f"Nothing dropped: {nothing} of {removal.judged:,} held-out pairs. Gain in points:")
    sizes = sorted({row.k for row in removal.rows})
    names = list(dict.fromkeys(row.method for row in removal.rows))
    gains = {(row.method, row.k): in_figures(row.gain, 1, signed=True, percent=True) for row in removal.rows}
    columns = [Column(f"{k:,} dropped", [gains[name, k] for name in names]) for k in sizes]
    print_table(console, [Column("ranking", names, left=True), *columns])


def _print_datamodelling(console: Console, found: Datamodelling) -> None:
    console.print()
    queries = counted(found.queries, "held-out pair")
    size = f"{counted(found.masks, 'subset')} × {counted(len(found.seeds), 'seed')}, {queries}"
    print_words(console, f"Foreseen margins (LDS): {found.what}; {size}", style="bold")
    first = found.rows[0].method if found.rows else ""
    columns = [
        Column("score", [row.method for row in found.rows], left=True),
        Column("mean of runs", [in_figures(row.mean) for row in found.rows]),
        Column("each run", [" ".join(f"{each:.2f}" for each in row.runs) for row in found.rows]),
        Column(
            f"lead over {first}", ["" if row.lead is None else in_figures(row.lead, signed=True) for row in found.rows]
        ),
    ]
    print_table(console, columns)
    seeds = f"Retrained with {_named(found.seeds)} on {found.kept:.0%} of the pairs"
    ceiling = "unknown with one seed" if found.ceiling != found.ceiling else f"{found.ceiling:.2f}"
    print_words(console, f"{seeds}; runs have {_named(found.run_seeds)}. Noise ceiling, from split seeds: {ceiling}.")


def _named(seeds: tuple[int, ...]) -> str:
    return f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} to {seeds[-1]}"

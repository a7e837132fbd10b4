"""`tracin-func evaluate`: whether scores deserve trust on this data, on models that are retrained for it."""

import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from tracin_func.cli.errors import Reporter, interruption, printing, say
from tracin_func.cli.evaluate_options import EvaluateOptions
from tracin_func.cli.options import PrintOptions
from tracin_func.cli.progress import progress
from tracin_func.cli.resolve import listener_of
from tracin_func.errors import UsageError
from tracin_func.evaluation.evaluate import EvaluationReport, Setup, evaluate
from tracin_func.evaluation.methods.registry import chosen
from tracin_func.evaluation.plan import Plan, Sizes
from tracin_func.files import locked, present, real_path, replace, require_writable
from tracin_func.report.content.evaluation_charts import picture
from tracin_func.report.terminal.evaluation import evaluation_document, print_evaluation
from tracin_func.results.names import counted
from tracin_func.sources.options import Options
from tracin_func.sources.registry import source_of
from tracin_func.sources.values import share, words
from tracin_func.task.task import Task
from tracin_func.training.retrain import Recipe, recipe_of

_LOCK_TIMEOUT = 60.0
_OF_SCORES = ("checkpoint_weights", "preconditioner", "params", "learning_rate")


def evaluate_scores(options: Options) -> None:
    """Retrain, compare and print.

    Raises:
        UsageError, InputError, NumericalError, OutputError: see `errors`.
    """
    own, shown = options[EvaluateOptions], options[PrintOptions]
    setup, names = _setup(own), words("methods", own.methods)
    chosen(names)
    if given := options.flags(_OF_SCORES):
        raise UsageError(f"{given[0]} changes scores, and `methods` says which are compared. Leave it out.")
    figure = None if own.figure is None else real_path(present(own.figure))
    if figure is not None:
        require_writable(figure, "figure")
    source = source_of(options)
    if len(source.runs()) > 1:
        raise UsageError('`frequency="all"` makes several runs, and an evaluation is of one. Name one `frequency`.')
    source.check()
    task = source.job(listener_of(Reporter(shown.quiet, shown.verbose))).task
    recipe = _recipe(own, task)
    meaning = "retrainings that are done are kept for the next call"
    with interruption(meaning), ExitStack() as stack:

        def begun(plan: Plan) -> Callable[[float], None]:
            say(_announcement(plan, own.budget), quiet=shown.quiet)
            return stack.enter_context(progress("retraining", max(1, plan.trainings), quiet=shown.quiet))

        found = evaluate(
            task, methods=names, setup=setup, recipe=recipe, budget=own.budget, processes=own.processes, begun=begun
        )
    _show(found, figure, own.figure, shown)


def _setup(own: EvaluateOptions) -> Setup:
    asked = {
        "parts": None if own.parts is None else tuple(words("parts", own.parts) or ()),
        "flip_share": share("flip_share", own.flip_share),
        "drop": None
        if own.drop is None
        else tuple(share("drop", each) or 0.0 for each in words("drop", own.drop) or ()),
        "queries": own.queries,
        "sizes": _sizes(own),
    }
    flipped = asked["flip_share"] != 0.0
    if asked["parts"] is None and not flipped:
        asked["parts"] = tuple(part for part in Setup().parts if part != "flips")
    return Setup(**{name: value for name, value in asked.items() if value is not None})  # type: ignore[arg-type]


def _sizes(own: EvaluateOptions) -> Sizes:
    asked = {
        "runs": own.runs,
        "draws": own.draws,
        "masks": own.masks,
        "seeds": own.retrain_seeds,
        "left_out": own.left_out,
    }
    return Sizes(**{name: value for name, value in asked.items() if value is not None})


def _recipe(own: EvaluateOptions, task: Task) -> Recipe:
    return recipe_of(
        task,
        epochs=own.epochs,
        learning_rate=own.retrain_learning_rate,
        batch_size=own.retrain_batch_size,
        optimizer=own.optimizer,
        start=own.start,
    )


def _announcement(plan: Plan, budget: float | None) -> str:
    time = f"{plan.seconds:.0f} s" if plan.seconds < 90 else f"{plan.seconds / 60:.0f} min"
    less = "" if budget is not None or plan.seconds < 600 else " `budget` limits the time."
    return f"{counted(plan.trainings, 'retraining')}, at most {time}; those that are cached take none.{less}"


def _show(found: EvaluationReport, figure: Path | None, named: Path | None, shown: PrintOptions) -> None:
    if figure is not None:
        with locked(figure, _LOCK_TIMEOUT):
            replace(figure, [(figure, picture(found))], setting="figure")
    with printing():
        if shown.json:
            print(json.dumps(evaluation_document(found), ensure_ascii=False, indent=2, allow_nan=False))
            return
        if not shown.quiet:
            print_evaluation(found, verbose=shown.verbose)
        if named is not None:
            print(f"\nWritten  {named}")

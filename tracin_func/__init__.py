"""tracin-func: which training pairs made my ranking model behave like this?

TracIn (arXiv 2002.08484) on ranking pairs, with per-sample gradients by torch.func. Names are imported when
they are first used, so that the command line can show its help without loading torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tracin_func import sources as sources
    from tracin_func.errors import InputError as InputError
    from tracin_func.errors import NumericalError as NumericalError
    from tracin_func.errors import OutputError as OutputError
    from tracin_func.errors import UsageError as UsageError
    from tracin_func.gradients.compute import Compute as Compute
    from tracin_func.losses.ghm import GHMRankingLoss as GHMRankingLoss
    from tracin_func.losses.logistic import LogisticLoss as LogisticLoss
    from tracin_func.losses.margin import MarginRankingLoss as MarginRankingLoss
    from tracin_func.results.agreement import Agreement as Agreement
    from tracin_func.results.comparison import Comparison as Comparison
    from tracin_func.results.comparison import compare as compare
    from tracin_func.results.influence import Influence as Influence
    from tracin_func.results.influence import SelfInfluence as SelfInfluence
    from tracin_func.results.load import load as load
    from tracin_func.results.top import TopInfluences as TopInfluences
    from tracin_func.scoring.accuracy import Evaluation as Evaluation
    from tracin_func.scoring.accuracy import accuracy as accuracy
    from tracin_func.scoring.fill import fill_store as fill_store
    from tracin_func.scoring.forecast import Forecast as Forecast
    from tracin_func.scoring.forecast import forecast as forecast
    from tracin_func.scoring.observer import Observer as Observer
    from tracin_func.scoring.queries import with_queries as with_queries
    from tracin_func.scoring.score import influence as influence
    from tracin_func.scoring.score import self_influence as self_influence
    from tracin_func.scoring.top_k.run import top_influences as top_influences
    from tracin_func.scoring.verify import verify as verify
    from tracin_func.task.checkpoints import Checkpoint as Checkpoint
    from tracin_func.task.checkpoints import find_checkpoints as find_checkpoints
    from tracin_func.task.item_view import ItemView as ItemView
    from tracin_func.task.loss import PairLoss as PairLoss
    from tracin_func.task.method import Method as Method
    from tracin_func.task.method import Projection as Projection
    from tracin_func.task.pair_table import PairTable as PairTable
    from tracin_func.task.pairs import Pairs as Pairs
    from tracin_func.task.task import Task as Task
    from tracin_func.training.checkpoint import save_checkpoint as save_checkpoint
    from tracin_func.training.fit import EpochReport as EpochReport
    from tracin_func.training.fit import Trained as Trained
    from tracin_func.training.run import train as train
    from tracin_func.training.settings import TrainingSettings as TrainingSettings

_MODULES = {
    "errors": ("InputError", "NumericalError", "OutputError", "UsageError"),
    "gradients.compute": ("Compute",),
    "losses.ghm": ("GHMRankingLoss",),
    "losses.logistic": ("LogisticLoss",),
    "losses.margin": ("MarginRankingLoss",),
    "results.agreement": ("Agreement",),
    "results.comparison": ("Comparison", "compare"),
    "results.influence": ("Influence", "SelfInfluence"),
    "results.load": ("load",),
    "results.top": ("TopInfluences",),
    "scoring.accuracy": ("Evaluation", "accuracy"),
    "scoring.fill": ("fill_store",),
    "scoring.forecast": ("Forecast", "forecast"),
    "scoring.observer": ("Observer",),
    "scoring.queries": ("with_queries",),
    "scoring.score": ("influence", "self_influence"),
    "scoring.top_k.run": ("top_influences",),
    "scoring.verify": ("verify",),
    "task.checkpoints": ("Checkpoint", "find_checkpoints"),
    "task.item_view": ("ItemView",),
    "task.loss": ("PairLoss",),
    "task.method": ("Method", "Projection"),
    "task.pair_table": ("PairTable",),
    "task.pairs": ("Pairs",),
    "task.task": ("Task",),
    "training.checkpoint": ("save_checkpoint",),
    "training.fit": ("EpochReport", "Trained"),
    "training.run": ("train",),
    "training.settings": ("TrainingSettings",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}
__all__ = sorted([*_HOME, "sources"])


def __getattr__(name: str) -> Any:
    if name == "sources":
        return import_module(f"{__name__}.sources")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""tracin-func: which training pairs made my ranking model behave like this?

TracIn (arXiv 2002.08484) on ranking pairs, with per-sample gradients by torch.func. Names are imported when
they are first used, so that the command line can show its help without loading torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tracin_func.errors import InputError, NumericalError, OutputError, UsageError
    from tracin_func.gradients.compute import Compute
    from tracin_func.losses.ghm import GHMRankingLoss, LogisticLoss, MarginRankingLoss
    from tracin_func.results.influence import Influence, SelfInfluence
    from tracin_func.results.top import Queried, QueriedSelf
    from tracin_func.scoring.api import influence, self_influence
    from tracin_func.scoring.score import Scores, score
    from tracin_func.scoring.top_k.run import query, query_self
    from tracin_func.task.checkpoints import Checkpoint, find_checkpoints
    from tracin_func.task.method import Projection
    from tracin_func.task.pair_table import ArrayPairs
    from tracin_func.task.pairs import Pairs
    from tracin_func.task.parquet import ParquetPairs
    from tracin_func.task.task import Task

__all__ = [
    "ArrayPairs",
    "Checkpoint",
    "Compute",
    "GHMRankingLoss",
    "Influence",
    "InputError",
    "LogisticLoss",
    "MarginRankingLoss",
    "NumericalError",
    "OutputError",
    "Pairs",
    "ParquetPairs",
    "Projection",
    "Queried",
    "QueriedSelf",
    "Scores",
    "SelfInfluence",
    "Task",
    "UsageError",
    "find_checkpoints",
    "influence",
    "query",
    "query_self",
    "score",
    "self_influence",
]

_MODULES = {
    "api": ("influence", "self_influence"),
    "checkpoints": ("Checkpoint", "find_checkpoints"),
    "errors": ("InputError", "NumericalError", "OutputError", "UsageError"),
    "losses": ("GHMRankingLoss", "LogisticLoss", "MarginRankingLoss"),
    "pairs": ("Pairs",),
    "projection.specification": ("Projection",),
    "queried": ("Queried", "QueriedSelf"),
    "queries.pair_blocks": ("ArrayPairs",),
    "queries.parquet_pairs": ("ParquetPairs",),
    "querying": ("query", "query_self"),
    "results": ("Influence", "SelfInfluence"),
    "scoring": ("Scores", "score"),
    "task": ("Task",),
    "compute": ("Compute",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

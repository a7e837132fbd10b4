"""Methods by name. A new one is a file with its `Scoring`, and a line here."""

from collections.abc import Sequence

from tracin_func.errors import UsageError
from tracin_func.evaluation.methods.chance import RANDOM
from tracin_func.evaluation.methods.loss import LAST_LOSS, MEAN_LOSS
from tracin_func.evaluation.methods.method import Scoring
from tracin_func.evaluation.methods.self_influence import SELF_INFLUENCE, SELF_STANDARD
from tracin_func.evaluation.methods.tracin import TRACIN, TRACIN_ADAM, TRACIN_LAST, TRACIN_LOSS

SCORINGS = {
    "tracin": TRACIN,
    "tracin-last": TRACIN_LAST,
    "tracin-loss": TRACIN_LOSS,
    "tracin-adam": TRACIN_ADAM,
    "self": SELF_INFLUENCE,
    "self-standard": SELF_STANDARD,
    "loss": MEAN_LOSS,
    "loss-last": LAST_LOSS,
    "random": RANDOM,
}
BY_DEFAULT = ("tracin", "self", "loss", "loss-last", "random")
BASELINES = tuple(name for name, each in SCORINGS.items() if each.is_baseline)


def chosen(names: Sequence[str] | None) -> dict[str, Scoring]:
    """The methods of these names, and the baselines, which are always compared.

    Raises:
        UsageError: a name is unknown.
    """
    wanted = BY_DEFAULT if names is None else tuple(dict.fromkeys((*names, *BASELINES)))
    if unknown := [name for name in wanted if name not in SCORINGS]:
        raise UsageError(f"`methods` should be among {', '.join(SCORINGS)}. Got {unknown[0]!r}.")
    return {name: SCORINGS[name] for name in wanted}

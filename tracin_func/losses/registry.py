"""Losses by their names on the command line, with the options of their fields. Does not import torch.

A new loss is a file with its class, and an entry here.
"""

import dataclasses
from collections.abc import Mapping
from importlib import import_module
from typing import Any


@dataclasses.dataclass(frozen=True)
class LossOption:
    """An option that sets a field of a loss.

    Args:
        name: name of the setting; `ghm_bins` is --ghm-bins, and TRACIN_FUNC_GHM_BINS in the environment.
        field: field of the loss class.
        kind: int (1 or more), float (finite), or str (one of `words`).
        help: one sentence about what it sets.
        default: value if neither the option nor the checkpoint has one.
        words: words that the option takes, and their values.
        argument: its name in a checkpoint's `args`; `name` if empty.
        implied: another argument and a value: the value for args with the other argument and without this one.
        shown_default: the default in words, if it depends on the checkpoint.
    """

    name: str
    field: str
    kind: type
    help: str
    default: Any
    words: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    argument: str = ""
    implied: tuple[str, Any] | None = None
    shown_default: str = ""


@dataclasses.dataclass(frozen=True)
class Registered:
    """A loss on the command line: its class, or `module:Class`, imported when needed, and its options."""

    loss: Any
    options: tuple[LossOption, ...] = ()
    help: str = ""

    def make(self, **fields: Any) -> Any:
        """The loss with these fields."""
        if not isinstance(self.loss, str):
            return self.loss(**fields)
        module, _, name = self.loss.partition(":")
        return getattr(import_module(module), name)(**fields)


MARGIN = LossOption("margin", "margin", float, "Margin of the ranking loss.", 1.0)
LOSSES: dict[str, Registered] = {
    "standard": Registered("tracin_func.losses.margin:MarginRankingLoss", (MARGIN,), "margin ranking"),
    "ghm": Registered(
        "tracin_func.losses.ghm:GHMRankingLoss",
        (
            MARGIN,
            LossOption("ghm_bins", "bins", int, "Number of bins of difficulty.", 10),
            LossOption(
                "ghm_alpha", "alpha", float, "Exponent of the pair density in a bin; 0 for the standard loss.", 0.75
            ),
            LossOption(
                "ghm_variant",
                "variant",
                str,
                "GHM difficulty: symmetric, or lab (factor 3 for pairs with target -1).",
                "symmetric",
                {"symmetric": "symmetric", "lab": "lab"},
                implied=("ghm_bins", "lab"),  # the original script writes no variant
                shown_default="the checkpoint's, otherwise symmetric",
            ),
            LossOption(
                "ghm_batch_size",
                "batch_size",
                int,
                "Batch size of the training, over which GHM weights are averaged; or all.",
                32,
                {"all": None},
                "batch_size",
            ),
        ),
    ),
    "logistic": Registered("tracin_func.losses.logistic:LogisticLoss"),
}


def loss_options() -> dict[str, LossOption]:
    """Every option of a registered loss, by name."""
    return {option.name: option for loss in LOSSES.values() for option in loss.options}


def as_args(loss: Any) -> dict[str, Any]:
    """A loss by the names of its options in a checkpoint's `args`, from which scoring makes it again.

    Of a loss that no options describe in full, only its description, under 'loss'.
    """
    known = LOSSES.get(loss.loss_type)
    if known is not None:
        fields = {each.field: getattr(loss, each.field, None) for each in known.options}
        if known.make(**fields) == loss:
            return {"loss_type": loss.loss_type} | {
                each.argument or each.name: fields[each.field] for each in known.options
            }
    return {"loss": loss.describe()}

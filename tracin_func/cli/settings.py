"""Settings of a run: option, else environment, else the checkpoint's `args`, else the default."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from tracin_func.errors import InputError, UsageError
from tracin_func.files import one_form
from tracin_func.gradients.compute import STORE_DTYPES
from tracin_func.gradients.engines.choose import NAMES
from tracin_func.losses.ghm import GHM_VARIANTS, GHMRankingLoss
from tracin_func.losses.logistic import LogisticLoss
from tracin_func.losses.margin import MarginRankingLoss
from tracin_func.results.files.table import FORMATS
from tracin_func.results.views import VIEWS
from tracin_func.scoring.accuracy import SELECTIONS
from tracin_func.task.ids import IDS
from tracin_func.task.loss import PairLoss
from tracin_func.task.method import (
    AGGREGATES,
    CHECKPOINT_WEIGHTS,
    KINDS,
    NORMALIZATIONS,
    PRECONDITIONERS,
    TEST_FUNCTIONALS,
)

DEFAULTS: dict[str, Any] = {
    "frequency": "500hz",
    "material": "plastic",
    "sample_rate": 48000,
    "checkpoint_prefix": "model_epoch_",
    "loss_type": "standard",
    "margin": 1.0,
    "ghm_bins": 10,
    "ghm_alpha": 0.75,
    "ghm_variant": "symmetric",
    "ghm_batch_size": 32,
    "pairs": "drawn",
    "seed": 42,
}

DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
MOST = 10**9
MOST_SEED = 2**32 - 1  # numpy's generator takes no larger one

LOSS_OPTIONS = ("loss_type", "margin", "ghm_bins", "ghm_alpha", "ghm_variant", "ghm_batch_size")

# What a setting is called in a checkpoint's `args`.
ARGUMENT_NAMES = {name: name for name in (*LOSS_OPTIONS, "seed", "exclusions_file", "frequency", "material")} | {
    "ghm_batch_size": "batch_size"
}

# What a loss option is called as a field of a loss.
LOSS_FIELDS = {
    "margin": "margin",
    "ghm_bins": "bins",
    "ghm_alpha": "alpha",
    "ghm_variant": "variant",
    "ghm_batch_size": "batch_size",
}

LOSS_TYPES: dict[str, Callable[["Settings"], PairLoss]] = {
    "standard": lambda settings: MarginRankingLoss(settings.number("margin")),
    "ghm": lambda settings: settings.ghm(),
    "logistic": lambda settings: LogisticLoss(),
}


@dataclass
class Settings:
    """Looks settings up and notes where they contradict the checkpoint.

    Args:
        given: options and environment, None where not given.
        trained: the checkpoint's `args`; with `ghm_bins` and no `ghm_variant` the lab's script wrote them.
    """

    given: Mapping[str, Any]
    trained: Mapping[str, Any]
    contradictions: list[str] = field(default_factory=list)
    read: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        if "ghm_bins" in self.trained and "ghm_variant" not in self.trained:
            self.trained = {**self.trained, "ghm_variant": "lab"}

    def get(self, name: str) -> Any:
        """The value of a setting."""
        self.read.add(name)
        given = self.given.get(name)
        if given is None:
            trained = self._trained(name)
            return DEFAULTS.get(name) if trained is None else trained
        self.compare(name, given)
        return given

    def compare(self, name: str, value: Any) -> None:
        """Note it when the checkpoint was trained with another value of a setting."""
        trained = self._trained(name)
        if trained is None or one_form(str(value)) == one_form(str(trained)) or _same_number(value, trained):
            return
        how = "is the default" if self.given.get(name) is None else "was given"
        sentence = f"{flag(name)} {value} {how}, and the checkpoints were trained with {trained}"
        if sentence not in self.contradictions:
            self.contradictions.append(sentence)

    def warnings(self, args: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """What the user should know of the settings read so far; `args` are those of each checkpoint by name."""
        found = []
        if differing := self._differing(args):
            found.append(f"the args of the checkpoints differ in {'; '.join(differing)}. Those of the first are used.")
        if unread := self.unread():
            found.append(f"{', '.join(unread)}: not used by the loss {self.get('loss_type')}.")
        return found

    @property
    def contradiction(self) -> str | None:
        """How the settings read so far contradict the checkpoint, in one sentence."""
        count = len(self.contradictions)
        start = f"{count} settings contradict the checkpoints: " if count > 1 else ""
        return f"{start}{'; '.join(self.contradictions)}." if count else None

    def trained_loss(self) -> PairLoss | None:
        """The loss the checkpoint says it was trained with, where that of the run is another one."""
        if not any(ARGUMENT_NAMES[name] in self.trained for name in ("loss_type", "margin", "ghm_bins")):
            return None
        try:
            trained = Settings({}, self.trained).loss()
        except (InputError, UsageError):  # its args are no settings of ours: there is nothing to compare with
            return None
        return None if trained == self.loss() else trained

    def unread(self) -> list[str]:
        """Loss options that were given and never looked at."""
        return [flag(name) for name in LOSS_OPTIONS if self.given.get(name) is not None and name not in self.read]

    def _trained(self, name: str) -> Any:
        return self.trained.get(ARGUMENT_NAMES.get(name, ""))

    def _differing(self, args: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """Of the settings that were taken from the first checkpoint, those that others record otherwise."""
        found = []
        for name in sorted(self.read & set(ARGUMENT_NAMES)):
            first_with: dict[str, str] = {}
            for checkpoint, own in args.items():
                if own and self.given.get(name) is None:
                    first_with.setdefault(str(own.get(ARGUMENT_NAMES[name])), checkpoint)
            if len(first_with) > 1:
                values = ", ".join(f"{value} in {checkpoint}" for value, checkpoint in first_with.items())
                found.append(f"{ARGUMENT_NAMES[name]} ({values})")
        return found

    def number(self, name: str) -> float:
        """A setting that should be a number, wherever it came from."""
        value = self.get(name)
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise self.fault(name, f"should be a finite number. Got {value!r}")
        return number

    def whole(self, name: str, least: int, most: int) -> int:
        """A setting that should be a whole number, wherever it came from."""
        value = self.number(name)
        if value != int(value) or not least <= value <= most:
            raise self.fault(name, f"should be a whole number from {least} to {most}. Got {value:g}")
        return int(value)

    def fault(self, name: str, message: str) -> UsageError | InputError:
        """The error that fits where a setting came from: the user, or the checkpoint."""
        if self.given.get(name) is not None:
            return UsageError(f"{flag(name)} {message}.")
        return InputError(f"`{ARGUMENT_NAMES.get(name, name)}` in the checkpoint's args {message}. Give {flag(name)}.")

    def loss(self) -> PairLoss:
        """The loss of the run."""
        name = str(self.get("loss_type"))
        if name not in LOSS_TYPES:
            raise self.fault("loss_type", f"should be one of {', '.join(LOSS_TYPES)}. Got {name!r}")
        return LOSS_TYPES[name](self)

    def ghm(self) -> GHMRankingLoss:
        """The GHM loss."""
        return GHMRankingLoss(**{LOSS_FIELDS[name]: self._loss_field(name) for name in LOSS_FIELDS})

    def adjusted(self, loss: Any) -> Any:
        """`loss`, a task's own, with the fields replaced that loss options were given for.

        Raises:
            UsageError: the loss has no such field.
        """
        fields = {each.name for each in dataclasses.fields(loss)} if dataclasses.is_dataclass(loss) else set()
        changes = {}
        for name, its_field in LOSS_FIELDS.items():
            if self.given.get(name) is None:
                continue
            if its_field not in fields:
                what = getattr(loss, "__qualname__", type(loss).__qualname__)
                raise UsageError(
                    f"{flag(name)}: the task's loss, {what}, has no `{its_field}`. Leave the option out, or "
                    "replace the loss with --loss-type."
                )
            changes[its_field] = self._loss_field(name)
        return dataclasses.replace(loss, **changes) if changes else loss

    def _loss_field(self, name: str) -> Any:
        if name == "ghm_variant":
            variant = self.get(name)
            if variant not in GHM_VARIANTS:
                raise self.fault(name, f"should be one of {', '.join(GHM_VARIANTS)}. Got {variant!r}")
            return variant
        if name == "ghm_batch_size" and self.get(name) == "all":
            return None
        return self.whole(name, 1, MOST) if name in ("ghm_bins", "ghm_batch_size") else self.number(name)


def check_words(options: Mapping[str, Any]) -> None:
    """Raise at once for an option that should be one of a few words.

    Raises:
        UsageError: it is none of them.
    """
    allowed: dict[str, Sequence[str]] = {
        "engine": NAMES,
        "test_functional": TEST_FUNCTIONALS,
        "loss_type": tuple(LOSS_TYPES),
        "ghm_variant": GHM_VARIANTS,
        "checkpoint_weights": CHECKPOINT_WEIGHTS,
        "preconditioner": PRECONDITIONERS,
        "dtype": tuple(DTYPES),
        "format": FORMATS,
        "by": VIEWS,
        "ids": IDS,
        "test_select": SELECTIONS,
        "aggregate": AGGREGATES,
        "normalize": NORMALIZATIONS,
        "projection": KINDS,
        "store_dtype": STORE_DTYPES,
    }
    for name, known in allowed.items():
        if options.get(name) is not None and options[name] not in known:
            raise UsageError(f"{flag(name)} should be one of {', '.join(known)}. Got {options[name]!r}.")


def flag(name: str) -> str:
    """The option of a setting."""
    return f"--{name.replace('_', '-')}"


def _same_number(given: Any, trained: Any) -> bool:
    try:
        return float(given) == float(trained)
    except (TypeError, ValueError):
        return False

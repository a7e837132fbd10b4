"""Settings of a run: option, else environment, else the checkpoint's `args`, else the default."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from tracin_func.errors import InputError, UsageError
from tracin_func.files import one_form
from tracin_func.gradients.compute import STORE_DTYPES
from tracin_func.gradients.engines.choose import NAMES
from tracin_func.losses.registry import LOSSES, LossOption, loss_options
from tracin_func.results.files.registry import FORMATS
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

# What a setting is called in a checkpoint's `args`; the options of losses declare it.
_ARGUMENTS = ("loss_type", "seed", "exclusions_file", "frequency", "material")


def argument_names() -> dict[str, str]:
    """What each setting is called in a checkpoint's `args`."""
    own = {option.name: option.argument or option.name for option in loss_options().values()}
    return {name: name for name in _ARGUMENTS} | own


@dataclass
class Settings:
    """Looks settings up and notes where they contradict the checkpoint.

    Args:
        given: options and environment, None where not given.
        trained: the checkpoint's `args`.
    """

    given: Mapping[str, Any]
    trained: Mapping[str, Any]
    contradictions: list[str] = field(default_factory=list)
    read: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        for option in loss_options().values():
            if option.implied and option.implied[0] in self.trained and option.name not in self.trained:
                self.trained = {**self.trained, option.name: option.implied[1]}

    def get(self, name: str) -> Any:
        """The value of a setting."""
        self.read.add(name)
        given = self.given.get(name)
        if given is None:
            trained = self._trained(name)
            option = loss_options().get(name)
            default = DEFAULTS.get(name) if option is None else option.default
            return default if trained is None else trained
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
        if not any(name in self.trained for name in ("loss_type", "margin", "ghm_bins")):
            return None
        try:
            trained = Settings({}, self.trained).loss()
        except (InputError, UsageError):  # its args are no settings of ours: there is nothing to compare with
            return None
        return None if trained == self.loss() else trained

    def unread(self) -> list[str]:
        """Loss options that were given and never looked at."""
        return [
            flag(name)
            for name in ("loss_type", *loss_options())
            if self.given.get(name) is not None and name not in self.read
        ]

    def _trained(self, name: str) -> Any:
        return self.trained.get(argument_names().get(name, ""))

    def _differing(self, args: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """Of the settings that were taken from the first checkpoint, those that others record otherwise."""
        found, arguments = [], argument_names()
        for name in sorted(self.read & set(arguments)):
            first_with: dict[str, str] = {}
            for checkpoint, own in args.items():
                if own and self.given.get(name) is None:
                    first_with.setdefault(str(own.get(arguments[name])), checkpoint)
            if len(first_with) > 1:
                values = ", ".join(f"{value} in {checkpoint}" for value, checkpoint in first_with.items())
                found.append(f"{arguments[name]} ({values})")
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
        return InputError(
            f"`{argument_names().get(name, name)}` in the checkpoint's args {message}. Give {flag(name)}."
        )

    def loss(self) -> PairLoss:
        """The loss of the run."""
        name = str(self.get("loss_type"))
        if name not in LOSSES:
            raise self.fault("loss_type", f"should be one of {', '.join(LOSSES)}. Got {name!r}")
        loss: PairLoss = LOSSES[name].make(**{each.field: self._loss_field(each) for each in LOSSES[name].options})
        return loss

    def adjusted(self, loss: Any) -> Any:
        """`loss`, a task's own, with the fields replaced that loss options were given for.

        Raises:
            UsageError: the loss has no such field.
        """
        fields = {each.name for each in dataclasses.fields(loss)} if dataclasses.is_dataclass(loss) else set()
        changes = {}
        for option in loss_options().values():
            if self.given.get(option.name) is None:
                continue
            if option.field not in fields:
                what = getattr(loss, "__qualname__", type(loss).__qualname__)
                raise UsageError(
                    f"{flag(option.name)}: the task's loss, {what}, has no `{option.field}`. Leave the option out, or "
                    "replace the loss with --loss-type."
                )
            changes[option.field] = self._loss_field(option)
        return dataclasses.replace(loss, **changes) if changes else loss

    def _loss_field(self, option: LossOption) -> Any:
        value = self.get(option.name)
        if isinstance(value, str) and value in option.words:
            return option.words[value]
        if option.kind is str:
            raise self.fault(option.name, f"should be one of {', '.join(option.words)}. Got {value!r}")
        return self.whole(option.name, 1, MOST) if option.kind is int else self.number(option.name)


def check_words(options: Mapping[str, Any]) -> None:
    """Raise at once for an option that should be one of a few words.

    Raises:
        UsageError: it is none of them.
    """
    allowed: dict[str, Sequence[str]] = {
        "engine": NAMES,
        "test_functional": TEST_FUNCTIONALS,
        "loss_type": tuple(LOSSES),
        **{name: tuple(option.words) for name, option in loss_options().items() if option.kind is str},
        "checkpoint_weights": CHECKPOINT_WEIGHTS,
        "preconditioner": PRECONDITIONERS,
        "dtype": tuple(DTYPES),
        "format": tuple(FORMATS),
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

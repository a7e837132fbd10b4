"""Settings of a run: option, else environment, else the checkpoint's `args`, else the default."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tracin_func.errors import InputError, UsageError
from tracin_func.losses import GHM_VARIANTS, GHMRankingLoss, LogisticLoss, MarginRankingLoss, PairLoss

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
    "engine": "auto",
    "batch_size": "auto",
    "num_workers": 0,
    "test_functional": "loss",
}

MOST = 10**9
MOST_SEED = 2**32 - 1  # numpy's generator takes no larger one

# What a setting is called in a checkpoint's `args`.
ARGUMENT_NAMES = {
    name: name for name in ("loss_type", "margin", "ghm_bins", "ghm_alpha", "ghm_variant", "seed", "exclusions_file")
} | {"ghm_batch_size": "batch_size"}

LOSS_TYPES: dict[str, Callable[["Settings"], PairLoss]] = {
    "standard": lambda settings: MarginRankingLoss(settings.number("margin")),
    "ghm": lambda settings: settings.ghm(),
    "logistic": lambda settings: LogisticLoss(),
}


@dataclass
class Settings:
    """Looks settings up and notes where an option contradicts the checkpoint.

    Args:
        given: options and environment, None where not given.
        trained: the checkpoint's `args`.
    """

    given: Mapping[str, Any]
    trained: Mapping[str, Any]
    contradictions: list[str] = field(default_factory=list)

    def get(self, name: str) -> Any:
        """The value of a setting."""
        given, trained = self.given.get(name), self.trained.get(ARGUMENT_NAMES.get(name, ""))
        if given is None:
            return DEFAULTS.get(name) if trained is None else trained
        if trained is not None and str(given) != str(trained) and not _same_number(given, trained):
            sentence = f"--{name.replace('_', '-')} {given} was given, and the checkpoints were trained with {trained}"
            if sentence not in self.contradictions:
                self.contradictions.append(sentence)
        return given

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
        flag = f"--{name.replace('_', '-')}"
        if self.given.get(name) is not None:
            return UsageError(f"{flag} {message}.")
        return InputError(f"`{ARGUMENT_NAMES.get(name, name)}` in the checkpoint's args {message}. Give {flag}.")

    def loss(self) -> PairLoss:
        """The loss of the run."""
        name = str(self.get("loss_type"))
        if name not in LOSS_TYPES:
            raise self.fault("loss_type", f"should be one of {', '.join(LOSS_TYPES)}. Got {name!r}")
        return LOSS_TYPES[name](self)

    def ghm(self) -> GHMRankingLoss:
        """The GHM loss. Checkpoints with `ghm_bins` and no `ghm_variant` were trained by the lab's script."""
        variant = self.get("ghm_variant")
        if self.given.get("ghm_variant") is None and "ghm_bins" in self.trained and "ghm_variant" not in self.trained:
            variant = "lab"
        if variant not in GHM_VARIANTS:
            raise self.fault("ghm_variant", f"should be one of {', '.join(GHM_VARIANTS)}. Got {variant!r}")
        return GHMRankingLoss(
            self.number("margin"),
            self.whole("ghm_bins", 1, MOST),
            self.number("ghm_alpha"),
            None if self.given.get("ghm_batch_size") == "all" else self.whole("ghm_batch_size", 1, MOST),
            variant,
        )


def whole_or(word: str, option: str, value: str | None) -> int | str | None:
    """`value` of an option that is a whole number of at least 1, or `word`."""
    if value is None or value == word:
        return value
    try:
        number = int(value)
    except ValueError:
        number = 0
    if number < 1:
        raise UsageError(f"{option} should be a whole number of at least 1, or {word}. Got {value!r}.")
    return number


def words(value: str | None) -> list[str] | None:
    """The parts of a list given with commas."""
    return None if value is None else [part.strip() for part in value.split(",") if part.strip()]


def _same_number(given: Any, trained: Any) -> bool:
    try:
        return float(given) == float(trained)
    except (TypeError, ValueError):
        return False

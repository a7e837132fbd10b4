"""The settings of a task: the option, else the environment, else the checkpoint's `args`, else the default."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tracin_func.errors import InputError, UsageError
from tracin_func.files import one_form
from tracin_func.losses.registry import LOSSES, LossOption, loss_options
from tracin_func.sources.options import setting
from tracin_func.task.loss import PairLoss

DEFAULTS = {"loss_type": "standard", "seed": 42}  # of settings that are not fields of a loss
MOST = 10**9
MOST_SPLIT_SEED = 2**32 - 1  # the largest that numpy's generator takes


@dataclass
class Settings:
    """Looks up settings, and records where they differ from those in the checkpoints.

    Args:
        given: options and environment by name, None if not given.
        trained: the first checkpoint's `args`.
    """

    given: Mapping[str, Any]
    trained: Mapping[str, Any] = field(default_factory=dict)
    contradictions: dict[str, Any] = field(default_factory=dict)
    read: set[str] = field(default_factory=set)
    args: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for each in loss_options().values():
            if each.implied and each.implied[0] in self.trained and each.name not in self.trained:
                self.trained = {**self.trained, each.name: each.implied[1]}

    def get(self, name: str) -> Any:
        """The value of a setting."""
        self.read.add(name)
        given = self.given.get(name)
        if given is None:
            trained, own = self._trained(name), loss_options().get(name)
            default = DEFAULTS.get(name) if own is None else own.default
            return default if trained is None else trained
        self.note(name, given)
        return given

    def note(self, name: str, value: Any) -> None:
        """Record a contradiction if the checkpoint was trained with another value."""
        trained = self._trained(name)
        if trained is None or one_form(str(value)) == one_form(str(trained)) or _same_number(value, trained):
            return
        default = " (the default)" if self.given.get(name) is None else ""
        self.contradictions[f"{setting(name, value)}{default}"] = trained

    def compare(self, name: str, args: Mapping[str, Any]) -> None:
        """Record the `args` of the checkpoint `name`; those of the first one are used."""
        if args:
            self.args[name] = args

    @property
    def differing(self) -> str | None:
        """Which settings differ between the `args` of the checkpoints, in one sentence."""
        found = []
        for name in sorted(self.read):
            first_with: dict[str, str] = {}
            for checkpoint, args in self.args.items():
                if self.given.get(name) is None:
                    first_with.setdefault(str(args.get(_argument(name))), checkpoint)
            if len(first_with) > 1:
                values = ", ".join(f"{value} in {checkpoint}" for value, checkpoint in first_with.items())
                found.append(f"{_argument(name)} ({values})")
        return f"the checkpoints' args differ in {'; '.join(found)}. Those of the first are used." if found else None

    @property
    def unread(self) -> str | None:
        """Which given loss options have no effect on the loss, in one sentence."""
        names = [name for name in ("loss_type", *loss_options()) if self.given.get(name) is not None]
        found = ", ".join(f"`{name}`" for name in names if name not in self.read)
        return f"{found}: no effect on the loss {self.get('loss_type')}." if found else None

    @property
    def contradiction(self) -> str | None:
        """How the settings read so far differ from those in the checkpoints, in one sentence."""
        found = [f"{own} (checkpoints: {trained})" for own, trained in self.contradictions.items()]
        return f"settings differ from those of the training: {', '.join(found)}." if found else None

    def number(self, name: str) -> float:
        """A setting that should be a finite number."""
        value = self.get(name)
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise self.fault(name, f"should be a finite number. Got {value!r}")
        return number

    def whole(self, name: str, least: int, most: int) -> int:
        """A setting that should be a whole number."""
        value = self.number(name)
        if value != int(value) or not least <= value <= most:
            raise self.fault(name, f"should be a whole number from {least} to {most}. Got {value:g}")
        return int(value)

    def fault(self, name: str, message: str) -> UsageError | InputError:
        """The error of a wrong setting, by its origin: the user or the checkpoint."""
        if self.given.get(name) is not None:
            return UsageError(f"`{name}` {message}.")
        return InputError(f"'{_argument(name)}' in the checkpoint's args {message}. Set `{name}`.")

    @property
    def seed(self) -> int:
        """The seed of split, drawing and sample of test pairs."""
        return self.whole("seed", 0, MOST_SPLIT_SEED)

    def loss(self) -> PairLoss:
        """The loss of the run."""
        name = str(self.get("loss_type"))
        if name not in LOSSES:
            raise self.fault("loss_type", f"should be one of {', '.join(LOSSES)}. Got {name!r}")
        loss: PairLoss = LOSSES[name].make(**{each.field: self._loss_field(each) for each in LOSSES[name].options})
        return loss

    def trained_loss(self) -> PairLoss | None:
        """The loss of the training by the checkpoint's args, if it differs from that of the run."""
        if not self.trained.keys() & {"loss_type", "margin", "ghm_bins"}:
            return None
        try:
            trained = Settings({}, self.trained).loss()
        except (InputError, UsageError):  # args of another program: nothing to compare with
            return None
        return None if trained == self.loss() else trained

    def adjusted(self, loss: Any) -> Any:
        """A task's own `loss` with the fields replaced for which loss options were given.

        Raises:
            UsageError: the loss lacks such a field.
        """
        fields = {each.name for each in dataclasses.fields(loss)} if dataclasses.is_dataclass(loss) else set()
        changes = {}
        for each in loss_options().values():
            if self.given.get(each.name) is None:
                continue
            if each.field not in fields:
                what = getattr(loss, "__qualname__", type(loss).__qualname__)
                raise UsageError(
                    f"`{each.name}` cannot be used: the task's loss, {what}, has no field '{each.field}'. Leave it "
                    "out, or replace the loss with `loss_type`."
                )
            changes[each.field] = self._loss_field(each)
        return dataclasses.replace(loss, **changes) if changes else loss

    def _loss_field(self, own: LossOption) -> Any:
        """The value of a field of the loss."""
        value = self.get(own.name)
        if isinstance(value, str) and value in own.words:
            return own.words[value]
        if own.kind is str:
            raise self.fault(own.name, f"should be one of {', '.join(own.words)}. Got {value!r}")
        return self.whole(own.name, 1, MOST) if own.kind is int else self.number(own.name)

    def _trained(self, name: str) -> Any:
        return self.trained.get(_argument(name))


def _argument(name: str) -> str:
    """The name of a setting in a checkpoint's `args`."""
    own = loss_options().get(name)
    return name if own is None else own.argument or name


def _same_number(given: Any, trained: Any) -> bool:
    try:
        return float(given) == float(trained)
    except (TypeError, ValueError):
        return False

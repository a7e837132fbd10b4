"""What a source gives to a training: a task, how its scorer begins, and what scoring has to know of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracin_func.errors import InputError, UsageError
from tracin_func.files import read_lines
from tracin_func.sources.settings import Settings
from tracin_func.sources.source import Listener
from tracin_func.sources.training_options import TrainingOptions

TRAINED_MARGIN = 10.0  # where no option names one

if TYPE_CHECKING:
    from torch import nn

    from tracin_func.task.task import Task


@dataclass(frozen=True)
class TrainingJob:
    """A task to train.

    Args:
        task: its checkpoints are not used; its loss is that of the training.
        scorer: makes the module with its initial weights, from a seed; None for a copy of the task's with fresh ones.
        args: what scoring reads from checkpoints beside the settings of the training.
        next: options of a command that scores the trained folder, without that folder.
    """

    task: "Task"
    scorer: "Callable[[int], nn.Module] | None"
    args: Mapping[str, Any] = field(default_factory=dict)
    next: tuple[str, ...] = ()


def ids_in(name: str, path: Path | None) -> list[str]:
    """The ids in the file of an option, one per line.

    Raises:
        InputError: there is no such file.
    """
    if path is None:
        return []
    if not path.exists():
        raise InputError(f"`{name}`: file not found: {path}. Check the path.")
    return read_lines(path)


def given_loss(options: TrainingOptions, own: Any) -> Any:
    """The loss that the options ask for; `own` if they name none, with the fields that they set.

    Raises:
        UsageError: the loss has no such field.
    """
    names = ("loss_type", "margin", "ghm_bins", "ghm_alpha")
    given = {name: value for name in names if (value := getattr(options, name)) is not None}
    settings = Settings({"margin": TRAINED_MARGIN, **given, "ghm_batch_size": options.batch_size or 32})
    if options.loss_type is None:
        return Settings(given).adjusted(own)
    made = settings.loss()
    if unread := [f"`{name}`" for name in given if name not in settings.read]:
        raise UsageError(f"{', '.join(unread)} cannot be used with the loss {options.loss_type}. Leave it out.")
    return made


def listed(name: str, settings: Settings, listener: Listener) -> Path | None:
    """The file of ids of a setting, where none is the word for no file.

    Raises:
        InputError: the checkpoint's `args` name a file that is not there.
    """
    value = settings.get(name)
    if value is None or str(value) in ("", "none"):
        return None
    path = Path(str(value))
    if settings.given.get(name) is not None:
        return path
    without = f'`{name}="none"`'
    if not path.is_file():
        raise InputError(
            f"'{name}' in the checkpoint's args is {path}, and {path.absolute()} is not a file. Set "
            f"`{name}`, or {without} to continue without it."
        )
    listener.report(
        f"note: the {name.replace('_', ' ')} in the checkpoint's args, {path.absolute()}, is applied after the split. "
        f"Set {without} to continue without it."
    )
    return path

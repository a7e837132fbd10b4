"""Sources of tasks: `demo()`, `recordings(...)` and `python(...)` return a Task.

The folders of these names are imported first, so that the functions take their places.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import tracin_func.sources.demo
import tracin_func.sources.python
import tracin_func.sources.recordings  # noqa: F401
from tracin_func.errors import UsageError
from tracin_func.sources.registry import task_from

if TYPE_CHECKING:
    from torch import nn

    from tracin_func.task.task import Task

__all__ = ["demo", "python", "recordings"]


def __dir__() -> list[str]:
    return __all__


def demo(frequency: str = "500hz", material: str = "plastic", **options: Any) -> "Task":
    """The embedded example: synthetic tones and a small ranker trained on them, created and cached on first use.

    Creating a tone takes about 15 seconds.

    Args:
        frequency: `500hz`, `1000hz` or `3000hz`.
        material: `plastic` or `box`.
        options: command-line options by name, such as `num_test="all"`, `loss_type="standard"` or `takes="0,1,2"`.

    Raises:
        UsageError, InputError, OutputError: an option is wrong, or the example cannot be created.
    """
    if given := [name for name in ("data_root", "checkpoint_dir") if name in options]:
        raise UsageError(
            f"`{given[0]}` was given, and the embedded example brings its own. For your own data use "
            "`sources.recordings(data_root, checkpoint_dir)`."
        )
    return task_from("recordings", {"frequency": frequency, "material": material, **options})


def recordings(
    data_root: str | Path, checkpoint_dir: str | Path, *, scorer: "nn.Module | None" = None, **options: Any
) -> "Task":
    """Recordings in a tree ROOT/deg036/plastic/plastic_deg036_500hz_04.wav and a model trained on them.

    Args:
        data_root: folder of the tree.
        checkpoint_dir: folder of checkpoints; the training settings in their `args` are used.
        scorer: the model of the checkpoints; None for the embedded ranker.
        options: command-line options by name, such as `frequency="1000hz"`, `material="box"` or `margin=5.0`.

    Raises:
        UsageError, InputError: an option is wrong, or recordings, checkpoints or pairs do not fit.
    """
    folders = {"data_root": Path(data_root), "checkpoint_dir": Path(checkpoint_dir)}
    return task_from("recordings", {**folders, **options}, **({} if scorer is None else {"scorer": scorer}))


def python(named: str, **options: Any) -> "Task":
    """The task that your own function returns. This runs its code.

    Args:
        named: the function without arguments, as `FILE.py:factory` or `package.module:factory`.
        options: command-line options by name: those of the loss, and `learning_rate`.

    Raises:
        UsageError, InputError: the function is not found, fails, or does not return a Task.
    """
    return task_from("python", {"task": named, **options})

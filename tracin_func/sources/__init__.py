"""Where tasks come from: `demo()`, `recordings(...)` and `python(...)` return a Task; `registry` lists them.

Each source lies in a folder of its name. These are imported first, so that the functions of the same names stay.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import tracin_func.sources.demo
import tracin_func.sources.python
import tracin_func.sources.recordings  # noqa: F401
from tracin_func.sources.registry import task_from

if TYPE_CHECKING:
    from torch import nn

    from tracin_func.task.task import Task


def demo(frequency: str = "500hz", material: str = "plastic", **options: Any) -> "Task":
    """The embedded example: SYNTHETIC tones and a ranker really trained on them, made on first use.

    The first use of a tone takes about 15 seconds.

    Args:
        frequency: `500hz`, `1000hz` or `3000hz`.
        material: `plastic` or `box`.
        options: of the command line by name, such as `num_test="all"`, `loss_type="standard"` or `takes="0,1,2"`.

    Raises:
        UsageError, InputError, OutputError: an option is wrong, or the example cannot be made.
    """
    return task_from("demo", {"frequency": frequency, "material": material, **options})


def recordings(
    data_root: str | Path, checkpoint_dir: str | Path, *, scorer: "nn.Module | None" = None, **options: Any
) -> "Task":
    """Recordings in a tree ROOT/deg036/plastic/plastic_deg036_500hz_04.wav and a model trained on them.

    Args:
        data_root: folder of the tree.
        checkpoint_dir: folder of checkpoints; their `args` hold the settings of the training, which are used.
        scorer: the model of the checkpoints; the embedded ranker when None.
        options: of the command line by name, such as `frequency="1000hz"`, `material="box"` or `margin=5.0`.

    Raises:
        UsageError, InputError: an option is wrong, or recordings, checkpoints or pairs do not fit.
    """
    folders = {"data_root": Path(data_root), "checkpoint_dir": Path(checkpoint_dir)}
    return task_from("recordings", {**folders, **options}, **({} if scorer is None else {"scorer": scorer}))


def python(named: str, **options: Any) -> "Task":
    """The task that a function returns, named `FILE.py:factory` or `package.module:factory`. This runs its code.

    Args:
        named: the function, of no argument.
        options: of the command line by name: those of the loss, and `learning_rate`.

    Raises:
        UsageError, InputError: there is no such function, or it fails or returns something else.
    """
    return task_from("python", {"task": named, **options})

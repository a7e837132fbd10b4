"""A task of the user's function to train on."""

import copy
from dataclasses import replace

from tracin_func.losses.custom import DEFAULT_LOSS
from tracin_func.sources.options import Options, setting
from tracin_func.sources.python.loading import load_task, require_scorer
from tracin_func.sources.python.options import PythonOptions
from tracin_func.sources.source import Listener
from tracin_func.sources.training import TrainingJob, given_loss
from tracin_func.sources.training_options import TrainingOptions


def job(options: Options, listener: Listener) -> TrainingJob:
    """The task with its own loss, or the given one.

    Raises:
        UsageError, InputError: an option is wrong, or the function fails.
    """
    named, asked = options[PythonOptions].task, options[TrainingOptions]
    assert named is not None
    task = load_task(named)
    require_scorer(setting("task", named), task.scorer, task.joint)
    task = replace(task, loss=given_loss(asked, DEFAULT_LOSS if task.loss is None else task.loss))
    scorer = (lambda seed: copy.deepcopy(task.scorer)) if asked.keep_weights else None
    return TrainingJob(task, scorer, {"task": named}, ("--task", named))

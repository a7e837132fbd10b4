"""A task that a function of the user's returns, as a source."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from tracin_func.losses.custom import DEFAULT_LOSS
from tracin_func.losses.registry import LOSSES
from tracin_func.sources.groups import ModelOptions
from tracin_func.sources.options import Options, setting
from tracin_func.sources.python.loading import load_task, require_scorer
from tracin_func.sources.python.options import PythonOptions
from tracin_func.sources.settings import Settings
from tracin_func.sources.source import Job, Listener, Source
from tracin_func.sources.training import ids_in, listed
from tracin_func.sources.values import checkpoint_choice
from tracin_func.task.checkpoints import Checkpoint, find_checkpoints
from tracin_func.task.task import Task
from tracin_func.training.run import selected


@dataclass(frozen=True)
class PythonTask(Source):
    """The returned task; given loss options and a given learning rate replace its own."""

    brings: ClassVar[str] = "`task` brings its own data, model and pairs"
    unused: ClassVar[Sequence[str]] = (
        *("model", "model_arg", "pairs", "ids", "exclude_before_split", "seed"),
        *("num_test", "test_pairs", "test_select", "query_audio"),
    )

    @staticmethod
    def asked(options: Options) -> bool:
        return options[PythonOptions].task is not None

    @property
    def stem(self) -> str:
        place, _, factory = self._named.rpartition(":")
        return f"{Path(place).stem if place.endswith('.py') else place}_{factory}"

    def job(self, listener: Listener, *, with_test: bool = True, streamed: bool = False) -> Job:
        task = load_task(self._named)
        require_scorer(setting("task", self._named), task.scorer, task.joint)
        own, loss_type = self.options[ModelOptions], self.options.values.get("loss_type")
        args: Mapping[str, Any] = {}
        if own.checkpoint_dir is not None:
            prefix = own.checkpoint_prefix or "model_epoch_"
            paths = checkpoint_choice(own.checkpoints)(find_checkpoints(own.checkpoint_dir, prefix))
            task = replace(task, checkpoints=list(map(Checkpoint, paths)))
            args = task.checkpoints[0].peek().args
        rate = own.learning_rate
        if rate is not None:
            task = replace(task, checkpoints=[replace(each, learning_rate=rate) for each in task.checkpoints])
        settings = Settings(self.options.values, args)
        task = self._chosen(task, settings, listener)
        if args.get("loss_type") in LOSSES:  # of the training, where options gave one to the task
            task = replace(task, loss=settings.loss(), trained_loss=settings.trained_loss())
        elif loss_type is None:
            task = replace(task, loss=settings.adjusted(DEFAULT_LOSS if task.loss is None else task.loss))
        else:
            task = replace(task, loss=settings.loss())
            listener.report(f"note: {setting('loss_type', loss_type)} replaces the task's own loss.")
            if settings.unread is not None:
                listener.report(f"warning: {settings.unread}")
        return Job(replace(task, describe={"kind": "task", "task": self._named, **task.describe}), settings)

    def _chosen(self, task: Task, settings: Settings, listener: Listener) -> Task:
        """The task with the training pairs that exclusions and flips leave, as options or checkpoints name them."""
        exclude, flip = (ids_in(name, listed(name, settings, listener)) for name in ("exclusions_file", "flips_file"))
        return replace(task, train=selected(task, exclude, flip, listener.report)) if exclude or flip else task

    @property
    def _named(self) -> str:
        named = self.options[PythonOptions].task
        assert named is not None
        return named

"""A task that a function of the user's returns, as a source."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from tracin_func.losses.custom import DEFAULT_LOSS
from tracin_func.sources.groups import ModelOptions
from tracin_func.sources.options import Options, setting
from tracin_func.sources.python.loading import load_task, require_scorer
from tracin_func.sources.python.options import PythonOptions
from tracin_func.sources.settings import Settings
from tracin_func.sources.source import Job, Listener, Source


@dataclass(frozen=True)
class PythonTask(Source):
    """The returned task; given loss options and a given learning rate replace its own."""

    brings: ClassVar[str] = "`task` brings its own data, model and pairs"
    unused: ClassVar[Sequence[str]] = (
        *("checkpoint_dir", "checkpoint_prefix", "checkpoints", "model", "model_arg", "pairs", "ids"),
        *("exclusions_file", "exclude_before_split", "seed", "num_test", "test_pairs", "test_select", "query_audio"),
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
        rate, loss_type = self.options[ModelOptions].learning_rate, self.options.values.get("loss_type")
        if rate is not None:
            task = replace(task, checkpoints=[replace(each, learning_rate=rate) for each in task.checkpoints])
        settings = Settings(self.options.values)
        if loss_type is None:
            task = replace(task, loss=settings.adjusted(DEFAULT_LOSS if task.loss is None else task.loss))
        else:
            task = replace(task, loss=settings.loss())
            listener.report(f"note: {setting('loss_type', loss_type)} replaces the task's own loss.")
            if settings.unread is not None:
                listener.report(f"warning: {settings.unread}")
        return Job(replace(task, describe={"kind": "task", "task": self._named, **task.describe}), settings)

    @property
    def _named(self) -> str:
        named = self.options[PythonOptions].task
        assert named is not None
        return named

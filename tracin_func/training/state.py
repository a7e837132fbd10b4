"""What a training run consists of between two epochs: saved in each checkpoint, and restored from one."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from tracin_func.errors import InputError
from tracin_func.training.settings import OPTIMIZERS, TrainingSettings

SAVED = ("optimizer_state_dict", "scheduler_state_dict", "rng", "epoch", "step", "history")


class RunState:
    """Optimiser, scheduler, random generators and counters of a run, all of which decide how it continues."""

    def __init__(self, scorer: nn.Module, settings: TrainingSettings, device: torch.device) -> None:
        trained = [parameter for parameter in scorer.parameters() if parameter.requires_grad]
        if not trained:
            raise InputError("the scorer has no trainable parameter. Set requires_grad on the parameters to train.")
        self.scorer, self.settings, self.device = scorer, settings, device
        make: Any = OPTIMIZERS[settings.optimizer]
        self.optimizer = make(trained, lr=settings.learning_rate, weight_decay=settings.weight_decay)
        self.scheduler: ReduceLROnPlateau | None = None
        if settings.plateau is not None:
            factor, patience = settings.plateau
            self.scheduler = ReduceLROnPlateau(self.optimizer, factor=factor, patience=patience)
        self.shuffle = torch.Generator().manual_seed(settings.seed)
        self.epoch = self.step = 0

    @property
    def learning_rate(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])

    def end_epoch(self, loss: float) -> None:
        """Count an epoch of this mean loss; the learning rate is lowered where the loss no longer falls."""
        self.epoch += 1
        if self.scheduler is not None:
            self.scheduler.step(loss)

    def content(self) -> dict[str, Any]:
        """Copies of all of it, on the CPU."""
        generators = {"shuffle": self.shuffle.get_state(), "torch": torch.get_rng_state()}
        if self.device.type == "cuda":
            generators["cuda"] = torch.cuda.get_rng_state(self.device)
        return {
            "model_state_dict": _copied(self.scorer.state_dict()),
            "optimizer_state_dict": _copied(self.optimizer.state_dict()),
            "scheduler_state_dict": None if self.scheduler is None else self.scheduler.state_dict(),
            "rng": generators,
            "epoch": self.epoch,
            "step": self.step,
        }

    def restore(self, content: Mapping[str, Any]) -> None:
        """Continue from what `content` returned, or from a checkpoint file with it.

        Raises:
            InputError: a part is missing, or does not fit the scorer.
        """
        if missing := [name for name in SAVED if name not in content]:
            raise InputError(f"the checkpoint lacks {missing[0]!r}, so the training cannot continue from it.")
        try:
            self.scorer.load_state_dict(content["model_state_dict"])
            self.optimizer.load_state_dict(content["optimizer_state_dict"])
        except (RuntimeError, ValueError, KeyError) as error:
            words = " ".join(str(error).split())
            raise InputError(f"the checkpoint does not fit the scorer: {words}") from error
        if self.scheduler is not None:
            self.scheduler.load_state_dict(content["scheduler_state_dict"])
        self.shuffle.set_state(content["rng"]["shuffle"])
        torch.set_rng_state(content["rng"]["torch"])
        if self.device.type == "cuda" and "cuda" in content["rng"]:
            torch.cuda.set_rng_state(content["rng"]["cuda"], self.device)
        self.epoch, self.step = int(content["epoch"]), int(content["step"])


@contextmanager
def deterministic(settings: TrainingSettings, device: torch.device) -> Iterator[None]:
    """In the block torch draws from `settings.seed` and uses `settings.threads`; both are restored afterwards."""
    threads = torch.get_num_threads()
    devices = [device] if device.type == "cuda" else []
    torch.set_num_threads(settings.threads)
    try:
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(settings.seed)
            yield
    finally:
        torch.set_num_threads(threads)


def _copied(value: Any) -> Any:
    """A copy on the CPU of nested dicts and lists with their tensors."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {name: _copied(each) for name, each in value.items()}
    return [_copied(each) for each in value] if isinstance(value, list) else value

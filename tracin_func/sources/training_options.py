"""The options of a training. No variable sets them: those of scoring mean something else under the same names."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from tracin_func.errors import UsageError
from tracin_func.sources.options import COMPUTING, LOSS, MODEL, PAIRS, option, switch
from tracin_func.sources.values import numbers


@dataclass(frozen=True)
class TrainingOptions:
    """How a ranker is trained, on which of the training pairs, and where its checkpoints go."""

    panel: ClassVar[str] = MODEL
    checkpoint_dir: Path | None = option("Folder to write checkpoints to.", variable=False)
    resume: bool = switch("Continue behind the last checkpoint in the folder.", variable=False)
    model: str | None = option(
        "Your own scorer: a class derived from torch.nn.Module. The file is run.",
        "embedded ranker",
        metavar="FILE.py:Class",
        path=True,
        variable=False,
    )
    model_arg: list[str] | None = option(
        "Argument of the model class; repeat the option for more.", metavar="NAME=VALUE", variable=False
    )
    keep_weights: bool = switch("Start from the weights of the task's scorer, not from fresh ones.", variable=False)
    loss_type: Literal["standard", "ghm", "logistic"] | None = option(
        "Loss: standard (margin ranking), ghm or logistic.", "standard; of a task its own", panel=LOSS, variable=False
    )
    margin: float | None = option("Margin of the ranking loss.", "10; of a task its own", panel=LOSS, variable=False)
    ghm_bins: int | None = option("Number of bins of difficulty.", "10", panel=LOSS, least=1, variable=False)
    ghm_alpha: float | None = option(
        "Exponent of the pair density in a bin; 0 for the standard loss.", "0.75", panel=LOSS, variable=False
    )
    epochs: int | None = option("Passes over the training pairs.", "10", least=1, variable=False)
    checkpoint_interval: int | None = option(
        "Epochs between two checkpoints; the last epoch always has one.", "1", least=1, variable=False
    )
    learning_rate: float | None = option(
        "Learning rate of the first steps; it is halved when the training loss has not fallen for 3 epochs.",
        "0.03",
        variable=False,
    )
    weight_decay: float | None = option("Weight decay of the optimiser.", "1e-5", variable=False)
    batch_size: int | None = option(
        "Pairs per step; the last, smaller batch of an epoch is left out.", "32", least=1, variable=False
    )
    optimizer: Literal["adam", "adamw", "sgd"] | None = option("adam, adamw or sgd.", "adam", variable=False)
    exclusions_file: Path | None = option(
        "File of item or pair ids to leave out of the training pairs, one per line.", panel=PAIRS, variable=False
    )
    flips_file: Path | None = option(
        "File of ids of pairs whose target is inverted, one per line; `exclude --suggest flip` writes one.",
        panel=PAIRS,
        variable=False,
    )
    seed: int | None = option(
        "Seed of split, drawn pairs, initial weights and order of pairs.", "42", panel=PAIRS, least=0, variable=False
    )
    seeds: str | None = option(
        "Seeds of initial weights and order of pairs, separated by commas: one training each, in the folders seed_1, "
        "seed_2, ... The split stays that of --seed.",
        panel=PAIRS,
        metavar="N,N,...",
        variable=False,
    )
    device: str | None = option(
        "cpu, auto, cuda, cuda:1 or mps. Results are bit-equal on the CPU only.", "cpu", panel=COMPUTING, variable=False
    )
    threads: int | None = option("Threads of the CPU.", "1", panel=COMPUTING, least=1, variable=False)

    def __post_init__(self) -> None:
        if self.checkpoint_dir is None:
            raise UsageError("`checkpoint_dir` is missing. Name the folder to write checkpoints to.")
        if self.model_arg and self.model is None:
            raise UsageError("`model_arg` was given without `model`. Give the model class that takes the arguments.")
        seeds = numbers("seeds", self.seeds) or []
        if len(set(seeds)) < len(seeds) or any(seed < 0 for seed in seeds):
            raise UsageError(f"`seeds` should be different numbers of at least 0. Got {self.seeds}.")

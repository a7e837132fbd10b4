"""The options of `evaluate`: what is compared, how much is retrained, and how."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from tracin_func.errors import UsageError
from tracin_func.evaluation.plan import PARTS
from tracin_func.sources.options import COMPUTING, RESULTS, VIEW, option
from tracin_func.sources.values import share, words

TRAINING = "Retraining"


@dataclass(frozen=True)
class EvaluateOptions:
    """What is evaluated. No variable sets these: they are of one evaluation."""

    panel: ClassVar[str] = VIEW
    methods: str | None = option(
        "Scores to compare, such as tracin,tracin-last,self. Plain loss and random scores are always compared.",
        "tracin,self",
        metavar="NAME,NAME,...",
        variable=False,
    )
    parts: str | None = option(
        "What to evaluate: flips (are planted label flips found?), removal (is a model without the first pairs "
        "better?), datamodelling and items (are models on random halves of the pairs, or items, foreseen?), left-out "
        "(single pairs and items).",
        "flips,removal,datamodelling",
        metavar="PART,PART,...",
        variable=False,
    )
    budget: float | None = option(
        "Minutes that retrainings may take. What does not fit is left out and listed.",
        "no limit",
        metavar="MINUTES",
        variable=False,
    )
    flip_share: str | None = option(
        "Share of the training labels to flip for flips and removal; 0% removes from the labels as they are.",
        "10%",
        metavar="X%",
        variable=False,
    )
    drop: str | None = option(
        "Shares of the training pairs to drop.", "5%,10%,20%", metavar="X%,X%,...", variable=False
    )
    queries: int | None = option(
        "Held-out pairs, at most, whose score margins are foreseen.", "40", least=1, metavar="N", variable=False
    )
    masks: int | None = option("Random halves to retrain on.", "80", least=1, metavar="N", variable=False)
    retrain_seeds: int | None = option("Retrainings of each half.", "3", least=1, metavar="N", variable=False)
    draws: int | None = option(
        "Sets of planted flips, and repetitions of removal.", "20", least=1, metavar="N", variable=False
    )
    runs: int | None = option(
        "Trainings on all pairs whose scores are judged.", "3", least=1, metavar="N", variable=False
    )
    left_out: int | None = option(
        "Pairs, and items, to leave out one by one.", "20", least=1, metavar="N", variable=False
    )
    epochs: int | None = option(
        "Epochs of each retraining.", "the checkpoint's, else 20", panel=TRAINING, least=1, metavar="N", variable=False
    )
    retrain_learning_rate: float | None = option(
        "Learning rate of each retraining.", "the checkpoint's, else 1e-3", panel=TRAINING, metavar="X", variable=False
    )
    retrain_batch_size: int | None = option(
        "Pairs per step of each retraining.",
        "the checkpoint's, else 32",
        panel=TRAINING,
        least=1,
        metavar="N",
        variable=False,
    )
    optimizer: Literal["adam", "adamw", "sgd"] | None = option(
        "Optimiser of each retraining: adam, adamw or sgd.",
        "the checkpoint's, else adam",
        panel=TRAINING,
        variable=False,
    )
    start: Literal["drawn", "scorer"] | None = option(
        "Initial weights of each retraining: drawn (anew, by the seed) or scorer (those of the model, such as "
        "pretrained ones).",
        "drawn",
        panel=TRAINING,
        variable=False,
    )
    processes: int | None = option(
        "Processes that retrain, with one thread each.",
        "one per core",
        panel=COMPUTING,
        least=1,
        metavar="N",
        variable=False,
    )
    figure: Path | None = option(
        "SVG file to write the figures to.", "none", panel=RESULTS, metavar="FILE", variable=False
    )

    def __post_init__(self) -> None:
        if self.budget is not None and not self.budget > 0:
            raise UsageError(f"`budget` should be above 0 minutes. Got {self.budget:g}.")
        if unknown := [part for part in words("parts", self.parts) or () if part not in PARTS]:
            raise UsageError(f"`parts` should be among {', '.join(PARTS)}. Got {unknown[0]!r}.")
        share("flip_share", self.flip_share)
        for each in words("drop", self.drop) or ():
            share("drop", each)

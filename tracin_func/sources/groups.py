"""The options that sources share: model and checkpoints, the loss, the pairs and the test pairs."""

from dataclasses import dataclass, make_dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from tracin_func.errors import InputError, UsageError
from tracin_func.losses.registry import LOSSES, loss_options
from tracin_func.sources.options import LOSS, MODEL, PAIRS, option, switch
from tracin_func.sources.values import checkpoint_choice, num_test

DRAWN, ALL = WORDS = "drawn", "all"


@dataclass(frozen=True)
class ModelOptions:
    """The scorer, its checkpoints, and what of them is scored."""

    panel: ClassVar[str] = MODEL
    checkpoint_dir: Path | None = option("Folder of checkpoints; may hold {frequency} and {material}.", "embedded")
    checkpoint_prefix: str | None = option("Start of the names of checkpoints, files or folders.", "model_epoch_")
    checkpoints: str | None = option("Which of them: numbers as 10,20, or last:3.", "all")
    checkpoint_weights: Literal["lr", "uniform"] | None = option(
        "lr: each checkpoint weighs its learning rate; uniform: each weighs 1, no rate is used.", "lr"
    )
    preconditioner: Literal["none", "adam"] | None = option(
        "adam: gradients meet as in Adam's steps, by the second moments in the checkpoints; none: as in SGD's.", "none"
    )
    model: str | None = option(
        "Scorer of your own: a torch.nn.Module class. The file is run.",
        "embedded ranker",
        metavar="FILE.py:Class",
        path=True,
    )
    model_arg: list[str] | None = option("Argument of the model class; repeat for more.", metavar="NAME=VALUE")
    learning_rate: float | None = option("Learning rate of all checkpoints.", "their own")
    params: str | None = option("Score only parameters in whose name this regular expression is found.", "all")

    def __post_init__(self) -> None:
        checkpoint_choice("--checkpoints", self.checkpoints)
        if self.model_arg and self.model is None:
            raise UsageError(
                "--model-arg was given without --model. Expected the model class whose arguments they are."
            )
        if self.learning_rate is not None and self.checkpoint_weights == "uniform":
            raise UsageError(
                "--learning-rate was given with --checkpoint-weights uniform, which uses none. Leave one out."
            )


def loss_groups() -> tuple[type, ...]:
    """One group: which loss, and the options of all that are registered."""
    *most, last = [f"{name} ({loss.help})" if loss.help else name for name, loss in LOSSES.items()]
    which = option(f"{', '.join(most)} or {last}.", "the checkpoint's, else standard", words="losses.registry:LOSSES")
    fields: list[tuple[str, Any, Any]] = [("loss_type", str | None, which)]
    for each in loss_options().values():
        default = each.shown_default or f"the checkpoint's, else {each.default}"
        words = tuple(each.words) if each.kind is str else ()
        fields.append((each.name, (str if each.words else each.kind) | None, option(each.help, default, words=words)))
    return (make_dataclass("LossOptions", fields, namespace={"panel": LOSS}, frozen=True),)


@dataclass(frozen=True)
class PairOptions:
    """The training pairs."""

    panel: ClassVar[str] = PAIRS
    pairs: str | None = option(
        "drawn by the seed as in the training, all, or a CSV or Parquet FILE: first,second,target[,split,weight].",
        "drawn",
        path=True,
    )
    ids: Literal["names", "positions"] | None = option(
        "What first and second of the pairs FILE are: names (ids of items) or positions (0, 1, ...).",
        "names; positions where Parquet holds whole numbers",
    )
    exclusions_file: Path | None = option(
        "Item or pair ids to leave out, one a line; applies after the split. Or none.", "the checkpoint's, else none"
    )
    exclude_before_split: bool = switch("Excluded items are left out before the split; others may then change sides.")
    seed: int | None = option("Seed of split, drawing and test sample.", "the checkpoint's, else 42")

    def __post_init__(self) -> None:
        if self.pairs is not None and self.pairs not in WORDS and not Path(self.pairs).exists():
            raise InputError(
                f"--pairs {self.pairs}: no such file. Expected {', '.join(WORDS)} or a CSV or Parquet FILE."
            )
        if self.ids is not None and self.pairs in (None, *WORDS):
            raise UsageError("--ids was given without --pairs FILE. Expected both.")


@dataclass(frozen=True)
class QueryOptions:
    """The test pairs to explain."""

    panel: ClassVar[str] = PAIRS
    num_test: str | None = option(
        "Test pairs to explain, sampled with the seed; or all.", "5", aliases=("--num-test-samples",)
    )
    test_pairs: str | None = option(
        "These test pairs: ids ID1_ID2 separated by commas, or a file with one a line.", "drawn", path=True
    )
    test_select: Literal["random", "misranked", "lowest-margin", "active"] | None = option(
        "random; or by the model: misranked or lowest-margin at the last checkpoint, active at any.", "random"
    )

    def __post_init__(self) -> None:
        num_test(self.num_test)
        if self.test_pairs is not None and (self.num_test is not None or self.test_select is not None):
            raise UsageError("--test-pairs names the test pairs; --num-test and --test-select cannot be used with it.")

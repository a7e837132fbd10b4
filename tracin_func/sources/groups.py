"""Groups of options that all sources share: model and checkpoints, loss, training pairs and test pairs."""

from dataclasses import dataclass, make_dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from tracin_func.errors import InputError, UsageError
from tracin_func.losses.registry import LOSSES, loss_options
from tracin_func.sources.options import LOSS, MODEL, PAIRS, option, setting, switch
from tracin_func.sources.values import checkpoint_choice, num_test
from tracin_func.task.queries import FORM, parsed

DRAWN, ALL = WORDS = "drawn", "all"


@dataclass(frozen=True)
class ModelOptions:
    """The scorer, its checkpoints, and which of its parameters are scored."""

    panel: ClassVar[str] = MODEL
    checkpoint_dir: Path | None = option("Folder of checkpoints; {frequency} and {material} are replaced.", "embedded")
    checkpoint_prefix: str | None = option("How the names of checkpoint files or folders begin.", "model_epoch_")
    checkpoints: str | None = option("Checkpoints to use: all, numbers such as 10,20, or last:3.", "all")
    checkpoint_weights: Literal["lr", "uniform"] | None = option(
        "Weight of each checkpoint: lr (its learning rate) or uniform (1; learning rates are ignored).", "lr"
    )
    preconditioner: Literal["none", "adam"] | None = option(
        "adam: scale gradients by the second moments saved in the checkpoints, as Adam does. none: plain SGD.", "none"
    )
    model: str | None = option(
        "Your own scorer: a class derived from torch.nn.Module. The file is run.",
        "embedded ranker",
        metavar="FILE.py:Class",
        path=True,
    )
    model_arg: list[str] | None = option(
        "Argument of the model class; repeat the option for more.", metavar="NAME=VALUE"
    )
    learning_rate: float | None = option("Learning rate to use for all checkpoints.", "their own")
    params: str | None = option("Regular expression: only parameters whose name contains a match are scored.", "all")

    def __post_init__(self) -> None:
        checkpoint_choice(self.checkpoints)
        if self.model_arg and self.model is None:
            raise UsageError("`model_arg` was given without `model`. Give the model class that takes the arguments.")
        if self.learning_rate is not None and self.checkpoint_weights == "uniform":
            raise UsageError(
                '`learning_rate` has no effect with `checkpoint_weights="uniform"`, which ignores learning rates. '
                "Leave one of them out."
            )


def loss_groups() -> tuple[type, ...]:
    """One group: the name of the loss, and the options of all registered losses."""
    *most, last = [f"{name} ({loss.help})" if loss.help else name for name, loss in LOSSES.items()]
    which = option(
        f"Loss: {', '.join(most)} or {last}.", "the checkpoint's, else standard", words="losses.registry:LOSSES"
    )
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
        "Training pairs: drawn (by the seed, as in training), all, or a CSV or Parquet FILE with columns "
        "first,second,target[,split,weight].",
        "drawn",
        path=True,
    )
    ids: Literal["names", "positions"] | None = option(
        "Meaning of first and second in the pairs FILE: names (ids of items) or positions (0, 1, ...).",
        "names; positions if Parquet columns are whole numbers",
    )
    exclusions_file: Path | None = option(
        "File of item or pair ids to leave out after the split, one per line; or none.", "the checkpoint's, else none"
    )
    flips_file: Path | None = option(
        "File of ids of training pairs whose target is inverted, one per line; or none.", "the checkpoint's, else none"
    )
    exclude_before_split: bool = switch(
        "Apply exclusions before the train/test split. Other items may then move between train and test."
    )
    seed: int | None = option(
        "Seed of the split, the drawn pairs and the sample of test pairs.", "the checkpoint's, else 42"
    )

    def __post_init__(self) -> None:
        if self.pairs is not None and self.pairs not in WORDS and not Path(self.pairs).exists():
            raise InputError(
                f"{setting('pairs', self.pairs)}: file not found. Allowed: {', '.join(WORDS)}, a CSV or Parquet file."
            )
        if self.ids is not None and self.pairs in (None, *WORDS):
            raise UsageError("`ids` was given without a file of pairs. Name the file with `pairs`.")


@dataclass(frozen=True)
class QueryOptions:
    """The test pairs to explain."""

    panel: ClassVar[str] = PAIRS
    num_test: str | None = option(
        "Number of test pairs to explain, sampled with the seed; or all.", "5", aliases=("--num-test-samples",)
    )
    test_pairs: str | None = option(
        "Test pairs to explain: ids ID1_ID2 separated by commas, or a file with one per line.", "drawn", path=True
    )
    test_select: Literal["random", "misranked", "lowest-margin", "active"] | None = option(
        "How test pairs are chosen: random, misranked or lowest-margin (at the last checkpoint), or active (at any).",
        "random",
    )
    query: list[str] | None = option(
        "Explain this pair, which need not be in any split: ids of two items and the target, 1 or -1. Without a target "
        "the model's own ranking is explained. Repeat the option for more.",
        metavar=FORM,
        variable=False,
    )
    query_audio: tuple[Path, Path] | None = option(
        "Explain how the model ranks two WAV files. Their ids, the names without ending, can be used in --query.",
        metavar="A.wav B.wav",
        variable=False,
    )

    def __post_init__(self) -> None:
        num_test(self.num_test)
        if isinstance(self.query, str):
            raise UsageError(f"`query` should be a list of queries. Got the text {self.query!r}.")
        for asked in self.query or ():
            parsed(asked)
        if self.query_audio is not None and (isinstance(self.query_audio, str) or len(self.query_audio) != 2):
            raise UsageError(f"`query_audio` should be two WAV files. Got {self.query_audio!r}.")
        chosen = [name for name in ("num_test", "test_pairs", "test_select") if getattr(self, name) is not None]
        asked_for = [name for name in ("query", "query_audio") if getattr(self, name)]
        if chosen and asked_for:
            raise UsageError(
                f"`{asked_for[0]}` cannot be combined with `{chosen[0]}`: it takes the place of test pairs. Leave one "
                "of them out."
            )
        if self.test_pairs is not None and (self.num_test is not None or self.test_select is not None):
            raise UsageError("`test_pairs` cannot be combined with `num_test` or `test_select`. Leave one side out.")

"""The options of `exclude`: which scores, which pairs they exclude, and where the list goes."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from tracin_func.errors import UsageError
from tracin_func.sources.options import PAIRS, RESULTS, VIEW, declared, is_given, option, switch

# What has no meaning beside these two.
_NOT_WITH = {
    "sweep": (
        *("threshold", "upper_threshold", "drop", "max_exclusions", "with_mirrors", "suggest"),
        *("output_file", "format", "update_metadata"),
    ),
    "suggest": ("threshold", "drop", "min_occurrences", "mode", "with_mirrors", "update_metadata"),
}


@dataclass(frozen=True)
class ExcludeOptions:
    """What is excluded of which result files. No variable sets them: a forgotten one would change what is dropped."""

    panel: ClassVar[str] = PAIRS
    file: list[Path] = option("Result files of influence, or of self-influence.", argument=True)
    column: str | None = option(
        "Name of the scores, such as tracin_self_influence.",
        "influence, if a file has it",
        metavar="NAME",
        variable=False,
    )
    threshold: str | None = option(
        "Exclude pairs whose influence is below this number, or below a quantile such as 5% of all live scores.",
        "-5",
        metavar="X",
        variable=False,
    )
    upper_threshold: str | None = option(
        "Exclude pairs whose score is above this number or quantile. Self-influence has this threshold only.",
        "95% for self-influence",
        metavar="X",
        variable=False,
    )
    drop: str | None = option(
        "Exclude this share of the pairs instead, such as 5%: the lowest sums of influence, if below 0, or the highest "
        "self-influence.",
        metavar="X%",
        variable=False,
    )
    min_occurrences: int | None = option(
        "Least number of test columns in which a pair is beyond a threshold. Columns of equal scores do not count.",
        "1",
        metavar="N",
        least=1,
        variable=False,
    )
    max_exclusions: int | None = option(
        "Largest number of ids, the most harmful first.", "no limit", metavar="N", least=1, variable=False
    )
    mode: Literal["ranking_pair", "full_pair"] | None = option(
        "ranking_pair: list pairs. full_pair: list both items of each, with which all their other pairs go.",
        "ranking_pair",
        aliases=("--pair-mode",),
        variable=False,
    )
    with_mirrors: bool = switch("Also list the pair (b, a) for (a, b), if it has scores.", variable=False)
    suggest: Literal["flip"] | None = option(
        "flip: list pairs whose label looks inverted, instead of pairs to exclude.", variable=False
    )
    sweep: str | None = option(
        "Only count what these thresholds would exclude, such as -5,-10,-15 or 1%,5%.",
        aliases=("--thresholds",),
        panel=VIEW,
        metavar="X,X,...",
        variable=False,
    )
    top: int | None = option("Rows of the table of pairs.", "10", metavar="N", least=1, panel=VIEW, variable=False)
    output_file: Path | None = option(
        "File to write the list to; --exclusions-file reads it.", "none", panel=RESULTS, variable=False
    )
    format: Literal["text", "parquet", "mask"] | None = option(
        "text (one id per line, the reason in a # line above it), parquet, or mask (a NumPy file of one bool per "
        "training pair, True where it is not listed).",
        "by the ending: .parquet, .npy, otherwise text",
        panel=RESULTS,
        variable=False,
    )
    update_metadata: bool = switch(
        "Mark the excluded pairs in the JSON files: fields excluded, notes and tracin_info.",
        panel=RESULTS,
        variable=False,
    )

    def __post_init__(self) -> None:
        table = declared(ExcludeOptions)
        for name, others in _NOT_WITH.items():
            given = [table[other].flag for other in others if is_given(getattr(self, other))]
            if getattr(self, name) is not None and given:
                raise UsageError(f"{table[name].flag} cannot be combined with {given[0]}. Leave one of them out.")
        if self.format is not None and self.output_file is None:
            raise UsageError("`format` was given without `output_file`. Expected both.")

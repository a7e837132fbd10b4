"""The options of commands that show result files: show, compare, report."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from tracin_func.errors import UsageError
from tracin_func.sources.options import RESULTS, VIEW, option, switch

View = Literal["pair", "item", "class", "class-pair"]


@dataclass(frozen=True)
class ShowOptions:
    """Which result file is shown, and what of it."""

    panel: ClassVar[str] = VIEW
    file: Path = option("Result file: JSON, CSV or Parquet, of tracin-func or of the same form.", argument=True)
    by: View | None = option("What a row of the table is: pair, item, class or class-pair.", "pair", metavar="VIEW")
    column: str | None = option("A column, part of its name, or all.", "self-influence, otherwise all", metavar="NAME")
    sort: Literal["score", "abs", "id"] | None = option(
        "Order of the rows: score, abs (absolute score) or id.", "score", metavar="ORDER"
    )
    top: int | None = option("Rows of the table; for influence, of each sign.", "10", metavar="N", least=1)
    histogram: bool = switch("Show the distribution of the scores.", default="on", on=True)


@dataclass(frozen=True)
class CompareOptions:
    """Which result files are compared, and what of them."""

    panel: ClassVar[str] = VIEW
    first: Path = option("Result file: JSON, CSV or Parquet.", argument=True)
    second: Path = option("Another one, or the same for two of its columns.", argument=True)
    column: list[str] | None = option(
        "A column, part of its name, or all; give it twice for another column of the second file.",
        "self-influence, otherwise all that both files have",
        metavar="NAME",
        variable=False,
    )
    by: View | None = option("What a row of the table is: pair, item, class or class-pair.", "pair", metavar="VIEW")
    top: int | None = option("Rows of the table.", "10", metavar="N", least=1)

    def __post_init__(self) -> None:
        if len(self.column or ()) > 2:
            raise UsageError(f"--column can be given twice, once for each file. Got {', '.join(self.column or ())}.")


@dataclass(frozen=True)
class ReportOptions:
    """What is reported, in which form, and where the report goes."""

    panel: ClassVar[str] = VIEW
    files: list[Path] | None = option(
        "Result files to report: JSON, CSV or Parquet. Without any, training and test pairs are scored first.",
        argument=True,
    )
    output: Path | None = option(
        "File to write.",
        "tracin_report.html; tracin_analysis_report.md with --format markdown",
        metavar="FILE",
        variable=False,
    )
    format: Literal["html", "markdown"] | None = option(
        "html (one file, complete in itself) or markdown (with pictures beside it).", "html", variable=False
    )
    lang: str | None = option("Language: en or zh-TW.", "en", words="report.languages.registry:LANGUAGES")
    compare: Path | None = option(
        "Result file to compare the scores with, such as those after the next training.", metavar="FILE", variable=False
    )
    top: int | None = option("Number of hardest pairs to show.", "10", least=1)
    metadata_dir: Path | None = option("Folder of the result files, if pairs are scored.", "metadata")
    debug: bool = switch("Show the traceback of an error.", panel=RESULTS)

"""The option of a task of the user's own."""

from dataclasses import dataclass
from typing import ClassVar

from tracin_func.sources.options import MODEL, option


@dataclass(frozen=True)
class PythonOptions:
    """Which function returns the task."""

    panel: ClassVar[str] = MODEL
    task: str | None = option(
        "Whole job of your own: a function that returns a tracin_func.Task. The file is run.",
        metavar="FILE.py:factory",
        path=True,
    )

"""The option of a task that the user's own function returns."""

from dataclasses import dataclass
from typing import ClassVar

from tracin_func.sources.options import MODEL, option


@dataclass(frozen=True)
class PythonOptions:
    """Which function returns the task."""

    panel: ClassVar[str] = MODEL
    task: str | None = option(
        "Your own function that returns a tracin_func.Task. The file is run.",
        metavar="FILE.py:factory",
        path=True,
    )

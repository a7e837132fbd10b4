"""The command line in this process."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from typer.testing import CliRunner

from tracin_func.cli.app import app


@dataclass(frozen=True)
class Answer:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def error(self) -> str:
        """The one line that begins with `error:`; empty where there is none."""
        lines = [line for line in self.stderr.splitlines() if line.startswith("error: ")]
        assert len(lines) <= 1, lines
        return "".join(lines)


def run(*words: str) -> Answer:
    """`tracin-func WORDS` on a wide terminal."""
    result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "240"})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return Answer(result.exit_code, result.stdout, result.stderr)


def works(*words: str) -> Answer:
    """As `run`, of a command that ends well."""
    answer = run(*words)
    assert answer.code == 0, answer.error or answer.stderr
    return answer


def refused(*words: str, code: int = 3) -> str:
    """The error line of a command that refuses its input."""
    answer = run(*words)
    assert answer.code == code, (answer.code, answer.stderr)
    assert answer.error
    return answer.error


def scores_in(folder: Path) -> Mapping[str, Mapping[str, float]]:
    """Columns by pair of the one JSON file of scores in `folder`."""
    (path,) = (path for path in folder.glob("*.json") if "provenance" not in path.name)
    content: Mapping[str, Mapping[str, float]] = json.loads(path.read_text())
    return content

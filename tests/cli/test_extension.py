"""A command of one's own, added through the table alone."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import pytest
from typer.testing import CliRunner

from tracin_func.cli.app import make_app
from tracin_func.cli.commands import COMMANDS, Command
from tracin_func.cli.options import ViewOptions
from tracin_func.errors import InputError
from tracin_func.sources.options import VIEW, Options, option


@dataclass(frozen=True)
class GreetOptions:
    """Whom, and how."""

    panel: ClassVar[str] = VIEW
    name: str = option("Whom.", argument=True)
    tone: Literal["kind", "short"] | None = option("kind, or short.", "kind")


def greet(options: Options) -> None:
    own = options[GreetOptions]
    if own.name == "nobody":
        raise InputError("nobody is there.")
    print(f"{'Hello' if own.tone == 'short' else 'A good day'}, {own.name}. {options[ViewOptions].json}")


def test_a_command_of_the_table_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(COMMANDS, "greet", Command(f"{__name__}:greet", (GreetOptions, ViewOptions), "Greet."))
    app = make_app()

    def run(*words: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["greet", *words])
        return result.exit_code, result.stdout + result.stderr

    assert run("Ada") == (0, "A good day, Ada. False\n")
    assert run("Ada", "--tone", "short", "--json") == (0, "Hello, Ada. True\n")
    assert run("Ada", "--tone", "long") == (2, "error: --tone should be one of kind, short. Got 'long'.\n")
    assert run("nobody") == (3, "error: nobody is there.\n")
    code, text = run("--help")
    assert (code, "--tone" in text) == (0, True)
    monkeypatch.setenv("TRACIN_FUNC_TONE", "short")
    assert run("Ada") == (0, "Hello, Ada. False\n")

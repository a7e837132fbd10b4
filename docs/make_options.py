"""The page of options, from the parameters that the commands really take: python docs/make_options.py"""

from pathlib import Path
from typing import Any, NamedTuple

import typer

from tracin_func.cli.app import app

PAGE = Path(__file__).with_name("options.md")
OTHER = "Others"  # the section of options that help shows under no heading

HEAD = """# Options

<!-- Written by docs/make_options.py. Change tracin_func/cli/ and run that again, not this page. -->

A setting comes from the first of these that has it:

1. the option;
2. the environment variable, `TRACIN_FUNC_` and the name of the option: `TRACIN_FUNC_DATA_ROOT` for `--data-root`.
   A switch is turned on by the value `1`;
3. the checkpoint's own `args`, which its training wrote;
4. the default.

An option that contradicts the checkpoint wins, with a warning. The [glossary](../README.md#glossary) explains the
terms.
"""

TAIL = """## Variables

`--from`, `--query`, `--query-audio`, `--output` and `--format` of `report`, and the options of `demo` and `doctor` have
no variable; of `exclude`, only `--verbose`, `--json` and `--debug` have one. Two variables have no option:
`TRACIN_FUNC_CACHE_DIR` is the folder in which the embedded example is cached, and `NO_COLOR` turns colours off.

## Exit codes

| code | meaning |
|---|---|
| 0 | done |
| 1 | a result could not be written, a number is not finite, `--verify` failed, or a bug in tracin-func |
| 2 | an option is wrong in itself, or the device is not available |
| 3 | something that was read (files, checkpoints, a model) does not fit |
| 130 | interrupted |

Tables go to stdout; progress, notes, warnings and errors go to stderr. With `--json`, stdout holds one JSON document
and nothing else. A mistake in options or files never shows a traceback; `--debug` shows it.
"""


class Row(NamedTuple):
    """One option as the page shows it; commands that share it share the row."""

    flags: str
    help: str
    default: str


def page() -> str:
    """The whole page."""
    # Typer makes the commands; whatever is added to them is on the page.
    commands: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    sections: dict[str, dict[Row, list[str]]] = {}
    for name, command in commands.items():
        for parameter in command.params:
            if parameter.param_type_name == "option":
                rows = sections.setdefault(parameter.rich_help_panel or OTHER, {})
                rows.setdefault(_row(parameter), []).append(name)
    parts = [HEAD, _commands(commands), *(_section(title, rows) for title, rows in sections.items()), TAIL]
    return "\n".join(parts)


def _row(option: Any) -> Row:
    flags = ", ".join(f"`{flag}`" for flag in (*option.opts, *option.secondary_opts))
    named = f"{flags} `{option.metavar}`" if option.metavar else flags
    words, _, default = (option.help or "").partition(" Default: ")
    default = default.removesuffix(".") or ("off" if option.is_flag and not option.default else "")
    return Row(named, words, default)


def _commands(commands: dict[str, Any]) -> str:
    lines = ["| command | what it does |", "|---|---|"]
    for name, command in commands.items():
        arguments = [_argument(each) for each in command.params if each.param_type_name == "argument"]
        lines.append(_line(f"`{' '.join([name, *arguments])}`", _first_sentence(command.help or "")))
    return "\n".join(lines) + "\n"


def _argument(argument: Any) -> str:
    name = argument.name.upper()
    return f"[{name.removesuffix('S')} ...]" if argument.nargs == -1 else name


def _section(title: str, rows: dict[Row, list[str]]) -> str:
    lines = [f"## {title}", "", "| option | meaning | default | commands |", "|---|---|---|---|"]
    lines += [_line(*row, ", ".join(names)) for row, names in rows.items()]
    return "\n".join(lines) + "\n"


def _line(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _first_sentence(text: str) -> str:
    return " ".join(text.strip().partition("\n\n")[0].split())


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8", newline="\n")

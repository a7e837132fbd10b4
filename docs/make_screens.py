"""Everything in the documentation that shows output, from real runs: python docs/make_screens.py

A block of commands (```sh) or Python (```python) that `<!-- output -->` and a ```text block follow gets the output that
it has: a page's blocks run one after the other in one folder. The picture of the README is the screen of two commands.
Runs on the embedded example, at 80 columns.
"""

import fcntl
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

DOCS = Path(__file__).parent
ROOT = DOCS.parent
ENGLISH, CHINESE = ROOT / "README.md", ROOT / "README.zh-TW.md"  # the same blocks
PAGES = (
    ENGLISH,
    CHINESE,
    *(DOCS / f"{name}.md" for name in ("tutorial", "reading", "excluding", "training", "how-it-works", "large")),
)

WIDTH, FOLDER = 80, "/home/you/work"  # FOLDER is shown for the temporary one that commands run in
SHOWN = ("tracin-func self --top 5", "tracin-func influence --num-test 1")  # the picture
# Paper, ink, then the eight colours of terminals and their bright forms: those of GitHub's two themes.
LIGHT = """ffffff 1f2328
    24292f cf222e 116329 7d4e00 0550ae 8250df 1b7c83 59636e 57606a a40e26 1a7f37 633c01 218bff a26bf2 3192aa 1f2328"""
DARK = """0d1117 e6edf3
    484f58 ff7b72 3fb950 d29922 58a6ff bc8cff 39c5cf b1bac4 6e7681 ffa198 56d364 e3b341 79c0ff d2a8ff 56d4dd ffffff"""

STYLE = re.compile(r"\x1b\[[0-9;]*m")  # of a terminal
SECONDS = re.compile(r"\d+\.\d+(?: |&#160;)s\b")  # alone they change no page
BLOCK = re.compile(
    r"^```(?P<language>sh|python)\n(?P<code>.*?)^```\n(?P<between>\n<!-- output -->\n```text\n(?P<output>.*?)^```\n)?",
    re.DOTALL | re.MULTILINE,
)


class Block(NamedTuple):
    """Code that a page shows."""

    language: str
    code: str
    output: str | None  # what the page shows below it


def main() -> None:
    """Write outputs and pictures."""
    english = ran(ENGLISH)
    for page in PAGES:
        refresh(page, english if page in (ENGLISH, CHINESE) else ran(page))
    screen = ""
    with tempfile.TemporaryDirectory() as folder:
        for command in SHOWN:
            printed = run(Block("sh", command, None), Path(folder))
            screen += f"\x1b[1m$ {command}\x1b[0m\n{printed}\n"
    for name, colours in (("light", LIGHT), ("dark", DARK)):
        picture(screen.rstrip() + "\n", colours, DOCS / f"screen-{name}.svg")


def blocks(page: Path) -> list[Block]:
    """The blocks of commands and of Python, in order."""
    found = BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [Block(each["language"], each["code"], each["output"]) for each in found]


def ran(page: Path) -> list[str | None]:
    """The output of each block of a page; None where nothing later on the page is shown."""
    every = blocks(page)
    last = max(row for row, block in enumerate(every) if block.output is not None)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "examples", Path(folder) / "examples", ignore=shutil.ignore_patterns("__pycache__"))
        outputs: list[str | None] = [run(block, Path(folder)) for block in every[: last + 1]]
    return outputs + [None] * (len(every) - last - 1)


def run(block: Block, folder: Path) -> str:
    """What a block shows on a terminal, in `folder`, with the commands of this environment; see `commands`."""
    if block.language == "python":
        words: list[str] = [sys.executable, "-c", block.code]
    else:
        words = ["bash", "-ec", "\n".join(commands(block.code))]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    variables = os.environ | {"PATH": path, "COLUMNS": str(WIDTH), "TERM": "xterm-256color"}
    code, printed, errors = on_terminal(words, folder, variables)
    if code:
        sys.exit(f"{block.code}{errors}")
    printed = printed.replace(str(folder.resolve()), FOLDER)
    return "".join(f"{line.rstrip()}\n" for line in printed.strip("\r\n").splitlines())


def on_terminal(words: list[str], folder: Path, variables: Mapping[str, str]) -> tuple[int, str, str]:
    """The exit code, what goes to stdout, a terminal of `WIDTH` columns, and what goes to stderr, a file."""
    reader, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, WIDTH, 0, 0))
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(words, cwd=folder, env=variables, stdout=terminal, stderr=errors)
        os.close(terminal)
        parts = []
        with suppress(OSError):  # Linux ends a terminal so
            while part := os.read(reader, 65536):
                parts.append(part)
        os.close(reader)
        code = process.wait()
        errors.seek(0)
        return code, b"".join(parts).decode(), errors.read()


def commands(code: str) -> Iterator[str]:
    """The commands of a block, without those that install or test."""
    for line in code.splitlines():
        yield " && ".join(part for part in line.split(" && ") if part.split()[:1] not in (["pip"], ["pytest"]))


def refresh(page: Path, outputs: list[str | None]) -> None:
    """Put outputs into a page."""
    rest = iter(outputs)

    def new(match: re.Match[str]) -> str:
        output = next(rest)
        if match["output"] is None or output is None:
            return match[0]
        plain = "".join(f"{line.rstrip()}\n" for line in STYLE.sub("", output).splitlines())
        if SECONDS.sub("", plain) == SECONDS.sub("", match["output"]):
            return match[0]
        return f"```{match['language']}\n{match['code']}```\n\n<!-- output -->\n```text\n{plain}```\n"

    text = BLOCK.sub(new, page.read_text(encoding="utf-8"))
    page.write_text(text, encoding="utf-8", newline="\n")


def picture(screen: str, colours: str, path: Path) -> None:
    """A terminal with this screen as SVG, without fonts of other servers."""
    paper, ink, *others = [(red, green, blue) for red, green, blue in map(bytes.fromhex, colours.split())]
    theme = TerminalTheme(paper, ink, others[:8], others[8:])
    with open(os.devnull, "w") as nowhere:
        console = Console(record=True, width=WIDTH, file=nowhere, force_terminal=True, color_system="truecolor")
        console.print(Text.from_ansi(screen), soft_wrap=False)
    svg = console.export_svg(title="tracin-func", theme=theme, unique_id="screen")
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    svg = svg.replace("Fira Code", "ui-monospace, SFMono-Regular, Menlo, Consolas, DejaVu Sans Mono")
    svg = "".join(f"{line.rstrip()}\n" for line in svg.splitlines())
    if not path.exists() or SECONDS.sub("", svg) != SECONDS.sub("", path.read_text(encoding="utf-8")):
        path.write_text(svg, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()

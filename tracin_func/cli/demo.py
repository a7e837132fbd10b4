"""`tracin-func demo DIR`: the embedded default as files, to see what data of one's own should look like."""

from pathlib import Path
from typing import Annotated

import typer

from tracin_func.cli.errors import guarded, importing, interruption, printing, say


@guarded
def command(
    directory: Annotated[Path, typer.Argument(help="Folder to write; it should be empty or not exist yet.")],
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Write synthetic data, checkpoints and the exact commands to run on them.

    Tones of 500hz, 1000hz and 3000hz in the lab's layout, and a ranker trained on each; about a minute on first use.
    """
    with importing():
        from tracin_func.sources.demo.source import write_demo

    with interruption(f"what is in {directory} is not complete"):
        commands = write_demo(directory, progress=say)
    with printing():
        print(f"Wrote synthetic tones and checkpoints to {directory}; the commands to run on them are in {commands}.")

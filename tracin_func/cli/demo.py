"""`tracin-func demo DIR`: the embedded default as files, to see what data of one's own should look like."""

from tracin_func.cli.errors import interruption, printing, say
from tracin_func.cli.options import DemoOptions
from tracin_func.sources.demo import cache
from tracin_func.sources.options import Options


def demo(options: Options) -> None:
    """Write synthetic data, checkpoints and the commands to run on them."""
    directory = options[DemoOptions].directory
    with interruption(f"what is in {directory} is not complete"):
        commands = cache.write_demo(directory, progress=say)
    with printing():
        print(f"Wrote synthetic tones and checkpoints to {directory}; the commands to run on them are in {commands}.")

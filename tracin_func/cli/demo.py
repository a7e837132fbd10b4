"""`tracin-func demo DIR`: the embedded example as files, to see how your own data should look."""

import shlex

from tracin_func.cli.errors import interruption, printing, say
from tracin_func.cli.options import DemoOptions
from tracin_func.sources.demo import cache
from tracin_func.sources.options import Options


def demo(options: Options) -> None:
    """Write synthetic data, checkpoints and the commands to run on them."""
    directory = options[DemoOptions].directory
    with interruption(f"what is in {directory} is not complete"):
        commands = cache.write_demo(directory, progress=say)
    options_of = "--data-root data --checkpoint-dir checkpoints/500hz"
    with printing():
        print(f"Written  {commands.parent}: data/, checkpoints/ and {commands.name}, which lists all commands")
        print(f"Next     cd {shlex.quote(str(directory))}")
        for command in ("self", "influence --num-test 5"):
            print(f"         tracin-func {command} {options_of}")

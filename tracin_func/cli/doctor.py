"""`tracin-func doctor`: does everything that a run needs work on this machine?"""

from rich.text import Text

from tracin_func.cli.errors import printing
from tracin_func.cli.options import INFLUENCE, DoctorOptions
from tracin_func.report.terminal.doctor import examine, require_health
from tracin_func.report.terminal.tables import open_console, print_line
from tracin_func.sources.options import Options, groups_of


def doctor(options: Options) -> None:
    """Report what is installed and whether it computes rightly."""
    every = Options(groups_of(INFLUENCE)).table.values()
    found = examine({each.environment for each in every if each.environment})
    with printing():
        if options[DoctorOptions].json:
            print(found.json())
        else:
            text = Text(found.text())
            text.highlight_regex(r"(?m) ok$|^passed", "green")
            text.highlight_regex(r"FAILED", "red")
            print_line(open_console(), text)
    require_health(found)

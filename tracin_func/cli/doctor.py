"""`tracin-func doctor`: does everything that a run needs work on this machine?"""

from tracin_func.cli.errors import printing
from tracin_func.cli.options import INFLUENCE, DoctorOptions
from tracin_func.report.terminal.doctor import examine, require_health
from tracin_func.sources.options import Options, groups_of


def doctor(options: Options) -> None:
    """Report what is installed and whether it computes rightly."""
    every = Options(groups_of(INFLUENCE)).table.values()
    found = examine({each.environment for each in every if each.environment})
    with printing():
        print(found.json() if options[DoctorOptions].json else found.text())
    require_health(found)

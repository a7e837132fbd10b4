"""`tracin-func store info|verify FOLDER`: what is in a gradient store, and whether it is as it was written."""

from typing import Any

from tracin_func.cli.errors import guarded, importing
from tracin_func.cli.options import STORE, takes


@guarded
@takes(*STORE)
def command(**options: Any) -> None:
    """Tell what a gradient store holds (info), or read every block again and compare it with its checksum (verify).

    Exit code 1 where something is damaged; --drop then takes these blocks out, and the next run makes them again.
    """
    with importing():
        from tracin_func.cli.stored import show_store

    show_store(options)

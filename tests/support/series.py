"""How long the series of tests are: seeds, kills, examples and moments that all prove the same."""

_run = {"thorough": False}


def note_thorough(thorough: bool) -> None:
    """Before tests are collected: whether this run has the option --thorough."""
    _run["thorough"] = thorough


def several(plain: int, thorough: int) -> int:
    """How many of a series are run: `plain`, or with --thorough `thorough`."""
    return thorough if _run["thorough"] else plain

"""The ways a run can end early; the command line maps each to an exit code.

A message says, in this order: what was wrong and where, what was expected, how to fix it.
"""


class UsageError(ValueError):
    """An argument or option that is wrong in itself, or a device this machine lacks (exit 2)."""


class InputError(ValueError):
    """Something that was read - a file, a model, a table of pairs - does not fit (exit 3)."""


class NumericalError(ArithmeticError):
    """A score or gradient is NaN or infinite, or a check of the numbers failed (exit 1)."""


class OutputError(OSError):
    """A result could not be written; what was there before is unharmed (exit 1)."""


class ToldElsewhereError(RuntimeError):
    """An error that another process of the run has already reported (exit 1)."""

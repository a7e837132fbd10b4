"""The ways a run can end early; the command line maps each to an exit code.

A message names the setting or file, what is wrong, the value that was found, the allowed values, and one step.
"""


class UsageError(ValueError):
    """An argument or option that is wrong in itself, or a device this machine lacks (exit 2)."""


class InputError(ValueError):
    """A file, a model or a table of pairs that does not fit (exit 3)."""


class NumericalError(ArithmeticError):
    """A score or gradient is NaN or infinite, or verification failed (exit 1)."""


class OutputError(OSError):
    """A result could not be written; the previous files are unchanged (exit 1)."""


class ReportedElsewhereError(RuntimeError):
    """An error that another process of the run has already reported (exit 1)."""

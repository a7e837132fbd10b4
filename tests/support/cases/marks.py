"""Marks of the rows."""

from typing import Any

import pytest


def wrong(kind: str, raises: Any = AssertionError) -> pytest.MarkDecorator:
    """What the package gets wrong; the row must pass, and lose this mark, once it does not."""
    return pytest.mark.xfail(strict=True, raises=raises, reason=kind)

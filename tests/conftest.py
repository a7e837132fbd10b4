"""What the tests share: one cache for the embedded default, so that it is trained at most once."""

import os
from collections.abc import Iterator

import pytest

from tracin_func.sources.demo.source import CACHE_VARIABLE, EmbeddedDemo, embedded


@pytest.fixture(scope="session", autouse=True)
def cache_of_the_tests(request: pytest.FixtureRequest) -> Iterator[None]:
    """The embedded default of this run and of the processes it starts; never the user's own cache.

    It is kept in pytest's cache from run to run: its key is a hash of the code that makes it.
    """
    before = os.environ.get(CACHE_VARIABLE)
    os.environ[CACHE_VARIABLE] = str(request.config.cache.mkdir("tracin-func"))
    yield
    if before is None:
        del os.environ[CACHE_VARIABLE]
    else:
        os.environ[CACHE_VARIABLE] = before


@pytest.fixture(scope="session")
def embedded_500hz(cache_of_the_tests: None) -> EmbeddedDemo:
    """Synthetic plastic tones at 500 Hz and the checkpoints of a whole training on them; do not write there."""
    return embedded("500hz", "plastic")

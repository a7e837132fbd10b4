"""What the tests share: options, a small lab, and one cache for the embedded example, which is trained at most once."""

import os

# Before torch is imported, here and in processes that tests start: tensors are small, and threads on busy cores mostly
# wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.lab import lab as lab
from tests.support.series import note_thorough
from tracin_func.files import CACHE_VARIABLE
from tracin_func.sources.demo.cache import EmbeddedDemo, embedded


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--thorough", action="store_true", help="Run the long series of tests too.")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """All cores for a folder of tests; a few files are done sooner in this process."""
    return None if all(Path(name).is_dir() for name in config.args) else 0


def pytest_configure(config: pytest.Config) -> None:
    note_thorough(bool(config.getoption("--thorough")))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--thorough"):
        for item in items:
            if item.get_closest_marker("thorough"):
                item.add_marker(pytest.mark.skip(reason="one of a long series: runs with --thorough"))


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

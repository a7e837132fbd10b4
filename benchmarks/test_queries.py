"""The strongest pairs of 5 test pairs together among 100 million pairs of 20,000 items, top 100 of each sign."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

QUERIES = Path(__file__).with_name("queries.py")
BYTES = 2e9  # of the whole process, with the pair table
CASES = [
    ("memory", "hinge", 1),
    ("memory", "hinge", 3),
    ("memory", "logistic", 1),
    ("memory", "ghm", 1),
    ("parquet", "hinge", 1),
    ("parquet", "hinge", 3),
]


@pytest.fixture(scope="session")
def parquet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the table is written when it is first needed."""
    return tmp_path_factory.mktemp("pairs") / "pairs.parquet"


@pytest.mark.usefixtures("large")
@pytest.mark.benchmark(group="100 million pairs, 5 test pairs, top 100 of each sign")
@pytest.mark.parametrize(("source", "loss", "checkpoints"), CASES)
def test_strongest_of_a_long_table(
    benchmark: BenchmarkFixture, source: str, loss: str, checkpoints: int, parquet: Path
) -> None:
    """A process of its own, all threads; the winners are compared with a plain computation on a sample."""
    pairs = 10**8 if benchmark.enabled else 50_000
    where = "memory" if source == "memory" else str(parquet)
    command = [sys.executable, str(QUERIES), where, str(pairs), str(checkpoints), loss]
    limited = "OMP_NUM_THREADS" if benchmark.enabled else ""
    threads = {name: value for name, value in os.environ.items() if name != limited}
    if source == "parquet" and not parquet.exists():  # made by a process whose memory is not counted
        subprocess.run(command, check=True, capture_output=True, env=threads)
    found: list[dict[str, Any]] = []

    def run() -> None:
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=threads)
        found.append(json.loads(done.stdout))

    benchmark.pedantic(run, rounds=3 if benchmark.enabled else 1)
    best = min(found, key=lambda once: once["seconds"])
    sizes = {"pairs": pairs, "items": 20_000, "tests": 5, "k": 100, "checkpoints": checkpoints}
    benchmark.extra_info |= {**best, **sizes, "source": source, "loss": loss, "all": found}
    if benchmark.enabled:
        assert max(once["peak_bytes"] for once in found) < BYTES
    took = (
        f"{best['seconds']:.2f} s ({best['cpu_seconds']:.2f} s of work), {best['seconds'] / pairs * 1e9:.1f} ns a pair"
    )
    print(f"\n{source}, {loss}, {checkpoints} checkpoints: {took}, peak {best['peak_bytes'] / 1e9:.2f} GB")

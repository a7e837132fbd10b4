"""One query over a long table in a process of its own: python benchmarks/queries.py SOURCE PAIRS CHECKPOINTS LOSS.

SOURCE is `memory` or the path of a Parquet file, which is made first. Prints seconds and bytes as JSON.
"""

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tracin_func import GHMRankingLoss, LogisticLoss, MarginRankingLoss
from tracin_func.results.top import Strongest
from tracin_func.scoring.top_k.select import Columns, strongest
from tracin_func.task.loss import PairLoss
from tracin_func.task.pair_table import PairBlocks, PairTable

ITEMS, TESTS, K = 20_000, 5, 100
LOSSES: dict[str, PairLoss] = {"hinge": MarginRankingLoss(1.0), "logistic": LogisticLoss(), "ghm": GHMRankingLoss(1.0)}
RUN = 1 << 20
NAMES = [f"item_{position:05d}" for position in range(ITEMS)]


def arrays(pairs: int) -> dict[str, Any]:
    """int32 positions and int8 targets, made in runs so that making them needs no more memory than they do."""
    rng = np.random.default_rng(0)
    first, second, target = np.empty(pairs, np.int32), np.empty(pairs, np.int32), np.empty(pairs, np.int8)
    for start in range(0, pairs, RUN):
        part = slice(start, min(start + RUN, pairs))
        count = part.stop - start
        first[part] = rng.integers(0, ITEMS, count, dtype=np.int32)
        second[part] = (first[part] + rng.integers(1, ITEMS, count, dtype=np.int32)) % ITEMS
        target[part] = rng.integers(0, 2, count, dtype=np.int8) * 2 - 1
    return {"first": first, "second": second, "target": target}


def write(path: Path, pairs: int) -> None:
    """The same pairs as a Parquet file of ids."""
    import pyarrow
    import pyarrow.parquet

    columns, names = arrays(pairs), pyarrow.array(NAMES)
    ids = pyarrow.dictionary(pyarrow.int32(), pyarrow.string())
    schema = pyarrow.schema([("first", ids), ("second", ids), ("target", pyarrow.int8())])
    with pyarrow.parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for start in range(0, pairs, RUN):
            part = {name: column[start : start + RUN] for name, column in columns.items()}
            texts = [pyarrow.DictionaryArray.from_arrays(part[name], names) for name in ("first", "second")]
            writer.write_table(pyarrow.Table.from_arrays([*texts, pyarrow.array(part["target"])], schema=schema))


def checkpoints(count: int) -> list[Columns]:
    """Normal scores in float32 and normal products."""
    generator = torch.Generator().manual_seed(0)
    return [
        Columns(
            f"model_epoch_{step}.pt",
            torch.randn(ITEMS, generator=generator),
            torch.randn(ITEMS, TESTS, generator=generator, dtype=torch.float64),
        )
        for step in range(count)
    ]


def require_right(found: Strongest, source: PairBlocks, of: list[Columns], rows: int) -> None:
    """No pair of the first rows scores beyond the last winner, and winners among them have their exact scores."""
    start, block = next(source.blocks(rows))
    assert start == 0
    first, second, y = block.first.long(), block.second.long(), block.target.double()[:, None]
    scores = torch.zeros(len(block), TESTS, dtype=torch.float64)
    for checkpoint in of:
        z = block.target * (checkpoint.values[first] - checkpoint.values[second])
        scores += -y * (z < 1)[:, None] * (checkpoint.products[first] - checkpoint.products[second])
    for sign, side in ((1, found.proponents), (-1, found.opponents)):
        for test, winners in enumerate(side):
            signed, last = sign * scores[:, test], float(sign * winners.scores[-1])
            seen = winners.rows < len(block)
            assert torch.equal(sign * winners.scores[seen], signed[winners.rows[seen]])
            assert set((signed > last).nonzero()[:, 0].tolist()) <= set(winners.rows[seen].tolist())


def main() -> None:
    """Time the query and print what it took."""
    where, pairs, of = sys.argv[1], int(sys.argv[2]), checkpoints(int(sys.argv[3]))
    if where != "memory" and not Path(where).exists():
        write(Path(where), pairs)
    resting = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    source = PairTable(**arrays(pairs)) if where == "memory" else PairTable(where, NAMES)
    strongest(PairTable(**arrays(100_000)), LOSSES[sys.argv[4]], of, K)
    start, work = time.perf_counter(), time.process_time()
    found = strongest(source, LOSSES[sys.argv[4]], of, K)
    seconds, work = time.perf_counter() - start, time.process_time() - work
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if sys.argv[4] == "hinge":
        require_right(found, source, of, min(pairs, 200_000))
    bytes_of = {"resting_bytes": resting * 1024, "peak_bytes": peak * 1024, "pairs_bytes": 9 * pairs}
    print(json.dumps({"seconds": seconds, "cpu_seconds": work, "inactive": found.inactive, **bytes_of}))


if __name__ == "__main__":
    main()

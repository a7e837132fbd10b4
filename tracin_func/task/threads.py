"""Work on blocks in several threads, with results in the order of the blocks."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

Block = TypeVar("Block")
Result = TypeVar("Result")

_AHEAD = 2  # blocks per thread: one in work and one waiting


def in_order(work: Callable[[Block], Result], blocks: Iterable[Block]) -> Iterator[Result]:
    """work(block) of each block, in their order, in as many threads as torch uses; few blocks are held at a time.

    A block is too small for torch's own sharing of every operation, whose threads wait for one another each time.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        yield from map(work, blocks)
        return
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for block in blocks:
                waiting.append(pool.submit(work, block))
                if len(waiting) >= _AHEAD * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:  # after an error
                future.cancel()

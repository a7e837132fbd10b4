"""Content of files with some bytes changed, as disks, copies and editors change them."""

import contextlib
import json
import random
from typing import Any

_NUMBERS = [
    b"\xff" * 4,
    b"\xff" * 8,
    b"\x00\x00\x00\x80",
    b"\xff\xff\xff\x7f",
    b"1e999",
    b"-1",
    b'"',
    b"{",
    b"]",
    b"\n",
]
_VALUES: list[Any] = [None, True, -1, 0, 7, 0.5, 10**30, 1e300, "", "x", "1/2", [], [None], {}, {"a": 1}]


def damaged(content: bytes, rng: random.Random) -> bytes:
    """The content after one or two changes, of bytes or (of JSON, every other time) of a value; it may be the same."""
    if content.startswith(b"{") and rng.randrange(2):
        with contextlib.suppress(ValueError):
            document = json.loads(content)
            _exchange(document, rng)
            return json.dumps(document, indent=2).encode()
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2))):
        at = rng.randrange(len(data) + 1)
        length = min(rng.choice((1, 2, 4, 16, 64, 256)), len(data) - at)
        change = rng.randrange(8)
        if change == 0:
            del data[at:]
        elif change == 1:
            del data[at : at + length]
        elif change == 2:
            data[at : at + length] = bytes(length)
        elif change == 3:
            data[at:at] = rng.randbytes(length)
        elif change == 4:
            data[at:at] = data[at : at + length]
        elif change == 5:
            number = rng.choice(_NUMBERS)
            data[at : at + len(number)] = number
        else:  # most often: it finds most
            for _ in range(rng.choice((1, 1, 4))):
                if data:
                    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def _exchange(value: Any, rng: random.Random) -> None:
    """Take a value anywhere in a JSON document out, or put another in its place."""
    while value:
        place = rng.choice(list(value) if isinstance(value, dict) else range(len(value)))
        inner = value[place]
        if not isinstance(inner, dict | list) or not inner or not rng.randrange(4):
            break
        value = inner
    else:
        return
    if rng.randrange(4):
        value[place] = rng.choice(_VALUES)
    else:
        del value[place]

"""Parsing of option values: numbers with a unit, lists, choices of checkpoints."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from tracin_func.errors import InputError, UsageError

NUM_TEST = 5
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def whole_or(word: str, option: str, value: str | None) -> int | str | None:
    """The value of an option that takes a whole number of at least 1, or `word`."""
    if value is None or value == word:
        return value
    try:
        number = int(value)
    except ValueError:
        number = 0
    if number < 1:
        raise UsageError(f"`{option}` should be a whole number of at least 1, or {word}. Got {value!r}.")
    return number


def num_test(value: str | None) -> int | str | None:
    """`num_test`: a number, None for all, or "default": `NUM_TEST`, or all if there are fewer."""
    number = whole_or("all", "num_test", value)
    return "default" if number is None else None if number == "all" else number


def words(option: str, value: str | None) -> list[str] | None:
    """The parts of a comma-separated list.

    Raises:
        UsageError: the list is empty.
    """
    if value is None:
        return None
    parts = [part.strip() for part in value.split(",") if part.strip()]
    if not parts:
        raise UsageError(f"`{option}` should be one or more values separated by commas. Got {value!r}.")
    return parts


def numbers(option: str, value: str | None) -> list[int] | None:
    """The whole numbers of a comma-separated list.

    Raises:
        UsageError: the list is empty, or a part is not a whole number.
    """
    parts = words(option, value)
    try:
        return None if parts is None else [int(part) for part in parts]
    except ValueError:
        raise UsageError(f"`{option}` should be whole numbers separated by commas. Got {value!r}.") from None


def share(option: str, value: str | None) -> float | None:
    """The share of a percentage such as 5%.

    Raises:
        UsageError: not a percentage from 0% to 100%.
    """
    if value is None:
        return None
    try:
        found = float(value.strip().removesuffix("%")) / 100
    except ValueError:
        found = -1.0
    if not value.strip().endswith("%") or not 0 <= found <= 1:
        raise UsageError(f"`{option}` should be a percentage such as 5%. Got {value!r}.")
    return found


def size_in_bytes(option: str, value: str | None) -> int | None:
    """Bytes of a size such as 800MB, 4 GB or 1.5e9.

    Raises:
        UsageError: not a size, or below one byte.
    """
    if value is None:
        return None
    match = re.fullmatch(r"\s*([\d.]+(?:e\d+)?)\s*([KMGT]?)(?:i?B)?\s*", value, re.IGNORECASE)
    try:
        size = 0 if match is None else int(float(match[1]) * UNITS[match[2].upper()])
    except (ValueError, OverflowError):
        size = 0
    if size < 1:
        raise UsageError(f"`{option}` should be a size such as 800MB or 4GB. Got {value!r}.")
    return size


def checkpoint_choice(value: str | None) -> Callable[[Sequence[Path]], list[Path]]:
    """A function that picks the checkpoints of `value`: all, `10,20` (the last number in their names), or `last:3`.

    Raises:
        UsageError: `value` is none of these. The returned function raises InputError for a number without checkpoint.
    """
    if value is None or value == "all":
        return list
    try:
        if value.startswith("last:") and (count := int(value.removeprefix("last:"))) > 0:
            return lambda paths: list(paths[-count:])
        wanted = set(numbers("checkpoints", value) or ())
    except (UsageError, ValueError):
        raise UsageError(f"`checkpoints` should be all, numbers such as 10,20, or last:3. Got {value!r}.") from None

    def numbered(paths: Sequence[Path]) -> list[Path]:
        found = {path: int(number[-1]) for path in paths if (number := re.findall(r"\d+", path.stem))}
        if missing := sorted(wanted - set(found.values())):
            available = ", ".join(map(str, sorted(set(found.values())))) or "none with a number"
            raise InputError(f"`checkpoints`: number {', '.join(map(str, missing))} not found. Available: {available}.")
        return [path for path, number in found.items() if number in wanted]

    return numbered

"""Values of options that are more than a word: numbers with a unit, lists, choices of checkpoints."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from tracin_func.errors import InputError, UsageError

NUM_TEST = 5
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}

_NUMBER_IN_NAME = re.compile(r"\d+")


def whole_or(word: str, option: str, value: str | None) -> int | str | None:
    """`value` of an option that is a whole number of at least 1, or `word`."""
    if value is None or value == word:
        return value
    try:
        number = int(value)
    except ValueError:
        number = 0
    if number < 1:
        raise UsageError(f"{option} should be a whole number of at least 1, or {word}. Got {value!r}.")
    return number


def num_test(value: str | None) -> int | str | None:
    """`--num-test`: a number, None for all, or "default": `NUM_TEST`, or as many as there are."""
    number = whole_or("all", "--num-test", value)
    return "default" if number is None else None if number == "all" else number


def words(option: str, value: str | None) -> list[str] | None:
    """The parts of a list given with commas.

    Raises:
        UsageError: there is none.
    """
    if value is None:
        return None
    parts = [part.strip() for part in value.split(",") if part.strip()]
    if not parts:
        raise UsageError(f"{option} should be one or more, separated by commas. Got {value!r}.")
    return parts


def numbers(option: str, value: str | None) -> list[int] | None:
    """The whole numbers of a list given with commas.

    Raises:
        UsageError: there is none, or a part is no whole number.
    """
    parts = words(option, value)
    try:
        return None if parts is None else [int(part) for part in parts]
    except ValueError:
        raise UsageError(f"{option} should be whole numbers separated by commas. Got {value!r}.") from None


def size_in_bytes(option: str, value: str | None) -> int | None:
    """Bytes of a size such as 800MB, 4 GB or 1.5e9.

    Raises:
        UsageError: no such size, or below one byte.
    """
    if value is None:
        return None
    match = re.fullmatch(r"\s*([\d.]+(?:e\d+)?)\s*([KMGT]?)(?:i?B)?\s*", value, re.IGNORECASE)
    try:
        size = 0 if match is None else int(float(match[1]) * UNITS[match[2].upper()])
    except (ValueError, OverflowError):
        size = 0
    if size < 1:
        raise UsageError(f"{option} should be a size such as 800MB or 4GB. Got {value!r}.")
    return size


def checkpoint_choice(option: str, value: str | None) -> Callable[[Sequence[Path]], list[Path]]:
    """What picks the checkpoints that `value` names: all, `10,20` by the last number in their names, or `last:3`.

    Raises:
        UsageError: it is none of these. What is returned raises InputError for a number that no checkpoint has.
    """
    if value is None or value == "all":
        return list
    if value.startswith("last:"):
        try:
            count = int(value.removeprefix("last:"))
        except ValueError:
            count = 0
        if count < 1:
            raise UsageError(f"{option} last:N should name a number of at least 1. Got {value!r}.")
        return lambda paths: list(paths[-count:])
    try:
        wanted = numbers(option, value)
    except UsageError:
        raise UsageError(f"{option} should be all, numbers such as 10,20, or last:3. Got {value!r}.") from None
    return lambda paths: _numbered(option, set(wanted or ()), paths)


def _numbered(option: str, wanted: set[int], paths: Sequence[Path]) -> list[Path]:
    found = [(path, [int(number) for number in _NUMBER_IN_NAME.findall(path.stem)]) for path in paths]
    there = {numbers[-1] for _, numbers in found if numbers}
    if missing := sorted(wanted - there):
        raise InputError(
            f"{option}: no checkpoint has the number {', '.join(map(str, missing))}; there are: "
            f"{', '.join(map(str, sorted(there))) or 'none with a number'}."
        )
    return [path for path, numbers in found if numbers and numbers[-1] in wanted]

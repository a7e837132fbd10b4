"""Classes in the names of recordings."""

import re
from collections.abc import Iterable

_DEGREES = re.compile(r"deg\d+")


def classes_in_names(items: Iterable[str]) -> dict[str, str]:
    """The class of each item whose id contains exactly one part such as `deg036`; other items are left out."""
    found = {item: [part for part in item.split("_") if _DEGREES.fullmatch(part)] for item in items}
    return {item: parts[0] for item, parts in found.items() if len(parts) == 1}

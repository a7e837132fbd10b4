"""What every run on one store must agree on: the manifest, and digests of weights and items."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from torch import Tensor

from tracin_func.errors import InputError
from tracin_func.files import read_object
from tracin_func.gradients.device import versions
from tracin_func.gradients.store.disk import bytes_of
from tracin_func.gradients.store.encoding import ROW_DTYPES

NAME = "manifest.json"
STORE_FORMAT = "tracin-func store"
VERSION = 1
ROWS_OF = ("items", "differences")
ELSEWHERE = "Choose another folder for `store`, or use the model and data of this one."
KERNELS_NOTE = "kernels"  # the note on how gradients are computed, which later runs take over
LARGEST_SPREAD = 256  # items of a dataset that are looked at
_LONGEST = 80
_DAMAGED = "Restore it from a copy, or choose another folder for `store`."


@dataclass(frozen=True)
class Manifest:
    """Shape, identity and notes of a store.

    Attributes:
        unit: what a row belongs to: "items", or "differences" (one row per pair).
        units: rows per checkpoint.
        width: dimension of a row.
        dtype: of the stored rows: "float32", "float16" or "bfloat16".
        block: units per block, the smallest part that is finished or not.
        chunk: units differentiated together; kept for every later run, since other chunks round otherwise.
        identity: JSON values by name that every run on the store must agree on.
        notes: JSON values by name that may differ; a run with others gets a warning.
    """

    unit: str
    units: int
    width: int
    dtype: str
    block: int
    chunk: int
    identity: Mapping[str, Any] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, allowed in (("unit", ROWS_OF), ("dtype", tuple(ROW_DTYPES))):
            if getattr(self, name) not in allowed:
                raise InputError(f"'{name}' should be one of {', '.join(allowed)}. Got {getattr(self, name)!r}.")
        for name in ("units", "width", "block", "chunk"):
            number = getattr(self, name)
            if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number < 2**63:
                raise InputError(f"'{name}' should be a whole number from 1 to 2^63 - 1. Got {number!r}.")
        for name in ("identity", "notes"):
            if not isinstance(getattr(self, name), Mapping):
                raise InputError(f"'{name}' should be values by name. Got {getattr(self, name)!r}.")

    @property
    def blocks(self) -> int:
        return -(-self.units // self.block)

    def range(self, block: int) -> tuple[int, int]:
        """First unit of a block, and the one after its last."""
        assert 0 <= block < self.blocks
        return block * self.block, min((block + 1) * self.block, self.units)

    def to_json(self) -> dict[str, Any]:
        """The manifest as JSON values, after its format and the version that wrote it."""
        head = {"format": STORE_FORMAT, "version": VERSION, "written_by": versions()["tracin-func"]}
        return head | plain(vars(self))

    @classmethod
    def from_json(cls, document: Mapping[str, Any], path: Path) -> Self:
        if document.get("format") != STORE_FORMAT:
            raise InputError(f"{path} is not the manifest of a {STORE_FORMAT}. {_DAMAGED}")
        if document.get("version") != VERSION:
            raise InputError(
                f"{path} has format version {document.get('version')}, written by tracin-func "
                f"{document.get('written_by')}. Expected version {VERSION}. Use that release, or choose another folder "
                "for `store`."
            )
        names = [field.name for field in fields(cls)]
        if missing := [name for name in names if name not in document]:
            raise InputError(f"{path} is damaged: it has no '{missing[0]}'. {_DAMAGED}")
        try:
            return cls(**{name: document[name] for name in names})
        except InputError as error:
            raise InputError(f"{path} is damaged: {error} {_DAMAGED}") from error


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a store; InputError where there is none, or it is damaged or of another format version."""
    path = folder / NAME
    if not path.is_file():
        raise InputError(f"{folder} is no gradient store: it has no {NAME}. Give the folder of a store.")
    return Manifest.from_json(read_object(path, number=None, remedy=_DAMAGED), path)


def agree(stored: Manifest, wanted: Manifest, folder: Path) -> tuple[Manifest, tuple[str, ...]]:
    """The manifest of a run, with the block, chunk and notes of the store, and a sentence per differing note.

    Raises:
        InputError: shape or identity differ; names the first difference and lists the others.
    """
    shape = ("unit", "units", "width", "dtype")
    old = {name: getattr(stored, name) for name in shape} | plain(stored.identity)
    new = {name: getattr(wanted, name) for name in shape} | plain(wanted.identity)
    if differing := list(_differences(old, new)):
        where, was, now = differing[0]
        others = ", ".join(f"'{other}'" for other in dict.fromkeys(entry[0] for entry in differing[1:]))
        others = f" (also {others[: 4 * _LONGEST]})" if others else ""
        raise InputError(
            f"`store` {folder} was made with another '{where}': {was}; this run has {now}{others}. {ELSEWHERE}"
        )
    warnings = tuple(
        f"`store` {folder} was begun with another '{where}': {was}; this run has {now}."
        for where, was, now in _differences(_compared(stored.notes), _compared(wanted.notes))
    )
    return replace(wanted, block=stored.block, chunk=stored.chunk, notes=stored.notes), warnings


def _compared(notes: Mapping[str, Any]) -> dict[str, Any]:
    """Without what every run on the store takes from it."""
    return {name: value for name, value in plain(notes).items() if name != KERNELS_NOTE}


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as read back from a JSON file: tuples are lists, names are texts."""
    document: dict[str, Any] = json.loads(json.dumps(dict(values)))
    return document


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """For each name with other values: where inside it the first difference is, the old and the new value there."""
    for name in [*old, *(name for name in new if name not in old)]:
        if name not in old or name not in new or old[name] != new[name]:
            yield _first_difference(name, old.get(name), new.get(name))


def _first_difference(where: str, old: Any, new: Any) -> tuple[str, str, str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in [*old, *new]:
            if key not in old or key not in new or old[key] != new[key]:
                return _first_difference(f"{where}.{key}", old.get(key), new.get(key))
    if isinstance(old, list) and isinstance(new, list):
        for position, (left, right) in enumerate(zip(old, new, strict=False)):
            if left != right:
                return _first_difference(f"{where}[{position}]", left, right)
        return where, f"{len(old)} values", f"{len(new)} values"
    return where, *_shortened(json.dumps(old), json.dumps(new))


def _shortened(old: str, new: str) -> tuple[str, str]:
    """Two texts that differ, cut so that the difference stays in sight."""
    pairs = zip(old, new, strict=False)
    common = next((place for place, (left, right) in enumerate(pairs) if left != right), min(len(old), len(new)))
    skip = common - 20 if common > _LONGEST // 2 and max(len(old), len(new)) > _LONGEST else 0
    ends = (f"…{text[skip:]}" if skip else text for text in (old, new))
    was, now = (text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…" for text in ends)
    return was, now


def weights_digest(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes, dtypes and bytes of all weights, in any order of the names."""
    digest = hashlib.sha256()
    _feed(digest, weights, "weights")
    return digest.hexdigest()


def items_digest(items: Any, ids: Sequence[str] | None = None) -> str:
    """SHA-256 of the items and their ids.

    A tensor, or a mapping or tuple of tensors, is read whole. Of a map-style dataset (a list too) only its length and
    at most 256 items, evenly spread, are read: a change between them is not seen. Items that are drawn anew on every
    access have no lasting digest.

    Raises:
        InputError: an item holds something that is neither a tensor, an array, text nor a number.
    """
    digest = hashlib.sha256()
    _feed(digest, None if ids is None else list(ids), "ids")
    if isinstance(items, Tensor | Mapping | tuple):
        _feed(digest, items, "items")
        return digest.hexdigest()
    length = len(items)
    _feed(digest, length, "items")
    spread = [step * (length - 1) // (LARGEST_SPREAD - 1) for step in range(LARGEST_SPREAD)]
    for position in spread if length > LARGEST_SPREAD else range(length):
        _feed(digest, position, "items")
        _feed(digest, items[position], f"items[{position}]")
    return digest.hexdigest()


def _feed(digest: Any, value: Any, where: str) -> None:
    """Add a tree of tensors, arrays, texts and numbers to a digest, so that no two trees give the same bytes."""
    if isinstance(value, Tensor) and value.is_sparse:
        _feed(digest, (value.coalesce().indices(), value.coalesce().values()), where)
    elif isinstance(value, Tensor):
        _head(digest, "tensor", str(value.dtype), str(tuple(value.shape)))
        digest.update(bytes_of(value))
    elif isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biufc":
        array = np.ascontiguousarray(value)
        _head(digest, "array", array.dtype.str, str(np.shape(value)))
        digest.update(array.tobytes())
    elif isinstance(value, Mapping):
        _head(digest, "mapping", str(len(value)))
        for key in sorted(value, key=str):
            _head(digest, "key", str(key))
            _feed(digest, value[key], f"{where}[{key!r}]")
    elif isinstance(value, list | tuple):
        _head(digest, "sequence", str(len(value)))
        for position, member in enumerate(value):
            _feed(digest, member, f"{where}[{position}]")
    elif value is None or isinstance(value, str | int | float | bool):
        _head(digest, type(value).__name__, repr(value))
    elif isinstance(value, bytes):
        _head(digest, "bytes", value.hex())
    else:
        raise InputError(
            f"`store` needs items of tensors, arrays, texts and numbers, to recognise them in a later run. Got "
            f"{type(value).__name__} in '{where}'. Return such items from the dataset."
        )


def _head(digest: Any, *words: str) -> None:
    for word in words:
        data = word.encode(errors="surrogatepass")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)

"""Records that a file may hold in part: accessing a missing field is an error."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from tracin_func.errors import InputError

Record = TypeVar("Record", bound="Partial")


class NotInFileError(InputError, AttributeError):
    """A loaded file lacks a field; an `AttributeError` for `hasattr` and `getattr` with a default."""


class Partial:
    """Base of frozen dataclasses that are complete if computed, and may lack fields if loaded."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name in self.__dataclass_fields__:
                raise NotInFileError(f"`{vars(self).get('_file')}` lacks '{name}'. Recompute the scores to have it.")
            if isinstance(found := getattr(type(self), name, None), property):
                return found.fget(self)  # raises again, after Python has dropped the error for this method
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


def held(kind: type[Record], file: Path, **values: Any) -> Record:
    """A record with the fields of a file."""
    record = object.__new__(kind)
    for name, value in {**values, "_file": file}.items():
        object.__setattr__(record, name, value)
    return record


def holds(record: Partial, name: str) -> bool:
    """Whether a record has a field."""
    return name in vars(record)

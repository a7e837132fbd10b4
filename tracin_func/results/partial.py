"""Records of which a file may hold a part: what it lacks is an error when it is asked for, and never invented."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from tracin_func.errors import InputError

Record = TypeVar("Record", bound="Partial")


class Partial:
    """Base of frozen dataclasses that are whole when they are computed, and may be a part when they are loaded."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name in self.__dataclass_fields__:
                raise InputError(
                    f"`{vars(self).get('_file')}` does not hold `{name}` of its scores. Compute them again to have it."
                )
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


def held(kind: type[Record], file: Path, **values: Any) -> Record:
    """A record of the fields that a file holds."""
    record = object.__new__(kind)
    for name, value in {**values, "_file": file}.items():
        object.__setattr__(record, name, value)
    return record


def holds(record: Partial, name: str) -> bool:
    """Whether a field is there."""
    return name in vars(record)

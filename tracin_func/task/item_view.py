"""What a report shows of an item: a text, a table row, a picture, sound."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tracin_func.errors import InputError

_PICTURES = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif"}
_SOUNDS = {b"RIFF": "audio/wav", b"fLaC": "audio/flac", b"OggS": "audio/ogg", b"ID3": "audio/mpeg"}


@dataclass(frozen=True)
class ItemView:
    """What a report shows of an item; whatever is left out is not shown.

    Args:
        text: shown as it is, never as HTML.
        row: values by heading, as of a row of a table.
        picture: content of a PNG, JPEG or GIF file.
        axes: labels of the picture with units: left, right, bottom and top end; for pictures with axes.
        sound: content of a WAV, FLAC, Ogg or MP3 file.

    Raises:
        InputError: the picture or sound is of another format.

    Example:
        >>> ti.ItemView(text="The cat sat on the mat.").text
        'The cat sat on the mat.'
    """

    text: str = ""
    row: Mapping[str, Any] = field(default_factory=dict)
    picture: bytes | None = None
    axes: tuple[str, str, str, str] | None = None
    sound: bytes | None = None

    def __post_init__(self) -> None:
        _ = self.picture_type, self.sound_type

    @property
    def picture_type(self) -> str:
        """The media type of the picture; empty without one."""
        return _type_of("picture", self.picture, _PICTURES)

    @property
    def sound_type(self) -> str:
        """The media type of the sound; empty without any."""
        return _type_of("sound", self.sound, _SOUNDS)


def as_view(found: Any) -> ItemView:
    """A view from what `Task.show_item` returned: a text, a mapping, a path of a picture, or a view.

    Raises:
        InputError: it is none of these, or the file cannot be read.
    """
    if isinstance(found, ItemView):
        return found
    if isinstance(found, str):
        return ItemView(text=found)
    if isinstance(found, Mapping):
        return ItemView(row=found)
    if isinstance(found, bytes):
        return ItemView(picture=found)
    if isinstance(found, Path):
        try:
            return ItemView(picture=found.read_bytes())
        except OSError as error:
            raise InputError(f"`show_item`: {found} cannot be read: {error.strerror}.") from error
    raise InputError(
        f"`show_item` should return a text, a mapping, the bytes or path of a picture, or an ItemView. Got "
        f"{type(found).__name__}."
    )


def _type_of(name: str, content: bytes | None, known: Mapping[bytes, str]) -> str:
    if content is None:
        return ""
    found = next((each for start, each in known.items() if content.startswith(start)), None)
    if found is None:
        allowed = ", ".join(each.partition("/")[2] for each in known.values())
        raise InputError(f"`{name}` should be the content of a file of one of the formats {allowed}.")
    return found

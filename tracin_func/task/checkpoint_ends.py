"""Whether checkpoint files are complete, by their first and last bytes, before any is read."""

import json
import os
from pathlib import Path

from tracin_func.task.checkpoint_files import INDEX, content_of, weights_in

_ZIP, _ZIP_END, _ZIP_END_BYTES = b"PK", b"PK\x05\x06", 22  # torch writes no comment behind the end record
_LENGTH_BYTES = 8  # of a safetensors header, before it


def require_complete(path: Path) -> None:
    """Refuse a checkpoint that is missing, or one of whose files was cut short; InputError as `content_of`.

    A file with unexpected ends is read whole, which raises the error. Damage between the ends, or in a format of torch
    before 1.6, is found when the file is read.
    """
    try:
        complete = all(_complete(file) for file in _files(path))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        complete = False
    if not complete:
        content_of(path)


def _files(path: Path) -> list[Path]:
    """The files of a checkpoint: itself, those of its folder, or the shards that an index lists."""
    if path.is_dir():
        file = weights_in(path)
        return [path] if file is None else _files(file)
    if path.name.endswith(INDEX):
        names = dict.fromkeys(json.loads(path.read_bytes())["weight_map"].values())
        return [path.parent / name for name in names]
    return [path]


def _complete(path: Path) -> bool:
    with open(path, "rb") as file:
        head, size = file.read(_LENGTH_BYTES), os.fstat(file.fileno()).st_size
        if path.suffix == ".safetensors":
            length = int.from_bytes(head, "little")
            if length > size:
                return False
            header = json.loads(file.read(length))
            ends = [each["data_offsets"][1] for name, each in header.items() if name != "__metadata__"]
            return file.tell() + max(ends, default=0) == size
        if head.startswith(_ZIP):
            file.seek(-_ZIP_END_BYTES, os.SEEK_END)
            return file.read(len(_ZIP_END)) == _ZIP_END
    return len(head) == _LENGTH_BYTES

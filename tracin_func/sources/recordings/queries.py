"""Two WAV files to explain, as recordings beside those of the tree."""

from collections.abc import Sequence
from pathlib import Path

from tracin_func.errors import InputError
from tracin_func.files import one_form
from tracin_func.sources.groups import QueryOptions
from tracin_func.sources.recordings.tree import Clip
from tracin_func.sources.recordings.wav import read_wav
from tracin_func.task.queries import Query, placed

QUERY = "query"  # in place of an angle, which is unknown


def query_clips(paths: Sequence[Path], clips: Sequence[Clip], sample_rate: int) -> list[Clip]:
    """The files as clips; they are read here once, so that a wrong one is reported before the others are read.

    Raises:
        InputError: a file cannot be used (see `read_wav`), or has the id of another recording.
    """
    found: list[Clip] = []
    for path in paths:
        same = next((clip for clip in (*clips, *found) if one_form(clip.id) == one_form(path.stem)), None)
        if same is not None:
            raise InputError(
                f"`query_audio`: {path} has the id {path.stem!r}, which {same.path} has too. Rename the file"
                f"{'.' if same in found else ', or ask for that recording with `query`.'}"
            )
        read_wav(path, sample_rate=sample_rate)
        found.append(Clip(path.stem, path, QUERY, -1, QUERY, QUERY, len(found)))
    return found


def queries_of(asked: QueryOptions, clips: Sequence[Clip], extra: Sequence[Clip]) -> list[Query]:
    """The queries over `clips` and the two files after them, which are a query where no other is about both.

    Raises:
        UsageError, InputError: see `placed`.
    """
    found = placed(asked.query or (), [clip.id for clip in (*clips, *extra)])
    both = {len(clips), len(clips) + 1}
    if extra and not any({query.first, query.second} == both for query in found):
        found.insert(0, Query(len(clips), len(clips) + 1, None))
    return found

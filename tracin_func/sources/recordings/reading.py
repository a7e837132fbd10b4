"""Reading recordings: the clips that options choose, their spectrograms, and what provenance records of files."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from tracin_func.errors import InputError
from tracin_func.sources.options import declared
from tracin_func.sources.recordings.frontend import FrontEnd
from tracin_func.sources.recordings.options import SAMPLE_RATE, RecordingOptions
from tracin_func.sources.recordings.tree import Clip, find_clips, load_items
from tracin_func.sources.settings import Settings
from tracin_func.sources.source import Listener
from tracin_func.sources.values import numbers, words

FRONT_END = "front_end"  # in `args`; other trainers record none, and their other args may mean something else
_RECORDED = ("frequency", "material", "classes", "takes", "sample_rate", "clip_seconds")


def recorded_options(own: RecordingOptions, args: Mapping[str, Any]) -> RecordingOptions:
    """The options; those that were not given as `tracin-func train` recorded them in `args`."""
    if FRONT_END not in args:
        return own
    missing = {name: args[name] for name in _RECORDED if getattr(own, name) is None and args.get(name) is not None}
    kinds = {name: declared(RecordingOptions)[name].kind for name in missing}
    return replace(own, **{name: value for name, value in missing.items() if isinstance(value, kinds[name])})


def clips_of(own: RecordingOptions, root: Path, notice: Callable[[str], None]) -> list[Clip]:
    """The clips that the options choose."""
    return find_clips(
        *(root, own.placeholders["material"], own.placeholders["frequency"]),
        classes=words("classes", own.classes),
        takes=numbers("takes", own.takes),
        notice=notice,
    )


def read_items(
    own: RecordingOptions, clips: Sequence[Clip], listener: Listener, front_end: FrontEnd
) -> tuple[Tensor, dict[str, str]]:
    """The spectrograms of clips, and what is wrong with those that are to be left out, by id."""
    bad = dict[str, str]()
    with listener.progress("reading clips", 1) as advance:
        items = load_items(
            *(clips, front_end),
            sample_rate=own.sample_rate or SAMPLE_RATE,
            clip_seconds=own.clip_seconds,
            workers=own.num_workers or 0,
            progress=lambda done: advance(1 / len(clips)),
            bad=bad if own.skip_bad_audio else None,
        )
    return items, bad


def front_end_of(settings: Settings) -> FrontEnd:
    """The front end that the checkpoint's `args` record, else the usual one.

    Raises:
        InputError: it is another one than this package computes.
    """
    recorded = settings.get(FRONT_END)
    if recorded is None:
        return FrontEnd()
    try:
        found = FrontEnd(**{name: recorded[name] for name in ("n_fft", "hop_length", "amin")})
    except (TypeError, LookupError, ValueError):
        found = FrontEnd()
    if found.describe() != recorded:
        raise InputError(
            f"'front_end' in the checkpoint's args is {recorded}. Only {found.describe()} with other numbers can be "
            "computed. Train on these recordings with `tracin-func train`."
        )
    return found


def digest_of(paths: Sequence[Path]) -> str:
    """One digest of the content of all files, in their order."""
    every = hashlib.sha256()
    for path in paths:
        every.update(hashlib.sha256(path.read_bytes()).digest())
    return every.hexdigest()


def described_file(path: Path) -> dict[str, str | None]:
    """A file that was read, for provenance; what came through a pipe cannot be read again."""
    if not path.is_file():
        return {"path": str(path.absolute()), "sha256": None}
    with path.open("rb") as file:  # a table of pairs may be larger than the memory
        return {"path": str(path.absolute()), "sha256": hashlib.file_digest(file, "sha256").hexdigest()}

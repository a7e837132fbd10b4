"""The embedded example as a source of tasks: SYNTHETIC tones and a ranker really trained on them."""

from dataclasses import dataclass, replace
from typing import ClassVar

from tracin_func.errors import UsageError
from tracin_func.sources.demo.cache import SYNTHETIC_NOTICE, embedded
from tracin_func.sources.demo.synthesis import FREQUENCIES
from tracin_func.sources.groups import PairOptions
from tracin_func.sources.options import Options
from tracin_func.sources.recordings.options import RecordingOptions
from tracin_func.sources.recordings.source import ALL, stem_of, tones_job
from tracin_func.sources.source import Job, Listener, Source


@dataclass(frozen=True)
class Demo(Source):
    """What is scored where no data are named."""

    synthetic: ClassVar[bool] = True
    brings: ClassVar[str] = "the embedded default is scored"

    def __post_init__(self) -> None:
        if given := self.options.flags(("data_root", "checkpoint_dir")):
            raise UsageError(
                f"{given[0]} was given, and the embedded example brings its own. Expected both for recordings: "
                "`sources.recordings(data_root, checkpoint_dir)`."
            )
        pairs = self.options[PairOptions]
        if pairs.exclude_before_split and pairs.exclusions_file is None:
            raise UsageError("--exclude-before-split was given without --exclusions-file. Expected both.")

    @staticmethod
    def asked(options: Options) -> bool:
        return False

    @property
    def stem(self) -> str:
        return stem_of(self.options)

    @property
    def placeholders(self) -> dict[str, str]:
        return self.options[RecordingOptions].placeholders

    def runs(self) -> list["Demo"]:
        if self.options[RecordingOptions].frequency != ALL:
            return [self]
        return [replace(self, options=self.options.changed(frequency=tone)) for tone in FREQUENCIES]

    def job(self, listener: Listener, *, with_test: bool = True, streamed: bool = False) -> Job:
        listener.report(f"note: {SYNTHETIC_NOTICE} For your own recordings give --data-root and --checkpoint-dir.")
        made = embedded(**self.placeholders, progress=listener.step)
        return tones_job(
            *("embedded", made.data_root, made.checkpoint_dir, self.options, listener),
            with_test=with_test,
            streamed=streamed,
        )

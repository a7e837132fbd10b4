"""Recordings in the lab's tree with the checkpoints of a model trained on them, as a source of tasks."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from tracin_func.errors import InputError, UsageError
from tracin_func.files import present
from tracin_func.sources.demo.ranker import AngleRanker
from tracin_func.sources.groups import WORDS, ModelOptions, PairOptions, QueryOptions
from tracin_func.sources.options import Options, flag
from tracin_func.sources.python.loading import load_model, parse_arguments, require_scorer
from tracin_func.sources.recordings.frontend import FrontEnd
from tracin_func.sources.recordings.options import SAMPLE_RATE, RecordingOptions
from tracin_func.sources.recordings.pairs import PairChoice
from tracin_func.sources.recordings.tree import Clip, find_clips, find_tones, load_items
from tracin_func.sources.settings import Settings
from tracin_func.sources.source import Job, Listener, Source
from tracin_func.sources.values import checkpoint_choice, num_test, numbers, words
from tracin_func.task.checkpoints import Checkpoint, find_checkpoints
from tracin_func.task.pair_files import read_ids
from tracin_func.task.task import Task

ALL = "all"
FRONT_END = FrontEnd()


@dataclass(frozen=True)
class Recordings(Source):
    """Recordings and checkpoints of the user's own."""

    brings: ClassVar[str] = "recordings are scored"

    def __post_init__(self) -> None:
        root, checkpoints = self.options[RecordingOptions].data_root, self.options[ModelOptions].checkpoint_dir
        if (root is None) != (checkpoints is None):
            missing, there = ("checkpoint_dir", "data_root") if checkpoints is None else ("data_root", "checkpoint_dir")
            raise UsageError(
                f"{flag(there)} was given without {flag(missing)}. Scores need recordings and the checkpoints of a "
                "model trained on them: give both, or neither for the embedded default."
            )
        if root is None:
            raise UsageError(
                "--model needs --data-root and --checkpoint-dir: the embedded checkpoints fit the embedded ranker."
            )

    @staticmethod
    def asked(options: Options) -> bool:
        own = options[RecordingOptions].data_root, options[ModelOptions].checkpoint_dir, options[ModelOptions].model
        return any(each is not None for each in own)

    @property
    def stem(self) -> str:
        return stem_of(self.options)

    @property
    def placeholders(self) -> dict[str, str]:
        return self.options[RecordingOptions].placeholders

    def runs(self) -> list["Recordings"]:
        if self.options[RecordingOptions].frequency != ALL:
            return [self]
        tones = find_tones(self._root, self.placeholders["material"])
        folder = str(self.options[ModelOptions].checkpoint_dir)
        if "{frequency}" not in folder and len(tones) > 1:
            raise UsageError(
                f"--frequency all runs {', '.join(tones)}, each with checkpoints of its own. Expected {{frequency}} in "
                f"--checkpoint-dir. Got {folder}."
            )
        return [replace(self, options=self.options.changed(frequency=tone)) for tone in tones]

    def check(self) -> None:
        find_tones(self._root, self.placeholders["material"])
        chosen_checkpoints(self.options, self._folder)

    def job(
        self, listener: Listener, *, with_test: bool = True, streamed: bool = False, scorer: nn.Module | None = None
    ) -> Job:
        return tones_job(
            *("tones", self._root, self._folder, self.options, listener, scorer),
            with_test=with_test,
            streamed=streamed,
        )

    @property
    def _root(self) -> Path:
        root = self.options[RecordingOptions].data_root
        assert root is not None
        return root

    @property
    def _folder(self) -> Path:
        """The folder of checkpoints of this tone and material."""
        asked = folder = str(self.options[ModelOptions].checkpoint_dir)
        for name, value in self.placeholders.items():
            folder = folder.replace(f"{{{name}}}", value)
        if (left := re.search(r"\{\w*\}", folder)) and not Path(folder).exists():
            raise UsageError(
                f"--checkpoint-dir holds the placeholder {left[0]}. Expected {{frequency}} or {{material}}. Got "
                f"{asked}."
            )
        return present(Path(folder))


def stem_of(options: Options) -> str:
    """How result files of a tone and material begin."""
    names = options[RecordingOptions].placeholders
    return f"{names['material']}_{names['frequency']}"


def chosen_checkpoints(options: Options, folder: Path) -> list[Path]:
    """The checkpoint files in a folder that the options choose.

    Raises:
        UsageError, InputError: see `checkpoint_choice` and `find_checkpoints`.
    """
    own = options[ModelOptions]
    choose = checkpoint_choice("--checkpoints", own.checkpoints)
    return choose(find_checkpoints(folder, own.checkpoint_prefix or "model_epoch_"))


def tones_job(
    kind: str,
    data_root: Path,
    checkpoint_dir: Path,
    options: Options,
    listener: Listener,
    scorer: nn.Module | None = None,
    *,
    with_test: bool,
    streamed: bool,
) -> Job:
    """The job of scoring recordings in the lab's tree; `kind` says in provenance whose they are.

    Raises:
        UsageError, InputError: recordings, checkpoints, pairs or exclusions do not fit; see `find_clips`, `read_wav`,
            `PairChoice`.
    """
    own, of_model = options[RecordingOptions], options[ModelOptions]
    model = _model(of_model) if scorer is None else scorer
    checkpoints = [Checkpoint(path, of_model.learning_rate) for path in chosen_checkpoints(options, checkpoint_dir)]
    settings = Settings(options.values, checkpoints[0].peek().args)
    for name, value in own.placeholders.items():
        settings.note(name, value)
    choice = _choice(options, settings, listener, streamed=streamed)
    loss, trained_loss = settings.loss(), settings.trained_loss()
    if settings.unread is not None:
        listener.report(f"warning: {settings.unread}")

    def notice(sentence: str) -> None:
        listener.report(f"note: {sentence}")

    clips = find_clips(
        *(data_root, own.placeholders["material"], own.placeholders["frequency"]),
        classes=words("--classes", own.classes),
        takes=numbers("--takes", own.takes),
        notice=notice,
    )
    clips, excluded = choice.without_excluded(clips)
    # Chosen before the recordings are read, which takes long, so that wrong choices are reported at once.
    train, test, held_out = choice.choose(clips, excluded, with_test=with_test, notice=notice)
    listener.chosen()
    items, bad = _items(own, clips, listener)
    if bad:
        notice(_left_out(bad, len(clips)))
        train, test, held_out = choice.choose(clips, excluded | bad.keys(), with_test=with_test)
        choice.require_usable(test, clips, bad)
    task = Task(
        *(model, items, train, checkpoints, test, loss, [clip.id for clip in clips]),
        item_classes=[clip.degree_class for clip in clips],
        held_out=held_out,
        trained_loss=trained_loss,
        describe={
            **_description(kind, data_root, own, clips, choice),
            "model": of_model.model or type(model).__qualname__,
            "bad": list(bad),
            **({} if of_model.model is None else {"model_arguments": of_model.model_arg or []}),
            "checkpoint_dir": str(checkpoint_dir.absolute()),
        },
    )
    return Job(task, settings)


def _left_out(bad: Mapping[str, str], clips: int) -> str:
    """A notice of the recordings that cannot be used, `bad`: the reason by id."""
    reasons = f"{'; '.join(list(bad.values())[:3])}{' ...' if len(bad) > 3 else ''}"
    left = f"{len(bad)} of {clips} recordings cannot be used and are left out"
    return f"{left}, with their pairs, after the split: {reasons}"


def _choice(options: Options, settings: Settings, listener: Listener, *, streamed: bool) -> PairChoice:
    tests = options[QueryOptions]
    return PairChoice(
        options[PairOptions],
        exclusions=_exclusions(settings, listener),
        seed=settings.seed,
        num_test=num_test(tests.num_test) if tests.test_select in (None, "random") else None,
        named=None if tests.test_pairs is None else read_ids(tests.test_pairs),
        streamed=streamed,
    )


def _items(own: RecordingOptions, clips: Sequence[Clip], listener: Listener) -> tuple[Tensor, dict[str, str]]:
    """The spectrograms of clips, and what is wrong with those that are to be left out, by id."""
    bad = dict[str, str]()
    with listener.progress("reading clips", 1) as advance:
        items = load_items(
            *(clips, FRONT_END),
            sample_rate=own.sample_rate or SAMPLE_RATE,
            clip_seconds=own.clip_seconds,
            workers=own.num_workers or 0,
            progress=lambda done: advance(1 / len(clips)),
            bad=bad if own.skip_bad_audio else None,
        )
    return items, bad


def _description(
    kind: str, data_root: Path, own: RecordingOptions, clips: Sequence[Clip], choice: PairChoice
) -> dict[str, Any]:
    """What provenance records of recordings and pairs."""
    return {
        "kind": kind,
        "data_root": str(data_root.absolute()),
        "material": own.placeholders["material"],
        "frequency": own.placeholders["frequency"],
        "classes": sorted({clip.degree_class for clip in clips}),
        "takes": sorted({clip.take for clip in clips}),
        "items": len(clips),
        "seed": choice.seed,
        "split": {"train_share": 0.70, "by": "torch.utils.data.random_split"},
        "pairs": choice.words if choice.words in WORDS else _file(Path(choice.words)),
        "num_test": choice.num_test,
        "test_pairs": None if choice.named is None else list(choice.named),
        "exclusions": None if choice.exclusions is None else _file(choice.exclusions),
        "exclude_before_split": choice.asked.exclude_before_split,
        "recordings_sha256": _digest([clip.path for clip in clips]),
        "sample_rate": own.sample_rate or SAMPLE_RATE,
        "clip_seconds": own.clip_seconds,
        "front_end": FRONT_END.describe(),
    }


def _model(options: ModelOptions) -> nn.Module:
    if options.model is None:
        return AngleRanker()
    model = load_model(options.model, parse_arguments(options.model_arg or []))
    require_scorer(f"--model {options.model}", model, joint=False)
    return model


def _exclusions(settings: Settings, listener: Listener) -> Path | None:
    value = settings.get("exclusions_file")
    if value is None or str(value) in ("", "none"):
        return None
    path = Path(str(value))
    if settings.given.get("exclusions_file") is not None:
        return path
    if not path.is_file():
        raise InputError(
            f"the checkpoint's args name the exclusions file {path}, and {path.absolute()} is no file. Name it with "
            "--exclusions-file, or go on without it: --exclusions-file none."
        )
    listener.report(
        f"note: the checkpoint's args name the exclusions file {path.absolute()}; it is applied, after the split. "
        "--exclusions-file none goes on without it."
    )
    return path


def _digest(paths: Sequence[Path]) -> str:
    """One digest of the content of all files, in their order."""
    every = hashlib.sha256()
    for path in paths:
        every.update(hashlib.sha256(path.read_bytes()).digest())
    return every.hexdigest()


def _file(path: Path) -> dict[str, str | None]:
    """A file that was read, for provenance; what came through a pipe cannot be read again."""
    if not path.is_file():
        return {"path": str(path.absolute()), "sha256": None}
    with path.open("rb") as file:  # a table of pairs may be larger than the memory
        return {"path": str(path.absolute()), "sha256": hashlib.file_digest(file, "sha256").hexdigest()}

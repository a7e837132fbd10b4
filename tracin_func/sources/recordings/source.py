"""Recordings in the lab's tree with the checkpoints of a model trained on them, as a source of tasks."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from tracin_func.errors import InputError, UsageError
from tracin_func.files import present
from tracin_func.sources.demo.ranker import AngleRanker
from tracin_func.sources.groups import DRAWN, ModelOptions, PairOptions, QueryOptions
from tracin_func.sources.options import Options, flag
from tracin_func.sources.python.loading import load_model, parse_arguments, require_scorer
from tracin_func.sources.recordings.options import SAMPLE_RATE, RecordingOptions
from tracin_func.sources.recordings.tones import Tones
from tracin_func.sources.recordings.tree import find_tones
from tracin_func.sources.settings import Settings
from tracin_func.sources.source import Job, Listener, Source
from tracin_func.sources.values import checkpoint_choice, num_test, numbers, words
from tracin_func.task.checkpoints import Checkpoint, find_checkpoints
from tracin_func.task.pair_files import read_ids

ALL = "all"


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
    """The job of scoring recordings in the lab's tree; `kind` says in provenance whose they are."""
    own, of_model, pairs = options[RecordingOptions], options[ModelOptions], options[PairOptions]
    asked = _asked_pairs(options)
    model = _model(of_model) if scorer is None else scorer
    checkpoints = [Checkpoint(path, of_model.learning_rate) for path in chosen_checkpoints(options, checkpoint_dir)]
    settings = Settings(options.values, checkpoints[0].peek().args)
    for name, value in own.placeholders.items():
        settings.note(name, value)
    exclusions = _exclusions(settings, listener)
    seed, loss = settings.seed, settings.loss()
    trained_loss = settings.trained_loss()
    if settings.unread is not None:
        listener.tell(f"warning: {settings.unread}")
    tones = Tones(
        data_root,
        own.placeholders["material"],
        own.placeholders["frequency"],
        sample_rate=own.sample_rate or SAMPLE_RATE,
        clip_seconds=own.clip_seconds,
        seed=seed,
        pairs=pairs.pairs or DRAWN,
        ids=pairs.ids,
        exclusions=exclusions,
        exclude_before_split=pairs.exclude_before_split,
        skip_bad=own.skip_bad_audio,
        streamed=streamed,
        **asked,
    )
    task = tones.task(
        model,
        checkpoints,
        loss,
        kind=kind,
        with_test=with_test,
        workers=own.num_workers or 0,
        listener=listener,
    )
    named = {"model": of_model.model, "model_arguments": of_model.model_arg or []} if of_model.model else {}
    describe = {**task.describe, **named, "checkpoint_dir": str(checkpoint_dir.absolute())}
    return Job(replace(task, trained_loss=trained_loss, describe=describe), settings)


def _asked_pairs(options: Options) -> dict[str, Any]:
    """Which recordings and test pairs are asked for, as arguments of `Tones`."""
    own, tests = options[RecordingOptions], options[QueryOptions]
    by_score = tests.test_select not in (None, "random")
    return {
        "classes": words("--classes", own.classes),
        "takes": numbers("--takes", own.takes),
        "num_test": None if by_score else num_test(tests.num_test),
        "test_pairs": None if tests.test_pairs is None else read_ids(tests.test_pairs),
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
    listener.tell(
        f"note: the checkpoint's args name the exclusions file {path.absolute()}; it is applied, after the split. "
        "--exclusions-file none goes on without it."
    )
    return path

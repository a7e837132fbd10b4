"""Recordings in a tree of folders, with checkpoints of a model trained on them, as a source of tasks."""

import hashlib
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from tracin_func.errors import InputError, UsageError
from tracin_func.files import present
from tracin_func.sources.demo.cache import SYNTHETIC_NOTICE, embedded
from tracin_func.sources.demo.ranker import AngleRanker
from tracin_func.sources.demo.synthesis import FREQUENCIES
from tracin_func.sources.groups import WORDS, ModelOptions, PairOptions, QueryOptions
from tracin_func.sources.options import Options, setting
from tracin_func.sources.python.loading import load_model, parse_arguments, require_scorer
from tracin_func.sources.recordings.frontend import FrontEnd
from tracin_func.sources.recordings.options import SAMPLE_RATE, RecordingOptions
from tracin_func.sources.recordings.pairs import PairChoice
from tracin_func.sources.recordings.queries import queries_of, query_clips
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
    """Recordings and checkpoints of the user's own, or those of the embedded example where neither is named."""

    brings: ClassVar[str] = "recordings are scored"

    def __post_init__(self) -> None:
        folders = {"data_root": self._own.data_root, "checkpoint_dir": self._model.checkpoint_dir}
        match [name for name, folder in folders.items() if folder is not None]:
            case [given]:
                (missing,) = folders.keys() - {given}
                raise UsageError(
                    f"`{given}` was given without `{missing}`. Scores need recordings and the checkpoints of a model "
                    "trained on them: give both, or neither for the embedded example."
                )
            case [] if self._model.model is not None:
                raise UsageError(
                    "`model` needs `data_root` and `checkpoint_dir`: the embedded checkpoints fit only the embedded "
                    "ranker."
                )
        pairs = self.options[PairOptions]
        if self.synthetic and pairs.exclude_before_split and pairs.exclusions_file is None:
            raise UsageError("`exclude_before_split` was given without `exclusions_file`. Give both.")

    @staticmethod
    def asked(options: Options) -> bool:
        own = options[RecordingOptions].data_root, options[ModelOptions].checkpoint_dir, options[ModelOptions].model
        return any(each is not None for each in own)

    @property
    def synthetic(self) -> bool:
        return self._own.data_root is None

    @property
    def stem(self) -> str:
        return f"{self.placeholders['material']}_{self.placeholders['frequency']}"

    @property
    def placeholders(self) -> dict[str, str]:
        return self._own.placeholders

    def runs(self) -> list["Recordings"]:
        if self._own.frequency != ALL:
            return [self]
        root, folder = self._own.data_root, str(self._model.checkpoint_dir)
        tones = FREQUENCIES if root is None else find_tones(root, self.placeholders["material"])
        if not self.synthetic and "{frequency}" not in folder and len(tones) > 1:
            raise UsageError(
                f'`checkpoint_dir` must contain {{frequency}} with `frequency="all"`: the tones {", ".join(tones)} '
                f"have checkpoints of their own. Got {folder}."
            )
        return [replace(self, options=self.options.changed(frequency=tone)) for tone in tones]

    def check(self) -> None:
        if self._own.data_root is not None:
            find_tones(self._own.data_root, self.placeholders["material"])
            self._checkpoints(self._folder())

    def job(
        self, listener: Listener, *, with_test: bool = True, streamed: bool = False, scorer: nn.Module | None = None
    ) -> Job:
        kind, root = "tones", self._own.data_root
        if root is None:
            listener.report(f"note: {SYNTHETIC_NOTICE}")
            made = embedded(**self.placeholders, progress=listener.step)
            kind, root, folder = "embedded", made.data_root, made.checkpoint_dir
        else:
            folder = self._folder()
        model = self._scorer() if scorer is None else scorer
        rate = self._model.learning_rate
        checkpoints = [Checkpoint(path, rate) for path in self._checkpoints(folder)]
        settings = Settings(self.options.values, checkpoints[0].peek().args)
        for name, value in self.placeholders.items():
            settings.note(name, value)
        choice = self._choice(settings, listener, streamed=streamed)
        loss, trained_loss = settings.loss(), settings.trained_loss()
        if settings.unread is not None:
            listener.report(f"warning: {settings.unread}")

        def notice(sentence: str) -> None:
            listener.report(f"note: {sentence}")

        clips = find_clips(
            *(root, self.placeholders["material"], self.placeholders["frequency"]),
            classes=words("classes", self._own.classes),
            takes=numbers("takes", self._own.takes),
            notice=notice,
        )
        clips, excluded = choice.without_excluded(clips)
        # Chosen before the recordings are read, which takes long, so that wrong choices are reported at once.
        asked = self.options[QueryOptions] if with_test else QueryOptions()
        extra = query_clips(asked.query_audio or (), clips, self._own.sample_rate or SAMPLE_RATE)
        queries, every = queries_of(asked, clips, extra), [*clips, *extra]
        with_test = with_test and not queries
        train, test, held_out = choice.choose(clips, excluded, with_test=with_test, notice=notice)
        listener.chosen()
        items, bad = self._items(every, listener)
        if bad:
            some = f"{'; '.join(list(bad.values())[:3])}{' ...' if len(bad) > 3 else ''}"
            notice(f"{len(bad)} of {len(every)} recordings cannot be used. Their pairs are left out: {some}")
            train, test, held_out = choice.choose(clips, excluded | bad.keys(), with_test=with_test)
            pairs = [] if test is None else list(zip(test.first.tolist(), test.second.tolist(), strict=True))
            choice.require_usable([*pairs, *(query[:2] for query in queries)], every, bad)
        task = Task(
            *(model, items, train, checkpoints, test, loss, [clip.id for clip in every]),
            item_classes=[clip.degree_class for clip in every],
            held_out=held_out,
            trained_loss=trained_loss,
            describe={
                "kind": kind,
                **self._description(root, folder, model, clips, bad, choice),
                **({"num_test": None} if queries else {}),
                **({"query_audio": [_file(clip.path) for clip in extra]} if extra else {}),
            },
        )
        return Job(task, settings, queries)

    @property
    def _own(self) -> RecordingOptions:
        return self.options[RecordingOptions]

    @property
    def _model(self) -> ModelOptions:
        return self.options[ModelOptions]

    def _folder(self) -> Path:
        """The user's folder of checkpoints of this tone and material."""
        asked = folder = str(self._model.checkpoint_dir)
        for name, value in self.placeholders.items():
            folder = folder.replace(f"{{{name}}}", value)
        if (left := re.search(r"\{\w*\}", folder)) and not Path(folder).exists():
            raise UsageError(
                f"`checkpoint_dir` has the unknown placeholder {left[0]}. Allowed: {{frequency}}, {{material}}. Got "
                f"{asked}."
            )
        return present(Path(folder))

    def _checkpoints(self, folder: Path) -> list[Path]:
        """The checkpoint files of a folder that the options choose."""
        choose = checkpoint_choice(self._model.checkpoints)
        return choose(find_checkpoints(folder, self._model.checkpoint_prefix or "model_epoch_"))

    def _scorer(self) -> nn.Module:
        named = self._model.model
        if named is None:
            return AngleRanker()
        model = load_model(named, parse_arguments(self._model.model_arg or []))
        require_scorer(setting("model", named), model, joint=False)
        return model

    def _choice(self, settings: Settings, listener: Listener, *, streamed: bool) -> PairChoice:
        tests = self.options[QueryOptions]
        return PairChoice(
            self.options[PairOptions],
            exclusions=_exclusions(settings, listener),
            seed=settings.seed,
            num_test=num_test(tests.num_test) if tests.test_select in (None, "random") else None,
            named=None if tests.test_pairs is None else read_ids(tests.test_pairs),
            streamed=streamed,
        )

    def _items(self, clips: Sequence[Clip], listener: Listener) -> tuple[Tensor, dict[str, str]]:
        """The spectrograms of clips, and what is wrong with those that are to be left out, by id."""
        bad = dict[str, str]()
        with listener.progress("reading clips", 1) as advance:
            items = load_items(
                *(clips, FRONT_END),
                sample_rate=self._own.sample_rate or SAMPLE_RATE,
                clip_seconds=self._own.clip_seconds,
                workers=self._own.num_workers or 0,
                progress=lambda done: advance(1 / len(clips)),
                bad=bad if self._own.skip_bad_audio else None,
            )
        return items, bad

    def _description(
        self, root: Path, folder: Path, model: nn.Module, clips: list[Clip], bad: Collection[str], choice: PairChoice
    ) -> dict[str, Any]:
        """What provenance records of recordings, pairs and model."""
        return {
            "data_root": str(root.absolute()),
            "material": self.placeholders["material"],
            "frequency": self.placeholders["frequency"],
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
            "sample_rate": self._own.sample_rate or SAMPLE_RATE,
            "clip_seconds": self._own.clip_seconds,
            "front_end": FRONT_END.describe(),
            "model": self._model.model or type(model).__qualname__,
            "bad": list(bad),
            **({} if self._model.model is None else {"model_arguments": self._model.model_arg or []}),
            "checkpoint_dir": str(folder.absolute()),
        }


def _exclusions(settings: Settings, listener: Listener) -> Path | None:
    value = settings.get("exclusions_file")
    if value is None or str(value) in ("", "none"):
        return None
    path = Path(str(value))
    if settings.given.get("exclusions_file") is not None:
        return path
    without = '`exclusions_file="none"`'
    if not path.is_file():
        raise InputError(
            f"'exclusions_file' in the checkpoint's args is {path}, and {path.absolute()} is not a file. Set "
            f"`exclusions_file`, or {without} to continue without it."
        )
    listener.report(
        f"note: the exclusions file in the checkpoint's args, {path.absolute()}, is applied after the split. Set "
        f"{without} to continue without it."
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

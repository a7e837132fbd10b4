"""Recordings in a tree of folders, with checkpoints of a model trained on them, as a source of tasks."""

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

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
from tracin_func.sources.recordings.reading import (
    clips_of,
    described_file,
    digest_of,
    front_end_of,
    read_items,
    recorded_options,
)
from tracin_func.sources.recordings.tree import Clip, find_tones
from tracin_func.sources.settings import Settings
from tracin_func.sources.source import Job, Listener, Source
from tracin_func.sources.training import listed
from tracin_func.sources.values import checkpoint_choice, num_test
from tracin_func.task.checkpoints import Checkpoint, find_checkpoints
from tracin_func.task.pair_files import read_ids
from tracin_func.task.task import Task

ALL = "all"


@dataclass(frozen=True)
class Recordings(Source):
    """Recordings and checkpoints of the user's own, or those of the embedded example where neither is named."""

    brings: ClassVar[str] = "recordings are scored"

    def __post_init__(self) -> None:
        folders = {"data_root": self._asked.data_root, "checkpoint_dir": self._model.checkpoint_dir}
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
        return self._asked.data_root is None

    @property
    def stem(self) -> str:
        return f"{self.placeholders['material']}_{self.placeholders['frequency']}"

    @property
    def placeholders(self) -> dict[str, str]:
        return self._own.placeholders

    def runs(self) -> list["Recordings"]:
        if self._asked.frequency != ALL:
            return [self]
        root, folder = self._asked.data_root, str(self._model.checkpoint_dir)
        tones = FREQUENCIES if root is None else find_tones(root, self.placeholders["material"])
        if not self.synthetic and "{frequency}" not in folder and len(tones) > 1:
            raise UsageError(
                f'`checkpoint_dir` must contain {{frequency}} with `frequency="all"`: the tones {", ".join(tones)} '
                f"have checkpoints of their own. Got {folder}."
            )
        return [replace(self, options=self.options.changed(frequency=tone)) for tone in tones]

    def check(self) -> None:
        if self._asked.data_root is not None:
            find_tones(self._asked.data_root, self.placeholders["material"])
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
        first, *others = self._checkpoints(folder)
        known = self._first if self._first is not None and self._first.source == first else Checkpoint(first)
        checkpoints = [replace(known, learning_rate=rate), *(Checkpoint(path, rate) for path in others)]
        settings = Settings(self.options.values, checkpoints[0].peek().args)
        for name, value in self.placeholders.items():
            settings.note(name, value)
        choice = self._choice(settings, listener, streamed=streamed)
        loss, trained_loss = settings.loss(), settings.trained_loss()
        if settings.unread is not None:
            listener.report(f"warning: {settings.unread}")

        def notice(sentence: str) -> None:
            listener.report(f"note: {sentence}")

        clips, front_end = clips_of(self._own, root, notice), front_end_of(settings)
        clips, excluded = choice.without_excluded(clips)
        # Chosen before the recordings are read, which takes long, so that wrong choices are reported at once.
        asked = self.options[QueryOptions] if with_test else QueryOptions()
        extra = query_clips(asked.query_audio or (), clips, self._own.sample_rate or SAMPLE_RATE)
        queries, every = queries_of(asked, clips, extra), [*clips, *extra]
        with_test = with_test and not queries
        train, test, held_out = choice.choose(clips, excluded, with_test=with_test, notice=notice)
        listener.chosen()
        items, bad = read_items(self._own, every, listener, front_end)
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
                **self._description(root, folder, model, clips, bad, choice, front_end),
                **({"num_test": None} if queries else {}),
                **({"query_audio": [described_file(clip.path) for clip in extra]} if extra else {}),
            },
        )
        return Job(task, settings, queries)

    @property
    def _asked(self) -> RecordingOptions:
        return self.options[RecordingOptions]

    @cached_property
    def _own(self) -> RecordingOptions:
        """The options; those that were not given are the ones of the training, as its checkpoints record them."""
        return self._asked if self._first is None else recorded_options(self._asked, self._first.peek().args)

    @cached_property
    def _first(self) -> Checkpoint | None:
        """The first of the user's own checkpoints; None if there is none that can be read, which `job` reports."""
        if self.synthetic:
            return None
        try:
            first = Checkpoint(self._checkpoints(self._folder())[0])
            first.peek()
        except (InputError, UsageError):
            return None
        return first

    @property
    def _model(self) -> ModelOptions:
        return self.options[ModelOptions]

    def _folder(self) -> Path:
        """The user's folder of checkpoints of this tone and material."""
        asked = folder = str(self._model.checkpoint_dir)
        for name, value in self._asked.placeholders.items():
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
            exclusions=listed("exclusions_file", settings, listener),
            flips=listed("flips_file", settings, listener),
            seed=settings.seed,
            num_test=num_test(tests.num_test) if tests.test_select in (None, "random") else None,
            named=None if tests.test_pairs is None else read_ids(tests.test_pairs),
            streamed=streamed,
        )

    def _description(
        self,
        root: Path,
        folder: Path,
        model: nn.Module,
        clips: list[Clip],
        bad: Collection[str],
        choice: PairChoice,
        front_end: FrontEnd,
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
            "pairs": choice.words if choice.words in WORDS else described_file(Path(choice.words)),
            "num_test": choice.num_test,
            "test_pairs": None if choice.named is None else list(choice.named),
            "exclusions": None if choice.exclusions is None else described_file(choice.exclusions),
            "flips": None if choice.flips is None else described_file(choice.flips),
            "exclude_before_split": choice.asked.exclude_before_split,
            "recordings_sha256": digest_of([clip.path for clip in clips]),
            "sample_rate": self._own.sample_rate or SAMPLE_RATE,
            "clip_seconds": self._own.clip_seconds,
            "front_end": front_end.describe(),
            "model": self._model.model or type(model).__qualname__,
            "bad": list(bad),
            **({} if self._model.model is None else {"model_arguments": self._model.model_arg or []}),
            "checkpoint_dir": str(folder.absolute()),
        }

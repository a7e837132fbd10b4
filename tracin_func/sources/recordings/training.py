"""Recordings as a task to train on: split and drawn pairs are fixed by the seed, whatever is left out later."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from tracin_func.losses.margin import MarginRankingLoss
from tracin_func.sources.demo.cache import SYNTHETIC_NOTICE, embedded
from tracin_func.sources.demo.ranker import AngleRanker
from tracin_func.sources.groups import PairOptions
from tracin_func.sources.options import Options, setting
from tracin_func.sources.python.loading import load_model, parse_arguments, require_scorer
from tracin_func.sources.recordings.frontend import FrontEnd
from tracin_func.sources.recordings.options import RecordingOptions
from tracin_func.sources.recordings.pairs import PairChoice
from tracin_func.sources.recordings.reading import clips_of, digest_of, read_items
from tracin_func.sources.source import Listener
from tracin_func.sources.training import TRAINED_MARGIN, TrainingJob, given_loss
from tracin_func.sources.training_options import TrainingOptions
from tracin_func.task.checkpoints import Checkpoint
from tracin_func.task.task import Task

SPLIT_SEED = 42
CHOSEN = ("classes", "takes", "sample_rate", "clip_seconds")


def job(options: Options, listener: Listener) -> TrainingJob:
    """The task of recordings that the options choose, those of the embedded example where there are none.

    Raises:
        UsageError, InputError: an option is wrong, or recordings or the model do not fit.
    """
    own, asked, front_end = options[RecordingOptions], options[TrainingOptions], FrontEnd()
    seed, root = SPLIT_SEED if asked.seed is None else asked.seed, own.data_root
    if root is None:
        listener.report(f"note: {SYNTHETIC_NOTICE.replace(', `checkpoint_dir`', '')}")
        root = embedded(**own.placeholders, progress=listener.step).data_root
    first = _scorer(asked, seed)  # before the recordings are read, which takes long

    def notice(sentence: str) -> None:
        listener.report(f"note: {sentence}")

    clips = clips_of(own, root, notice)
    choice = PairChoice(PairOptions(), seed=seed, num_test=None, named=None, exclusions=None, streamed=False)
    train, _, held_out = choice.choose(clips, with_test=False, notice=notice)
    items, bad = read_items(own, clips, listener, front_end)
    ids = [clip.id for clip in clips]
    if bad:
        notice(f"{len(bad)} of {len(clips)} recordings cannot be used. Their pairs are left out: {min(bad.values())}")
        train, _, held_out = choice.choose(clips, bad.keys(), with_test=False)
    loss = given_loss(asked, MarginRankingLoss(TRAINED_MARGIN))
    task = Task(
        *(first, items, train, [Checkpoint(first)], None, loss, ids),
        item_classes=[clip.degree_class for clip in clips],
        held_out=held_out,
    )
    args: Mapping[str, Any] = {
        "seed": seed,
        **own.placeholders,
        **{name: value for name in CHOSEN if (value := getattr(own, name)) is not None},
        "front_end": front_end.describe(),
        "recordings_sha256": digest_of([clip.path for clip in clips]),
        "model": asked.model or AngleRanker.__qualname__,
        "model_arg": asked.model_arg or [],
        "synthetic": own.data_root is None,
    }
    model = () if asked.model is None else ("--model", asked.model)
    more = [word for each in asked.model_arg or [] for word in ("--model-arg", each)]
    return TrainingJob(task, lambda seed: _scorer(asked, seed), args, ("--data-root", str(root), *model, *more))


def _scorer(asked: TrainingOptions, seed: int) -> nn.Module:
    """The embedded ranker or the user's model, with the initial weights that `seed` draws."""
    if asked.model is None:
        return AngleRanker.seeded(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = load_model(asked.model, parse_arguments(asked.model_arg or []))
    require_scorer(setting("model", asked.model), model, joint=False)
    return model

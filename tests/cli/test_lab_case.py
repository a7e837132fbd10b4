"""The lab's case end to end: its kind of ranker, trained its way on WAV files, scored by the command line."""

import json
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor
from typer.testing import CliRunner

from tests.support.places import ROOT
from tracin_func.cli.app import app
from tracin_func.losses.ghm import GHMRankingLoss
from tracin_func.losses.terms import scored_pairs, weigh_by
from tracin_func.sources.python.loading import load_model
from tracin_func.sources.recordings.drawing import draw_sequence, merge_repeats, sample_test_pairs, split_items
from tracin_func.sources.recordings.frontend import FrontEnd
from tracin_func.sources.recordings.tree import find_clips, load_items
from tracin_func.task.checkpoints import find_checkpoints
from tracin_func.task.pairs import Pairs

SEED = 7
RANKER = '''
import torch
from torch import nn


class LabRanker(nn.Module):
    """Normalises by mean and deviation of the whole batch; BatchNorm; in-place ReLU; returns [items, 1]."""

    def __init__(self, channels):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, channels, 5, stride=4), nn.BatchNorm2d(channels), nn.ReLU(inplace=True), nn.MaxPool2d(2),
            nn.Conv2d(channels, 2 * channels, 3, padding=1), nn.BatchNorm2d(2 * channels), nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d((4, 2)),
        )
        self.head = nn.Sequential(nn.Linear(16 * channels, 16), nn.ReLU(inplace=True), nn.Linear(16, 1))

    def forward(self, spectrograms):
        centred = spectrograms - spectrograms.mean()
        return self.head(self.features(centred / (spectrograms.std() + 1e-6)).flatten(1))
'''


@dataclass(frozen=True)
class Lab:
    """A folder as the lab has it."""

    folder: Path
    data: Path
    checkpoints: Path
    ranker: str

    def arguments(self, *more: str) -> list[str]:
        """Options that name it."""
        named = ["--data-root", str(self.data), "--checkpoint-dir", str(self.checkpoints), "--model", self.ranker]
        return [*named, "--model-arg", "channels=4", "--metadata-dir", str(self.folder / "metadata"), *more]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """Recordings of 4 angles × 5 takes, 0.2 s each, and three checkpoints of a short training with GHM and Adam."""
    folder = tmp_path_factory.mktemp("lab")
    random = np.random.default_rng(SEED)
    time = np.arange(9600) / 48000
    for degree in (0, 36, 72, 108):
        for take in range(5):
            path = folder / f"recordings/deg{degree:03}/box/box_deg{degree:03}_1000hz_{take:02}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            level = 0.05 + 0.004 * degree * random.uniform(0.5, 1.5)
            tone = level * np.sin(2 * np.pi * 1000 * time) + 0.01 * random.standard_normal(len(time))
            soundfile.write(path, tone, 48000, subtype="PCM_16")
    (folder / "lab_ranker.py").write_text(textwrap.dedent(RANKER))
    made = Lab(folder, folder / "recordings", folder / "models", f"{folder / 'lab_ranker.py'}:LabRanker")
    train_as_the_lab_does(made)
    return made


def spectrograms_and_pairs(lab: Lab) -> tuple[list[str], Tensor, Pairs, Pairs]:
    """Ids, items, drawn training pairs, and the five sampled test pairs."""
    clips = find_clips(lab.data, material="box", frequency="1000hz")
    degrees = torch.tensor([clip.degree for clip in clips])
    train, test = split_items(len(clips), SEED)
    rng = np.random.RandomState(SEED)
    train_pairs = merge_repeats(draw_sequence(train, degrees, rng))
    test_pairs = sample_test_pairs(draw_sequence(test, degrees, rng), 5, SEED)
    return [clip.id for clip in clips], load_items(clips, FrontEnd()), train_pairs, test_pairs


def train_as_the_lab_does(lab: Lab) -> None:
    """Adam on the per-batch GHM loss with factor 3 for targets of -1; the lab's checkpoint dict."""
    _, items, pairs, _ = spectrograms_and_pairs(lab)
    torch.manual_seed(SEED)
    model = load_model(lab.ranker, {"channels": 4})
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    loss = GHMRankingLoss(margin=10.0, bins=5, alpha=0.5, variant="lab")
    lab.checkpoints.mkdir()
    rows = torch.arange(len(pairs)).repeat_interleave(pairs.counts)
    for epoch in (2, 10, 11):
        for batch in rows[torch.randperm(len(rows))].split(16):
            first, second = model(items[pairs.first[batch]])[:, 0], model(items[pairs.second[batch]])[:, 0]
            target = pairs.target[batch].float()
            bins = loss.bin(first.detach(), second.detach(), target)
            size = torch.bincount(bins.clamp(min=0), minlength=5)[bins.clamp(min=0)].float()
            weight = torch.where(bins >= 0, size**-0.5, 0)
            optimizer.zero_grad()
            (weight * loss(first, second, target)).mean().backward()
            optimizer.step()
        torch.save(
            {
                "epoch": epoch,
                "model_state_dict": model.state_dict(),
                "optimizer_state_dict": optimizer.state_dict(),
                "train_accuracy": np.float64(0.9),
                "test_accuracy": 0.8,
                "args": {
                    "margin": 10.0,
                    "loss_type": "ghm",
                    "ghm_bins": 5,
                    "ghm_alpha": 0.5,
                    "batch_size": 16,
                    "learning_rate": 2e-3,
                    "seed": SEED,
                    "exclusions_file": None,
                },
            },
            lab.checkpoints / f"model_epoch_{epoch}.pt",
        )


def loop_in_float64(lab: Lab) -> tuple[dict[str, float], dict[tuple[str, str], float]]:
    """Self-influence and influence by one autograd call a pair, batches of one, everything in float64."""
    ids, items, train, test = spectrograms_and_pairs(lab)
    names = lambda pairs: [f"{ids[a]}_{ids[b]}" for a, b in zip(pairs.first, pairs.second, strict=True)]  # noqa: E731
    own = torch.zeros(len(train), dtype=torch.float64)
    products = torch.zeros(len(train), len(test), dtype=torch.float64)
    loss = GHMRankingLoss(margin=10.0, bins=5, alpha=0.5, batch_size=16, variant="lab")
    for path in find_checkpoints(lab.checkpoints):
        model = load_model(lab.ranker, {"channels": 4}).double().eval()
        model.load_state_dict(torch.load(path, weights_only=False)["model_state_dict"])
        # The weights follow the float32 scores: near an edge, float64 could fall into another bin.
        single = load_model(lab.ranker, {"channels": 4}).eval()
        single.load_state_dict(torch.load(path, weights_only=False)["model_state_dict"])
        with torch.no_grad():
            scores = torch.cat([single(item[None])[0] for item in items])
        paired = scores[train.first], scores[train.second], train
        weigh = weigh_by(loss, *paired)
        assert weigh is not None
        weight = weigh(*scored_pairs(*paired))
        score: Callable[[int], Tensor] = lambda item: model(items[item].double()[None])[0, 0]  # noqa: B023, E731

        def gradients(pairs: Pairs, weight: Tensor) -> Tensor:
            rows = []
            for a, b, y, w in zip(pairs.first, pairs.second, pairs.target, weight, strict=True):
                hinge = w * torch.relu(10.0 - y * (score(int(a)) - score(int(b))))  # noqa: B023
                gradient = torch.autograd.grad(hinge, list(model.parameters()))  # noqa: B023
                rows.append(torch.cat([part.flatten() for part in gradient]))
            return torch.stack(rows)

        of_train = gradients(train, weight)
        of_test = gradients(test, torch.ones(len(test), dtype=torch.float64))
        own += 2e-3 * of_train.square().sum(dim=1)
        products += 2e-3 * of_train @ of_test.T
    by_pair = {(p, q): float(products[i, j]) for i, p in enumerate(names(train)) for j, q in enumerate(names(test))}
    return dict(zip(names(train), own.tolist(), strict=True)), by_pair


def test_scores_equal_the_float64_loop_over_batches_of_one(lab: Lab) -> None:
    arguments = lab.arguments("--material", "box", "--frequency", "1000hz", "--num-test", "5", "--with-self")
    result = CliRunner().invoke(app, ["influence", *arguments])
    assert result.exit_code == 0, result.output
    own, products = loop_in_float64(lab)
    metadata = lab.folder / "metadata"
    found = json.loads((metadata / "box_1000hz_metadata.json").read_text())
    assert list(found) == list(own)
    scale = max(own.values())
    for pair, value in own.items():
        assert found[pair]["tracin_self_influence"] == pytest.approx(value, rel=2e-4, abs=1e-5 * scale)
    found = json.loads((metadata / "box_1000hz_influence_metadata.json").read_text())
    scale = max(abs(value) for value in products.values())
    for (pair, test), value in products.items():
        assert found[pair][f"tracin_influence_{test}"] == pytest.approx(value, rel=2e-4, abs=1e-5 * scale)


def test_settings_are_the_checkpoints_and_the_coupling_is_named(lab: Lab) -> None:
    result = CliRunner().invoke(app, ["self", *lab.arguments("--material", "box", "--frequency", "1000hz")])
    assert result.exit_code == 0, result.output
    assert "warning: the score of one item depends" in result.stderr
    assert "first through mean (lab_ranker.py:19)" in result.stderr
    provenance = json.loads((lab.folder / "metadata/box_1000hz_metadata.json.provenance.json").read_text())
    column = provenance["columns"]["tracin_self_influence"]
    expected = {"loss_type": "ghm", "margin": 10.0, "bins": 5, "alpha": 0.5, "batch_size": 16, "variant": "lab"}
    assert column["loss"] == expected
    assert column["source"]["seed"] == SEED
    assert [checkpoint["name"] for checkpoint in column["checkpoints"]] == [f"model_epoch_{n}.pt" for n in (2, 10, 11)]
    assert [checkpoint["learning_rate"] for checkpoint in column["checkpoints"]] == [2e-3] * 3


def test_an_option_that_contradicts_the_checkpoint_wins_and_warns(lab: Lab) -> None:
    arguments = lab.arguments("--material", "box", "--frequency", "1000hz", "--margin", "1")
    result = CliRunner().invoke(app, ["self", *arguments])
    assert result.exit_code == 0, result.output
    assert "warning: settings differ from those of the training: --margin 1.0 (checkpoints: 10.0)." in result.stderr
    assert result.stderr.count("--margin") == 1


def test_the_embedded_ranker_does_not_fit_the_labs_weights(lab: Lab) -> None:
    arguments = ["--data-root", str(lab.data), "--checkpoint-dir", str(lab.checkpoints)]
    result = CliRunner().invoke(app, ["self", *arguments, "--material", "box", "--frequency", "1000hz"])
    assert result.exit_code == 3
    assert "do not fit the model AngleRanker: missing" in result.stderr


# The page for those who come from the older script


def translated() -> list[list[str]]:
    """The commands that the page shows, the same in both languages, as words."""
    english, chinese = (
        [
            shlex.split(line)[1:]
            for line in page.read_text(encoding="utf-8").splitlines()
            if line.startswith("tracin-func ")
        ]
        for page in (ROOT / "docs" / "migrating.md", ROOT / "docs" / "migrating.zh-TW.md")
    )
    assert chinese == english
    return english


@pytest.mark.parametrize("words", translated(), ids=lambda words: words[0])
def test_the_old_commands_run_as_they_are_translated(
    lab: Lab, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As written, where ROOT, DIR/500hz and ranker.py:Ranker are the lab's; an old argument may be given beside."""
    monkeypatch.chdir(tmp_path)
    frequency, material = (words[words.index(flag) + 1] for flag in ("--frequency", "--material"))
    for recording in lab.data.rglob("*.wav"):
        name = recording.name.replace("box", material).replace("1000hz", frequency)
        copy = Path("ROOT", recording.parts[-3], material, name)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(recording, copy)
    shutil.copytree(lab.checkpoints, Path("DIR", frequency), dirs_exist_ok=True)
    Path("ranker.py").write_text(RANKER.replace("LabRanker", "Ranker").replace("self, channels)", "self, channels=4)"))
    for more in ([], ["--loss-type", "ghm", "--batch-size", "32"], ["--margin", "1"], ["--per-checkpoint"]):
        result = CliRunner().invoke(app, [*words, *more])
        assert result.exit_code == 0, result.stderr
    names = {path.name for path in Path("tracin").glob("*.json") if "provenance" not in path.name}
    kind = "_influence" if words[0] == "influence" else ""
    assert names >= {
        f"{material}_{frequency}{kind}_metadata.json",
        f"{material}_{frequency}_per_checkpoint{kind}_metadata.json",
    }


OLDER = "--compute-self-influence", "--compute-influence"


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        pytest.param([OLDER[0]], ["self"], id="self"),
        pytest.param([OLDER[1], "--num-test-samples", "3"], ["influence", "--num-test", "3"], id="influence"),
        pytest.param([*OLDER, "--num-test-samples=3"], ["influence", "--with-self", "--num-test", "3"], id="both"),
        pytest.param([OLDER[0], "--num-test-samples", "3", "--num-test=2"], ["self"], id="self and test pairs"),
    ],
)
def test_options_of_the_older_script_write_the_files_of_the_commands(
    older: list[str], newer: list[str], lab: Lab, tmp_path: Path
) -> None:
    common = words_of_the_table(lab)
    files = [
        written([*common[:4], *older, *common[4:]], tmp_path / "older"),
        written([*newer, *common], tmp_path / "newer"),
    ]
    assert files[0] == files[1]
    assert len(files[0]) == 2 * len([word for word in older if word in OLDER])


def words_of_the_table(lab: Lab) -> list[str]:
    """Every option of the older script."""
    exclusions = lab.folder / "exclusions.txt"
    exclusions.write_text("# none\n")
    named = {
        "--frequency": "1000hz",
        "--material": "box",
        "--data-root": lab.data,
        "--checkpoint-dir": lab.checkpoints,
        "--model": lab.ranker,
        "--model-arg": "channels=4",
        "--loss-type": "ghm",
        "--margin": 10,
        "--ghm-bins": 5,
        "--ghm-alpha": 0.5,
        "--batch-size": 8,
        "--exclusions-file": exclusions,
    }
    return [*(str(word) for both in named.items() for word in both), "--per-checkpoint"]


def written(words: list[str], folder: Path) -> dict[str, bytes]:
    """The result files of a command, run as `python cli.py` runs it."""
    result = CliRunner().invoke(app, [*words, "--metadata-dir", str(folder)])
    assert result.exit_code == 0, result.output
    return {path.name: path.read_bytes() for path in folder.glob("*_metadata.json")}


@pytest.mark.parametrize("program", [["-m", "tracin_func"], ["cli.py"]], ids=["package", "cli.py"])
def test_programs_take_the_older_options(program: list[str], lab: Lab, tmp_path: Path) -> None:
    words = [*words_of_the_table(lab), *OLDER, "--num-test-samples", "2", "--metadata-dir", str(tmp_path / "older")]
    done = subprocess.run([sys.executable, *program, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    newer = written(["influence", "--with-self", "--num-test", "2", *words_of_the_table(lab)], tmp_path / "newer")
    assert {path.name: path.read_bytes() for path in (tmp_path / "older").glob("*_metadata.json")} == newer


def test_the_older_options_choose_no_command_where_one_is_given() -> None:
    assert CliRunner().invoke(app, ["show", OLDER[0]]).exit_code == 2
    assert "self" in CliRunner().invoke(app, [OLDER[0], "--help"]).stdout

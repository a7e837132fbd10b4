"""A loss that only its entry in the registry makes known: in Python, streamed, and on the command line."""

import json
import subprocess
import sys
import textwrap
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tracin_func as ti
from tests.support import calls
from tests.support.lab import COLUMN, Lab, run
from tests.support.toy_loss import POWER, Toy, Unweighted
from tracin_func.losses.registry import LOSSES, Registered
from tracin_func.scoring.score import score
from tracin_func.task.pair_table import PairTable

ITEMS = 12


def quartic(first: Tensor, second: Tensor, target: Tensor) -> Tensor:
    """No function of s_a − s_b."""
    return (first - target) ** 4 + 0.5 * (second + target) ** 2


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LOSSES, "toy", Registered(Unweighted, (POWER,)))


def task(loss: Any) -> ti.Task:
    torch.manual_seed(0)
    scorer, items = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1)).double(), torch.randn(ITEMS, 4).double()
    states = [{name: torch.randn_like(value) for name, value in scorer.state_dict().items()} for _ in range(2)]
    checkpoints = [ti.Checkpoint(state, 0.1, f"step {number}") for number, state in enumerate(states)]
    every = torch.combinations(torch.arange(ITEMS)).T.contiguous()
    target = torch.randint(0, 2, (every.shape[1],)) * 2 - 1
    train = ti.Pairs(*every, target, count=torch.arange(every.shape[1]) % 3 + 1)
    return ti.Task(scorer, items, train, checkpoints, ti.Pairs([0, 5], [7, 2], [1, -1]), loss)


def table(pairs: ti.Pairs) -> PairTable:
    return PairTable(first=pairs.first, second=pairs.second, target=pairs.target, count=pairs.count)


@pytest.mark.parametrize("loss", [Toy(2.0), Unweighted(2.0), quartic], ids=["weighted", "unweighted", "callable"])
def test_scores_in_memory_and_streamed_are_equal(loss: Any) -> None:
    of = task(loss)
    found = score(of, influence=True)
    own, influence = found.self_influence, found.influence
    assert own is not None
    assert influence is not None
    assert bool((own.scores > 0).any())
    torch.testing.assert_close(calls.query_self(of, calls.how(), table(of.train_pairs)).scores, own.scores)
    top = calls.query(of, calls.how(), table(of.train_pairs), 5)
    for column in range(2):
        scores = influence.scores[:, column]
        sides = top.strongest.proponents[column], top.strongest.opponents[column]
        for winners, sign in zip(sides, (1, -1), strict=True):
            order = torch.sort(sign * scores, descending=True).indices[:5]
            expected = order[sign * scores[order] > 0]
            assert winners.rows.tolist() == expected.tolist()
            torch.testing.assert_close(winners.scores, scores[expected])


def test_weights_come_from_all_training_pairs() -> None:
    weighted, plain = (ti.self_influence(task(loss)) for loss in (Toy(2.0), Unweighted(2.0)))
    assert weighted is not None
    assert plain is not None
    pairs = task(None).train_pairs
    for number in range(2):
        misranked = weighted.pairs.score_margin[number] <= 0
        share = float((misranked * pairs.counts).sum()) / int(pairs.counts.sum())
        assert weighted.pairs.weight[number].unique().tolist() == pytest.approx(sorted({share, 1.0}))
    assert not torch.allclose(weighted.scores, plain.scores)


@pytest.mark.usefixtures("registered")
def test_the_command_line_takes_its_name(lab: Lab) -> None:
    found = {}
    for name, more in (("toy", []), ("standard", ["--margin", "1"])):
        code, _, stderr = run("self", lab, "--loss-type", name, *more, "--batch-size", "4")
        assert code == 0, stderr
        found[name] = json.loads((lab.results / "box_500hz_metadata.json").read_text())
        (lab.results / "box_500hz_metadata.json").unlink()
    for pair, scores in found["toy"].items():
        assert scores[COLUMN] == pytest.approx(found["standard"][pair][COLUMN])
    code, _, stderr = run("self", lab, "--loss-type", "other")
    assert (code, "--loss-type should be one of standard, ghm, logistic, toy. Got 'other'." in stderr) == (2, True)


def test_its_fields_are_options(lab: Lab) -> None:
    """In a process of its own, where the loss is registered before the commands are made."""
    script = lab.folder / "with_toy.py"
    script.write_text(
        textwrap.dedent("""
        from tests.support.toy_loss import POWER, Unweighted
        from tracin_func.losses.registry import LOSSES, Registered
        LOSSES["toy"] = Registered(Unweighted, (POWER,))
        from tracin_func.cli.app import main
        main()
        """)
    )
    arguments = [*lab.arguments(), "--loss-type", "toy", "--toy-power", "3", "--quiet"]
    done = subprocess.run(
        [sys.executable, str(script), "self", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    record = json.loads((lab.results / "box_500hz_metadata.json.provenance.json").read_text())["columns"][COLUMN]
    assert record["loss"] == {"loss_type": "unweighted", "power": 3.0, "share": True}

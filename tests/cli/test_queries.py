"""`influence --query` and `--query-audio`: pairs that are in no split, of recordings and of tasks of one's own."""

import json
import re
import shutil
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import tracin_func as ti
from tests.support.cases.command_line import refused as refused_words
from tests.support.cases.command_line import works
from tests.support.lab import Lab, lab, refused, run

__all__ = ["lab"]
A, B, C = "box_deg000_500hz_01", "box_deg072_500hz_03", "box_deg036_500hz_02"
RESULTS = "box_500hz_influence_metadata.json"


def columns(lab: Lab, name: str = RESULTS) -> dict[str, list[float]]:
    """Scores by test pair, in the order of training pairs."""
    found: dict[str, list[float]] = {}
    for row in json.loads((lab.results / name).read_text()).values():
        for column, score in row.items():
            found.setdefault(column.removeprefix("tracin_influence_"), []).append(score)
    return found


def provenance(lab: Lab) -> dict[str, Any]:
    path = lab.results / f"{RESULTS}.provenance.json"
    found: dict[str, Any] = next(iter(json.loads(path.read_text())["columns"].values()))
    return found


def scored(lab: Lab, *more: str) -> str:
    """stderr of a run that ends well."""
    code, _, stderr = run("influence", lab, *more)
    assert code == 0, stderr
    return stderr


def test_a_query_has_the_scores_of_the_same_test_pair(lab: Lab) -> None:
    scored(lab, "--test-pairs", f"{B}_{A},{A}_{C}")
    expected = columns(lab)
    shutil.rmtree(lab.results)
    stderr = scored(lab, "--query", f"{B},{A},1", "--query", f"{A},{C},-1")
    assert columns(lab) == expected
    assert "without target" not in stderr


def test_without_target_the_model_s_own_ranking_is_explained_and_said(lab: Lab) -> None:
    stderr = scored(lab, "--query", f"{A},{B}")
    own = columns(lab)
    (query,) = provenance(lab)["source"]["queries"]
    first, second = query["scores"]
    assert query["target"] == (1 if first > second else -1)
    (high, low), (a, b) = sorted([first, second], reverse=True), (A, B) if first > second else (B, A)
    assert (
        f"note: --query without target: the ranking at model_epoch_10.pt is explained: {a} ({high:.4g}) above "
        in stderr
    )
    assert f"{b} ({low:.4g})." in stderr
    shutil.rmtree(lab.results)
    scored(lab, "--query", f"{A},{B},{query['target']}")
    assert columns(lab) == own
    shutil.rmtree(lab.results)
    scored(lab, "--query", f"{A},{B},{-query['target']}")
    assert columns(lab) != own


def test_own_ranking_is_not_called_correct(lab: Lab) -> None:
    _, stdout, _ = run(
        "influence", lab, "--query", f"{A},{B}", "--query", f"{B},{C},1", "--test-functional", "score-margin"
    )
    lines = [line for line in stdout.splitlines() if line.startswith(("own ranking", "test pair"))]
    assert [line.split()[0] for line in lines] == ["own", "test"]
    assert re.search(rf"{A}  {B} +margin ", lines[0])
    assert "correct, margin" in lines[1] or "wrong, margin" in lines[1]
    _, stdout, _ = run("influence", lab, "--query", f"{A},{B}", "--by", "item")
    assert f"{A}_{B}: own ranking, loss" in stdout


def test_copies_of_recordings_have_their_scores_to_the_last_digit(lab: Lab, tmp_path: Path) -> None:
    for name, item in (("new one", A), ("other", B)):
        shutil.copy(next(lab.data.rglob(f"{item}.wav")), tmp_path / f"{name}.wav")
    files = "--query-audio", str(tmp_path / "new one.wav"), str(tmp_path / "other.wav")
    scored(lab, *files, "--query", f"{A},{B}", "--query", f"new one,{C},1", "--query", f"{A},{C},1")
    found = columns(lab)
    assert list(found) == ["new one_other", f"{A}_{B}", f"new one_{C}", f"{A}_{C}"]
    assert found["new one_other"] == found[f"{A}_{B}"]
    assert found[f"new one_{C}"] == found[f"{A}_{C}"]
    assert [Path(each["path"]).name for each in provenance(lab)["source"]["query_audio"]] == [
        "new one.wav",
        "other.wav",
    ]
    # the pair of the files has the target that a query gives
    shutil.rmtree(lab.results)
    scored(lab, *files, "--query", "other,new one,1")
    assert list(columns(lab)) == ["other_new one"]


def test_a_run_with_queries_is_repeated_checked_and_merged(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored(lab, "--num-test", "2")
    drawn = columns(lab)
    shutil.copy(next(lab.data.rglob(f"{A}.wav")), tmp_path / "new.wav")
    shutil.copy(next(lab.data.rglob(f"{B}.wav")), tmp_path / "other.wav")
    monkeypatch.chdir(tmp_path)
    asked = "--query-audio", "new.wav", "other.wav", "--query", f"new,{C}"
    stderr = scored(lab, *asked, "--verify", "5")
    assert "Verification passed" in stderr
    first = columns(lab)
    assert {name: first[name] for name in drawn} == drawn
    assert [*first] == [*drawn, "new_other", f"new_{C}"]
    record = lab.results / f"{RESULTS}.provenance.json"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    own = {name: entry for name, entry in json.loads(record.read_text())["columns"].items() if "new_" in name}
    alone = tmp_path / "alone.provenance.json"
    alone.write_text(json.dumps({"format": 1, "columns": own}))
    again = works("influence", "--from", str(alone), "--metadata-dir", str(tmp_path / "again"))
    assert "not as recorded" not in again.stderr
    rows = json.loads((tmp_path / "again" / RESULTS).read_text())
    for name in ("new_other", f"new_{C}"):
        assert [row[f"tracin_influence_{name}"] for row in rows.values()] == first[name]
    shutil.copy(next(lab.data.rglob(f"{C}.wav")), tmp_path / "other.wav")
    again = works("influence", "--from", str(alone), "--metadata-dir", str(tmp_path / "again"))
    assert "recordings of the query differ" in again.stderr


def test_shards_are_merged_to_the_same_scores(lab: Lab, tmp_path: Path) -> None:
    shutil.copy(next(lab.data.rglob(f"{A}.wav")), tmp_path / "new.wav")
    shutil.copy(next(lab.data.rglob(f"{B}.wav")), tmp_path / "other.wav")
    asked = "--query-audio", str(tmp_path / "new.wav"), str(tmp_path / "other.wav"), "--query", f"{B},{C}"
    store = "--store", str(tmp_path / "store"), "--projection", "none"
    for shard in ("1/2", "2/2"):
        scored(lab, *asked, *store, "--shard", shard)
    works("merge", str(tmp_path / "store"))
    merged = columns(lab)
    shutil.rmtree(lab.results)
    scored(lab, *asked, *store)
    assert columns(lab) == merged
    assert list(merged) == ["new_other", f"{B}_{C}"]


def test_the_strongest_pairs_of_a_query_are_kept(lab: Lab) -> None:
    scored(lab, "--query", f"{A},{B}")
    scores = columns(lab)[f"{A}_{B}"]
    scored(lab, "--query", f"{A},{B}", "--keep", "2")
    found = ti.load(lab.results / "box_500hz_influence_strongest.parquet")
    assert isinstance(found, ti.TopInfluences)
    best = [each.score for each in found.proponents(f"{A}_{B}")]
    assert best == pytest.approx(sorted(scores, reverse=True)[: len(best)], rel=1e-5)


def test_a_dry_run_says_the_ranking_and_writes_nothing(lab: Lab) -> None:
    before = lab.files()
    code, stdout, stderr = run("influence", lab, "--query", f"{A},{B}", "--dry-run")
    assert code == 0
    assert "test pairs      1;" in stdout
    assert "the ranking at model_epoch_10.pt is explained" in stderr
    assert lab.files() == before


@pytest.mark.parametrize("query", ["a", f"{A},{B},1,2", f"{A},{B},2", f"{A},{A}", ","])
def test_a_malformed_query_is_an_option_that_is_wrong_in_itself(lab: Lab, query: str) -> None:
    assert "--query" in refused("influence", lab, "--query", query, code=2)


@pytest.mark.parametrize("other", [("--num-test", "2"), ("--test-pairs", f"{A}_{B}"), ("--test-select", "active")])
def test_a_query_takes_the_place_of_drawn_test_pairs(lab: Lab, other: tuple[str, str]) -> None:
    line = refused("influence", lab, "--query", f"{A},{B}", *other, code=2)
    assert f"--query cannot be combined with {other[0]}" in line


def test_an_unknown_item_is_refused_with_the_nearest_id(lab: Lab) -> None:
    line = refused("influence", lab, "--query", f"{A},box_deg072_500hz_3", code=3)
    assert "item 'box_deg072_500hz_3' not found. The nearest id is 'box_deg072_500hz_03'" in line


def test_files_that_cannot_be_used_get_the_lines_of_recordings(lab: Lab, tmp_path: Path) -> None:
    good, item = tmp_path / "good.wav", next(lab.data.rglob(f"{A}.wav"))
    shutil.copy(item, good)
    sound, _ = soundfile.read(good)
    soundfile.write(tmp_path / "slow.wav", sound, 44100)
    soundfile.write(tmp_path / "short.wav", sound[:4000], 48000)
    (tmp_path / "text.wav").write_text("no sound")
    for name, words in (
        ("slow.wav", "--sample-rate 48000 differs from"),
        ("short.wav", "All clips need one length"),
        ("text.wav", "not a readable WAV file"),
        ("missing.wav", "file not found"),
    ):
        for more in ((), ("--skip-bad-audio",)):
            line = refused("influence", lab, "--query-audio", str(good), str(tmp_path / name), *more, code=3)
            assert words in line or (more and "contains short, which cannot be used" in line), line
    line = refused("influence", lab, "--query-audio", str(good), str(item), code=3)
    assert f"has the id '{A}', which" in line
    (tmp_path / "sub").mkdir()
    shutil.copy(item, tmp_path / "sub/good.wav")
    assert "Rename the file" in refused(
        "influence", lab, "--query-audio", str(good), str(tmp_path / "sub/good.wav"), code=3
    )


def test_a_task_of_one_s_own_takes_ids_and_positions(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        textwrap.dedent("""
        import torch
        import tracin_func as ti

        def task():
            torch.manual_seed(0)
            net = torch.nn.Linear(3, 1)
            states = [ti.Checkpoint(net.state_dict(), 0.1)]
            pairs = ti.Pairs([0, 1, 2], [1, 2, 3], [1, 1, -1])
            return ti.Task(net, torch.randn(5, 3), pairs, states, test=ti.Pairs([3], [4], [1]), item_ids=list("abcde"))
        """)
    )
    own = "influence", "--task", f"{tmp_path / 'own.py'}:task", "--metadata-dir", str(tmp_path / "out")
    works(*own, "--query", "d,e,1", "--query", "0,2,-1")
    rows = json.loads((tmp_path / "out/own_task_influence_metadata.json").read_text())
    assert list(rows["a_b"]) == ["tracin_influence_d_e", "tracin_influence_a_c"]
    works(*own)
    again = json.loads((tmp_path / "out/own_task_influence_metadata.json").read_text())
    assert again == rows  # the task's own test pair is d_e
    assert "not found. The nearest id is" in refused_words(*own, "--query", "a,x")
    line = refused_words(*own, "--query-audio", "a.wav", "b.wav", code=2)
    assert "--query-audio cannot be used here" in line


def test_python_sources_take_queries(lab: Lab, tmp_path: Path) -> None:
    shutil.copy(next(lab.data.rglob(f"{A}.wav")), tmp_path / "new.wav")
    shutil.copy(next(lab.data.rglob(f"{B}.wav")), tmp_path / "other.wav")
    task = ti.sources.recordings(
        lab.data,
        lab.checkpoints,
        material="box",
        query=[f"{A},{B}"],
        query_audio=(tmp_path / "new.wav", tmp_path / "other.wav"),
    )
    found = ti.influence(task)
    assert found.test_ids == ("new_other", f"{A}_{B}")
    assert np.array_equal(found.scores[:, 0], found.scores[:, 1])
    with pytest.raises(ti.UsageError, match="`query_audio` should be two WAV files"):
        ti.sources.recordings(lab.data, lab.checkpoints, material="box", query_audio="new.wav")
    with pytest.raises(ti.UsageError, match="`query` should be a list"):
        ti.sources.recordings(lab.data, lab.checkpoints, material="box", query=f"{A},{B}")

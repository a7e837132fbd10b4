"""Queries as runs: the winners of a table read in blocks are those of all scores, whatever holds the gradients."""

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.csv
import pyarrow.parquet
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import tracin_func as ti
from tests.support import calls
from tracin_func.cli.app import app
from tracin_func.results.files.origins import provenance_path
from tracin_func.results.top import StreamedSelfInfluence, TopInfluences
from tracin_func.scoring import record as recording
from tracin_func.scoring import self_influence as of_self
from tracin_func.sources.demo.cache import EmbeddedDemo
from tracin_func.task.pair_table import PairTable
from tracin_func.task.pairs import COLUMNS

ITEMS = 24
LOSSES: dict[str, Any] = {
    "margin": ti.MarginRankingLoss(0.4),
    "logistic": ti.LogisticLoss(0.1),
    "ghm of the lab": ti.GHMRankingLoss(0.4, bins=6, batch_size=16, variant="lab"),
}


def pairs_of(many: int, seed: int, **own: Any) -> ti.Pairs:
    """Random distinct pairs."""
    generator = torch.Generator().manual_seed(seed)
    every = torch.tensor([(a, b) for a in range(ITEMS) for b in range(ITEMS) if a != b])
    chosen = every[torch.randperm(len(every), generator=generator)[:many]]
    target = torch.randint(0, 2, (many,), generator=generator) * 2 - 1
    return ti.Pairs(*chosen.T.contiguous(), target, **own)


def task_of(loss: Any = LOSSES["margin"], train: ti.Pairs | None = None, rates: tuple[float, ...] = (0.1, 0.03)) -> Any:
    """A small network in double precision, with a checkpoint a rate."""
    torch.manual_seed(0)
    scorer = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    items = torch.randn(ITEMS, 6, dtype=torch.float64)
    states = []
    for rate in rates:
        state = {name: torch.randn_like(tensor) for name, tensor in scorer.state_dict().items()}
        states.append(ti.Checkpoint(state, rate, f"step_{len(states)}"))
    counts = torch.randint(1, 4, (200,), generator=torch.Generator().manual_seed(1))
    train = pairs_of(200, 1, count=counts) if train is None else train
    return ti.Task(
        scorer, items, train, states, pairs_of(4, 2, count=[1, 4, 2, 1]), loss, [f"item_{i:02}" for i in range(ITEMS)]
    )


def arrays(pairs: ti.Pairs) -> PairTable:
    return PairTable(**{name: getattr(pairs, name) for name in COLUMNS})


def require_same(found: TopInfluences, dense: ti.Influence, k: int) -> None:
    """The winners, with their names, scores and standard errors, are the ends of each column of all scores."""
    assert found.test_ids == dense.test_ids
    for column, test in enumerate(dense.test_ids):
        scores = dense.scores[:, column]
        both = (found.strongest.proponents, found.proponents, 1), (found.strongest.opponents, found.opponents, -1)
        for number, (sides, listed, sign) in enumerate(both):
            winners = sides[column]
            order = torch.sort(sign * scores, descending=True, stable=True).indices
            expected = [row for row in order.tolist() if sign * scores[row] > 0][:k]
            assert winners.rows.tolist() == expected, test
            assert [each.pair for each in listed(column)] == [dense.ids[row] for row in expected]
            torch.testing.assert_close(winners.scores, scores[expected], rtol=1e-9, atol=1e-12)
            if dense.standard_error is None:
                assert found.standard_errors is None
            else:
                assert found.standard_errors is not None
                error = found.standard_errors[column][number]
                torch.testing.assert_close(error, dense.standard_error[expected, column], rtol=1e-6, atol=1e-12)


PROJECTIONS = [None, *(ti.Projection(kind, 32, seed=3) for kind in ("sjlt", "rademacher", "kronecker"))]


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("projection", PROJECTIONS, ids=lambda each: each.kind if each else "exact")
@pytest.mark.parametrize("loss", LOSSES)
def test_winners_are_those_of_all_scores(
    loss: str, projection: ti.Projection | None, stored: bool, tmp_path: Path
) -> None:
    task = task_of(LOSSES[loss])
    own = {} if projection is None else {"projection": projection}
    dense = calls.score(task, calls.how(**own), self_influence=False, influence=True).influence
    assert dense is not None
    assert bool((dense.scores > 0).any())
    found = calls.query(
        task, calls.how(**own, store=tmp_path / "store" if stored else None), arrays(task.train_pairs), 5
    )
    assert found.strongest.pairs == 200
    assert found.strongest.inactive == pytest.approx(float(dense.inactive.double().mean()))
    assert found.run.checkpoints == dense.run.checkpoints
    if stored:  # rows are float32 there
        same = calls.score(
            task, calls.how(**own, store=tmp_path / "store"), self_influence=False, influence=True
        ).influence
        assert same is not None
        dense = same
    require_same(found, dense, 5)


@pytest.mark.parametrize("projection", [None, ti.Projection("sjlt", 32)], ids=["exact", "projected"])
def test_pairs_with_weights_margins_and_names_of_their_own(projection: ti.Projection | None) -> None:
    generator = torch.Generator().manual_seed(5)
    own = {"weight": torch.rand(200, generator=generator), "margin": torch.rand(200, generator=generator)}
    train = pairs_of(200, 1, **own, ids=[f"comparison {row}" for row in range(200)])
    task = task_of(LOSSES["ghm of the lab"], train)
    compute = calls.how() if projection is None else calls.how(projection=projection)
    dense = calls.score(task, compute, self_influence=False, influence=True).influence
    assert dense is not None
    require_same(calls.query(task, compute, train, 3), dense, 3)


def test_a_checkpoint_without_a_rate_adds_nothing_and_is_counted() -> None:
    task = task_of(rates=(0.1, 0.0))
    dense = calls.score(task, calls.how(), self_influence=False, influence=True).influence
    found = calls.query(task, calls.how(projection=ti.Projection("sjlt", 32)), arrays(task.train_pairs), 4)
    assert dense is not None
    assert found.strongest.inactive == pytest.approx(float(dense.inactive.double().mean()))
    assert sum("learning rate is 0" in each for each in found.run.notices) == 1
    require_same(calls.query(task, calls.how(), arrays(task.train_pairs), 4), dense, 4)


@pytest.mark.parametrize("projection", [None, ti.Projection("sjlt", 32)], ids=["exact", "projected"])
def test_the_mean_of_the_test_pairs_is_one_column(projection: ti.Projection | None) -> None:
    task = task_of(LOSSES["logistic"])
    own: dict[str, Any] = {} if projection is None else {"projection": projection}
    compute = calls.how(aggregate="mean", **own)
    dense = calls.score(task, compute, self_influence=False, influence=True).influence
    assert dense is not None
    require_same(calls.query(task, compute, arrays(task.train_pairs), 4), dense, 4)


def test_a_table_of_a_task_is_read_in_blocks_and_saved(tmp_path: Path) -> None:
    task = task_of(LOSSES["ghm of the lab"])
    names = task.all_item_ids
    named = {name: [names[row] for row in getattr(task.train_pairs, name).tolist()] for name in ("first", "second")}
    columns = named | {"target": task.train_pairs.target.numpy(), "count": task.train_pairs.counts.numpy()}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "pairs.parquet")
    shares: list[float] = []
    found = ti.top_influences(
        replace(task, train=ti.PairTable(tmp_path / "pairs.parquet")),
        k=4,
        progress=shares.append,
        path=tmp_path / "top.csv",
    )
    dense = ti.influence(task)
    require_same(found, dense, 4)
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)
    assert pyarrow.csv.read_csv(tmp_path / "top.csv").to_pydict() == found.to_arrow().to_pydict()
    held = ti.self_influence(replace(task, train=ti.PairTable(tmp_path / "pairs.parquet")))
    torch.testing.assert_close(held.scores, ti.self_influence(task).scores)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("stored", [False, True])
def test_self_influence_of_a_table(loss: str, stored: bool, tmp_path: Path) -> None:
    task = task_of(LOSSES[loss], rates=(0.1, 0.0, 0.03))
    store = tmp_path / "store" if stored else None
    dense = calls.score(task, calls.how()).self_influence
    assert dense is not None
    found = calls.query_self(task, calls.how(store=store), arrays(task.train_pairs))
    torch.testing.assert_close(found.scores, dense.scores, rtol=1e-5 if stored else 1e-9, atol=1e-9)
    path = found.save(tmp_path / "self.parquet")
    table = pyarrow.parquet.read_table(path)
    assert table["score"].to_pylist() == found.scores.tolist()
    loaded = ti.load(path)
    assert isinstance(loaded, ti.SelfInfluence)
    assert torch.equal(loaded.scores, found.scores)
    assert [each.score for each in loaded.hardest(5)] == [each.score for each in found.hardest(5)]
    means = {group.name: group.mean for group in dense.by("item")}
    assert {group.name: group.mean for group in loaded.by("item")} == pytest.approx(means, rel=1e-5)
    assert [f"{a}_{b}" for a, b in zip(*(table[c].to_pylist() for c in ("first", "second")), strict=True)] == list(
        dense.ids
    )


class InBlocks(PairTable):
    """A table that cannot be read whole."""

    def blocks(self, size: int) -> Any:
        assert size < len(self)
        return super().blocks(size)


def test_self_influence_of_a_task_reads_a_table_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model is evaluated on a part of the pairs, so that no step needs all of them."""
    for module, name in ((recording, "EVALUATED_PAIRS"), (of_self, "SELF_BLOCK")):
        monkeypatch.setattr(module, name, 70)
    task, shares = task_of(), list[float]()
    table = InBlocks(**{name: getattr(task.train_pairs, name) for name in COLUMNS})
    found = ti.self_influence(replace(task, train=table), progress=shares.append)
    assert isinstance(found, StreamedSelfInfluence)
    torch.testing.assert_close(found.scores, ti.self_influence(task).scores, rtol=1e-9, atol=1e-12)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    with pytest.raises(ti.UsageError, match="makes every self-influence 1"):
        ti.self_influence(replace(task, train=table), method=ti.Method(normalize="cosine"))


class Differences(nn.Module):
    """A scorer of whole pairs."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 1).double()

    def forward(self, first: Any, second: Any) -> Any:
        return self.inner(first) - self.inner(second)


@pytest.mark.parametrize("ask", [ti.top_influences, ti.self_influence])
def test_a_scorer_of_whole_pairs_cannot_serve_pairs_in_blocks(ask: Any) -> None:
    task, scorer = task_of(), Differences()
    own = {"scorer": scorer, "checkpoints": [ti.Checkpoint(scorer, 0.1)], "joint": True}
    of = replace(task, train=arrays(task.train_pairs), **own)
    with pytest.raises(ti.InputError, match=r"^`joint=True`: .* Hold the pairs in memory .* and use `influence`"):
        ask(of)
    assert len(ti.influence(replace(of, train=task.train_pairs)).proponents(0, 3)) == 3


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_both_formats_hold_the_same_table(ending: str, tmp_path: Path) -> None:
    task = task_of()
    found = calls.query(task, calls.how(projection=ti.Projection("sjlt", 32)), arrays(task.train_pairs), 3)
    path = found.save(tmp_path / f"strongest.{ending}", command=["run"])
    expected = found.to_arrow().to_pydict()
    read = pyarrow.parquet.read_table(path) if ending == "parquet" else pyarrow.csv.read_csv(path)
    assert read.to_pydict() == expected
    record = json.loads(provenance_path(path).read_text())["columns"]["score"]
    assert record["pairs"]["rows"] == 200
    assert record["command"] == ["run"]
    assert record["projection"]["kind"] == "sjlt"
    loaded = ti.load(path)
    assert isinstance(loaded, ti.TopInfluences)
    assert loaded.to_arrow().to_pydict() == expected
    for test in loaded.test_ids:  # a test pair without winners is in no row
        assert (loaded.proponents(test), loaded.opponents(test, 2)) == (
            found.proponents(test),
            found.opponents(test, 2),
        )
    assert (len(loaded), loaded.provenance) == (200, record)
    again = tmp_path / f"again.{ending}"
    assert loaded.save(again).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_ids_of_ones_own_come_back(ending: str, tmp_path: Path) -> None:
    task = task_of()
    named = replace(task.train_pairs, ids=[f"question {row}" for row in range(len(task.train_pairs))])
    found = ti.top_influences(replace(task, train=named), k=3)
    loaded = ti.load(found.save(tmp_path / f"strongest.{ending}"))
    assert isinstance(loaded, ti.TopInfluences)
    assert loaded.test_ids
    for test in loaded.test_ids:
        assert (loaded.proponents(test), loaded.opponents(test)) == (found.proponents(test), found.opponents(test))
        assert loaded.opponents(test)[0].pair.startswith("question ")
    assert loaded.to_arrow().to_pydict() == found.to_arrow().to_pydict()


def chosen_and_rejected(loss: Any = LOSSES["logistic"]) -> ti.Task:
    """Items that serve one pair each: rows of differences are half as many."""
    task: ti.Task = task_of(loss)
    pairs = ti.Pairs(range(0, 20, 2), range(1, 20, 2), [1] * 10)
    return replace(task, train=pairs, test=ti.Pairs([20], [21], [1]))


def unit_of(store: Path) -> str:
    return str(json.loads((store / "manifest.json").read_text())["unit"])


def test_a_store_that_gradients_made_serves_self_and_queries(tmp_path: Path) -> None:
    task, compute = chosen_and_rejected(), calls.how(store=tmp_path / "store")
    calls.filled(task, compute)
    assert unit_of(tmp_path / "store") == "items"
    dense = calls.score(task, calls.how(), influence=True)
    found = calls.score(task, compute, influence=True)
    assert found.self_influence is not None
    assert dense.self_influence is not None
    assert found.influence is not None
    torch.testing.assert_close(found.self_influence.scores, dense.self_influence.scores, rtol=1e-5, atol=0)
    require_same(calls.query(task, compute, arrays(task.train_pairs), 3), found.influence, 3)


def test_a_store_of_differences_goes_on_and_refuses_queries(tmp_path: Path) -> None:
    task, compute = chosen_and_rejected(), calls.how(store=tmp_path / "store")
    calls.score(task, compute, influence=True)
    assert unit_of(tmp_path / "store") == "differences"
    assert [each.missing for each in calls.filled(task, compute)] == [0, 0]
    with pytest.raises(ti.InputError, match="gradients of score differences, .* Name another folder"):
        calls.query(task, compute, arrays(task.train_pairs), 3)


def test_a_query_makes_a_store_of_items(tmp_path: Path) -> None:
    task, compute = chosen_and_rejected(), calls.how(store=tmp_path / "store")
    calls.query(task, compute, arrays(task.train_pairs), 3)
    assert unit_of(tmp_path / "store") == "items"


def test_what_a_query_cannot_do_is_refused(tmp_path: Path) -> None:
    task = task_of()
    pairs = arrays(task.train_pairs)
    for wrong, words in (
        ({"normalize": "cosine"}, "norm of every training pair"),
        ({"weight_test_pairs": True}, "Leave it out"),
    ):
        with pytest.raises(ti.UsageError, match=words):
            calls.query(task, calls.how(**wrong), pairs, 3)
    with pytest.raises(ti.UsageError, match="`k` should be at least 1"):
        calls.query(task, calls.how(), pairs, 0)
    with pytest.raises(ti.InputError, match="`test` is missing in the task"):
        calls.query(replace(task, test=None), calls.how(), pairs, 3)
    with pytest.raises(ti.InputError, match="engine 'pair', which differentiates whole pairs"):
        calls.query(task, calls.how("pair"), pairs, 3)
    with pytest.raises(ti.InputError, match="`train` has no pairs"):
        calls.query(task, calls.how(), PairTable(first=[], second=[], target=[]), 3)
    with pytest.raises(ti.InputError, match="pairs, row 0: 'second' is 99"):
        calls.query(task, calls.how(), PairTable(first=[0], second=[99], target=[1]), 3)


# The command line


class Folder:
    """The pairs of the embedded default in a Parquet file, and a folder for results."""

    def __init__(self, folder: Path, demo: EmbeddedDemo) -> None:
        self.results, self.file = folder / "results", folder / "pairs.parquet"
        task = ti.sources.demo(num_test="2")
        self.ids, train, test = task.all_item_ids, task.train_pairs, task.test
        assert test is not None
        columns: dict[str, list[Any]] = {name: [] for name in ("first", "second", "target", "count", "split")}
        for pairs, split in ((test, "test"), (train, "train")):
            columns["first"] += [self.ids[place] for place in pairs.first.tolist()]
            columns["second"] += [self.ids[place] for place in pairs.second.tolist()]
            columns["target"] += pairs.target.tolist()
            columns["count"] += pairs.counts.tolist()
            columns["split"] += [split] * len(pairs)
        self.columns = columns
        self.rows = len(train)
        self.write(columns)

    def write(self, columns: dict[str, list[Any]]) -> None:
        pyarrow.parquet.write_table(pyarrow.table(columns), self.file)

    def run(self, command: str, *more: str) -> tuple[int, str, str]:
        # On a busy machine another batch size may be the fastest, and another rounding.
        fixed = "--metadata-dir", str(self.results), "--checkpoints", "last:2", "--batch-size", "8"
        result = CliRunner().invoke(app, [command, *fixed, *more])
        return result.exit_code, result.stdout, result.stderr

    def streamed(self, *more: str) -> tuple[int, str, str]:
        return self.run("influence", "--pairs", str(self.file), "--keep", "4", *more)

    def refused(self, *more: str) -> str:
        """The one line of an error of what was read."""
        code, _, stderr = self.streamed(*more)
        errors = [line for line in stderr.splitlines() if line.startswith("error: ")]
        assert (code, len(errors)) == (3, 1), stderr
        assert not self.results.exists()
        return errors[0]


@pytest.fixture
def folder(tmp_path: Path, embedded_500hz: EmbeddedDemo) -> Folder:
    return Folder(tmp_path, embedded_500hz)


def test_streamed_winners_are_those_of_a_run_over_all_scores(folder: Folder) -> None:
    assert folder.run("influence", "--num-test", "2", "--quiet")[0] == 0
    scores = json.loads((folder.results / "plastic_500hz_influence_metadata.json").read_text())
    columns = {column: {pair: row[column] for pair, row in scores.items()} for column in next(iter(scores.values()))}
    code, stdout, stderr = folder.streamed("--json")
    assert code == 0, stderr
    document = json.loads(stdout)["runs"][0]
    assert document["pairs"] == folder.rows
    table = pyarrow.parquet.read_table(folder.results / "plastic_500hz_influence_strongest.parquet").to_pylist()
    for test, sides in document["influence"].items():
        own = columns[f"tracin_influence_{test}"]
        for side, sign in (("proponent", 1), ("opponent", -1)):
            best = sorted((sign * score for score in own.values()), reverse=True)[:4]
            found = sides[f"{side}s"]
            assert [sign * each["score"] for each in found] == pytest.approx(best, rel=1e-4)
            assert all(each["score"] == pytest.approx(own[each["pair"]], rel=1e-4, abs=1e-9) for each in found)
            rows = [row for row in table if (row["test_pair"], row["side"]) == (test, side)]
            assert [f"{row['first']}_{row['second']}" for row in rows] == [each["pair"] for each in found]
            drawn = [row for row, split in enumerate(folder.columns["split"]) if split == "train"]
            assert [folder.columns["first"][drawn[row["pair"]]] for row in rows] == [row["first"] for row in rows]


def test_the_record_of_a_streamed_run_names_file_and_rows(folder: Folder) -> None:
    assert folder.streamed("--quiet")[0] == 0
    record = folder.results / "plastic_500hz_influence_strongest.parquet.provenance.json"
    found = json.loads(record.read_text())["columns"]["score"]
    assert found["pairs"]["rows"] == folder.rows
    digest = hashlib.sha256(folder.file.read_bytes()).hexdigest()
    assert found["source"]["pairs"] == {"path": str(folder.file), "sha256": digest}


def test_a_recorded_run_is_repeated(folder: Folder) -> None:
    assert folder.streamed("--quiet")[0] == 0
    path = folder.results / "plastic_500hz_influence_strongest.parquet"
    before = pyarrow.parquet.read_table(path).to_pydict()
    path.unlink()
    code, _, stderr = folder.run("influence", "--from", f"{path}.provenance.json", "--quiet")
    assert code == 0, stderr
    assert "not as recorded" not in stderr
    assert pyarrow.parquet.read_table(path).to_pydict() == before
    folder.write({name: column[:-1] for name, column in folder.columns.items()})
    code, _, stderr = folder.run("influence", "--from", f"{path}.provenance.json", "--quiet")
    assert code == 0, stderr
    assert "pairs differ" in stderr


def test_standard_errors_of_projected_winners_are_shown_and_kept(folder: Folder) -> None:
    code, stdout, stderr = folder.streamed("--projection", "sjlt", "--proj-dim", "64", "--format", "csv")
    assert code == 0, stderr
    assert re.search(r"[+-][\d.e-]+ ± \d", stdout)
    table = pyarrow.csv.read_csv(folder.results / "plastic_500hz_influence_strongest.csv")
    assert all(error > 0 for error in table["standard_error"].to_pylist())


def test_drawn_pairs_can_be_kept_too(folder: Folder) -> None:
    assert folder.streamed("--quiet")[0] == 0
    path = folder.results / "plastic_500hz_influence_strongest.parquet"
    before = pyarrow.parquet.read_table(path).to_pydict()
    assert folder.run("influence", "--keep", "4", "--num-test", "2", "--quiet")[0] == 0
    after = pyarrow.parquet.read_table(path).to_pydict()
    assert sorted(after["score"]) == pytest.approx(sorted(before["score"]), rel=1e-4)


def test_a_parquet_file_without_keep_is_read_whole(folder: Folder) -> None:
    names = ("first", "second", "target", "split")
    csv = folder.file.with_suffix(".csv")
    repeated = [row for row, count in enumerate(folder.columns["count"]) for _ in range(count)]
    rows = [",".join(str(folder.columns[name][row]) for name in names) for row in repeated]
    csv.write_text("\n".join([",".join(names), *rows]) + "\n")
    found = []
    for file in (folder.file, csv):
        path = folder.results / file.suffix
        assert folder.run("self", "--pairs", str(file), "--metadata-dir", str(path), "--quiet")[0] == 0
        found.append(json.loads((path / "plastic_500hz_metadata.json").read_text()))
    assert found[0] == found[1]


def test_self_from_parquet_to_parquet_is_written_in_blocks(folder: Folder) -> None:
    assert folder.run("self", "--pairs", str(folder.file), "--quiet")[0] == 0
    whole = json.loads((folder.results / "plastic_500hz_metadata.json").read_text())
    code, stdout, stderr = folder.run("self", "--pairs", str(folder.file), "--format", "parquet")
    assert code == 0, stderr
    table = pyarrow.parquet.read_table(folder.results / "plastic_500hz_metadata.parquet").to_pylist()
    found = {f"{row['first']}_{row['second']}": row["score"] for row in table}
    assert found == pytest.approx({pair: row["tracin_self_influence"] for pair, row in whole.items()}, rel=1e-4)
    assert max(found, key=lambda pair: found[pair]).replace("_plastic", "  plastic") in stdout


def test_a_dry_run_tells_the_pairs_of_the_file(folder: Folder) -> None:
    code, stdout, stderr = folder.streamed("--dry-run", "--json")
    assert code == 0, stderr
    document = json.loads(stdout)
    assert document["train_pairs"] == folder.rows
    assert document["units"] == len(folder.ids)
    assert document["seconds"] > 0
    assert not folder.results.exists()


def test_files_that_do_not_fit_are_told_in_one_line(folder: Folder) -> None:
    columns, last = folder.columns, len(folder.columns["first"]) - 1
    folder.write(columns | {"first": [*columns["first"][:-1], "nobody"]})
    assert f"row {last}: 'first' is 'nobody', which is no item" in folder.refused()
    folder.write({name: column for name, column in columns.items() if name != "target"})
    assert "Missing: target" in folder.refused()
    pyarrow.parquet.write_table(pyarrow.table(columns).slice(0, 0), folder.file)
    assert "has no training pair" in folder.refused()
    folder.write({name: column[:2] for name, column in columns.items()})  # those of the test split
    assert "has no training pair" in folder.refused()
    folder.file.write_bytes(folder.file.read_bytes()[:100])
    assert "is no whole Parquet file" in folder.refused()
    folder.write({name: column[2:] for name, column in columns.items()})
    assert "has no test pairs" in folder.refused()


def test_options_that_contradict_keep_are_told_in_one_line(folder: Folder) -> None:
    for wrong, words in (
        (["--format", "json"], "--keep writes only the strongest"),
        (["--with-self"], "--with-self needs every score"),
        (["--normalize", "cosine"], "--normalize needs every score"),
        (["--limit", "3"], "--limit needs all pairs in memory"),
    ):
        code, _, stderr = folder.streamed(*wrong)
        assert (code, words in stderr.replace("\n", " ")) == (2, True), stderr
    assert folder.run("influence", "--keep", "0")[0] == 2
    excluded = folder.file.with_name("excluded.txt")
    excluded.write_text(f"{folder.ids[0]}\n")
    assert "from which no pair can be left out" in folder.refused("--exclusions-file", str(excluded))


def test_gradients_of_a_parquet_table_serve_the_streamed_run(folder: Folder) -> None:
    store = folder.file.with_name("store")
    pairs = ["--pairs", str(folder.file), "--store", str(store), "--quiet"]
    result = CliRunner().invoke(app, ["gradients", "--checkpoints", "last:2", *pairs])
    assert result.exit_code == 0, result.stderr
    assert folder.streamed("--store", str(store))[0] == 0
    table = pyarrow.parquet.read_table(folder.results / "plastic_500hz_influence_strongest.parquet")
    assert folder.streamed()[0] == 0
    fresh = pyarrow.parquet.read_table(folder.results / "plastic_500hz_influence_strongest.parquet")
    assert table["score"].to_pylist() == pytest.approx(fresh["score"].to_pylist(), rel=1e-4)


def test_the_command_decides_what_a_row_of_a_new_store_is(tmp_path: Path) -> None:
    (tmp_path / "texts.py").write_text(
        "import torch, tracin_func as ti\n"
        "def task():\n"
        "    torch.manual_seed(0)\n"
        "    scorer = torch.nn.Linear(3, 1)\n"
        "    checkpoint = ti.Checkpoint(scorer.state_dict(), 0.1, 'only')\n"
        "    pairs = ti.Pairs(range(0, 8, 2), range(1, 8, 2), [1, -1, 1, 1])\n"
        "    return ti.Task(scorer, torch.randn(10, 3), pairs, [checkpoint], ti.Pairs([8], [9], [1]))\n"
    )
    task = ["--task", f"{tmp_path / 'texts.py'}:task", "--quiet"]
    results = ["--metadata-dir", str(tmp_path / "results")]
    for number, (words, unit) in enumerate(
        (
            (["gradients"], "items"),
            (["influence", "--shard", "1/1", *results], "differences"),
            (["influence", "--shard", "1/1", "--keep", "2", *results], "items"),
        )
    ):
        store = tmp_path / f"store{number}"
        result = CliRunner().invoke(app, [*words, *task, "--store", str(store)])
        assert result.exit_code == 0, result.stderr
        assert unit_of(store) == unit, words
    result = CliRunner().invoke(app, ["influence", "--keep", "2", *task, "--store", str(tmp_path / "store1"), *results])
    assert (result.exit_code, "Name another folder" in result.stderr.replace("\n", " ")) == (3, True)
    assert CliRunner().invoke(app, ["self", *task, "--store", str(tmp_path / "store0"), *results]).exit_code == 0
    for merged, file in (("store1", "metadata.json"), ("store2", "strongest.parquet")):
        result = CliRunner().invoke(app, ["merge", str(tmp_path / merged), "--quiet"])
        assert result.exit_code == 0, result.stderr
        assert (tmp_path / "results" / f"texts_task_influence_{file}").exists()

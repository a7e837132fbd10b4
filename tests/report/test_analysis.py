"""The numbers of a report against counts made another way, on the older scripts' files and on a run."""

import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

import tracin_func as ti
from tests.support.places import DATA
from tests.support.scored import small_task
from tracin_func.report.content.analysis import Analysis, analyse
from tracin_func.report.content.evidence import from_files, from_results

LAB = DATA / "plastic_1000hz_metadata.json"
INFLUENCE = DATA / "plastic_500hz_influence_metadata.json"


def read(path: Path) -> dict[str, dict[str, Any]]:
    document: dict[str, dict[str, Any]] = json.loads(path.read_text())
    return document


def of(*paths: Path) -> Analysis:
    return analyse(from_files(paths))


def classes_of(pair: str) -> tuple[str, str]:
    parts = [part for part in pair.split("_") if part.startswith("deg")]
    return min(parts), max(parts)


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Self-influence of 60 pairs of three classes."""
    pairs = [
        f"box_deg{a:03}_500hz_{i:02}_box_deg{b:03}_500hz_{i + 1:02}"
        for i in range(20)
        for a, b in ((0, 36), (36, 72), (72, 0))
    ]
    path = tmp_path / "many_metadata.json"
    path.write_text(json.dumps({pair: {"tracin_self_influence": (7 * n) % 61 / 8} for n, pair in enumerate(pairs)}))
    return path


def test_self_influence_by_pair_of_classes_is_a_direct_count(many: Path) -> None:
    found = of(many).own
    assert found is not None
    direct = defaultdict(list)
    for pair, columns in read(many).items():
        direct[classes_of(pair)].append(columns["tracin_self_influence"])
    assert {each.name: each.pairs for each in found.class_pairs} == {"–".join(k): len(v) for k, v in direct.items()}
    for each in found.class_pairs:
        first, _, second = each.name.partition("–")
        values = direct[first, second]
        assert each.mean == pytest.approx(statistics.fmean(values))
        assert each.median == pytest.approx(statistics.median(values))
        assert (each.minimum, each.maximum) == (min(values), max(values))
    assert found.heat is not None
    assert found.heat.names == ("deg000", "deg036", "deg072")
    cell = found.heat.cells[2][1]
    assert cell is not None
    assert (cell.pairs, cell.mean) == (20, pytest.approx(statistics.fmean(direct["deg036", "deg072"])))


def test_self_influence_by_difference_of_classes(many: Path) -> None:
    found = of(many).own
    assert found is not None
    assert [(each.name, each.pairs) for each in found.differences] == [("36", 40), ("72", 20)]
    assert found.unit == "°"


def test_items_are_counted_in_every_pair_they_are_in(many: Path) -> None:
    direct = defaultdict(list)
    for pair, columns in read(many).items():
        parts = pair.split("_")
        for item in ("_".join(parts[:4]), "_".join(parts[4:])):
            direct[item].append(columns["tracin_self_influence"])
    found = of(many)
    assert {each.name: (each.pairs, each.mean) for each in found.by_item} == {
        item: (len(values), pytest.approx(statistics.fmean(values))) for item, values in direct.items()
    }
    assert found.items == len(direct)
    means = [each.mean for each in found.by_item]
    assert means == sorted(means, reverse=True)


def test_the_hardest_and_the_easiest_pairs_are_the_ends_of_the_order(many: Path) -> None:
    found = of(many).own
    assert found is not None
    values = {pair: columns["tracin_self_influence"] for pair, columns in read(many).items()}
    assert [row.score for row in found.hardest] == sorted(values.values(), reverse=True)[:10]
    assert [row.score for row in found.easiest] == sorted(values.values())[:4]
    assert sum(found.distribution.histogram.counts) == len(values)


@pytest.mark.parametrize("path", [LAB, INFLUENCE], ids=lambda path: path.stem)
def test_each_test_pair_of_an_older_file(path: Path) -> None:
    document, found = read(path), of(path)
    names = {name for columns in document.values() for name in columns if name.startswith("tracin_influence_")}
    assert {f"tracin_influence_{test.name}" for test in found.tests} == names
    for test in found.tests:
        name = f"tracin_influence_{test.name}"
        raw = {pair: columns[name] for pair, columns in document.items() if name in columns}
        values = {pair: each["tracin_influence"] if isinstance(each, dict) else each for pair, each in raw.items()}
        assert [row.score for row in test.proponents] == [v for v in sorted(values.values())[::-1][:3] if v > 0]
        assert [row.score for row in test.opponents] == [v for v in sorted(values.values())[:3] if v < 0]
        assert test.zero == (not any(values.values()))


def test_a_constant_column_is_an_oddity() -> None:
    odd = {(each.column, each.flag.kind) for each in of(INFLUENCE).oddities}
    zero = "tracin_influence_plastic_deg072_500hz_01_plastic_deg000_500hz_01"
    assert (zero, "zero column") in odd


def test_of_files_that_agree_the_scores_are_taken_once(tmp_path: Path) -> None:
    copy = tmp_path / "again_metadata.json"
    copy.write_text(LAB.read_text())
    assert of(LAB, copy).evidence.own == of(LAB).evidence.own


def test_files_that_differ_are_refused(tmp_path: Path) -> None:
    other = read(LAB)
    pair = next(iter(other))
    other[pair]["tracin_self_influence"] += 1
    path = tmp_path / "other_metadata.json"
    path.write_text(json.dumps(other))
    with pytest.raises(ti.InputError, match=rf"hold different scores 'tracin_self_influence'.*{pair}.*one by one"):
        of(LAB, path)


def test_of_a_run_losses_are_beside_the_scores(tmp_path: Path) -> None:
    task = small_task(item_ids=list("abcdef"))
    own, influence = ti.self_influence(task), ti.influence(task)
    found = analyse(from_results([(influence, tmp_path / "i.json"), (own, tmp_path / "s.json")]))
    assert found.own is not None
    facts = {row.pair: row.facts for row in found.own.hardest}
    for place, pair in enumerate(own.ids):
        assert facts[pair]["loss"] == pytest.approx(float(own.pairs.loss.mean(dim=0)[place]))
        assert facts[pair]["score_margin"] == pytest.approx(float(own.pairs.score_margin[-1, place]))
    ranks = sorted(facts, key=lambda pair: -facts[pair]["loss"])
    assert [facts[pair]["loss_rank"] for pair in ranks] == list(range(1, len(ranks) + 1))
    assert [each.name for each in found.own.steps] == own.run.names
    assert [each.mean for each in found.own.steps] == pytest.approx(own.per_checkpoint.mean(dim=1).tolist())
    assert [test.name for test in found.tests] == list(influence.test_ids)
    assert [each.train for each in found.checkpoints] == [
        checkpoint["evaluation"]["train_right"] for checkpoint in own.run.checkpoints
    ]


@pytest.mark.parametrize("ending", ["json", "csv", "parquet"])
def test_a_file_gives_the_scores_of_the_run(tmp_path: Path, ending: str) -> None:
    task = small_task(item_ids=list("abcdef"))
    own = ti.self_influence(task)
    path = own.save(tmp_path / f"own.{ending}")
    found = from_files([path])
    assert found.own is not None
    assert found.own.values == pytest.approx(dict(zip(own.ids, own.scores.tolist(), strict=True)))
    losses = dict(zip(own.ids, own.pairs.loss[-1].tolist(), strict=True))
    assert found.facts.get("loss") == (None if ending == "json" else pytest.approx(losses))

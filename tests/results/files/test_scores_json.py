"""Merging into result files: what is not ours survives, whatever happens to the process, the disk or the file."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.places import DATA, ROOT
from tests.support.series import several
from tracin_func.errors import InputError, OutputError
from tracin_func.files import dumps
from tracin_func.results.files.origins import provenance_path
from tracin_func.results.files.scores_json import JSON, merge_columns

LAB_FILES = [
    "plastic_500hz_influence_metadata.json",
    "plastic_1000hz_influence_metadata.json",
    "plastic_1000hz_metadata.json",
]
EMBEDDED = {"source": {"kind": "embedded"}, "seed": 42}
OTHER = {"source": {"kind": "tones"}, "seed": 1}
KILLS = several(15, 50)

# merges with a growing generation number until it is killed
MERGE_FOR_EVER = """
import sys
from tracin_func.results.files.scores_json import merge_columns
path, generation = sys.argv[1], int(sys.argv[2])
print("ready", flush=True)
while True:
    generation += 1
    rows = {f"p{i}": {"ours": float(generation)} for i in range(200)}
    merge_columns(path, rows, provenance={"generation": generation})
"""
# fifty merges of its own pairs and of its own column of a common pair
MERGE_FIFTY = """
import sys
from tracin_func.results.files.scores_json import merge_columns
path, name = sys.argv[1:]
print("ready", flush=True)
sys.stdin.readline()
for i in range(50):
    merge_columns(path, {f"{name}_{i}": {"ours": i + 0.5}, "both": {f"{name}_{i}": i}}, provenance={"by": name})
"""
MERGE_ON_FULL_DISK = """
import resource, sys
from tracin_func.errors import OutputError
from tracin_func.results.files.scores_json import merge_columns
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
try:
    merge_columns(sys.argv[1], {f"p{i}": {"ours": 1.0} for i in range(200)}, provenance={"generation": 1})
except OutputError as error:
    print(error)
"""
HOLD_LOCK = """
import sys
from pathlib import Path
from tracin_func.files import locked
with locked(Path(sys.argv[1]), 1):
    print("ready", flush=True)
    sys.stdin.readline()
"""


def load(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def columns_of(path: Path) -> Any:
    return load(provenance_path(path))["columns"]


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file below the folder but the lock, which stays by design."""
    return {str(f): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file() and f.suffix != ".lock"}


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a Python process that prints "ready" when it has imported what it needs."""
    process = subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        cwd=ROOT,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


class TestWhatSurvives:
    @pytest.mark.parametrize("name", LAB_FILES)
    def test_lab_file_keeps_all_but_our_column(self, name: str, tmp_path: Path) -> None:
        path = tmp_path / name
        shutil.copy(DATA / name, path)
        old = load(path)
        rows = {pair: {"tracin_self_influence": 1 / (3 + i)} for i, pair in enumerate([*old, "new_pair"])}
        assert merge_columns(path, rows) == path.resolve()
        expected = {pair: {**old.get(pair, {}), **row} for pair, row in rows.items()}
        assert path.read_text() == json.dumps(expected, indent=2, ensure_ascii=False)

    def test_nothing_to_add_leaves_the_lab_file_byte_for_byte(self, tmp_path: Path) -> None:
        for name in LAB_FILES:
            shutil.copy(DATA / name, tmp_path / name)
            merge_columns(tmp_path / name, load(DATA / name) if "influence" in name else {})
            assert (tmp_path / name).read_bytes() == (DATA / name).read_bytes()

    def test_score_nested_under_our_column_is_replaced_inside(self, tmp_path: Path) -> None:
        path = tmp_path / LAB_FILES[2]
        shutil.copy(DATA / LAB_FILES[2], path)
        old = load(path)
        pair = next(iter(old))
        column = next(c for c in old[pair] if c.startswith("tracin_influence_"))
        old[pair][column]["note"] = [1, {"kept": None}]
        write(path, json.dumps(old))
        merge_columns(path, {pair: {column: 0.25}})
        old[pair][column]["tracin_influence"] = 0.25
        assert path.read_text() == json.dumps(old, indent=2)

    @pytest.mark.parametrize("value", [{"mean": 1.0}, [1.0], {}])
    def test_object_without_a_score_under_our_column_is_refused(self, value: Any, tmp_path: Path) -> None:
        path = write(tmp_path / "x.json", json.dumps({"p": {"tracin_self_influence": value}}))
        before = snapshot(tmp_path)
        with pytest.raises(InputError, match="'tracin_self_influence' of pair 'p' is an .* without a score"):
            JSON.check(path, ["tracin_self_influence"])
        with pytest.raises(InputError, match="'tracin_self_influence' of pair 'p' is an .* without a score"):
            merge_columns(path, {"p": {"tracin_self_influence": 1.0}})
        assert snapshot(tmp_path) == before

    def test_every_json_value_and_digit_survives(self, tmp_path: Path) -> None:
        values = (
            '"a": 1e400, "b": 0.10000000000000000555, "c": -0, "d": 1E5, "e": 12345678901234567890123, "f": NaN, '
            '"g": -Infinity, "h": null, "i": true, "j": {"k": [], "l": [1.50, {}, [false]]}, "m": "級\\ud800\\u0007"'
        )
        path = write(tmp_path / "x.json", f'{{"p": {{{values}}}, "音_1": {{}}}}')
        merge_columns(path, {"p": {"ours": 0.1}})
        expected = """{
  "p": {
    "a": 1e400,
    "b": 0.10000000000000000555,
    "c": -0,
    "d": 1E5,
    "e": 12345678901234567890123,
    "f": NaN,
    "g": -Infinity,
    "h": null,
    "i": true,
    "j": {
      "k": [],
      "l": [
        1.50,
        {},
        [
          false
        ]
      ]
    },
    "m": "級\\ud800\\u0007",
    "ours": 0.1
  },
  "音_1": {}
}"""
        assert path.read_text(encoding="utf-8") == expected

    def test_scores_round_trip(self, tmp_path: Path) -> None:
        scores = {f"p{i}": {"s": random.Random(i).uniform(-1, 1) * 10 ** (i - 20)} for i in range(40)}
        merge_columns(tmp_path / "new" / "folder" / "x.json", scores)
        assert load(tmp_path / "new" / "folder" / "x.json") == scores

    def test_a_score_that_is_not_finite_never_reaches_the_file(self, tmp_path: Path) -> None:
        with pytest.raises(AssertionError):
            merge_columns(tmp_path / "x.json", {"p": {"s": float("nan")}})
        assert not list(tmp_path.iterdir())


class TestSwappedKeys:
    """`a_b` and `b_a` in the file, in our rows, in both."""

    @pytest.mark.parametrize(
        ("in_file", "ours", "expected"),
        [
            ("", "a_b", {"a_b": "a_b"}),
            ("a_b", "a_b", {"a_b": "a_b"}),
            ("b_a", "a_b", {"b_a": "a_b"}),
            ("a_b b_a", "a_b", {"a_b": "a_b", "b_a": "a_b"}),
            ("", "a_b b_a", {"a_b": "a_b", "b_a": "b_a"}),
            ("a_b", "a_b b_a", {"a_b": "a_b", "b_a": "b_a"}),
            ("b_a", "a_b b_a", {"b_a": "b_a", "a_b": "a_b"}),
            ("b_a a_b", "a_b b_a", {"b_a": "b_a", "a_b": "a_b"}),
        ],
    )
    def test_each_row_goes_to_its_key(self, in_file: str, ours: str, expected: dict[str, str], tmp_path: Path) -> None:
        path = write(tmp_path / "x.json", json.dumps({key: {"kept": key} for key in in_file.split()}))
        score = {"a_b": 1.5, "b_a": 2.5}
        swapped = {"a_b": "b_a", "b_a": "a_b"}
        rows = {pair: {"s": score[pair]} for pair in ours.split()}
        for _ in range(2):  # a second merge changes nothing
            merge_columns(path, rows, swapped=swapped)
            table = load(path)
            assert {key: values["s"] for key, values in table.items()} == {
                key: score[pair] for key, pair in expected.items()
            }
            assert list(table) == list(expected)
            assert all(table[key]["kept"] == key for key in in_file.split())

    def test_two_rows_for_one_key_are_refused(self, tmp_path: Path) -> None:
        path = write(tmp_path / "x.json", '{"k": {}}')
        with pytest.raises(InputError, match="'one' and 'two' both belong to the key 'k'"):
            merge_columns(path, {"one": {"s": 1.0}, "two": {"s": 2.0}}, swapped={"one": "k", "two": "k"})
        assert path.read_text() == '{"k": {}}'


class TestProvenance:
    def test_is_merged_by_column(self, tmp_path: Path) -> None:
        path = tmp_path / "x.json"
        merge_columns(path, {"p": {"s": 1.0, "t": 2.0}}, provenance=EMBEDDED)
        merge_columns(path, {"p": {"t": 3.0}}, provenance=OTHER)
        assert load(provenance_path(path)) == {"format": 1, "columns": {"s": EMBEDDED, "t": OTHER}}
        merge_columns(path, {"p": {"t": 3.0}})
        assert columns_of(path) == {"s": EMBEDDED}

    def test_values_that_stay_keep_their_origin(self, tmp_path: Path) -> None:
        path = write(tmp_path / "x.json", '{"lab": {"s": 1.0}, "a": {"s": 1.0}, "b": {}}')
        merge_columns(path, {"a": {"s": 2.0}}, provenance=OTHER)
        assert columns_of(path) == {"s": {**OTHER, "other_origins": [None]}}
        merge_columns(path, {"b": {"s": 2.0}}, provenance=EMBEDDED)
        assert columns_of(path) == {"s": {**EMBEDDED, "other_origins": [OTHER, None]}}
        merge_columns(path, {pair: {"s": 2.0} for pair in ("a", "b", "lab")}, provenance=EMBEDDED)
        assert columns_of(path) == {"s": EMBEDDED}

    def test_embedded_conflict(self, tmp_path: Path) -> None:
        path = tmp_path / "x.json"
        assert JSON.conflict(path, True) is None
        merge_columns(path, {"p": {"s": 1.0}}, provenance=EMBEDDED)
        merge_columns(path, {"p": {"t": 1.0}}, provenance={"source": "embedded"})
        assert JSON.conflict(path, True) is None
        merge_columns(path, {"q": {"s": 1.0}}, provenance=OTHER)
        assert "holds other scores ('s')" in str(JSON.conflict(path, True))
        merge_columns(path, {"p": {"s": 1.0}}, provenance=EMBEDDED)
        assert "'s'" in str(JSON.conflict(path, True)), "pair q is still of another origin"
        for name in LAB_FILES:
            assert "`metadata_dir`" in str(JSON.conflict(DATA / name, True))

    def test_own_conflict(self, tmp_path: Path) -> None:
        path = tmp_path / "x.json"
        assert JSON.conflict(path, False) is None
        merge_columns(path, {"p": {"s": 1.0}}, provenance=OTHER)
        merge_columns(path, {"p": {"t": 1.0}})
        assert JSON.conflict(path, False) is None, "an unknown origin is no conflict"
        merge_columns(path, {"q": {"s": 1.0}}, provenance=EMBEDDED)
        line = str(JSON.conflict(path, False))
        assert "already holds scores of the synthetic example ('s')" in line
        assert "`metadata_dir`" in line
        merge_columns(path, {"p": {"s": 1.0}, "q": {"s": 1.0}}, provenance=OTHER)
        assert JSON.conflict(path, False) is None
        for name in LAB_FILES:
            assert JSON.conflict(DATA / name, False) is None


class TestRefusals:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", r"x.json` is not JSON: .* \(line 1, column 1\)"),
            ('{"p": {"s": 1.0},\n "q": {"s"', r"is not JSON: .* \(line 2,"),
            ("[]", "holds an array. Expected an object of pairs"),
            ("3.50", "holds `3.50`"),
            ("null", "holds `null`"),
            ('{"p": {}, "q": 1}', "the value of 'q' is `1`. It should be an object of columns"),
            ('{"p": "s"}', "the value of 'p' is a string"),
            ('{"p": {},\n "q": {},\n "p": {}}', r"the key 'p' a second time in one object \(line 3\)"),
            ('{"p": {"s": 1},\n "q": {"p": 1,\n "s": 1, "p": 2}}', r"the key 'p' .* \(line 3\)"),
            ('\n{"p": {},\n "p": {}}', r"the key 'p' a second time in one object \(line 3\)"),
            ('{"p": {"s": 1,\n "t": "{\\"s\\":", "s": 2}}', r"the key 's' a second time in one object \(line 2\)"),
            ('{"p": {"s":' + '{"s":' * 700 + "1" + "}" * 702, "nested too deeply"),
            ("[" * 100_000, "nested too deeply"),
            ('{"p": {"s":' + '{"k":' * 5000 + "1" + "}" * 5002, "nested too deeply"),
        ],
    )
    def test_a_file_that_is_no_table(self, text: str, message: str, tmp_path: Path) -> None:
        path = write(tmp_path / "x.json", text)
        for call in (JSON.check, lambda p: merge_columns(p, {"p": {"s": 1.0}})):
            with pytest.raises(InputError, match=message):
                call(path)
            assert list(snapshot(tmp_path)) == [str(path)]
            assert path.read_text() == text

    def test_a_file_that_is_no_text(self, tmp_path: Path) -> None:
        path = tmp_path / "x.json"
        path.write_bytes(b'{"p\xff": {}}')
        with pytest.raises(InputError, match=r"is not UTF-8 text \(byte 3\)"):
            JSON.check(path)

    @pytest.mark.parametrize("text", ['{"format": 2, "columns": {}}', '{"format": 1, "columns": 3}', "{"])
    def test_a_provenance_file_of_another_kind(self, text: str, tmp_path: Path) -> None:
        path = write(tmp_path / "x.json", "{}")
        write(provenance_path(path), text)
        with pytest.raises(InputError, match="x.json.provenance.json`"):
            JSON.check(path)

    def test_what_cannot_be_written(self, tmp_path: Path) -> None:
        file = write(tmp_path / "file", "{}")
        read_only = write(tmp_path / "read_only.json", "{}")
        read_only.chmod(0o444)
        loop = tmp_path / "loop.json"
        loop.symlink_to(loop)
        before = snapshot(tmp_path)
        for path, message in [
            (file / "x.json", "file` is not a folder"),
            (file / "deeper" / "x.json", "file` is not a folder"),
            (tmp_path, "is a folder or a device"),
            (read_only, "is read-only"),
            (tmp_path / ("n" * 300), "File name too long"),
            (loop, "loop.json` (leads nowhere|could not be written)"),
        ]:
            for call in (JSON.check, lambda p: merge_columns(p, {"p": {"s": 1.0}})):
                with pytest.raises(OutputError, match=message):
                    call(path)
        with pytest.raises(OutputError, match="is a folder or a device"):
            JSON.check(os.devnull)  # only checked: a broken merge would replace the device
        assert snapshot(tmp_path) == before

    def test_check_makes_no_folder(self, tmp_path: Path) -> None:
        JSON.check(tmp_path / "new" / "folder" / "x.json", ["s"])
        assert not list(tmp_path.iterdir())


class TestFilesAndProcesses:
    def test_a_link_is_followed_and_permissions_stay(self, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        real = write(tmp_path / "real" / "x.json", "{}")
        real.chmod(0o640)
        link = tmp_path / "link.json"
        link.symlink_to(real)
        assert merge_columns(link, {"p": {"s": 1.0}}, provenance=OTHER) == real.resolve()
        assert link.is_symlink()
        assert load(real) == {"p": {"s": 1.0}}
        assert real.stat().st_mode & 0o777 == 0o640
        assert sorted(f.name for f in real.parent.iterdir()) == [".x.json.lock", "x.json", "x.json.provenance.json"]

    def test_two_processes_lose_nothing(self, tmp_path: Path) -> None:
        path = write(tmp_path / "x.json", '{"lab": {"s": 1.0}}')
        names = ("first", "second")
        processes = [start(MERGE_FIFTY, path, name) for name in names]
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in processes:
            process.communicate(timeout=60)
            assert process.returncode == 0
        table = load(path)
        for name in names:
            for i in range(50):
                assert table[f"{name}_{i}"] == {"ours": i + 0.5}
                assert table["both"][f"{name}_{i}"] == i
                assert columns_of(path)[f"{name}_{i}"] == {"by": name}
        assert table["lab"] == {"s": 1.0}

    def test_killed_at_random_moments(self, tmp_path: Path) -> None:
        path = tmp_path / "x.json"
        foreign = {f"p{i}": {"lab": [i, "kept"]} for i in range(200)}
        write(path, json.dumps(foreign))
        generation, between = 0.0, 0
        for kill in range(10 * KILLS):  # more than KILLS where the machine is so busy that few merges are done
            if kill >= KILLS and generation > KILLS:
                break
            process = start(MERGE_FOR_EVER, path, int(generation))
            time.sleep(random.Random(kill).uniform(0, 0.1))
            process.send_signal(signal.SIGKILL)
            process.communicate()
            table = load(path)
            assert {pair: {"lab": values["lab"]} for pair, values in table.items()} == foreign
            found = {values.get("ours", 0.0) for values in table.values()}
            assert len(found) == 1, "half of one merge, half of another"
            assert min(found) >= generation
            generation = found.pop()
            if generation:
                entry = columns_of(path)["ours"]
                between += "other_origins" in entry
                assert {"generation": int(generation)} in [entry, *entry.get("other_origins", [])]
        assert generation > KILLS, "the processes were killed before they had merged"
        merge_columns(path, {pair: {"ours": 0.0} for pair in foreign}, provenance=EMBEDDED)
        assert columns_of(path) == {"ours": EMBEDDED}
        left = sorted(f.name for f in tmp_path.iterdir())
        assert left == [".x.json.lock", "x.json", "x.json.provenance.json"]

    def test_what_a_kill_left_is_removed(self, tmp_path: Path) -> None:
        for step in range(3):
            write(tmp_path / f".x.json.{step}.tmp", "half of a ta")
        merge_columns(tmp_path / "x.json", {"p": {"s": 1.0}})
        assert sorted(f.name for f in tmp_path.iterdir()) == [".x.json.lock", "x.json"]

    def test_full_disk(self, tmp_path: Path) -> None:
        path = write(tmp_path / "x.json", '{"lab": {"ours": 2.5}}')
        write(provenance_path(path), '{"format": 1, "columns": {}}')
        before = snapshot(tmp_path)
        done = subprocess.run(
            [sys.executable, "-c", MERGE_ON_FULL_DISK, path], capture_output=True, text=True, check=True
        )
        assert done.stderr == ""
        assert "x.json` could not be written: File too large. Its former content is unchanged." in done.stdout
        assert snapshot(tmp_path) == before

    @pytest.mark.parametrize("step", [0, 1, 2])
    def test_interrupted_between_two_writes(self, step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "x.json"
        merge_columns(path, {"p": {"s": 1.0}}, provenance=OTHER)
        replace, calls = os.replace, iter(range(3))

        def interrupted(source: Path, target: Path) -> None:
            if next(calls) == step:
                raise KeyboardInterrupt
            replace(source, target)

        monkeypatch.setattr(os, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            merge_columns(path, {"p": {"s": 2.0}}, provenance=EMBEDDED)
        monkeypatch.undo()
        uncertain = {"other_origins": [OTHER, EMBEDDED]}
        assert columns_of(path)["s"] == [OTHER, uncertain, uncertain][step]
        assert load(path) == {"p": {"s": [1.0, 1.0, 2.0][step]}}
        assert sorted(f.name for f in tmp_path.iterdir()) == [
            ".x.json.lock", "x.json", "x.json.provenance.json",
        ]  # fmt: skip
        assert JSON.conflict(path, True) is not None
        merge_columns(path, {"p": {"s": 3.0}}, provenance=EMBEDDED, lock_timeout=0)
        assert columns_of(path) == {"s": EMBEDDED}

    def test_a_lock_that_is_held(self, tmp_path: Path) -> None:
        path = write(tmp_path / "x.json", "{}")
        holder = start(HOLD_LOCK, path)
        begin = time.monotonic()
        try:
            with pytest.raises(OutputError, match="has been locked by another process for more than 0.05 s; nothing"):
                merge_columns(path, {"p": {"s": 1.0}}, lock_timeout=0.05)
            assert time.monotonic() - begin < 3
            assert path.read_text() == "{}"
        finally:
            holder.communicate("done\n", timeout=30)
        merge_columns(path, {"p": {"s": 1.0}}, lock_timeout=0.05)
        assert load(path) == {"p": {"s": 1.0}}


def test_modules_import_no_torch() -> None:
    modules = "tracin_func.results.files.scores_json, tracin_func.results.files.read, tracin_func.results.views"
    script = f"import sys; import {modules}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_text_is_what_json_writes() -> None:
    table = {"級": {"a": [1, 2.5, None, True, {"b": '\n"'}], "c": {}}, "d": {"e": []}}
    assert dumps(table) == json.dumps(table, indent=2, ensure_ascii=False)

"""Options at random: whatever is asked for, a run ends in a table or in one sentence, never in a fault of ours."""

import random
import shutil

import pyarrow.csv
import pyarrow.parquet
import pytest
from typer.testing import CliRunner

from tests.support.lab import Lab
from tests.support.series import several
from tracin_func.cli.app import app
from tracin_func.cli.options import INFLUENCE, SELF
from tracin_func.sources.options import Option, Options, groups_of

SEED = 0
TABLES = {
    command: sorted(Options(groups_of(groups)).table.values(), key=lambda option: option.name)
    for command, groups in (("self", SELF), ("influence", INFLUENCE))
}
RUNS = several(30, 600)
NUMBERS = ("-1", "0", "1", "3", "1e400", "nan", "999999999999999999999", "x", "", "0.5")

# Values of each option that takes one, valid and not; {folder} holds the data set. What is not here gets NUMBERS.
VALUES: dict[str, tuple[str, ...]] = {
    "data_root": ("{folder}/data", "{folder}", "", "nowhere", "\0"),
    "frequency": ("500hz", "all", "1000hz", "", "../500hz"),
    "material": ("box", "wood", "", ".", "box/../box"),
    "classes": ("deg000,deg072", "deg000", "deg999", ",", "deg000,deg000,deg036"),
    "takes": ("0,1,2", "0", "9", "x", "-1", "1,1,2"),
    "clip_seconds": ("0.05", "0.1", "0.001", "100", "0", "-1", "nan", "inf", "x"),
    "checkpoint_dir": ("{folder}/checkpoints", "{folder}/{{frequency}}", "{{x}}", "", "nowhere"),
    "checkpoint_prefix": ("model_epoch_", "model", "", "epoch", "[", "../"),
    "checkpoints": ("all", "2", "2,10", "last:1", "last:9", "last:0", "3", "x", ",", "-2"),
    "checkpoint_weights": ("lr", "uniform", "x"),
    "preconditioner": ("none", "adam", "x"),
    "model": ("{folder}/mine.py:Mine", "{folder}/mine.py:None", "{folder}/mine.py", "x", ":", "tracin_func:Pairs"),
    "model_arg": ("hidden=32", "hidden=x", "x", "=", "hidden=", "__class__=1"),
    "task": ("{folder}/mine.py:Mine", "{folder}/none.py:x", "x", ":", ""),
    "learning_rate": ("0.1", "0", "1e30", "-1", "nan", "inf", "x"),
    "params": ("head", ".", "nothing", "(", "", "*"),
    "loss_type": ("standard", "ghm", "logistic", "x", ""),
    "margin": ("1", "0", "-1", "1e30", "1e300", "nan", "inf", "x"),
    "ghm_alpha": ("0", "1", "-3", "1e9", "nan", "x"),
    "ghm_variant": ("symmetric", "lab", "x"),
    "ghm_batch_size": ("4", "all", "0", "x", "1e3"),
    "pairs": ("drawn", "all", "{folder}/pairs.csv", "{folder}/pairs.parquet", "{folder}", "nowhere", ""),
    "exclusions_file": ("none", "{folder}/excluded.txt", "{folder}", "nowhere", ""),
    "device": ("auto", "cpu", "cpu:0", "cuda:99", "x", ""),
    "engine": ("auto", "ghost", "item", "pair", "loop", "x", ""),
    "batch_size": ("auto", "1", "3", "1000000", "0", "-1", "x"),
    "memory_budget": ("20MB", "1", "1e300GB", "4GB", "0", "x", "-1"),
    "dtype": ("float32", "float64", "bfloat16", "float16", "x"),
    "num_workers": ("0", "2", "-1", "x"),
    "projection": ("none", "auto", "kronecker", "sjlt", "gaussian", "x"),
    "proj_dim": ("64", "2", "1", "0", "100000", "-1", "x"),
    "projection_seed": ("0", "7", "-1", "x"),
    "store": ("{folder}/store", "{folder}/{{frequency}}", "{folder}/pairs.csv", "{folder}/data", ""),
    "store_dtype": ("float32", "float16", "bfloat16", "int8"),
    "shard": ("1/1", "1/2", "2/2", "3/2", "0/1", "x", "/"),
    "threads": ("1", "2", "0", "-1", "x"),
    "metadata_dir": ("{folder}/results", "{folder}/other/deep", "{folder}/pairs.csv", ""),
    "format": ("json", "csv", "parquet", "x"),
    "score_name": ("mine", " ", "", "a" * 300, "ü\t", "{{x}}"),
    "by": ("pair", "item", "class", "class-pair", "x"),
    "repeat": ("{folder}/before/box_500hz_metadata.json.provenance.json", "{folder}/pairs.csv", "nowhere"),
    "keep": ("1", "3", "0", "-1", "x", "999999999999999999999"),
    "num_test": ("1", "all", "0", "999", "-1", "x"),
    "test_pairs": ("box_deg000_500hz_00_box_deg036_500hz_01", "{folder}/excluded.txt", "x", ",", ""),
    "test_select": ("random", "misranked", "lowest-margin", "active", "x"),
    "aggregate": ("mean", "x"),
    "normalize": ("none", "cosine", "x"),
    "test_functional": ("loss", "score-margin", "x"),
}


@pytest.fixture
def prepared(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """Files that options may name, and the folder of everything as the working folder."""
    monkeypatch.chdir(lab.folder)
    (lab.folder / "mine.py").write_text(
        "from tracin_func.sources.demo.ranker import AngleRanker\nclass Mine(AngleRanker): pass\n"
    )
    (lab.folder / "excluded.txt").write_text("box_deg036_500hz_01\n")
    rows = [
        f"box_deg{one:03}_500hz_00,box_deg{two:03}_500hz_01,{1 if one > two else -1}"
        for one, two in ((72, 0), (36, 72))
    ]
    (lab.folder / "pairs.csv").write_text("\n".join(["first,second,target", *rows, ""]))
    pyarrow.parquet.write_table(pyarrow.csv.read_csv(lab.folder / "pairs.csv"), lab.folder / "pairs.parquet")
    before = CliRunner().invoke(app, ["self", *lab.arguments("--metadata-dir", str(lab.folder / "before"), "--quiet")])
    assert before.exit_code == 0, before.stderr
    return lab


def words_of(option: Option, lab: Lab, draw: random.Random) -> list[str]:
    if option.base is bool:
        return [option.flag]
    value = draw.choice(VALUES.get(option.name, NUMBERS))
    return [draw.choice([option.flag, *option.aliases]), value.format(folder=lab.folder)]


def test_any_options_end_in_a_sentence(prepared: Lab) -> None:
    draw = random.Random(SEED)
    codes = set()
    for _ in range(RUNS):
        command = draw.choice(["self", "influence"])
        options = draw.sample(TABLES[command], draw.randint(0, 5))
        words = [word for option in options for word in words_of(option, prepared, draw)]
        names = {option.name for option in options}
        own = prepared.arguments(*words)
        if "task" in names and draw.random() < 0.5:
            own = words
        if not {"data_root", "checkpoint_dir", "task"} & set(names) or own is not words:
            words = own
        shutil.rmtree(prepared.results, ignore_errors=True)
        result = CliRunner().invoke(app, [command, *words])
        if (
            result.exit_code == 2 and "Usage: " in result.stderr
        ):  # of the parser; `main` makes a line of it, see test_cli
            codes.add(2)
            continue
        codes.add(result.exit_code)
        told = f"{command} {words}\n{result.stdout}\n{result.stderr}\n{result.exception!r}"
        assert result.exit_code in (0, 1, 2, 3), told
        assert result.exception is None or isinstance(result.exception, SystemExit), told
        assert "internal error" not in result.stderr, told
        assert "--debug" in words or "Traceback" not in result.stdout + result.stderr, told
        errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
        assert bool(errors) == (result.exit_code != 0), told
        if result.exit_code == 1:
            assert any(word in errors[-1] for word in ("Verification", "is NaN or infinite", "written")), told
    assert codes >= {0, 2, 3}

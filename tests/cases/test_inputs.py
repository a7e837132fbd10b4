"""Kinds of input that users really have: read as meant, or refused in one line that names the cause.

A row marked xfail shows a kind that the package gets wrong; the reason names it.
"""

import json
import re
import shutil
import sys
import unicodedata
from collections import ChainMap, OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import soundfile
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import tracin_func as ti
from tests.support import calls
from tests.support.cases import audio, checkpoints, ids, job_files, tables
from tests.support.cases.audio import Recordings
from tests.support.cases.checkpoints import Adapted, Extra
from tests.support.cases.command_line import refused, run, scores_in, works
from tests.support.cases.items import (
    Encoding,
    Failing,
    Frame,
    Output,
    PandasFrame,
    Returning,
    Scaled,
    Text,
    Unsized,
    branching,
    encoded,
)
from tests.support.cases.modules import perceptron
from tests.support.cases.reference import Make, Right, State, copied, hinge, noise, reference, seeded, two_states
from tests.support.cases.runs import (
    REFUSALS,
    Words,
    assert_right,
    assert_says,
    refusal,
    score,
    scores_or_refusal,
)
from tracin_func.cli.progress import _bars
from tracin_func.report.terminal.tables import Column, open_console, print_facts, print_table, print_words
from tracin_func.task.pair_files import read_pairs

ITEMS = noise(6, 5)
MISFIT = "Give the class it was trained with"  # misleads where only names differ


def right_at(state: State, make: Make = perceptron, items: Any = ITEMS) -> Right:
    return reference(make, items, [state], rates=[0.1])


def at(source: Any, module: nn.Module | None = None, items: Any = ITEMS, **options: Any) -> Any:
    """Scores at one checkpoint."""
    return score(perceptron() if module is None else module, items, [source], rates=[0.1], **options)


def state_of(make: Make = perceptron) -> State:
    return copied(seeded(make).state_dict())


# Ids with markup


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        pytest.param("chat", ["[INST] text 3 [/INST]", "[INST] text 4 [/INST]"], id="chat"),
        pytest.param("closing", ["x3 [/]", "x4 [/]"], id="closing"),
        pytest.param("bold", ["[bold]3", "[bold]4"], id="bold"),
        pytest.param("smile", ["a:smile:3", "a:smile:4"], id="smile"),
        pytest.param("formula", ["=SUM(A3)", "=SUM(A4)"], id="formula"),
    ],
)
@pytest.mark.parametrize("command", ["self", "influence"])
def test_ids_are_shown_as_they_are(command: str, name: str, shown: list[str], tmp_path: Path) -> None:
    words = [command, "--task", f"tests.support.cases.ids:{name}", "--metadata-dir", str(tmp_path)]
    row = re.compile(" +".join(map(re.escape, shown)))
    assert row.search(works(*words).stdout)
    assert "_".join(shown) in scores_in(tmp_path)
    if command == "self":
        (file,) = (path for path in tmp_path.glob("*.json") if "provenance" not in path.name)
        assert row.search(works("show", str(file)).stdout)


@pytest.mark.parametrize("view", ["item", "class-pair"])
def test_classes_are_shown_as_they_are(view: str, tmp_path: Path) -> None:
    name = {"item": "chat", "class-pair": "classes"}[view]
    task = f"tests.support.cases.ids:{name}"
    stdout = works("self", "--task", task, "--metadata-dir", str(tmp_path), "--by", view).stdout
    for shown in {"item": ["[INST] text 3 [/INST]"], "class-pair": ["[/a]", "[b]"]}[view]:
        assert shown in stdout


MARKED = ["[/INST]", "[bold]3", ":smile:", "[/]", "[red]x[/red]", "[link=a]", "\\[b]"]


@pytest.mark.parametrize("text", MARKED)
def test_whatever_is_printed_is_shown_as_it_is(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Headings, cells, sentences, facts and labels of progress bars."""
    console = open_console()
    print_table(console, [Column(f"heading {text}", [f"cell {text}"])])
    console.print(f"sentence {text}")
    print_words(console, f"words {text}")
    print_facts(console, {f"name {text}": f"fact {text}"})
    printed = capsys.readouterr().out
    for place in ("heading", "cell", "sentence", "words", "name", "fact"):
        assert f"{place} {text}" in printed
    bars = _bars()
    bars.add_task(f"label {text}", total=1)
    with console.capture() as captured:
        console.print(bars.get_renderable())
    assert f"label {text}" in captured.get()


@pytest.mark.parametrize(
    "more",
    [
        ["--keep", "2"],
        ["--by", "item"],
        ["--with-self"],
        ["--test-functional", "score-margin", "--aggregate", "mean"],
        ["--dry-run", "--explain-plan"],
        ["--verify", "2"],
    ],
    ids=lambda more: more[0],
)
@pytest.mark.parametrize("name", ["chat", "closing"])
def test_every_view_takes_ids_with_markup(name: str, more: list[str], tmp_path: Path) -> None:
    works("influence", "--task", f"tests.support.cases.ids:{name}", "--metadata-dir", str(tmp_path), *more)


def test_checkpoints_and_stores_with_markup(recordings: Recordings) -> None:
    store = recordings.folder / "[/store]" / ":smile:"
    for path in recordings.checkpoints.glob("*.pt"):
        path.rename(path.with_stem(f"{path.stem} [bold] :smile:"))
    works("self", *recordings.arguments("--store", str(store)))
    for words in (["store", "info", str(store)], ["self", *recordings.arguments("--json")]):
        assert "model_epoch_8 [bold] :smile:" in works(*words).stdout


def test_lines_and_quotes_in_ids(tmp_path: Path) -> None:
    works("influence", "--task", "tests.support.cases.ids:quoted", "--metadata-dir", str(tmp_path), "--format", "csv")
    (file,) = tmp_path.glob("*.csv")
    assert '"te""xt, 0\nsecond line' in file.read_text(encoding="utf-8")


def test_folders_with_markup(recordings: Recordings) -> None:
    data, results = recordings.folder / "[/b] x" / "data", recordings.folder / "[red]out"
    shutil.copytree(recordings.data, data)
    answer = works("self", *recordings.arguments("--data-root", str(data), "--metadata-dir", str(results)))
    assert "[red]out" in (answer.stdout + answer.stderr).replace("\n", "")
    assert scores_in(results)
    assert "[/b] none" in refused("self", *recordings.arguments("--data-root", "[/b] none"))


# Ids that are no text


KINDS_OF_IDS = ["integers", "arrays", "tensors", "numbers", "raw", "zeros", "paths"]


@pytest.mark.parametrize("kind", KINDS_OF_IDS)
def test_ids_become_text(kind: str) -> None:
    task: ti.Task = getattr(ids, kind)()
    found = calls.score(task, calls.how(device="cpu")).self_influence
    assert found is not None
    wanted = ["d0", "d1"] if kind in ("arrays", "raw", "paths") else ["101", "102"]
    table = found.to_arrow(long=True).to_pydict()
    assert [table["first"][0], table["second"][0]] == wanted
    assert {type(name) for column in ("first", "second", "pair_id") for name in table.get(column, [])} == {str}


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        pytest.param(kind, more, id=f"{kind} {more[-1]}")
        for kind in KINDS_OF_IDS
        for more in (["--format", "csv"], ["--format", "parquet"], ["--by", "item"], ["--by", "class-pair"])
    ],
)
def test_commands_with_ids_that_are_no_text(kind: str, more: list[str], tmp_path: Path) -> None:
    stdout = works("self", "--task", f"tests.support.cases.ids:{kind}", "--metadata-dir", str(tmp_path), *more).stdout
    of_text = kind in ("arrays", "raw", "paths")
    if more[-1] == "class-pair":  # the only pair that is shown is the hardest
        assert ("d1_d2" if of_text else "102_103") in stdout
    else:
        assert ("d3" if of_text else "104") in stdout


@pytest.mark.parametrize("double", [(1, "1"), (np.int64(1), b"1"), (torch.tensor(1), 1), ("1", "1")])
def test_ids_that_are_equal_as_text_are_refused(double: tuple[Any, Any]) -> None:
    assert_says(refusal(lambda: ids.plain([*"ab", *double, *"cdef"])), "'1'", "`item_ids` 2 and 3")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        pytest.param([1.5, *range(7)], ["`item_ids` 0", "1.5", "float"], id="float"),
        pytest.param([0, None, *range(2, 8)], ["`item_ids` 1", "None"], id="None"),
        pytest.param([*range(7), b"\xff"], ["`item_ids` 7", "UTF-8"], id="bytes that are no text"),
        pytest.param([[0], *range(1, 8)], ["`item_ids` 0", "list"], id="list"),
        pytest.param(np.zeros((8, 2)), ["`item_ids` 0", "ndarray"], id="matrix"),
        pytest.param("abcdefgh", ["`item_ids`", "list of texts"], id="one text"),
        pytest.param(8, ["`item_ids`", "list of texts"], id="number"),
        pytest.param(set("abcdefgh"), ["`item_ids`", "list of texts"], id="set"),
        pytest.param(range(7), ["7 entries for 8 items"], id="too few"),
    ],
)
def test_ids_that_cannot_be_text_are_refused(given: Any, words: list[str]) -> None:
    assert_says(refusal(lambda: ids.plain(given)), *words)


def test_names_of_pairs_become_text() -> None:
    assert ti.Pairs([0, 1], [1, 2], [1, 1], ids=np.array([7, 8])).ids == ("7", "8")
    found = ti.Pairs([0, 1], [1, 2], [1, 1], ids=iter([b"a", torch.tensor(3)])).ids
    assert found == ("a", "3")
    assert {type(name) for name in found} == {str}
    assert_says(refusal(lambda: ti.Pairs([0], [1], [1], ids=[None])), "`ids` 0", "None")


# Checkpoints in memory


def in_memory(name: str) -> tuple[Any, State]:
    """A checkpoint of that kind and the state it means."""
    state = state_of()
    module = perceptron()
    module.load_state_dict(state)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.1).state_dict()
    kinds: dict[str, Any] = {
        "state dict": state,
        "loaded checkpoint": {"model_state_dict": state, "optimizer_state_dict": optimizer, "epoch": 3, "args": {}},
        "loaded checkpoint, other key": {"state_dict": state, "epoch": 3},
        "module": module,
        "numpy": {key: value.numpy() for key, value in state.items()},
        "sparse": {**state, "0.weight": state["0.weight"].to_sparse()},
    }
    return kinds[name], state


@pytest.mark.parametrize(
    "name",
    [
        "state dict",
        "loaded checkpoint",
        "loaded checkpoint, other key",
        "module",
        "numpy",
        "sparse",
    ],
)
def test_checkpoints_in_memory(name: str) -> None:
    """The scores of the state that is meant, or one clear line."""
    source, state = in_memory(name)
    scores_or_refusal(lambda: at(source), right_at(state), "checkpoint")


def test_a_loaded_checkpoint_brings_its_learning_rate() -> None:
    source, state = in_memory("loaded checkpoint")
    assert_right(score(perceptron(), ITEMS, [source], rates=[None]), right_at(state))


def test_weights_without_memory_are_refused() -> None:
    state = {name: value.to("meta") for name, value in state_of().items()}
    assert_says(refusal(lambda: at(state)), "meta")


@pytest.mark.parametrize("place", ["memory", "file"])
@pytest.mark.parametrize("extra", [{"vocabulary": ["a"]}, None, torch.tensor([1, 2])], ids=["dict", "None", "tensor"])
def test_extra_state_is_no_weight(extra: Any, place: str, tmp_path: Path) -> None:
    module = seeded(lambda: Extra(extra))
    state = copied(module.state_dict())
    source: Any = state
    if place == "file":
        source = tmp_path / "extra.pt"
        torch.save({"model_state_dict": state}, source)
    assert_right(at(source, module), right_at(state, lambda: Extra(extra)))


# Checkpoint files of other trainers


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        pytest.param("lightning", "prefix", id="Lightning"),
        pytest.param("averaged", ("averaged model", "prefix"), id="averaged model"),
        pytest.param("wrapper", "prefix", id="wrapper"),
    ],
)
def test_names_with_a_prefix(kind: str, words: Words, tmp_path: Path) -> None:
    """The scores, or a refusal that names the prefix and does not blame the class."""
    state = state_of()
    module = perceptron()
    module.load_state_dict(state)
    content = {
        "lightning": checkpoints.lightning(state),
        "averaged": checkpoints.averaged(module),
        "wrapper": {f"m.{name}": value for name, value in state.items()},
    }[kind]
    path = tmp_path / "epoch=3.ckpt"
    torch.save(content, path)
    scores_or_refusal(lambda: at(path), right_at(state), words, never=[MISFIT])


def test_names_without_the_prefix_of_the_scorer() -> None:
    """The scorer wraps the model in an attribute `m`: its names are read, or the prefix is named."""
    state = state_of()
    make: Make = lambda: checkpoints.Wrapped(perceptron())  # noqa: E731
    right = right_at({f"m.{name}": value for name, value in state.items()}, make)
    scores_or_refusal(lambda: at(state, make()), right, ("prefix", "'m.'"), never=[MISFIT])


def test_averaged_model_as_the_scorer() -> None:
    make: Make = lambda: torch.optim.swa_utils.AveragedModel(perceptron())  # noqa: E731
    state = state_of(make)
    assert_right(at(state, make()), right_at(state, make))


def test_names_of_an_adapter_file(tmp_path: Path) -> None:
    """The scores with frozen weights of the scorer's own, or a refusal that speaks of the adapter."""
    module = seeded(Adapted)
    own, other = two_states(module)
    trained = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    path = tmp_path / "adapter_model.safetensors"
    safetensors.torch.save_file(checkpoints.adapter_of(other), path)
    right = right_at({name: (other if name in trained else own)[name] for name in own}, Adapted)
    scores_or_refusal(lambda: at(path, module), right, "adapter", never=[MISFIT])


def objects_rows() -> list[Any]:
    refused_ones = [
        pytest.param({"args": value}, ["torch.load("], id=name) for name, value in checkpoints.ARGUMENTS.items()
    ]
    damaged = [pytest.param({"best": value}, ["numpy"], id=name) for name, value in checkpoints.NUMPY.items()]
    return [*refused_ones, *damaged]


@pytest.mark.parametrize(("beside", "words"), objects_rows())
def test_objects_beside_the_weights(beside: dict[str, Any], words: list[str], tmp_path: Path) -> None:
    """The scores, or a refusal that names the type and offers a line for a training that is over."""
    state, path = state_of(), tmp_path / "model_epoch_1.pt"
    torch.save({"model_state_dict": state, **beside}, path)
    scores_or_refusal(lambda: at(path), right_at(state), *words, never=["truncated"])


def test_random_states_beside_the_weights(tmp_path: Path) -> None:
    state, path = state_of(), tmp_path / "model_epoch_1.pt"
    states = [np.random.RandomState(0).get_state(), torch.get_rng_state()]
    torch.save({"model_state_dict": state, "rng": states, "best": np.float64(0.5)}, path)
    assert_right(at(path), right_at(state))


def test_a_folder_given_as_a_checkpoint(tmp_path: Path) -> None:
    """The weights in it are read, or the refusal names the file in it."""
    state = state_of()
    folder = checkpoints.saved(tmp_path / "checkpoint-500", state)
    scores_or_refusal(lambda: at(folder), right_at(state), "folder", "model.safetensors")


# Folders of checkpoints


@pytest.mark.parametrize(
    "file",
    [
        "model_epoch_2.ckpt",
        "model_epoch_2.bin",
        "model_epoch_2.pth.tar",
        "model_epoch_2.pth",
        "other_2.pt",
    ],
)
def test_checkpoints_with_other_endings(file: str, tmp_path: Path) -> None:
    """Found, or named in the refusal."""
    torch.save(state_of(), tmp_path / file)
    try:
        assert [path.name for path in ti.find_checkpoints(tmp_path)] == [file]
    except REFUSALS as error:
        assert_says(str(error), file)


def test_folders_of_checkpoints_are_found(tmp_path: Path) -> None:
    """Found in the order of the steps, or named in the refusal."""
    for step in (500, 1000):
        checkpoints.saved(tmp_path / f"checkpoint-{step}", state_of())
    try:
        found = ti.find_checkpoints(tmp_path, "checkpoint-")
        assert [path.relative_to(tmp_path).parts[0] for path in found] == ["checkpoint-500", "checkpoint-1000"]
    except REFUSALS as error:
        assert_says(str(error), "checkpoint-500")


def test_a_copy_of_an_epoch_in_the_folder(recordings: Recordings) -> None:
    """A warning names both files and how to leave one out."""
    folder = recordings.checkpoints
    shutil.copy(folder / "model_epoch_8.pt", folder / "model_epoch_best.pt")
    stderr = works("self", *recordings.arguments()).stderr
    warnings = [line for line in stderr.splitlines() if line.startswith("warning: ") and "epoch_best" in line]
    assert len(warnings) == 1
    assert_says(warnings[0], ("same weights", "equal weights", "identical"), "model_epoch_8.pt", "--checkpoint")


# Items


class Unordered(dict[str, Tensor]):
    """A subclass of dict."""


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(dict, id="dict"),
        pytest.param(Unordered, id="subclass of dict"),
        pytest.param(Encoding, id="tokenizer"),
        pytest.param(Output, id="model output"),
        pytest.param(MappingProxyType, id="read-only view"),
        pytest.param(ChainMap, id="mapping of mappings"),
        pytest.param(OrderedDict, id="OrderedDict"),
        pytest.param(lambda columns: {name: column.tolist() for name, column in columns.items()}, id="dict of lists"),
        pytest.param(
            lambda columns: Encoding({name: column.tolist() for name, column in columns.items()}),
            id="tokenizer without return_tensors",
        ),
    ],
)
def test_mappings_are_read_as_dict(kind: Callable[[dict[str, Tensor]], Any]) -> None:
    state = state_of(Text)
    assert_right(at(state, Text(), kind(encoded())), right_at(state, Text, encoded()))


class Inner(Text):
    """Scores what is under `text` of a dict in a tuple."""

    def forward(self, batch: Any) -> Tensor:
        assert type(batch[0]) is type(batch[0]["text"]) is dict
        return super().forward(batch[0]["text"]) + batch[1]


def test_mappings_in_mappings_are_read_as_dict() -> None:
    state, columns, more = state_of(Text), encoded(), noise(6, 1)[:, 0]
    wanted = right_at(state, Inner, ({"text": columns}, more))
    assert_right(at(state, Inner(), (MappingProxyType({"text": Encoding(columns)}), more)), wanted)
    items = [(Encoding({"text": Encoding(item)}), more[row]) for row, item in enumerate(single_texts())]
    assert_right(at(state, Inner(), items), wanted)


def test_lists_of_unequal_length_are_refused() -> None:
    items = Encoding({"input_ids": [[1, 2], [3]], "attention_mask": [[1, 1], [1]]})
    assert_says(refusal(lambda: at(state_of(Text), Text(), items)), "items['input_ids']", "padding=True")


def single_texts() -> list[dict[str, Tensor]]:
    return [{name: column[row] for name, column in encoded().items()} for row in range(6)]


@pytest.mark.parametrize("kind", [dict, Encoding, Output, MappingProxyType])
@pytest.mark.parametrize("tensors", [True, False], ids=["tensors", "lists"])
def test_a_list_of_tokenized_texts(kind: Callable[[dict[str, Any]], Any], tensors: bool) -> None:
    state = state_of(Text)
    items = [
        kind({name: column if tensors else column.tolist() for name, column in item.items()}) for item in single_texts()
    ]
    assert_right(at(state, Text(), items), right_at(state, Text, encoded()))


def test_tokenized_texts_of_different_lengths() -> None:
    state, columns = state_of(Text), encoded()
    items = [
        Encoding({name: column[: 1 + row % 3].tolist() for name, column in item.items()})
        for row, item in enumerate(single_texts())
    ]
    columns["attention_mask"] = (torch.arange(3) <= torch.arange(6)[:, None] % 3).long()
    assert_right(at(state, Text(), items), right_at(state, Text, columns))


def tables_of(name: str) -> Any:
    kinds: dict[str, Callable[[], Any]] = {
        "data frame": Frame,
        "list of texts": lambda: list("abcdef"),
        "TensorDataset with labels": lambda: TensorDataset(ITEMS, torch.zeros(6)),
        "numpy float32": ITEMS.numpy,
        "numpy float64": ITEMS.double().numpy,
        "list of lists": ITEMS.tolist,
        "data frame of a library": PandasFrame,
        "failing dataset": Failing,
        "no length": Unsized,
        "text": lambda: "abcdef",
        "nested tensor": lambda: torch.nested.nested_tensor([noise(2, 5), noise(3, 5)] * 3),
        "nested tensor in a dict": lambda: {"x": torch.nested.nested_tensor([noise(2, 5), noise(3, 5)] * 3)},
    }
    return kinds[name]()


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize(
    ("name", "words", "never"),
    [
        pytest.param("data frame", "Frame", "single item", id="data frame"),
        pytest.param(
            "data frame of a library", ("data frame", "to_numpy"), "single item", id="data frame of a library"
        ),
        pytest.param("failing dataset", ("items[0]", "ValueError", "no such file"), "\n", id="failing dataset"),
        pytest.param("no length", ("no length", "Unsized"), "\n", id="no length"),
        pytest.param("text", "str", "\n", id="text"),
        pytest.param(
            "list of texts",
            ("text", "str"),
            "is_inference",
            id="list of texts",
        ),
        pytest.param("nested tensor", "nested", "\n", id="nested tensor"),
        pytest.param("nested tensor in a dict", "items['x']", "\n", id="nested tensor in a dict"),
        pytest.param("TensorDataset with labels", ("tuple", "list"), "\n", id="TensorDataset with labels"),
        pytest.param("numpy float32", "numpy", "\n", id="numpy float32"),
        pytest.param("numpy float64", ("double", "float64"), "\n", id="numpy float64"),
        pytest.param("list of lists", "list", "\n", id="list of lists"),
    ],
)
def test_items_of_other_kinds(name: str, words: Words, never: str) -> None:
    """The scores of the numbers in them, or a refusal that names the kind."""
    state = state_of()
    scores_or_refusal(lambda: at(state, items=tables_of(name)), right_at(state), words, never=[never])


def test_a_dict_of_arrays() -> None:
    state, columns = state_of(Text), encoded()
    items = {name: np.asfortranarray(column.numpy()) for name, column in columns.items()}
    items["input_ids"].flags.writeable = False
    assert_right(at(state, Text(), items), right_at(state, Text, columns))


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize(
    "sparse",
    [
        pytest.param(Tensor.to_sparse, id="COO"),
        pytest.param(Tensor.to_sparse_csr, id="CSR"),
        pytest.param(lambda items: [item.to_sparse() for item in items], id="list"),
    ],
)
@pytest.mark.parametrize("stored", [False, True], ids=["", "stored"])
def test_sparse_items_are_scored_as_dense(sparse: Callable[[Tensor], Any], stored: bool, tmp_path: Path) -> None:
    items = ITEMS * (ITEMS > 0)
    state = state_of()
    if stored and sparse is not Tensor.to_sparse:
        pytest.skip("one layout is enough")
    found = at(state, items=sparse(items), **({"store": tmp_path / "store"} if stored else {}))
    assert_right(found, right_at(state, items=items))
    assert [sentence for sentence in found.notices if "\n" in sentence] == []


# Targets, losses and outputs


@pytest.mark.parametrize(
    ("targets", "meant"),
    [
        pytest.param(["1", "-1"], [1, -1], id="text"),
        pytest.param(np.array(["+1", " -1.0"]), [1, -1], id="array of text"),
        pytest.param([b"1", "-1"], [1, -1], id="bytes"),
        pytest.param(np.array([1, -1], dtype=object), [1, -1], id="objects"),
        pytest.param(["1", "0"], None, id="0 and 1 as text"),
        pytest.param(["win", "loss"], None, id="words"),
        pytest.param(["", "1"], None, id="empty"),
        pytest.param([None, 1], None, id="None"),
        pytest.param([[1], [1, -1]], None, id="lists of lists"),
        pytest.param({1, -1}, None, id="set"),
        pytest.param([True, True], [1, 1], id="bool"),
        pytest.param([1.0, -1.0], [1, -1], id="float"),
        pytest.param([1, 0], None, id="0 and 1"),
    ],
)
def test_targets(targets: list[Any], meant: list[int] | None) -> None:
    """Read as meant, or a refusal that names `target`."""
    try:
        assert ti.Pairs([0, 1], [1, 2], targets).target.tolist() == meant
    except REFUSALS as error:
        assert_says(str(error), "target")


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        pytest.param({"first": ["0", "1"]}, ["'first'", "positions", "item_ids"], id="positions as text"),
        pytest.param({"second": ["a", "b"]}, ["'second'", "positions", "'a'"], id="ids"),
        pytest.param({"weight": ["1", "heavy"]}, ["'weight'", "row 1", "'heavy'"], id="weight"),
        pytest.param({"margin": [1.0, None]}, ["'margin'", "row 1", "None"], id="margin"),
        pytest.param({"count": "ab"}, ["'count'", "list of numbers"], id="one text"),
    ],
)
def test_columns_that_are_no_numbers_are_refused(columns: dict[str, Any], words: list[Words]) -> None:
    assert_says(refusal(lambda: ti.Pairs(**{"first": [0, 1], "second": [1, 2], "target": [1, 1]} | columns)), *words)


def test_columns_of_text_are_read_as_numbers() -> None:
    table = ti.Pairs([0, 1], [1, 2], [1, 1], weight=["0.1", "2"], margin=["1e-3", "0"], count=["3", "4.0"])
    found = [column.tolist() for column in (table.weight, table.margin, table.count) if column is not None]
    assert found == [[0.1, 2.0], [1e-3, 0.0], [3, 4]]


LOSSES: dict[str, tuple[Any, Any]] = {
    "instance": (ti.LogisticLoss(), None),
    "class": (ti.LogisticLoss, None),
    "class of the margin loss": (ti.MarginRankingLoss, hinge(1.0)),
    "class of torch": (nn.MarginRankingLoss, hinge(0.0)),
    "class with arguments": (Scaled, branching),
    "module of torch": (nn.MarginRankingLoss(1.0), hinge(1.0)),
    "module of torch without reduction": (nn.MarginRankingLoss(1.0, reduction="none"), hinge(1.0)),
    "branch": (branching, branching),
    "number": (lambda first, second, target: 1.0, branching),
    "detached": (lambda first, second, target: (first - second).detach(), branching),
    "numpy": (lambda first, second, target: torch.tensor((first - second).numpy()), branching),
    "item": (lambda first, second, target: first.item() - second, branching),
    "one argument": (lambda first: first, branching),
    "text": ("logistic", branching),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses(name: str) -> None:
    """The scores, or a refusal that names `loss`."""
    given, plain = LOSSES[name]
    state = state_of()
    right = right_at(state) if plain is None else reference(perceptron, ITEMS, [state], rates=[0.1], loss=plain)
    scores_or_refusal(lambda: at(state, loss=given), right, "loss")


@pytest.mark.parametrize(
    ("pack", "word"),
    [
        pytest.param(lambda scores: Output(logits=scores), "Output", id="model output"),
        pytest.param(lambda scores: torch.cat([scores, -scores], dim=1), "(1, 2)", id="two logits"),
        pytest.param(lambda scores: scores.sum().item(), "float", id="number"),
    ],
)
def test_outputs_that_are_no_scores(pack: Callable[[Tensor], Any], word: str) -> None:
    module = seeded(lambda: Returning(pack))
    assert_says(refusal(lambda: at(copied(module.state_dict()), module)), "Returning", word)


# Task and model files


def job_file(folder: Path, source: str, neighbour: str, *, lib: bool = False) -> str:
    """A task file and its neighbour; the spec of the task."""
    home = folder / "lib" if lib else folder
    home.mkdir(exist_ok=True)
    (home / f"{neighbour}.py").write_text(job_files.NEIGHBOUR)
    path = folder / f"task_of_{neighbour}.py"
    path.write_text(source.format(neighbour=neighbour))
    return f"{path}:job"


@pytest.fixture
def own_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    """`sys.path` is put back after the test."""
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.mark.usefixtures("own_imports")
@pytest.mark.parametrize(
    ("source", "lib"),
    [
        pytest.param(job_files.EARLY, False, id="early"),
        pytest.param(job_files.LATE, False, id="late"),
        pytest.param(job_files.OWN_PATH, True, id="own path"),
    ],
)
def test_task_files_import_as_in_python(source: str, lib: bool, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    neighbour = f"neighbour_{request.node.callspec.id.replace(' ', '_')}"
    spec = job_file(tmp_path, source, neighbour, lib=lib)
    works("self", "--task", spec, "--metadata-dir", str(tmp_path / "results"))
    assert len(scores_in(tmp_path / "results")) == 3


@pytest.mark.usefixtures("own_imports")
def test_the_path_of_a_task_file_is_kept(tmp_path: Path) -> None:
    spec = job_file(tmp_path, job_files.OWN_PATH, "neighbour_kept", lib=True)
    run("self", "--task", spec, "--metadata-dir", str(tmp_path / "results"))
    assert str(tmp_path / "lib") in sys.path


@pytest.mark.usefixtures("own_imports")
@pytest.mark.parametrize("source", ["OPTIONAL_OPTION", "REQUIRED_OPTION"])
def test_model_files_that_parse_options(source: str, recordings: Recordings, monkeypatch: pytest.MonkeyPatch) -> None:
    """They work where no option is required; else the error says that they parse the command line."""
    path = recordings.folder / "trainer.py"
    path.write_text(getattr(job_files, source))
    words = ["self", *recordings.arguments("--model", f"{path}:Net")]
    monkeypatch.setattr(sys, "argv", ["tracin-func", *words])
    answer = run(*words)
    if answer.code == 0:
        assert source == "OPTIONAL_OPTION"
        assert scores_in(recordings.results)
    else:
        assert answer.code == 3
        assert_says(answer.error, ("parses", "argparse", "command line", "sys.argv"))


# Recordings


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Recordings:
    """Recordings and their self-influence; not to be changed."""
    recordings = audio.write_recordings(tmp_path_factory.mktemp("recordings"))
    works("self", *recordings.arguments())
    return recordings


@pytest.fixture
def recordings(original: Recordings, tmp_path: Path) -> Recordings:
    """A copy without results."""
    for folder in (original.data, original.checkpoints):
        shutil.copytree(folder, tmp_path / folder.name)
    return Recordings(tmp_path)


def same_scores(recordings: Recordings, original: Recordings) -> bool:
    works("self", *recordings.arguments())
    return scores_in(recordings.results) == scores_in(original.results)


@pytest.mark.parametrize("header", ["plain", "0x0", "0x7ffff000", "another chunk of odd length", "tag", "RF64, 0"])
def test_headers_of_recorders(header: str, recordings: Recordings, original: Recordings) -> None:
    for clip in recordings.clips:
        clip.write_bytes(audio.HEADERS[header](audio.samples_of(clip)))
    assert same_scores(recordings, original)


@pytest.mark.parametrize("header", ["plain", "tag"])
def test_a_recording_that_is_really_truncated(header: str, recordings: Recordings) -> None:
    clip = recordings.clips[0]
    clip.write_bytes(audio.HEADERS[header](audio.samples_of(clip))[:-100])
    assert_says(refused("self", *recordings.arguments()), clip.name, "truncated", "100 of the 9600 bytes")


def test_stereo_channels_that_cancel(recordings: Recordings) -> None:
    clip = recordings.clips[0]
    samples = audio.samples_of(clip)
    soundfile.write(clip, np.stack([samples, -samples], axis=1), audio.SAMPLE_RATE)
    error = refused("self", *recordings.arguments())
    assert_says(error, clip.name, "the mean of its two channels is silent")
    assert "silent or" not in error


def renamed(recordings: Recordings, folder: Any, file: Any) -> Recordings:
    """The recordings with an umlaut in every name, in these normal forms."""
    home = recordings.folder / unicodedata.normalize(folder, "zuhören")
    home.mkdir()
    for own in (recordings.data, recordings.checkpoints):
        own.rename(home / own.name)
    moved = Recordings(home)
    for clip in moved.clips:
        own = clip.parent.with_name(unicodedata.normalize(folder, "höl"))
        own.mkdir(exist_ok=True)
        clip.rename(own / clip.name.replace("box", unicodedata.normalize(file, "höl")))
    return moved


def in_form(form: Any, path: Path) -> str:
    return unicodedata.normalize(form, str(path))


@pytest.mark.parametrize(
    ("folder", "file", "option"),
    [("NFD", "NFD", "NFC"), ("NFC", "NFC", "NFD"), ("NFD", "NFC", "NFC"), ("NFC", "NFC", "NFC"), ("NFD", "NFD", "NFD")],
)
def test_material_in_another_normal_form(folder: Any, file: Any, option: Any, recordings: Recordings) -> None:
    there = renamed(recordings, folder, file)
    asked = Recordings(Path(in_form(option, there.folder)))
    words = ["--material", unicodedata.normalize(option, "höl"), "--frequency", "all"]
    works("self", *asked.arguments(*words))
    assert scores_in(there.results)
    assert [path.name for path in there.folder.parent.rglob("results")] == ["results"]


@pytest.mark.parametrize(("there", "asked"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_ids_in_another_normal_form(there: Any, asked: Any, recordings: Recordings) -> None:
    """In tables of pairs, exclusions, test pairs and columns."""
    files = renamed(recordings, there, there)
    first, second, third, fourth, *others = (clip.stem for clip in files.clips[::2])
    named = [unicodedata.normalize(asked, name) for name in (first, second, third, fourth, *others)]
    rows = zip(named, named[1:], ["train"] * 4 + ["test"], strict=False)
    csv, out = files.folder / "ü pairs.csv", files.folder / "ü out.txt"
    csv.write_text("first,second,target,split\n" + "".join(f"{a},{b},-1,{split}\n" for a, b, split in rows))
    out.write_text(f"{named[0]}_{named[1]}\n")
    words = files.arguments("--material", "höl", "--pairs", in_form(asked, csv), "--format", "json")
    words += ["--exclusions-file", in_form(asked, out)]
    works("influence", *words, "--test-pairs", f"{named[4]}_{named[5]}")
    assert list(scores_in(files.results)) == [f"{second}_{third}", f"{third}_{fourth}", f"{fourth}_{others[0]}"]
    (file,) = files.results.glob("*influence_metadata.json")
    column = f"{named[4]}_{named[5]}"
    assert first.rpartition("_")[0][:3] in works("show", in_form(asked, file), "--column", column).stdout


@pytest.mark.parametrize(("there", "asked"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_ids_of_parquet_in_another_normal_form(there: Any, asked: Any, tmp_path: Path) -> None:
    names = ["a", "ö", "ü"]
    named = [unicodedata.normalize(asked, name) for name in names]
    path = tables.write_parquet(tmp_path / "pairs.parquet", first=named[:2], second=named[1:])
    found = tables.read(path, [unicodedata.normalize(there, name) for name in names])
    assert found.rows() == [(0, 1, 1), (1, 2, -1)]


def test_ids_that_differ_in_their_normal_form_alone_are_two(tmp_path: Path) -> None:
    names = ["ö", unicodedata.normalize("NFD", "ö"), "a"]
    path = tables.write_parquet(tmp_path / "pairs.parquet", first=names[:2], second=names[1:])
    assert tables.read(path, names).rows() == [(0, 1, 1), (1, 2, -1)]


# The order of checks


def results_of_the_example(folder: Path, name: str) -> None:
    """What a first run without options leaves in `metadata`."""
    folder.mkdir()
    (folder / name).write_text('{"a_b": {"tracin_self_influence": 1.0}}')
    origin = {"format": 1, "columns": {"tracin_self_influence": {"source": {"kind": "embedded"}}}}
    (folder / f"{name}.provenance.json").write_text(json.dumps(origin))


WRONG_INPUTS: dict[str, tuple[list[str], Words]] = {
    "root": (["--data-root", "nowhere"], "folder not found: nowhere"),
    "root, all tones": (["--data-root", "nowhere", "--frequency", "all"], "folder not found: nowhere"),
    "material": (["--material", "wood"], "wood"),
    "tone": (["--frequency", "9hz"], "9hz"),
    "classes": (["--classes", "deg999"], "deg999"),
    "takes": (["--takes", "99"], "99"),
    "checkpoints": (["--checkpoint-dir", "nowhere"], "nowhere"),
    "numbers of checkpoints": (["--checkpoints", "77"], "77"),
    "prefix": (["--checkpoint-prefix", "other"], "other"),
    "model": (["--model", "nowhere.py:Net"], "nowhere.py"),
    "exclusions": (["--exclusions-file", "nowhere.txt"], "nowhere.txt"),
    "pairs": (["--pairs", "empty.csv"], "empty.csv"),
    "store": (["--store", "store"], "store"),
}


@pytest.mark.parametrize("name", WRONG_INPUTS)
def test_inputs_are_checked_before_outputs(name: str, recordings: Recordings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(recordings.folder)
    Path("empty.csv").touch()
    Path("store").mkdir()
    Path("store/manifest.json").write_text("{")
    words, said = WRONG_INPUTS[name]
    given = dict(zip(words[::2], words[1::2], strict=True))
    material, frequency = given.get("--material", "box"), given.get("--frequency", "500hz")
    results_of_the_example(Path("metadata"), f"{material}_{frequency}_metadata.json")
    error = refused("self", *recordings.arguments(*words, "--metadata-dir")[:-1])
    assert_says(error, said)
    assert "synthetic" not in error
    assert len(list(Path("metadata").iterdir())) == 2


def test_outputs_are_checked_before_recordings_are_read(
    recordings: Recordings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(recordings.folder)
    results_of_the_example(Path("metadata"), "box_500hz_metadata.json")
    recordings.clips[0].write_bytes(b"")
    assert_says(refused("self", *recordings.arguments("--metadata-dir")[:-1]), "metadata", "synthetic")


# Tables of pairs


FIRST, SECOND = "box_deg000_500hz_00", "box_deg036_500hz_00"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param(
            f",first,second,target\n0,{FIRST},{SECOND},-1\n",
            [],
            id="index of a data frame",
        ),
        pytest.param(f"Unnamed: 0,first,second,target\n0,{FIRST},{SECOND},-1\n", [], id="index read and written"),
        pytest.param(f',"",first,second,target\n0,a,{FIRST},{SECOND},-1\n', [], id="index of two levels"),
        pytest.param(f"first,second,target,\n{FIRST},{SECOND},-1,0.5\n", ["without a name"], id="last without a name"),
        pytest.param(f",first,second\n0,{FIRST},{SECOND}\n", ["Missing: target"], id="index and no target"),
        pytest.param(",,\n0,1,2\n", ["Missing: first, second, target"], id="no names"),
        pytest.param(f"first;second;target\n{FIRST};{SECOND};-1\n", ["separated by commas"], id="semicolons"),
        pytest.param(f"first,second,target\n{FIRST}.wav,{SECOND}.wav,-1\n", [f"{FIRST}.wav"], id="endings"),
        pytest.param(f"first,second,target\n{FIRST},{SECOND},0\n", ["target", "'0'"], id="targets 0 and 1"),
        pytest.param(f"First,Second,Target\n{FIRST},{SECOND},-1\n", ["First"], id="capitals"),
    ],
)
def test_tables_of_pairs(text: str, words: list[Words], recordings: Recordings) -> None:
    """The scores, or a refusal that says what is in the way."""
    path = recordings.folder / "pairs.csv"
    path.write_text(text)
    answer = run("self", *recordings.arguments("--pairs", str(path)))
    assert answer.code == (3 if words else 0)
    if words:
        assert_says(answer.error, *words)
    else:
        assert list(scores_in(recordings.results)) == [f"{FIRST}_{SECOND}"]


@pytest.mark.parametrize(
    "columns",
    [
        {},
        {"__index_level_0__": ["a", "b"]},
        {"first": [0, 1], "second": [1, 2]},
        {"target": np.array([1, -1], dtype=np.int8)},
        {"first": np.array([0, 1], dtype=np.uint8), "second": np.array([1, 2], dtype=np.uint8)},
        {"split": ["train", "train"]},
    ],
    ids=["ids", "index", "positions", "small targets", "small positions", "split"],
)
def test_columns_in_parquet(columns: dict[str, Any], tmp_path: Path) -> None:
    found = tables.read(tables.write_parquet(tmp_path / "pairs.parquet", **columns), tables.LETTER_IDS)
    assert found.rows() == [(0, 1, 1), (1, 2, -1)]


IDS = ["5", "4", "3", "2", "1", "0"]  # other numbers than the positions
NAMED, PLACED = [(0, 1, 1), (1, 2, -1)], [(5, 4, 1), (4, 3, -1)]


@pytest.mark.parametrize("ids", ["names", "positions", None])
@pytest.mark.parametrize(
    "given",
    [
        pytest.param([[5, 4], [4, 3]], id="whole numbers"),
        pytest.param([np.array([5, 4], dtype=np.uint8), np.array([4, 3], dtype=np.int32)], id="small numbers"),
        pytest.param([["5", "4"], ["4", "3"]], id="texts"),
        pytest.param([["5", "4"], [4, 3]], id="one of each"),
    ],
)
@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_numbers_as_ids_of_items_and_as_positions(kind: str, given: list[Any], ids: str | None, tmp_path: Path) -> None:
    """Whole numbers in Parquet beside ids that are numbers have to be decided; texts are ids."""
    first, second = given
    path = tmp_path / f"pairs.{kind}"
    if kind == "csv":
        rows = zip(first, second, (1, -1), strict=True)
        path.write_text("first,second,target\n" + "".join(f"{a},{b},{target}\n" for a, b, target in rows))
    else:
        tables.write_parquet(path, first=first, second=second)
    numbers = kind == "parquet" and not isinstance(second[0], str)
    if numbers and ids is None:
        for run_ in (lambda: read_pairs(path, IDS), lambda: ti.PairTable(path, IDS)):
            assert_says(refusal(run_), path.name, "position 0", "'5'", 'ids="names"', 'ids="positions"')
        return
    train, _ = read_pairs(path, IDS, ids=ids)
    found = list(zip(train.first.tolist(), train.second.tolist(), train.target.tolist(), strict=True))
    assert found == (PLACED if ids == "positions" else NAMED)


@pytest.mark.parametrize("item_ids", [["0", "1", "2"], ["a", "b", "c"], [0, 1, 2]])
def test_whole_numbers_are_positions_where_nothing_else_can_be_meant(item_ids: list[Any], tmp_path: Path) -> None:
    path = tables.write_parquet(tmp_path / "pairs.parquet", first=[0, 1], second=[1, 2])
    assert tables.read(path, item_ids).rows() == [(0, 1, 1), (1, 2, -1)]


@pytest.mark.parametrize("item_ids", [[7, 8, 9], ["0", "1", "02"], ["a", "-1", "b"]])
def test_whole_numbers_beside_other_numbers_are_refused(item_ids: list[Any], tmp_path: Path) -> None:
    path = tables.write_parquet(tmp_path / "pairs.parquet", first=[0, 1], second=[1, 2])
    assert_says(refusal(lambda: tables.read(path, item_ids)), 'ids="positions"', 'ids="names"')


def test_the_option_ids(recordings: Recordings) -> None:
    path = recordings.folder / "pairs.csv"
    path.write_text("first,second,target\n0,2,-1\n")
    words = ["self", *recordings.arguments("--pairs", str(path))]
    assert_says(refused(*words), "'0'", "--ids positions")
    works(*words, "--ids", "positions")
    ids = sorted(clip.stem for clip in recordings.clips)
    assert list(scores_in(recordings.results)) == [f"{ids[0]}_{ids[2]}"]
    assert_says(refused(*words, "--ids", "numbers", code=2), "--ids should be one of names, positions")
    assert_says(refused("self", *recordings.arguments("--ids", "names"), code=2), "--ids", "--pairs")
    tables.write_parquet(path.with_suffix(".parquet"), first=[0], second=[2], target=[-1])
    words[words.index(str(path))] = str(path.with_suffix(".parquet"))
    assert_says(refused(*words, "--ids", "names"), "'0'", "no item")
    for more in ([], ["--ids", "positions"]):
        works(*words, "--format", "parquet", *more)


# Surroundings


def test_safe_globals_of_the_caller_stay(tmp_path: Path) -> None:
    scalar = np.float64(0).__reduce__()[0]
    allowed = [scalar, np.dtype, type(np.dtype("f8"))]
    path = tmp_path / "mine.pt"
    torch.save({"model_state_dict": state_of(), "best": np.float64(0.5)}, path)
    with torch.serialization.safe_globals(allowed):
        before = set(torch.serialization.get_safe_globals())
        at(path)
        assert set(torch.serialization.get_safe_globals()) == before
        assert float(torch.load(path, weights_only=True)["best"]) == 0.5


def test_no_safe_globals_are_added(tmp_path: Path) -> None:
    before = set(torch.serialization.get_safe_globals())
    path = tmp_path / "mine.pt"
    torch.save({"model_state_dict": state_of(), "best": np.float64(0.5)}, path)
    at(path)
    assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize(
    "names",
    [("run1/epoch 1", "run1/epoch 2"), ("../a", "../b"), ("é", "e\u0301"), ("a" * 300, "b" * 300), ("con", "a:b")],
    ids=["slash", "parent", "normal forms", "long", "reserved"],
)
def test_names_of_checkpoints_in_a_store(names: tuple[str, str], tmp_path: Path) -> None:
    states = two_states(seeded(perceptron))
    right = reference(perceptron, ITEMS, states)
    checkpoints_ = [ti.Checkpoint(s, r, n) for s, r, n in zip(states, (0.1, 0.2), names, strict=True)]
    pairs = ti.Pairs([0, 1, 2, 3, 4, 5, 0, 2], [1, 2, 3, 4, 5, 0, 3, 5], [1, -1, 1, 1, -1, 1, -1, 1])
    task = ti.Task(perceptron(), ITEMS, pairs, checkpoints_, loss=ti.LogisticLoss())
    for _ in range(2):
        found = calls.score(task, calls.how(device="cpu", store=tmp_path / "store")).self_influence
        assert found is not None
        assert torch.allclose(found.scores, right.own, rtol=1e-5)

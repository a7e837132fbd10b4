"""Language models and rerankers in the ways that they are written, padded, saved and trained.

A row marked xfail shows a kind that the package gets wrong; the reason names it.
"""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import safetensors.torch
import torch

import tracin_func as ti
from tests.support.cases import checkpoints, tables
from tests.support.cases import language_models as models
from tests.support.cases.language_models import InList, Listwise, LlamaLike, Positioned, Preference, texts, unpadded
from tests.support.cases.modules import perceptron
from tests.support.cases.reference import Right, State, Table, copied, noise, reference, seeded, two_states
from tests.support.cases.runs import (
    assert_right,
    assert_says,
    refusal,
    said,
    score,
    scores_or_refusal,
)

ITEMS = noise(6, 5)


# The usual architectures


@pytest.mark.parametrize("name", models.MODELS)
def test_scores_of_the_usual_architectures(name: str) -> None:
    """Padded texts in a batch score as each text alone without padding."""
    module = seeded(models.MODELS[name])
    states = two_states(module)
    assert_right(score(module, texts(), states), reference(models.MODELS[name], texts(), states, alone=unpadded))


@pytest.mark.parametrize("name", models.MODELS)
def test_the_usual_architectures_are_captured(name: str) -> None:
    """The engine is ghost, and no parameter is left to vmap."""
    module = seeded(models.MODELS[name])
    engine = score(module, texts(), two_states(module)).engine
    assert engine["engine"] == "ghost"
    assert [part["parameter"] for part in engine["parts"] if part["form"] == "vmap"] == []


# Padding


def test_a_model_that_fails_on_batches_is_not_scored_alone() -> None:
    """An error quotes what the model says."""
    module = seeded(lambda: LlamaLike(padding=None))
    assert_says(refusal(lambda: score(module, texts(), two_states(module))), models.NO_PADDING)


def test_a_model_with_a_padding_token() -> None:
    module = seeded(LlamaLike)
    states = two_states(module)
    right = reference(LlamaLike, texts(), states, alone=unpadded)
    assert_right(score(module, texts(), states, engine="loop"), right)


def test_padding_that_changes_the_scores() -> None:
    """The scores of texts without padding, or a notice or refusal that speaks of it."""
    module, items = seeded(Positioned), texts("left")
    states = two_states(module)
    text = said(lambda: score(module, items, states))
    if "padd" not in text:
        assert_right(score(module, items, states), reference(Positioned, items, states, alone=unpadded))


def test_padding_that_does_not_change_the_scores() -> None:
    module = seeded(Positioned)
    states = two_states(module)
    found = score(module, texts(), states)
    assert_right(found, reference(Positioned, texts(), states, alone=unpadded))
    assert "padd" not in "\n".join(found.notices)


# Lists


DOCUMENTS, IN_LIST = 18, 6  # three lists of six
LIST_TRAIN = Table([0, 1, 2, 6, 7, 8, 12], [1, 2, 5, 7, 11, 9, 13], [1, -1, 1, 1, -1, 1, 1])
LIST_TEST = Table([3, 9, 15], [4, 10, 16], [1, -1, 1])


def test_a_listwise_scorer_of_documents() -> None:
    """A notice or refusal says how far scores alone and in company agree in rank."""
    module = seeded(Listwise)
    states = two_states(module)
    text = said(lambda: score(module, noise(DOCUMENTS, 5), states, train=LIST_TRAIN, test=LIST_TEST))
    assert_says(text, "correlation")


def test_documents_that_carry_their_list() -> None:
    documents = noise(DOCUMENTS, 5)
    lists = documents.unflatten(0, (-1, IN_LIST)).repeat_interleave(IN_LIST, dim=0)
    items = {"list": lists, "place": torch.arange(IN_LIST).repeat(DOCUMENTS // IN_LIST)}
    module = seeded(InList)
    states = two_states(module)
    right = reference(InList, items, states, train=LIST_TRAIN, test=LIST_TEST)
    assert_right(score(module, items, states, train=LIST_TRAIN, test=LIST_TEST), right)


# Ids in Parquet


@pytest.mark.parametrize("kind", [pa.int64(), pa.int32(), pa.uint8()], ids=str)
def test_integer_ids_that_may_be_positions_are_refused(kind: pa.DataType, tmp_path: Path) -> None:
    columns = {"first": pa.array([5, 4], kind), "second": pa.array([0, 1], kind)}
    path = tables.write_parquet(tmp_path / "pairs.parquet", **columns)
    text = refusal(lambda: tables.read(path, tables.NUMBER_IDS))
    assert_says(text, "pairs.parquet", "position", "id", ("first", "second"))


def test_numbers_as_text_are_ids(tmp_path: Path) -> None:
    path = tables.write_parquet(tmp_path / "pairs.parquet", first=["5", "4"], second=["0", "1"])
    assert tables.read(path, tables.NUMBER_IDS).rows() == [(0, 5, 1), (1, 4, -1)]


def test_integers_are_positions_where_no_id_is_a_number(tmp_path: Path) -> None:
    path = tables.write_parquet(tmp_path / "pairs.parquet", first=[5, 4], second=[0, 1])
    assert tables.read(path, tables.LETTER_IDS).rows() == [(5, 0, 1), (4, 1, -1)]


# Types


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16], ids=str)
def test_stored_values_keep_their_precision(precision: torch.dtype) -> None:
    """Scores right to 3% of the largest, or a notice or refusal that names the column of stored values."""
    module, items = seeded(Preference), models.preferences(-3000.0)
    states = two_states(module)
    right = reference(Preference, items, states, alone=unpadded)
    text = said(lambda: score(module, items, states, dtype=precision))
    if "reference" not in text:
        assert_right(score(module, items, states, dtype=precision), right, tolerance=3e-2)


@pytest.mark.parametrize("precision", [None, torch.float64], ids=str)
def test_stored_values_in_full_precision(precision: torch.dtype | None) -> None:
    module, items = seeded(Preference), models.preferences(-30.0)
    states = two_states(module)
    right = reference(Preference, items, states, alone=unpadded)
    assert_right(score(module, items, states, dtype=precision), right)


# Learning rates


def with_optimizer(folder: Path, state: State, rate: float) -> Path:
    """A checkpoint file whose optimiser records `rate`."""
    module = perceptron()
    module.load_state_dict(state)
    optimizer = torch.optim.AdamW(module.parameters(), lr=rate)
    path = folder / f"model_epoch_{rate}.pt"
    torch.save({"model_state_dict": state, "optimizer_state_dict": optimizer.state_dict()}, path)
    return path


@pytest.mark.parametrize("place", ["given", "optimiser"])
def test_a_learning_rate_of_0_alone_is_refused(place: str, tmp_path: Path) -> None:
    """A schedule ends at 0: the last checkpoint alone has no weight."""
    state = copied(seeded(perceptron).state_dict())
    source: Any = state if place == "given" else with_optimizer(tmp_path, state, 0.0)
    rate = 0.0 if place == "given" else None
    text = refusal(lambda: score(perceptron(), ITEMS, [source], rates=[rate]))
    assert_says(text, "learning rate", "0")


def test_a_learning_rate_of_0_among_others() -> None:
    states = two_states(seeded(perceptron))
    right = reference(perceptron, ITEMS, states, rates=[0.1, 0.0])
    assert_right(score(perceptron(), ITEMS, states, rates=[0.1, 0.0]), right)


def test_uniform_weights_do_not_need_a_learning_rate(tmp_path: Path) -> None:
    state = copied(seeded(perceptron).state_dict())
    path = with_optimizer(tmp_path, state, 0.0)
    found = score(perceptron(), ITEMS, [path], rates=[None], checkpoint_weights="uniform")
    assert_right(found, reference(perceptron, ITEMS, [state], rates=[1.0]))


# Folders, shards, adapters, wrappers


@pytest.fixture
def state() -> State:
    return copied(seeded(perceptron).state_dict())


def right_at(state: State) -> Right:
    return reference(perceptron, ITEMS, [state], rates=[0.1])


def test_a_folder_given_as_text(tmp_path: Path, state: State) -> None:
    torch.save(state, tmp_path / "model_epoch_1.pt")
    assert [Path(path) for path in ti.find_checkpoints(str(tmp_path))] == [tmp_path / "model_epoch_1.pt"]


def test_a_folder_of_one_step_given_as_text(tmp_path: Path, state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights in it are read, or the refusal names the file in it."""
    checkpoints.saved(tmp_path / "checkpoint-6", state)
    monkeypatch.chdir(tmp_path)
    scores_or_refusal(
        lambda: score(perceptron(), ITEMS, ["checkpoint-6"], rates=[0.1]), right_at(state), "model.safetensors"
    )


@pytest.mark.parametrize("given", ["index", "folder"])
def test_shards(given: str, tmp_path: Path, state: State) -> None:
    """All shards are read, or the refusal says that the weights are in shards."""
    index = checkpoints.sharded(tmp_path / "checkpoint-6", state)
    source = index if given == "index" else index.parent
    run = lambda: score(perceptron(), ITEMS, [source], rates=[0.1])  # noqa: E731
    scores_or_refusal(run, right_at(state), "shard", never=["truncated", "no such"])


def test_one_shard_is_refused(tmp_path: Path, state: State) -> None:
    index = checkpoints.sharded(tmp_path / "checkpoint-6", state)
    shard = index.with_name("model-00001-of-00002.safetensors")
    assert_says(refusal(lambda: score(perceptron(), ITEMS, [shard], rates=[0.1])), shard.name, "2.weight")


def test_a_plain_state_with_another_ending(tmp_path: Path, state: State) -> None:
    torch.save(state, tmp_path / "pytorch_model.bin")
    assert_right(score(perceptron(), ITEMS, [tmp_path / "pytorch_model.bin"], rates=[0.1]), right_at(state))


@pytest.mark.parametrize("file", ["adapter_model.safetensors", "adapter_model.bin"])
def test_an_adapter_file_in_its_folder(file: str, tmp_path: Path) -> None:
    """The scores with frozen weights of the scorer's own, or a refusal that names the adapter."""
    module = seeded(checkpoints.Adapted)
    own, other = two_states(module)
    adapter = checkpoints.adapter_of(other)
    folder = tmp_path / "checkpoint-6"
    folder.mkdir()
    if file.endswith(".bin"):
        torch.save(adapter, folder / file)
    else:
        safetensors.torch.save_file(adapter, folder / file)
    trained = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    merged = {name: (other if name in trained else own)[name] for name in own}
    right = reference(checkpoints.Adapted, ITEMS, [merged], rates=[0.1])
    run = lambda: score(module, ITEMS, [folder], rates=[0.1])  # noqa: E731
    scores_or_refusal(run, right, ("adapter", "default"), never=["no such"])


def test_names_of_the_adapter_as_in_the_model() -> None:
    module = seeded(checkpoints.Adapted)
    own, other = two_states(module)
    trained = {name: other[name] for name, parameter in module.named_parameters() if parameter.requires_grad}
    right = reference(checkpoints.Adapted, ITEMS, [own | trained], rates=[0.1])
    assert_right(score(module, ITEMS, [trained], rates=[0.1]), right)


def test_a_scorer_that_wraps_the_model(tmp_path: Path, state: State) -> None:
    """The names without the prefix `m.` are read, or the refusal names the prefix."""
    path = checkpoints.saved(tmp_path / "checkpoint-6", state) / "model.safetensors"
    scorer = checkpoints.Wrapped(perceptron())
    wrapped = {f"m.{name}": value for name, value in state.items()}
    right = reference(lambda: checkpoints.Wrapped(perceptron()), ITEMS, [wrapped], rates=[0.1])
    scores_or_refusal(lambda: score(scorer, ITEMS, [path], rates=[0.1]), right, ("prefix", "'m.'"))

"""Kinds of scorers that users really have, against the float64 loop: the right scores, or a clear word.

A row marked xfail shows a kind that the package gets wrong; the reason names it.
"""

import contextlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

import tracin_func as ti
from tests.support.cases import aliases, backwards, companions, encoders, jobs, modules, randomness
from tests.support.cases.command_line import run, scores_in
from tests.support.cases.modules import TOKENS, perceptron
from tests.support.cases.reference import (
    TEST,
    Make,
    Table,
    hinge,
    logistic,
    noise,
    reference,
    seeded,
    two_states,
)
from tests.support.cases.runs import (
    REFUSALS,
    TOLERANCE,
    assert_each_right,
    assert_right,
    assert_says,
    float64,
    refusal,
    said,
    score,
    scores_or_refusal,
    unchanged,
)
from tests.support.rows import cross

ITEMS = noise(6, 5)
COUPLING = ("others in its batch", "mixes items", "scored alone")  # said of scores that depend on their batch


# Parameters reached by another route


@pytest.mark.parametrize("precision", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("engine", ["auto", "ghost", "item", "pair", "loop"])
@pytest.mark.parametrize("kind", aliases.ALIASES, ids=lambda kind: kind.__name__)
def test_parameters_reached_by_another_route(kind: type[nn.Module], engine: str, precision: torch.dtype) -> None:
    """The scores at the checkpoints' weights, or a refusal that names such a parameter."""
    module, items = seeded(kind), aliases.items_of(kind)
    states = two_states(module)
    right = reference(kind, items, states)
    if precision == torch.float64:
        module, items = float64(module, items)
    scores_or_refusal(lambda: score(module, items, states, engine=engine), right, aliases.ALIASES[kind])


def test_parameters_found_by_name_are_no_alias() -> None:
    states = two_states(seeded(aliases.ByName))
    assert_right(score(aliases.ByName(), ITEMS, states), reference(aliases.ByName, ITEMS, states))


# Encoders with padding


ENCODER_LOSSES = {
    "logistic": (logistic, ti.LogisticLoss()),
    "hinge": (hinge(0.05), ti.MarginRankingLoss(0.05)),
}
ENCODER_SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "little memory": {"memory_budget": 1},
    "loop": {"engine": "loop"},
}


ENCODER_ROWS = cross(
    encoders.POOLS,
    tuple(ENCODER_LOSSES),
    tuple(ENCODER_SETTINGS),
    plain=lambda pool, loss, setting: setting == 0 or (pool + loss + setting) % 2 == 0,
)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize(("pool", "loss", "setting"), ENCODER_ROWS)
def test_encoder_with_padding(pool: encoders.Pool, loss: str, setting: str) -> None:
    make: Make = lambda: encoders.Encoder(pool)  # noqa: E731
    plain, given = ENCODER_LOSSES[loss]
    module, texts = seeded(make), encoders.texts()
    states = two_states(module)
    right = reference(make, texts, states, loss=plain)
    assert_right(score(module, texts, states, loss=given, **ENCODER_SETTINGS[setting]), right)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("pool", encoders.POOLS)
def test_encoder_with_padding_is_captured(pool: encoders.Pool) -> None:
    module = seeded(lambda: encoders.Encoder(pool))
    assert score(module, encoders.texts(), two_states(module)).engine["engine"] == "ghost"


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("enabled", [True, False])
def test_the_fast_path_is_left_as_it_was(enabled: bool) -> None:
    module = seeded(lambda: encoders.Encoder("mean"))
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(enabled)
    try:
        score(module, encoders.texts(), two_states(module))
        assert torch.backends.mha.get_fastpath_enabled() is enabled
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


# Items that interact next to a rare companion


@pytest.mark.parametrize(
    ("count", "long", "batch_size"),
    [
        pytest.param(40, 30, 1, id="40 texts, one by one"),
        pytest.param(40, 30, 8, id="40 texts by 8"),
        pytest.param(100, 75, 8, id="100 texts by 8"),
        pytest.param(100, 75, 64, id="100 texts by 64"),
    ],
)
def test_batch_trimmed_to_its_longest_text(count: int, long: int, batch_size: int) -> None:
    module, texts = seeded(companions.Trimming), companions.short_texts_and_a_long_one(count, long)
    states, train = two_states(module)[:1], companions.neighbours(count)
    right = reference(companions.Trimming, texts, states, rates=[0.1], train=train)
    assert_right(score(module, texts, states, rates=[0.1], train=train, batch_size=batch_size), right)


@pytest.mark.parametrize("engine", ["auto", "ghost", "item", "loop"])
def test_batch_scaled_by_its_largest_item(engine: str) -> None:
    """The right scores; the engine that needs batches may refuse instead, where it was asked for by name."""
    module, items = seeded(companions.Limiting), companions.small_items_and_a_large_one(40, 30)
    states, train = two_states(module)[:1], companions.neighbours(40)
    right = reference(companions.Limiting, items, states, rates=[0.1], train=train)
    settings = {"rates": [0.1], "train": train, "engine": engine, "batch_size": 8}
    if engine == "ghost":
        scores_or_refusal(lambda: score(module, items, states, **settings), right, "other items in the batch")
    else:
        assert_right(score(module, items, states, **settings), right)


# Backward passes


HOOKS: dict[str, Make] = {
    "clamping hook": lambda: backwards.Hooked(backwards.clamped),
    "normalising hook": lambda: backwards.Hooked(backwards.normalised),
    "clamping function": lambda: backwards.ThroughFunction(backwards.Clamp),
}


def nonlinear_rows() -> list[Any]:
    return [(name, engine) for name in HOOKS for engine in ("auto", "ghost", "item", "pair", "loop")]


@pytest.mark.parametrize(("name", "engine"), nonlinear_rows())
def test_backward_that_is_not_linear(name: str, engine: str) -> None:
    """The right scores; an engine that was asked for by name may refuse instead."""
    module = seeded(HOOKS[name])
    states = two_states(module)
    right = reference(HOOKS[name], ITEMS, states)
    if engine == "auto":
        assert_right(score(module, ITEMS, states), right)
    else:
        scores_or_refusal(lambda: score(module, ITEMS, states, engine=engine), right, engine)


@pytest.mark.parametrize("engine", ["auto", "loop"])
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: backwards.Hooked(backwards.halved), id="halving hook"),
        pytest.param(lambda: backwards.ThroughFunction(backwards.Reverse), id="reversing function"),
        pytest.param(backwards.OwnLinear, id="function of parameters"),
        pytest.param(backwards.with_module_hook, id="module hook"),
        pytest.param(lambda: backwards.Checkpointed(reentrant=False), id="checkpointing"),
    ],
)
def test_backward_that_is_linear(make: Make, engine: str) -> None:
    module = seeded(make)
    states = two_states(module)
    assert_right(score(module, ITEMS, states, engine=engine), reference(make, ITEMS, states))


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("engine", ["auto", "loop"])
def test_reentrant_activation_checkpointing(engine: str) -> None:
    """The scores of `.backward()`, or the cause: `use_reentrant`, not the batch of one."""
    make: Make = lambda: backwards.Checkpointed(reentrant=True)  # noqa: E731
    module = seeded(make)
    states = two_states(module)
    scores_or_refusal(
        lambda: score(module, ITEMS, states, engine=engine),
        reference(make, ITEMS, states, backward=True),
        "use_reentrant",
        never=["single item"],
    )


# Side effects of the scorer


@pytest.mark.parametrize("engine", ["auto", "loop"])
def test_adapters_that_fold_in_eval_mode(engine: str) -> None:
    """The scores with live adapters, or a refusal that names the frozen weight, the class, or `train`."""
    module = seeded(backwards.folding).train()
    states = two_states(module)
    right = reference(lambda: backwards.folding(fold=False), ITEMS, states)
    scores_or_refusal(lambda: score(module, ITEMS, states, engine=engine), right, ("0.weight", "Folding", "train"))


@pytest.mark.parametrize("engine", ["auto", "loop"])
def test_adapters_that_fold_are_left_as_they_were(engine: str) -> None:
    module = seeded(backwards.folding).train()
    states = two_states(module)
    before, scores = states[0], module(ITEMS)
    with contextlib.suppress(*REFUSALS):
        score(module, ITEMS, states, engine=engine)
    assert unchanged(before, module)
    assert torch.equal(module(ITEMS), scores)
    assert (module[0].folded, module.training) == (False, True)


BUFFERS: dict[str, Callable[..., nn.Module]] = {"running mean": modules.Running, "counter": modules.Counting}


@pytest.mark.parametrize("engine", ["auto", "loop"])
@pytest.mark.parametrize("name", BUFFERS)
def test_buffer_updated_by_each_forward(name: str, engine: str) -> None:
    module = seeded(BUFFERS[name])
    states = two_states(module)
    right = reference(lambda: BUFFERS[name](update=False), ITEMS, states)
    assert_right(score(module, ITEMS, states, engine=engine), right)


@pytest.mark.parametrize("name", BUFFERS)
def test_buffer_updated_by_each_forward_is_not_called_coupling(name: str) -> None:
    module = seeded(BUFFERS[name])
    text = said(lambda: score(module, ITEMS, two_states(module)))
    assert [words for words in COUPLING if words in text] == []


@pytest.mark.parametrize("name", BUFFERS)
def test_buffer_updated_by_each_forward_is_left_as_it_was(name: str) -> None:
    module = seeded(BUFFERS[name])
    states = two_states(module)
    score(module, ITEMS, states)
    assert unchanged(states[0], module)


@pytest.mark.parametrize("name", BUFFERS)
def test_buffer_updated_by_each_forward_gives_the_same_scores_again(name: str) -> None:
    module = seeded(BUFFERS[name])
    states = two_states(module)
    first, second = (score(module, ITEMS, states, engine="loop") for _ in range(2))
    assert torch.equal(first.own, second.own)
    with torch.no_grad():
        module(ITEMS)  # between two runs the module may be used
    assert torch.equal(score(module, ITEMS, states, engine="loop").own, first.own)


# Checkpoints of one file name, or of equal weights


def three_checkpoints(folder: Path, file: str, parents: list[str]) -> list[Path]:
    """One state, scaled differently, in a file of the same name under each parent."""
    state = seeded(perceptron).state_dict()
    paths = [folder / parent / file for parent in parents]
    for factor, path in enumerate(paths, start=1):
        path.parent.mkdir(parents=True)
        safetensors.torch.save_file({name: value * factor / 2 for name, value in state.items()}, path)
    return paths


SAME_NAMES = {
    "steps": ["checkpoint-500", "checkpoint-1000", "checkpoint-1500"],
    "seeds": ["seed 1/last", "seed 2/last", "seed 3/last"],
}


@pytest.mark.parametrize("parents", SAME_NAMES.values(), ids=SAME_NAMES)
def test_checkpoints_of_one_file_name_are_kept_apart(tmp_path: Path, parents: list[str]) -> None:
    """Names that tell them apart, or a refusal before any work that names the file."""
    paths = three_checkpoints(tmp_path, "model.safetensors", parents)
    try:
        found = score(perceptron(), ITEMS, paths, rates=[0.1] * 3)
    except REFUSALS as error:
        assert_says(str(error), "model.safetensors")
        return
    names = found.result.run.names
    assert len(set(names)) == 3
    for name, parent in zip(names, parents, strict=True):
        assert parent.partition("/")[0] in name
    table = found.result.to_arrow(long=True, per_checkpoint=True).to_pydict()
    assert len(set(table["checkpoint"])) == 3
    saved = json.loads(found.result.save(tmp_path / "scores.json", per_checkpoint=True).read_text())
    assert {len(columns) for columns in saved.values()} == {3 * len(TEST.first)}


SAME = ("same weights", "equal weights", "identical")


def test_a_copy_of_a_checkpoint_is_named(tmp_path: Path) -> None:
    states = two_states(seeded(perceptron))
    paths = [tmp_path / f"model_epoch_{epoch}.pt" for epoch in ("1", "8", "best")]
    for path, state in zip(paths, [*states, states[1]], strict=True):
        torch.save({"model_state_dict": state}, path)
    text = said(lambda: score(perceptron(), ITEMS, paths, rates=[0.1] * 3))
    assert_says(text, SAME, "model_epoch_8.pt", "model_epoch_best.pt")


# Half precision


HALF = [torch.float16, torch.bfloat16]


@pytest.mark.parametrize("engine", ["auto", "loop"])
@pytest.mark.parametrize("precision", HALF, ids=str)
def test_small_gradients_of_half_precision_models(precision: torch.dtype, engine: str) -> None:
    """Scores right to 0.1% each, or a notice that gradients underflow."""
    module, items = seeded(modules.deep_sigmoid).to(precision), ITEMS.to(precision)
    states = two_states(module)
    found = score(module, items, states, engine=engine)
    if "underflow" not in "\n".join(found.notices):
        assert_each_right(found, reference(modules.deep_sigmoid, items, states), 1e-3)


@pytest.mark.parametrize("precision", HALF, ids=str)
def test_nearly_equal_texts_of_half_precision_models(precision: torch.dtype) -> None:
    """Scores right to 5% each: their gradients are differences, and do not underflow."""
    module, texts = seeded(encoders.Reward).to(precision), encoders.nearly_equal_texts()
    states, train = two_states(module)[:1], Table(range(0, 16, 2), range(1, 16, 2), [1, -1] * 4)
    found = score(module, texts, states, rates=[0.1], train=train)
    assert_each_right(found, reference(encoders.Reward, texts, states, rates=[0.1], train=train), 5e-2)


@pytest.mark.parametrize("precision", HALF, ids=str)
def test_half_precision_models_computed_in_float32(precision: torch.dtype) -> None:
    module, items = seeded(modules.deep_sigmoid).to(precision), ITEMS.to(precision)
    states = two_states(module)
    found = score(module, items, states, dtype=torch.float32)
    assert_each_right(found, reference(modules.deep_sigmoid, items, states), 1e-3)


@pytest.mark.parametrize("engine", ["auto", "item", "loop"])
def test_a_frozen_weight_of_whole_numbers(engine: str) -> None:
    module = seeded(modules.Quantised)
    states = two_states(module)
    assert_right(score(module, ITEMS, states, engine=engine), reference(modules.Quantised, ITEMS, states))


# Randomness


@pytest.mark.parametrize(
    ("make", "items", "operation"),
    [
        pytest.param(randomness.Dropping, ITEMS, "dropout", id="dropout"),
        pytest.param(randomness.Attending, noise(6, 4, 8), "scaled_dot_product_attention", id="attention dropout"),
        pytest.param(randomness.Jittering, ITEMS, "randn_like", id="noise"),
        pytest.param(perceptron, randomness.Augmented(), ("dataset", "data set", "`items`"), id="augmenting data set"),
    ],
)
def test_scores_that_are_random_in_eval_mode(make: Make, items: Any, operation: Any) -> None:
    """A notice or an error says "random" and names the operation, and does not speak of coupling."""
    module = seeded(make)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        text = said(lambda: score(module, items, two_states(module)))
    assert_says(text, "random", operation)
    assert [words for words in COUPLING if words in text] == []


# No gradient at all


@pytest.mark.parametrize("engine", ["auto", "loop"])
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: backwards.Detached(whole=True), id="detached"),
        pytest.param(backwards.WithoutGradient, id="no_grad"),
    ],
)
def test_scores_that_do_not_depend_on_parameters(make: Make, engine: str) -> None:
    module = seeded(make)
    text = refusal(lambda: score(module, ITEMS, two_states(module), engine=engine))
    assert_says(text, ("gradient", "depend"))


@pytest.mark.parametrize("engine", ["auto", "loop"])
def test_scores_that_depend_on_some_parameters(engine: str) -> None:
    make: Make = lambda: backwards.Detached(whole=False)  # noqa: E731
    module = seeded(make)
    states = two_states(module)
    assert_right(score(module, ITEMS, states, engine=engine), reference(make, ITEMS, states))


# Sparse gradients


SPARSE: dict[str, Callable[..., nn.Module]] = {
    "factors": modules.Factors,
    "bag": modules.Bag,
    "session": modules.Session,
}


@pytest.mark.parametrize("engine", ["auto", "loop"])
@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("name", SPARSE)
def test_embeddings_with_sparse_gradients(name: str, sparse: bool, engine: str) -> None:
    make: Make = lambda: SPARSE[name](sparse=sparse)  # noqa: E731
    module = seeded(make)
    states = two_states(module)
    assert_right(score(module, TOKENS, states, engine=engine), reference(make, TOKENS, states))


# What --verify says of such scorers


@pytest.mark.parametrize(
    "name",
    [
        "alias",
        "fold",
        "clamp",
        "sparse",
    ],
)
def test_scores_that_pass_verification_are_right(name: str, tmp_path: Path) -> None:
    """Verified and right; an alias or a fold may be refused instead."""
    answer = run("self", "--task", f"tests.support.cases.jobs:{name}", "--metadata-dir", str(tmp_path), "--verify", "6")
    if name in ("alias", "fold") and answer.code == 3:
        assert_says(answer.error, ("scale", "0.weight", "Folding", "train"))
        return
    assert answer.code == 0, answer.error
    make, plain = jobs.SCORERS[name]
    items = jobs.TOKENS if name == "sparse" else jobs.ITEMS
    state = jobs.trained(seeded(make))
    right = reference(plain, items, [state], rates=[jobs.RATE], train=jobs.TRAIN, test=jobs.TEST)
    found = torch.tensor([next(iter(each.values())) for each in scores_in(tmp_path).values()], dtype=torch.float64)
    assert float((found - right.own).abs().max() / right.own.max()) <= TOLERANCE


# Unusual forwards that are right


def normed(how: Callable[[nn.Module], nn.Module]) -> Make:
    return lambda: nn.Sequential(how(nn.Linear(5, 4)), nn.Tanh(), nn.Linear(4, 1))


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
@pytest.mark.parametrize("engine", ["auto", "loop"])
@pytest.mark.parametrize(
    ("make", "items"),
    [
        pytest.param(lambda: modules.Clamped(assign=False), ITEMS, id="weights clamped in place"),
        pytest.param(lambda: modules.Clamped(assign=True), ITEMS, id="weights clamped by assignment"),
        pytest.param(normed(nn.utils.weight_norm), ITEMS, id="old weight norm"),
        pytest.param(normed(nn.utils.spectral_norm), ITEMS, id="old spectral norm"),
        pytest.param(normed(lambda layer: prune.l1_unstructured(layer, "weight", 0.4)), ITEMS, id="pruned"),
        pytest.param(modules.Spectral, noise(6, 160), id="Fourier transform"),
        pytest.param(modules.Radial, ITEMS, id="distances"),
        pytest.param(
            modules.Packed, {"steps": noise(6, 4, 8), "lengths": torch.tensor([2, 4, 3, 1, 4, 2])}, id="packed LSTM"
        ),
        pytest.param(modules.Parallel, ITEMS, id="DataParallel"),
        pytest.param(modules.Energy, ITEMS, id="score is an input gradient"),
        pytest.param(lambda: nn.Sequential(nn.Linear(5, 4), nn.RReLU(), nn.Linear(4, 1)), ITEMS, id="RReLU"),
        pytest.param(lambda: modules.Pool(scale_grad_by_freq=True), TOKENS, id="gradients by frequency"),
        pytest.param(lambda: modules.Pool(max_norm=1.0), TOKENS, id="renormalised embedding"),
    ],
)
def test_unusual_forwards(make: Make, items: Any, engine: str) -> None:
    module = seeded(make)
    states = two_states(module)
    assert_right(score(module, items, states, engine=engine), reference(make, items, states))


@pytest.mark.parametrize(
    ("setting", "other", "back"),
    [
        pytest.param(torch.set_grad_enabled, False, True, id="grad mode"),
        pytest.param(torch.set_default_dtype, torch.float64, torch.float32, id="default type"),
        pytest.param(torch.set_default_device, "cpu", None, id="default device"),
        pytest.param(torch.use_deterministic_algorithms, True, False, id="deterministic"),
        pytest.param(torch.set_float32_matmul_precision, "medium", "highest", id="matmul precision"),
    ],
)
def test_global_settings_of_torch(setting: Callable[[Any], Any], other: Any, back: Any) -> None:
    module = seeded(perceptron)
    states = two_states(module)
    right = reference(perceptron, ITEMS, states)
    setting(other)
    try:
        found = score(module, ITEMS, states)
    finally:
        setting(back)
    assert_right(found, right)


# Large attributes and compiled parts


def walks(items: int) -> int:
    """How often a run over so many items walks through the vocabulary that its module keeps."""
    module = seeded(modules.Vocabulary)
    tokens = torch.randint(0, 50, (items, 6), generator=torch.Generator().manual_seed(0))
    score(module, tokens, two_states(module), train=companions.neighbours(items), batch_size=2)
    vocabulary = module.word_ids
    assert isinstance(vocabulary, modules.CountingDict)
    assert len(vocabulary) == 50
    return vocabulary.walks


def test_a_vocabulary_on_the_module_is_not_copied_for_every_batch() -> None:
    """The module may be copied a few times per run; the number must not grow with the items."""
    assert walks(6) == walks(24) <= 8


class ListedVocabulary(nn.Module):
    """Keeps a large plain container, and a weight in a list, so that only a copy takes other weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.out = nn.Linear(5, 4), nn.Linear(4, 1)
        self.weights = [self.first.weight]
        self.word_ids = CopyCounted({f"word {number}": number for number in range(2000)})

    def forward(self, items: Tensor) -> Tensor:
        assert self.word_ids["word 3"] == 3
        return self.out((items @ self.weights[0].T + self.first.bias).tanh())[:, 0]


class CopyCounted(dict[str, int]):
    copies = 0

    def __deepcopy__(self, memo: dict[int, Any]) -> "CopyCounted":
        CopyCounted.copies += 1
        return CopyCounted(self)


def copies(items: int) -> int:
    module, table = seeded(ListedVocabulary), companions.neighbours(items)
    states, given = two_states(module), noise(items, 5)
    CopyCounted.copies = 0
    found = score(module, given, states, train=table, engine="item", batch_size=2)
    assert_right(found, reference(ListedVocabulary, given, states, train=table))
    return CopyCounted.copies


def test_a_large_container_is_not_copied_for_every_call() -> None:
    assert copies(6) == copies(24) <= 4


class Recompilations(logging.Handler):
    """What torch.compile says of recompiling."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@pytest.mark.skipif(not torch._dynamo.is_dynamo_supported(), reason="torch.compile does not run here")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("engine", ["auto", "item"])
def test_compiled_part(engine: str) -> None:
    torch._dynamo.reset()
    right_states = two_states(seeded(lambda: modules.Compiled(compiled=False)))
    states = [{n.replace("body.", "body._orig_mod."): v for n, v in state.items()} for state in right_states]
    handler = Recompilations()
    logger = logging.getLogger("torch._dynamo.convert_frame")
    logger.addHandler(handler)
    try:
        found = score(modules.Compiled(compiled=True), ITEMS, states, engine=engine)
    finally:
        logger.removeHandler(handler)
        torch._dynamo.reset()
    assert_right(found, reference(lambda: modules.Compiled(compiled=False), ITEMS, right_states))
    assert handler.messages == []

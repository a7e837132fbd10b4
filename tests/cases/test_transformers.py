"""Scorers of the package transformers, with its default attention: no parameter is left to vmap."""

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.support.cases.language_models import unpadded
from tests.support.cases.reference import reference, seeded, two_states
from tests.support.cases.runs import assert_right, score

os.environ.setdefault("HF_HUB_OFFLINE", "1")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

WORDS, WIDTH, LONGEST, END = 50, 16, 20, 1
LENGTHS = (4, 9, 5, 9, 3, 6)
COMMON = {"vocab_size": WORDS, "num_labels": 1, "pad_token_id": 0}
SIZES = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": LONGEST,
}
DECODER = SIZES | {"num_key_value_heads": 1, "eos_token_id": END, "bos_token_id": None}
FAMILIES: dict[str, dict[str, Any]] = {
    "Bert": SIZES,
    "DistilBert": {
        "dim": WIDTH,
        "n_layers": 2,
        "n_heads": 2,
        "hidden_dim": 24,
        "max_position_embeddings": LONGEST,
    },
    "Electra": SIZES | {"embedding_size": 8},
    "Albert": SIZES | {"embedding_size": 8},
    "MPNet": SIZES,
    "GPT2": {"n_embd": WIDTH, "n_layer": 2, "n_head": 2, "n_positions": LONGEST, "eos_token_id": END},
    "OPT": {
        "hidden_size": WIDTH,
        "word_embed_proj_dim": WIDTH,
        "ffn_dim": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": LONGEST,
    },
    "Llama": DECODER,
    "Qwen2": DECODER,
    "Qwen3": DECODER | {"head_dim": 8},
    "Gemma": DECODER | {"head_dim": 8},
    "Gemma2": DECODER | {"head_dim": 8, "sliding_window": 16, "query_pre_attn_scalar": 8},
    "Phi": SIZES | {"eos_token_id": END, "bos_token_id": None},
    "Phi3": DECODER,
    "T5": {"d_model": WIDTH, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0},
}


@pytest.fixture(autouse=True)
def _silent() -> Iterator[None]:
    """What transformers warns of is not the package's."""
    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    yield
    transformers.logging.set_verbosity(before)


class Scores(nn.Module):
    """A model for sequence classification with one label; its scores, [items, 1]."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        scores: Tensor = self.model(**batch).logits
        return scores


def maker(family: str) -> Callable[[], nn.Module]:
    """A scorer with weights large enough that every part matters."""

    def make() -> nn.Module:
        config = getattr(transformers, f"{family}Config")(**COMMON, **FAMILIES[family])
        module = Scores(transformers.AutoModelForSequenceClassification.from_config(config))
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        return module.eval()

    return make


def texts() -> dict[str, Tensor]:
    """Texts of `LENGTHS` tokens, of which the last is that of the end, padded with 0."""
    generator = torch.Generator().manual_seed(5)
    tokens = torch.zeros(len(LENGTHS), max(LENGTHS), dtype=torch.long)
    for row, length in zip(tokens, LENGTHS, strict=True):
        row[: length - 1] = torch.randint(2, WORDS, (length - 1,), generator=generator)
        row[length - 1] = END
    return {"input_ids": tokens, "attention_mask": (tokens != 0).long()}


@pytest.mark.parametrize("family", FAMILIES)
def test_families_are_captured_whole(family: str) -> None:
    module = seeded(maker(family))
    states = two_states(module)
    found = score(module.double(), texts(), states)
    assert_right(found, reference(maker(family), texts(), states, alone=unpadded))
    assert found.engine["engine"] == "ghost"
    assert [part["parameter"] for part in found.engine["parts"] if part["form"] == "vmap"] == []

"""Scorers of padded texts: an encoder of torch, and families of the package transformers at about a million parameters.

The families have random weights; nothing is downloaded.
"""

import importlib.util
import os
from typing import Any

import torch
from torch import Tensor, nn

from tracin_func import Checkpoint, LogisticLoss, Pairs, Task

Texts = dict[str, Tensor]  # "input_ids" and "attention_mask", each [items, tokens]

WORDS, LONGEST = 2000, 64
WIDTH, DEPTH = 128, 4
_SIZES = {
    "hidden_size": WIDTH,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": 4,
    "intermediate_size": 2 * WIDTH,
    "max_position_embeddings": LONGEST,
}
_DECODER = _SIZES | {"num_key_value_heads": 2, "eos_token_id": 1, "bos_token_id": None}
_T5 = {"d_model": WIDTH, "d_kv": 32, "d_ff": 2 * WIDTH, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0}
_OPT = {"word_embed_proj_dim": WIDTH, "ffn_dim": 2 * WIDTH, "eos_token_id": 1, "bos_token_id": 1}
FAMILIES: dict[str, dict[str, Any]] = {
    "Bert": _SIZES,
    "DistilBert": {"dim": WIDTH, "n_layers": DEPTH, "n_heads": 4, "hidden_dim": 2 * WIDTH},
    "Electra": _SIZES | {"embedding_size": 64},
    "Albert": _SIZES | {"embedding_size": 64, "num_hidden_layers": DEPTH},
    "MPNet": _SIZES | {"max_position_embeddings": LONGEST + 2},  # they begin after the padding token
    "GPT2": {"n_embd": WIDTH, "n_layer": DEPTH, "n_head": 4, "n_positions": LONGEST, "eos_token_id": 1},
    "OPT": _SIZES | _OPT,
    "Llama": _DECODER,
    "Qwen2": _DECODER,
    "Qwen3": _DECODER | {"head_dim": 32},
    "Phi3": _DECODER,
    "T5": _T5,
}


class Encoder(nn.Module):
    """`nn.TransformerEncoder` over tokens with a padding mask, and the mean over tokens; 2.4 million parameters."""

    def __init__(self, words: int = WORDS, width: int = 200, depth: int = 4) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, batch_first=True)
        self.embedding, self.position = nn.Embedding(words, width), nn.Embedding(LONGEST, width)
        self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.head = nn.Linear(width, 1)

    def forward(self, texts: Texts) -> Tensor:
        """Scores [items]."""
        kept = texts["attention_mask"].bool()
        places = torch.arange(kept.shape[1], device=kept.device)
        hidden = self.encoder(self.embedding(texts["input_ids"]) + self.position(places), src_key_padding_mask=~kept)
        mean = (hidden * kept[..., None]).sum(dim=1) / kept.sum(dim=1, keepdim=True)
        scores: Tensor = self.head(mean).squeeze(-1)
        return scores


class Classifier(nn.Module):
    """A model for sequence classification with one label."""

    def __init__(self, family: str) -> None:
        super().__init__()
        transformers = importlib.import_module("transformers")
        sizes = {"vocab_size": WORDS, "num_labels": 1, "pad_token_id": 0, **FAMILIES[family]}
        config = getattr(transformers, f"{family}Config")(**sizes)
        self.model = getattr(transformers, f"{family}ForSequenceClassification")(config)

    def forward(self, texts: Texts) -> Tensor:
        """Scores [items]."""
        scores: Tensor = self.model(**texts).logits[:, 0]
        return scores


def encoder(count: int) -> Task:
    """`count` texts in random pairs, and five test pairs of ten others."""
    torch.manual_seed(0)
    return _task(Encoder() if count > 20 else Encoder(width=16, depth=1), count)


def family(name: str, count: int) -> Task:
    """The same with a model of the package transformers."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    torch.manual_seed(0)
    return _task(Classifier(name), count)


def has_transformers() -> bool:
    """Whether the package is there."""
    return importlib.util.find_spec("transformers") is not None


def _task(model: nn.Module, count: int) -> Task:
    lengths = torch.randint(LONGEST // 4, LONGEST + 1, (count + 10,))
    kept = torch.arange(LONGEST) < lengths[:, None]
    words = torch.randint(2, WORDS, (count + 10, LONGEST)) * kept
    words[torch.arange(count + 10), lengths - 1] = 1  # the end of a text, which T5 reads
    first = torch.arange(count)
    second = (first + torch.randint(1, count, (count,))) % count
    train = Pairs(first, second, torch.ones(count))
    test = Pairs(torch.arange(count, count + 5), torch.arange(count + 5, count + 10), torch.ones(5))
    texts = {"input_ids": words, "attention_mask": kept.long()}
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    return Task(model.eval(), texts, train, [Checkpoint(state, learning_rate=0.1)], test, LogisticLoss())

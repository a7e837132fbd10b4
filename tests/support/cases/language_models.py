"""Small language models in the ways that large ones are written, and texts for them.

Each takes a batch of `input_ids` and `attention_mask` [items, positions] and returns scores [items, 1]. Masks that hide
nothing are dropped, as attention implementations do: an `if` on data.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from tests.support.cases.reference import Make

Batch = dict[str, Tensor]
WORDS, WIDTH, HEADS, LONGEST = 13, 8, 2, 12  # vocabulary, features, attention heads, positions
LENGTHS = (4, 7, 5, 7, 3, 6)


# Texts


def texts(side: Literal["left", "right"] = "right") -> Batch:
    """Six texts of `LENGTHS` tokens, padded with 0 at `side`."""
    generator = torch.Generator().manual_seed(5)
    tokens = torch.zeros(len(LENGTHS), max(LENGTHS), dtype=torch.long)
    for row, length in zip(tokens, LENGTHS, strict=True):
        places = slice(0, length) if side == "right" else slice(-length, None)
        row[places] = torch.randint(1, WORDS, (length,), generator=generator)
    return {"input_ids": tokens, "attention_mask": (tokens != 0).long()}


def unpadded(items: Batch, position: int) -> dict[str, Any]:
    """One text as a batch of one without its padding; columns of one number per text in float64."""
    kept = items["attention_mask"][position].bool()
    return {
        name: column[position : position + 1, kept] if column.ndim == 2 else column[position : position + 1].double()
        for name, column in items.items()
    }


# Parts


def split_heads(hidden: Tensor) -> Tensor:
    """[items, positions, features] -> [items, heads, positions, features per head]."""
    return hidden.unflatten(2, (HEADS, -1)).transpose(1, 2)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, *, causal: bool) -> Tensor:
    """Attention by torch's function; `mask` [items, positions] is left out where it hides nothing."""
    positions = query.shape[2]
    if bool(mask.all()):
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=causal and positions > 1)
    else:
        seen = mask.bool()[:, None, None, :]
        if causal:
            seen = seen & torch.ones(positions, positions, dtype=torch.bool, device=mask.device).tril()
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=seen)
    return attended.transpose(1, 2).flatten(2)


class RootMeanSquare(nn.Module):
    """The normalisation of Llama and T5, written out."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(WIDTH) + 0.5)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.weight * (hidden * torch.rsqrt(hidden.square().mean(dim=-1, keepdim=True) + 1e-6))


class Transposed(nn.Module):
    """The linear layer of GPT-2: its weight is [inputs, outputs], applied by `addmm`."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(0.3 * torch.randn(inputs, outputs)), nn.Parameter(torch.zeros(outputs))

    def forward(self, hidden: Tensor) -> Tensor:
        flat = torch.addmm(self.bias, hidden.view(-1, hidden.shape[-1]), self.weight)
        return flat.view(*hidden.shape[:-1], -1)


class Attention(nn.Module):
    """Query, key, value and output projections made by `linear`; `turn` changes queries and keys by position."""

    def __init__(
        self, linear: Callable[[int, int], nn.Module], *, causal: bool, turn: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (linear(WIDTH, WIDTH) for _ in range(4))
        self.causal, self.turn = causal, turn

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        query, key, value = (split_heads(part(hidden)) for part in (self.query, self.key, self.value))
        if self.turn is not None:
            query, key = self.turn(query), self.turn(key)
        return self.out(attend(query, key, value, mask, causal=self.causal))


def rotated(heads: Tensor) -> Tensor:
    """Rotary positions of queries or keys [items, heads, positions, features]."""
    half = heads.shape[-1] // 2
    frequency = 10.0 ** -torch.arange(half, dtype=heads.dtype)
    angle = torch.arange(heads.shape[2], dtype=heads.dtype)[:, None] * frequency
    cosine, sine = (torch.cat([part, part], dim=-1) for part in (angle.cos(), angle.sin()))
    first, second = heads.chunk(2, dim=-1)
    return heads * cosine + torch.cat([-second, first], dim=-1) * sine


def at_last_token(scores: Tensor, mask: Tensor) -> Tensor:
    """The score [items, 1] of [items, positions, 1] at the last token that is no padding."""
    positions = torch.arange(mask.shape[1], device=mask.device)
    last = (positions * mask).argmax(dim=-1)
    return scores[torch.arange(len(scores), device=scores.device), last]


# Models


class BertLike(nn.Module):
    """Words, positions and segments are added; normalised afterwards; a pooled first token."""

    def __init__(self) -> None:
        super().__init__()
        self.word, self.position, self.segment = (nn.Embedding(rows, WIDTH) for rows in (WORDS, LONGEST, 2))
        self.norm, self.attention_norm, self.output_norm = (nn.LayerNorm(WIDTH) for _ in range(3))
        self.attention = Attention(nn.Linear, causal=False)
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)
        self.pooler, self.classifier = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 1)
        self.register_buffer("position_ids", torch.arange(LONGEST)[None], persistent=False)

    def forward(self, batch: Batch) -> Tensor:
        tokens = batch["input_ids"]
        positions = self.position(self.position_ids[:, : tokens.shape[1]])
        hidden = self.norm(self.word(tokens) + self.segment(torch.zeros_like(tokens)) + positions)
        hidden = self.attention_norm(hidden + self.attention(hidden, batch["attention_mask"]))
        hidden = self.output_norm(hidden + self.down(F.gelu(self.up(hidden))))
        return self.classifier(self.pooler(hidden[:, 0]).tanh())


class LlamaLike(nn.Module):
    """Rotary positions, written-out normalisation, a gated layer; scored at the last token.

    Without a padding token the last token is unknown: batches of several texts are refused, one text is scored at its
    last position.
    """

    def __init__(self, *, padding: int | None = 0) -> None:
        super().__init__()
        self.word = nn.Embedding(WORDS, WIDTH)
        self.attention = Attention(lambda i, o: nn.Linear(i, o, bias=False), causal=True, turn=rotated)
        self.first_norm, self.second_norm, self.last_norm = (RootMeanSquare() for _ in range(3))
        self.gate, self.up = (nn.Linear(WIDTH, 2 * WIDTH, bias=False) for _ in range(2))
        self.down, self.score = nn.Linear(2 * WIDTH, WIDTH, bias=False), nn.Linear(WIDTH, 1, bias=False)
        self.padding = padding

    def forward(self, batch: Batch) -> Tensor:
        tokens, mask = batch["input_ids"], batch["attention_mask"]
        if self.padding is None and len(tokens) > 1:
            raise ValueError(NO_PADDING)
        hidden = self.word(tokens)
        hidden = hidden + self.attention(self.first_norm(hidden), mask)
        normed = self.second_norm(hidden)
        hidden = hidden + self.down(F.silu(self.gate(normed)) * self.up(normed))
        scores = self.score(self.last_norm(hidden))
        return scores[:, -1] if self.padding is None else at_last_token(scores, mask)


NO_PADDING = "several texts need a padding token, and none is defined"


class GPT2Like(nn.Module):
    """Positions are added; linear layers by `addmm`; normalised first.

    With `counted`, positions are counted along the mask, as OPT does.
    """

    def __init__(self, *, counted: bool = False) -> None:
        super().__init__()
        self.word, self.position = nn.Embedding(WORDS, WIDTH), nn.Embedding(LONGEST + 2, WIDTH)
        self.first_norm, self.second_norm, self.last_norm = (nn.LayerNorm(WIDTH) for _ in range(3))
        self.attention = Attention(Transposed, causal=True)
        self.up, self.down = Transposed(WIDTH, 2 * WIDTH), Transposed(2 * WIDTH, WIDTH)
        self.score, self.counted = nn.Linear(WIDTH, 1, bias=False), counted

    def forward(self, batch: Batch) -> Tensor:
        tokens, mask = batch["input_ids"], batch["attention_mask"]
        positions = torch.arange(tokens.shape[1], device=tokens.device)[None]
        if self.counted:
            positions = mask.cumsum(dim=1) * mask + 1
        hidden = self.word(tokens) + self.position(positions)
        hidden = hidden + self.attention(self.first_norm(hidden), mask)
        hidden = hidden + self.down(F.gelu(self.up(self.second_norm(hidden)), approximate="tanh"))
        return at_last_token(self.score(self.last_norm(hidden)), mask)


class T5Like(nn.Module):
    """A learnt bias by relative position is added to the attention's logits; no scale; written-out normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.word, self.relative = nn.Embedding(WORDS, WIDTH), nn.Embedding(5, HEADS)
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(4))
        self.first_norm, self.second_norm, self.last_norm = (RootMeanSquare() for _ in range(3))
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH, bias=False), nn.Linear(2 * WIDTH, WIDTH, bias=False)
        self.score = nn.Linear(WIDTH, 1)

    def forward(self, batch: Batch) -> Tensor:
        tokens, mask = batch["input_ids"], batch["attention_mask"]
        hidden = self.word(tokens)
        normed = self.first_norm(hidden)
        query, key, value = (split_heads(part(normed)) for part in (self.query, self.key, self.value))
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        distance = (positions[None, :] - positions[:, None]).clamp(-2, 2) + 2
        bias = self.relative(distance).permute(2, 0, 1)[None]
        masked = (1 - mask[:, None, None, :].to(hidden.dtype)) * torch.finfo(hidden.dtype).min
        weights = (query @ key.transpose(2, 3) + bias + masked).softmax(dim=-1)
        hidden = hidden + self.out((weights @ value).transpose(1, 2).flatten(2))
        hidden = hidden + self.down(self.up(self.second_norm(hidden)).relu())
        return at_last_token(self.score(self.last_norm(hidden)), mask)


MODELS: dict[str, Make] = {
    "BERT": BertLike,
    "Llama": LlamaLike,
    "GPT-2": GPT2Like,
    "OPT": lambda: GPT2Like(counted=True),
    "T5": T5Like,
}


class Positioned(nn.Module):
    """Adds absolute positions and averages what the mask shows: padding at the left shifts every position."""

    def __init__(self) -> None:
        super().__init__()
        self.word, self.position = nn.Embedding(WORDS, WIDTH), nn.Embedding(LONGEST, WIDTH)
        self.body, self.out = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 1)

    def forward(self, batch: Batch) -> Tensor:
        tokens, mask = batch["input_ids"], batch["attention_mask"][..., None]
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        hidden = self.body(self.word(tokens) + self.position(positions)).tanh() * mask
        return self.out(hidden.sum(dim=1) / mask.sum(dim=1))


class Preference(nn.Module):
    """A log-probability of each text less the stored one of a reference model, as for preference training."""

    def __init__(self) -> None:
        super().__init__()
        self.word, self.head = nn.Embedding(WORDS, WIDTH), nn.Linear(WIDTH, WORDS)

    def forward(self, batch: Batch) -> Tensor:
        tokens, mask = batch["input_ids"], batch["attention_mask"]
        predicted = self.head(self.word(tokens[:, :-1])).log_softmax(dim=-1)
        log_probability = predicted.gather(2, tokens[:, 1:, None])[..., 0] * mask[:, 1:]
        return 0.5 * (log_probability.sum(dim=1) - batch["reference"])


def preferences(offset: float) -> Batch:
    """Texts and what a reference model gave them, `offset` and less."""
    return texts() | {"reference": offset + torch.tensor([0.3, -0.4, 0.1, 0.45, -0.2, 0.25])}


# Rerankers that see a whole list


class Listwise(nn.Module):
    """Every document attends to those it is scored with, [documents, features] -> [documents]."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.out = nn.Linear(5, WIDTH), nn.Linear(WIDTH, 1)
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)

    def lists(self, documents: Tensor) -> Tensor:
        """[lists, documents, features] -> [lists, documents]."""
        hidden = self.embed(documents)
        attended, _ = self.attention(3 * hidden, hidden, hidden, need_weights=False)
        return self.out((attended + 0.2 * hidden).tanh())[..., 0]

    def forward(self, documents: Tensor) -> Tensor:
        return self.lists(documents[None])[0]


class InList(Listwise):
    """Items carry their list and their place in it."""

    def forward(self, batch: Any) -> Tensor:
        return self.lists(batch["list"]).gather(1, batch["place"][:, None])

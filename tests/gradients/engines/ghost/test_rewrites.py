"""Attention and encoders of torch: every parameter is captured, whatever the order of axes, masks and projections."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from tests.support.architectures import Body
from tests.support.cases.encoders import Encoder, texts
from tests.support.jobs import job_of, scores
from tracin_func.gradients.engines.ghost.rewrites import attention

from .test_derived import ITEMS, POSITIONS, TEST, TRAIN, WIDTH, captured, noise

HEADS = 2


def padded() -> Tensor:
    """True behind 2 to `POSITIONS` positions of an item."""
    lengths = 2 + torch.arange(ITEMS) % (POSITIONS - 1)
    return torch.arange(POSITIONS) >= lengths[:, None]


def causal(dtype: torch.dtype = torch.bool) -> Tensor:
    hidden = torch.ones(POSITIONS, POSITIONS, dtype=torch.bool).triu(1)
    return hidden if dtype == torch.bool else torch.zeros(hidden.shape, dtype=dtype).masked_fill(hidden, -torch.inf)


def by_head() -> Tensor:
    return torch.randn(ITEMS * HEADS, POSITIONS, POSITIONS, generator=torch.Generator().manual_seed(3)).double()


MASKS: dict[str, dict[str, Any]] = {
    "none": {},
    "padding": {"key_padding_mask": padded()},
    "causal": {"attn_mask": causal(), "is_causal": True},
    "padding and causal": {"key_padding_mask": padded(), "attn_mask": causal()},
    "numbers": {"attn_mask": causal(torch.float64), "key_padding_mask": padded().double() * -3},
    "by head": {"attn_mask": by_head()},
}


@pytest.mark.parametrize("weights", ["none", "mean", "all"])
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("own", ["self", "memory", "sizes", "no bias"])
def test_attention_is_torchs(own: str, mask: str, weights: str) -> None:
    """Output and weights of the function that is rewritten."""
    torch.manual_seed(0)
    size = 4 if own == "sizes" else WIDTH
    module = nn.MultiheadAttention(WIDTH, HEADS, kdim=size, vdim=size, bias=own != "no bias").double().eval()
    query = noise(POSITIONS, WIDTH).transpose(0, 1)
    memory = query if own in ("self", "no bias") else noise(POSITIONS, size).flip(1).transpose(0, 1)
    settings = {"need_weights": weights != "none", "average_attn_weights": weights == "mean", **MASKS[mask]}
    called: list[tuple[Any, Any]] = []

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is F.multi_head_attention_forward:
                called.append((attention(*args, **kwargs), func(*args, **kwargs)))
                return called[0][1]
            return func(*args, **(kwargs or {}))

    with Watch():
        module(query, memory, memory, **settings)
    ((found, right),) = called
    torch.testing.assert_close(found, right, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("settings", [{"add_bias_kv": True}, {"add_zero_attn": True}])
def test_rare_settings_of_attention(settings: dict[str, bool]) -> None:
    """They are not rewritten; scores are right all the same."""
    torch.manual_seed(0)
    mix = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True, **settings)
    module = Body(lambda self, x: self.out(self.mix(x, x, x)[0].tanh().mean(dim=1)), mix=mix, out=nn.Linear(WIDTH, 1))
    job = job_of(module.double(), noise(POSITIONS, WIDTH), train=TRAIN, test=TEST)
    exact = scores(job, "loop").self_influence
    found = scores(job, "auto").self_influence
    assert found is not None
    assert exact is not None
    torch.testing.assert_close(found.scores, exact.scores, rtol=1e-9, atol=0)


class Coder(nn.Module):
    """An encoder, and a decoder that attends to it; positions first or items first."""

    def __init__(self, *, batch_first: bool, norm_first: bool = False, decoder: bool = False) -> None:
        super().__init__()
        settings: dict[str, Any] = {"dropout": 0.1, "batch_first": batch_first, "norm_first": norm_first}
        self.place = nn.Parameter(0.3 * torch.randn(POSITIONS, 1, WIDTH))
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 7, **settings)
        self.encoder = nn.TransformerEncoder(layer, 2, nn.LayerNorm(WIDTH), enable_nested_tensor=False)
        self.decoder = nn.TransformerDecoderLayer(WIDTH, HEADS, 7, **settings) if decoder else None
        self.out, self.batch_first = nn.Linear(WIDTH, 1), batch_first

    def forward(self, x: dict[str, Tensor]) -> Tensor:
        hidden, hides = x["hidden"], x["padded"]
        if not self.batch_first:
            hidden = hidden.transpose(0, 1)
        hidden = hidden + (self.place.transpose(0, 1) if self.batch_first else self.place)
        mixed = self.encoder(hidden, src_key_padding_mask=hides)
        if self.decoder is not None:
            mixed = self.decoder(hidden, mixed, tgt_mask=causal(), memory_key_padding_mask=hides)
        return self.out(mixed[:, 0] if self.batch_first else mixed[0])


@pytest.mark.parametrize("batch_size", [1, POSITIONS, 6])
@pytest.mark.parametrize("decoder", [False, True])
@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_encoders_and_decoders(batch_first: bool, norm_first: bool, decoder: bool, batch_size: int) -> None:
    """Also in batches of as many items as positions, whose axes sizes do not tell apart."""
    torch.manual_seed(0)
    module = Coder(batch_first=batch_first, norm_first=norm_first, decoder=decoder)
    captured(module, {"hidden": noise(POSITIONS, WIDTH), "padded": padded()}, batch_size=batch_size)


@pytest.mark.parametrize("copies", [2, 3])
def test_as_many_times_more_positions_than_items(copies: int) -> None:
    """Flat positions of several items would look the same."""
    torch.manual_seed(0)
    module = Coder(batch_first=False)
    module.place = nn.Parameter(0.3 * torch.randn(4 * copies, 1, WIDTH))
    items = {"hidden": noise(4 * copies, WIDTH), "padded": torch.zeros(ITEMS, 4 * copies, dtype=torch.bool)}
    captured(module, items, batch_size=4)


def test_an_encoder_of_texts() -> None:
    torch.manual_seed(0)
    captured(Encoder("masked"), texts(ITEMS))

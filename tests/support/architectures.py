"""Small scorers, each named for the trap it sets for whoever computes one gradient per item."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812
import torch.nn.utils.parametrize as parametrize
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

ITEMS = 6


@dataclass(frozen=True)
class Architecture:
    """A row of the table. `refused`: whether the engines `pair` and `item` refuse it; what vmap makes of an LSTM
    depends on torch's version and the precision."""

    name: str
    make: Callable[[], tuple[nn.Module, Any]]
    refused: Literal["never", "sometimes", "always"] = "never"
    coupled: bool = False
    constant: bool = False  # refused by every engine: its score depends on no parameter
    on_meta: bool = True

    def __call__(self, seed: int = 0) -> tuple[nn.Module, Any]:
        """The scorer and its items, float32, the same for the same seed; running statistics are not the defaults."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1000 + seed)
            module, items = self.make()
            for name, buffer in module.named_buffers():
                if name.endswith("running_mean"):
                    buffer.normal_()
                if name.endswith("running_var"):
                    buffer.uniform_(0.5, 2.0)
        return module, items


class Body(nn.Module):
    """A scorer of any parts and a function of them and the items."""

    def __init__(self, function: Callable[..., Tensor], **parts: Any) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self.function = function

    def forward(self, items: Any) -> Tensor:
        return self.function(self, items)


ARCHITECTURES: list[Architecture] = []


def row(name: str, **flags: Any) -> Callable[[Callable[[], tuple[nn.Module, Any]]], None]:
    def add(make: Callable[[], tuple[nn.Module, Any]]) -> None:
        ARCHITECTURES.append(Architecture(name, make, **flags))

    return add


def noise(*shape: int) -> Tensor:
    return torch.randn(ITEMS, *shape)


def head(layer: nn.Module, items: Tensor) -> tuple[nn.Module, Tensor]:
    """`layer`, a smooth activation, and a linear score of everything that comes out."""
    width = layer(items[:2]).flatten(1).shape[1]
    return nn.Sequential(layer, nn.Tanh(), nn.Flatten(), nn.Linear(width, 1)), items


def simple(name: str, layer: Callable[[], nn.Module], *shape: int, **flags: Any) -> None:
    row(name, **flags)(lambda: head(layer(), noise(*shape)))


simple("linear on [items, features]", lambda: nn.Linear(5, 4), 5)
simple("linear on [items, positions, features]", lambda: nn.Linear(5, 4), 3, 5)
simple("linear on [items, rows, columns, features]", lambda: nn.Linear(5, 4), 2, 3, 5)
simple("linear without bias", lambda: nn.Linear(5, 4, bias=False), 5)
simple("as many features as items", lambda: nn.Linear(ITEMS, ITEMS), ITEMS)
simple("bilinear with itself", lambda: Body(lambda self, x: self.mix(x, x), mix=nn.Bilinear(4, 4, 3)), 4)
simple("convolution of 1 dimension", lambda: nn.Conv1d(2, 3, 3), 2, 7)
simple("convolution of 2 dimensions", lambda: nn.Conv2d(2, 3, (3, 2)), 2, 5, 4)
simple("convolution of 3 dimensions", lambda: nn.Conv3d(2, 3, 2), 2, 3, 3, 3)
simple("convolution without bias", lambda: nn.Conv2d(2, 3, 3, bias=False), 2, 5, 4)
simple("strided convolution of volumes", lambda: nn.Conv3d(2, 3, 2, stride=(1, 2, 1), padding=(0, 1, 1)), 2, 2, 3, 3)
simple("convolution in groups", lambda: nn.Conv2d(4, 6, 3, groups=2), 4, 5, 5)
simple("depthwise convolution", lambda: nn.Conv2d(4, 4, 3, groups=4, padding=1), 4, 5, 5)
simple("dilated convolution", lambda: nn.Conv2d(2, 3, 3, dilation=2, padding=1), 2, 6, 6)
simple("strided convolution that leaves a remainder", lambda: nn.Conv2d(2, 3, 3, stride=2), 2, 6, 6)
simple("convolution of many channels", lambda: nn.Conv2d(5, 3, 3, stride=2, padding=1), 5, 6, 6)
simple("convolution padded 'same'", lambda: nn.Conv2d(2, 3, (3, 5), padding="same", dilation=(3, 1)), 2, 5, 5)
simple("convolution padded 'valid'", lambda: nn.Conv2d(2, 3, 3, padding="valid"), 2, 5, 5)
simple("convolution padded circularly", lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), 2, 5, 5)
simple("convolution padded by reflection", lambda: nn.Conv1d(2, 3, 3, padding=2, padding_mode="reflect"), 2, 7)
simple("convolution padded by replication", lambda: nn.Conv3d(1, 2, 2, padding=1, padding_mode="replicate"), 1, 2, 2, 2)
simple("transposed convolution", lambda: nn.ConvTranspose2d(2, 3, 3, stride=2, output_padding=1), 2, 3, 3)
simple("batch normalisation of features, eval", lambda: nn.BatchNorm1d(5).eval(), 5)
simple("batch normalisation of channels, eval", lambda: nn.BatchNorm2d(3, eps=0.1).eval(), 3, 4, 4)
simple("batch normalisation of volumes, eval", lambda: nn.BatchNorm3d(2).eval(), 2, 2, 2, 3)
simple("instance normalisation", lambda: nn.InstanceNorm2d(3, eps=0.1, affine=True), 3, 4, 4)
simple(
    "instance normalisation that tracks",
    lambda: nn.InstanceNorm1d(3, affine=True, track_running_stats=True).eval(),
    3,
    4,
)
simple("group normalisation", lambda: nn.GroupNorm(2, 4, eps=0.1), 4, 3, 3)
simple("layer normalisation", lambda: nn.LayerNorm(5, eps=0.1), 3, 5)
simple("layer normalisation over two axes, no bias", lambda: nn.LayerNorm((3, 5), bias=False), 3, 5)
simple("RMS normalisation", lambda: nn.RMSNorm(5, eps=0.1), 3, 5)
simple("learnt slope", lambda: nn.PReLU(3), 3, 4)
simple("weight norm by parametrisation", lambda: parametrizations.weight_norm(nn.Linear(5, 4)), 5)
simple("spectral norm by parametrisation, eval", lambda: parametrizations.spectral_norm(nn.Linear(5, 4)).eval(), 5)
simple("orthogonal parametrisation", lambda: parametrizations.orthogonal(nn.Linear(4, 4), "weight", "cayley"), 4)


@row("convolutions in a row")
def _() -> tuple[nn.Module, Any]:
    """Of few columns, of a large weight, and of neither: what costs least differs."""
    blocks = [nn.Conv2d(1, 31, 3, padding=1), nn.BatchNorm2d(31), nn.Softplus(), nn.AvgPool2d(2)]
    blocks += [nn.Conv2d(31, 31, 3, padding=1), nn.Tanh(), nn.Conv2d(31, 4, 3)]
    pooled = nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(*blocks, *pooled, nn.Linear(4, 1)).eval(), noise(1, 9, 9)


@row("few channels last: strides, dilation and groups")
def _() -> tuple[nn.Module, Any]:
    """A convolution follows each, so that gradients come with the channels last; no number is another's."""
    blocks = [nn.Conv2d(2, 4, (2, 3), stride=(3, 1), padding=(1, 4), dilation=(1, 2)), nn.Tanh()]
    blocks += [nn.Conv2d(4, 4, 2), nn.Tanh(), nn.Conv2d(4, 4, 1, groups=2), nn.Tanh(), nn.Conv2d(4, 2, 1), nn.Tanh()]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 1)), noise(2, 9, 7)


@row("convolutions flattened by a view")
def _() -> tuple[nn.Module, Any]:
    """Which another layout in memory does not allow."""

    def forward(self: Any, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.second(torch.tanh(self.first(x))))
        return self.out(hidden.view(len(x), -1))

    return Body(forward, first=nn.Conv2d(2, 4, 3), second=nn.Conv2d(4, 3, 2), out=nn.Linear(12, 1)), noise(2, 5, 5)


class _Symmetric(nn.Module):
    def forward(self, raw: Tensor) -> Tensor:
        return raw.triu() + raw.triu(1).mT


@row("parametrisation of one's own")
def _() -> tuple[nn.Module, Any]:
    layer = nn.Linear(4, 4)
    parametrize.register_parametrization(layer, "weight", _Symmetric())
    return head(layer, noise(4))


@row("embedding with padding_idx")
def _() -> tuple[nn.Module, Any]:
    tokens = torch.tensor([[1, 2, 0], [3, 4, 5], [2, 2, 6], [5, 0, 0], [6, 1, 1], [4, 6, 0]])
    embed = nn.Embedding(7, 3, padding_idx=0)
    return Body(lambda self, x: self.out(self.embed(x).tanh().mean(1)), embed=embed, out=nn.Linear(3, 1)), tokens


@row("embedding by function with a padding_idx from the end")
def _() -> tuple[nn.Module, Any]:
    tokens = torch.tensor([[1, 2, 6], [3, 4, 5], [2, 2, 0], [5, 6, 6], [0, 1, 1], [4, 0, 6]])
    module = Body(lambda self, x: self.out(F.embedding(x, self.table, padding_idx=-1).tanh().mean(1)))
    module.table, module.out = nn.Parameter(torch.randn(7, 3)), nn.Linear(3, 1)
    return module, tokens


@row("bag of embeddings")
def _() -> tuple[nn.Module, Any]:
    bag = nn.EmbeddingBag(7, 3, mode="mean")
    return Body(lambda self, x: self.out(self.bag(x).tanh()), bag=bag, out=nn.Linear(3, 1)), torch.randint(
        0, 7, (ITEMS, 4)
    )


def _masked(self: Any, x: dict[str, Tensor]) -> Tensor:
    mixed, _ = self.attend(x["tokens"], x["tokens"], x["tokens"], key_padding_mask=x["padded"])
    return self.out(mixed[:, 0])


@row("attention with a mask")
def _() -> tuple[nn.Module, Any]:
    padded = torch.zeros(ITEMS, 5, dtype=torch.bool)
    padded[1, 3:] = padded[4, 2:] = True
    attend = nn.MultiheadAttention(4, 2, batch_first=True)
    return Body(_masked, attend=attend, out=nn.Linear(4, 1)), {"tokens": noise(5, 4), "padded": padded}


@row("attention with the sequence first")
def _() -> tuple[nn.Module, Any]:
    def forward(self: Any, x: Tensor) -> Tensor:
        x = x.transpose(0, 1)
        return self.out(self.attend(x, x, x, need_weights=False)[0].mean(0))

    return Body(forward, attend=nn.MultiheadAttention(4, 2), out=nn.Linear(4, 1)), noise(5, 4)


@row("causal attention by function")
def _() -> tuple[nn.Module, Any]:
    def forward(self: Any, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True)[:, -1])

    return Body(forward, qkv=nn.Linear(4, 12), out=nn.Linear(4, 1)), noise(5, 4)


@row("transformer block with a fast path in eval")
def _() -> tuple[nn.Module, Any]:
    block = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.3, batch_first=True, activation="gelu")
    return Body(lambda self, x: self.out(self.block(x)[:, 0]), block=block, out=nn.Linear(4, 1)), noise(5, 4)


def _recurrent(self: Any, x: Tensor) -> Tensor:
    return self.out(self.cell(x)[0][:, -1])


@row("LSTM", refused="sometimes", on_meta=False)
def _() -> tuple[nn.Module, Any]:
    return Body(_recurrent, cell=nn.LSTM(3, 4, batch_first=True), out=nn.Linear(4, 1)), noise(5, 3)


@row("LSTM of two layers both ways", refused="sometimes", on_meta=False)
def _() -> tuple[nn.Module, Any]:
    cell = nn.LSTM(3, 2, num_layers=2, bidirectional=True, batch_first=True)
    return Body(_recurrent, cell=cell, out=nn.Linear(4, 1)), noise(5, 3)


@row("GRU", refused="always")
def _() -> tuple[nn.Module, Any]:
    return Body(_recurrent, cell=nn.GRU(3, 4, batch_first=True), out=nn.Linear(4, 1)), noise(5, 3)


@row("RNN", refused="always")
def _() -> tuple[nn.Module, Any]:
    return Body(_recurrent, cell=nn.RNN(3, 4, batch_first=True), out=nn.Linear(4, 1)), noise(5, 3)


@row("recurrent cell in a loop")
def _() -> tuple[nn.Module, Any]:
    def forward(self: Any, x: Tensor) -> Tensor:
        state = torch.zeros_like(x[:, 0])
        for position in range(x.shape[1]):
            state = torch.tanh(self.inward(x[:, position]) + self.onward(state))
        return self.out(state)

    return Body(forward, inward=nn.Linear(3, 3), onward=nn.Linear(3, 3), out=nn.Linear(3, 1)), noise(4, 3)


@row("siamese: one module under two names")
def _() -> tuple[nn.Module, Any]:
    shared = nn.Sequential(nn.Linear(5, 4), nn.Tanh())
    module = Body(
        lambda self, x: self.out(self.left(x) * self.right(x.flip(1))), left=shared, right=shared, out=nn.Linear(4, 1)
    )
    return module, noise(5)


@row("tied weights: an embedding is also the output layer")
def _() -> tuple[nn.Module, Any]:
    embed, out = nn.Embedding(6, 3), nn.Linear(3, 6, bias=False)
    out.weight = embed.weight
    module = Body(lambda self, x: self.out(self.embed(x).tanh().mean(1))[:, 1], embed=embed, out=out)
    return module, torch.randint(0, 6, (ITEMS, 4))


@row("tied weights used as a function of the other's weight")
def _() -> tuple[nn.Module, Any]:
    module = Body(lambda self, x: F.linear(self.embed(x).mean(1), self.embed.weight)[:, 2], embed=nn.Embedding(6, 3))
    return module, torch.randint(0, 6, (ITEMS, 4))


@row("a tied parameter inside a shared module")
def _() -> tuple[nn.Module, Any]:
    shared, other = nn.Linear(4, 4), nn.Linear(4, 4)
    other.weight = shared.weight
    module = Body(
        lambda self, x: self.out(self.first(x).tanh() + self.second(self.other(x)).tanh()),
        first=shared,
        second=shared,
        other=other,
        out=nn.Linear(4, 1),
    )
    return module, noise(4)


@row("a block applied twice")
def _() -> tuple[nn.Module, Any]:
    block = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
    return Body(lambda self, x: self.out(self.block(self.block(x))), block=block, out=nn.Linear(4, 1)), noise(4)


@row("a layer's weight used by a function")
def _() -> tuple[nn.Module, Any]:
    module = Body(
        lambda self, x: (F.linear(x, self.layer.weight).tanh() @ self.layer.weight).sum(1), layer=nn.Linear(4, 3)
    )
    return module, noise(4)


@row("learnt offsets added: one for all items, one a row, one in place")
def _() -> tuple[nn.Module, Any]:
    """Most of the parameters, so that no rule for them is a refusal."""

    def forward(self: Any, x: Tensor) -> Tensor:
        x = (x + self.places).tanh()
        x = self.of_rows + x
        x += self.of_columns
        return self.out(x.tanh().mean(1))

    module = Body(forward, out=nn.Linear(5, 1))
    module.places = nn.Parameter(torch.randn(1, 3, 5))
    module.of_rows, module.of_columns = nn.Parameter(torch.randn(3, 1)), nn.Parameter(torch.randn(5))
    return module, noise(3, 5)


@row("a learnt offset added twice over")
def _() -> tuple[nn.Module, Any]:
    """`alpha`, which the rule of an addition leaves to vmap."""
    module = Body(lambda self, x: self.out(torch.add(self.layer(x), self.offset, alpha=2).tanh()))
    module.layer, module.out = nn.Linear(4, 4), nn.Linear(4, 1)
    module.offset = nn.Parameter(torch.randn(4))
    return module, noise(4)


@row("a slice of a weight")
def _() -> tuple[nn.Module, Any]:
    module = Body(lambda self, x: self.out((x @ self.layer.weight[:2].T).tanh()), layer=nn.Linear(4, 5))
    module.out = nn.Linear(2, 1)
    return module, noise(4)


@row("raw parameters: a number, a vector and a matrix")
def _() -> tuple[nn.Module, Any]:
    module = Body(lambda self, x: self.scale * torch.tanh(x @ self.matrix) @ self.vector)
    module.scale = nn.Parameter(torch.tensor(1.7))
    module.vector = nn.Parameter(torch.randn(3))
    module.matrix = nn.Parameter(torch.randn(4, 3))
    return module, noise(4)


@row("lists and dicts of parameters")
def _() -> tuple[nn.Module, Any]:
    module = Body(
        lambda self, x: sum(((x @ p).tanh() for p in self.many), x @ self.named["final"]),
        many=nn.ParameterList([nn.Parameter(torch.randn(4)) for _ in range(2)]),
        named=nn.ParameterDict({"final": nn.Parameter(torch.randn(4))}),
    )
    return module, noise(4)


@row("a parameter that is never used")
def _() -> tuple[nn.Module, Any]:
    return Body(lambda self, x: self.used(x), used=nn.Linear(4, 1), unused=nn.Linear(4, 2)), noise(4)


def _inplace(name: str, layer: Callable[[], nn.Module], *shape: int) -> None:
    @row(f"in-place activation after {name}")
    def _() -> tuple[nn.Module, Any]:
        first, items = layer(), noise(*shape)
        width = first(items[:2]).flatten(1).shape[1]
        return nn.Sequential(first, nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(width, 1)), items


_inplace("linear", lambda: nn.Linear(5, 4), 5)
_inplace("convolution of 1 dimension", lambda: nn.Conv1d(2, 3, 3), 2, 7)
_inplace("convolution", lambda: nn.Conv2d(2, 3, 3), 2, 5, 5)
_inplace("convolution of 3 dimensions", lambda: nn.Conv3d(1, 2, 2), 1, 3, 3, 3)
_inplace("transposed convolution", lambda: nn.ConvTranspose1d(2, 3, 3), 2, 4)
_inplace("batch normalisation", lambda: nn.BatchNorm2d(3).eval(), 3, 4, 4)
_inplace("group normalisation", lambda: nn.GroupNorm(2, 4), 4, 3)
_inplace("layer normalisation", lambda: nn.LayerNorm(5), 3, 5)
_inplace("weight norm", lambda: parametrizations.weight_norm(nn.Linear(5, 4)), 5)


@row("in-place activation after an embedding")
def _() -> tuple[nn.Module, Any]:
    module = Body(lambda self, x: self.out(F.relu_(self.embed(x)).mean(1)), embed=nn.Embedding(7, 3))
    module.out = nn.Linear(3, 1)
    return module, torch.randint(0, 7, (ITEMS, 4))


@row("in-place addition to an activation")
def _() -> tuple[nn.Module, Any]:
    def forward(self: Any, x: Tensor) -> Tensor:
        hidden = self.first(x)
        hidden += self.second(x)
        hidden.mul_(0.5).tanh_()
        return self.out(hidden)

    return Body(forward, first=nn.Linear(4, 3), second=nn.Linear(4, 3), out=nn.Linear(3, 1)), noise(4)


@row("frozen layers")
def _() -> tuple[nn.Module, Any]:
    module = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1))
    module[0].requires_grad_(False)
    module[2].bias.requires_grad_(False)
    return module, noise(5)


class _Adapted(nn.Module):
    """W x + B A x with W frozen: the low-rank adapter."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(5, 4).requires_grad_(False)
        self.down = nn.Linear(5, 2, bias=False)
        self.up = nn.Linear(2, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.down(x))


simple("low-rank adapters on frozen layers", _Adapted, 5)


@row("scores of shape [items]")
def _() -> tuple[nn.Module, Any]:
    return Body(lambda self, x: self.layer(x).tanh().sum(1), layer=nn.Linear(4, 3)), noise(4)


@row("items in a dict")
def _() -> tuple[nn.Module, Any]:
    def forward(self: Any, x: dict[str, Any]) -> Tensor:
        return self.out(self.embed(x["kind"]) * x["value"]["size"])

    items = {"kind": torch.randint(0, 5, (ITEMS,)), "value": {"size": noise(3)}}
    return Body(forward, embed=nn.Embedding(5, 3), out=nn.Linear(3, 1)), items


@row("items in a tuple")
def _() -> tuple[nn.Module, Any]:
    module = Body(lambda self, x: self.out(self.left(x[0]) * self.right(x[1])), left=nn.Linear(2, 3))
    module.right, module.out = nn.Linear(4, 3), nn.Linear(3, 1)
    return module, (noise(2), noise(4))


@row("items that are numbers")
def _() -> tuple[nn.Module, Any]:
    return Body(lambda self, x: self.layer(x[:, None]).tanh().sum(1), layer=nn.Linear(1, 3)), noise()


@row("a scorer left in train() with dropout and batch normalisation")
def _() -> tuple[nn.Module, Any]:
    module = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Tanh(), nn.Linear(8, 1))
    module[3].eval()
    return module.train(), noise(5)


@row("a score that no parameter enters", constant=True)
def _() -> tuple[nn.Module, Any]:
    return Body(lambda self, x: x.sum(1), layer=nn.Linear(4, 1)), noise(4)


@row("a constant score", constant=True)
def _() -> tuple[nn.Module, Any]:
    return Body(lambda self, x: (0 * self.layer(x)).detach() + 2, layer=nn.Linear(4, 1)), noise(4)


@row("items of zeros")
def _() -> tuple[nn.Module, Any]:
    return head(nn.Linear(4, 3), torch.zeros(ITEMS, 4))


@row("a buffer that enters the score")
def _() -> tuple[nn.Module, Any]:
    module = Body(lambda self, x: self.layer(x * self.window), layer=nn.Linear(4, 1))
    module.register_buffer("window", torch.rand(4))
    module.register_buffer("unsaved", torch.rand(4), persistent=False)
    return module, noise(4)


@row("normalisation by the whole batch", coupled=True)
def _() -> tuple[nn.Module, Any]:
    def forward(self: Any, x: Tensor) -> Tensor:
        x = (x - x.mean()) / (x.std() + 1e-6)
        return self.out(self.act(self.norm(self.conv(x))).flatten(1))

    module = Body(
        forward,
        conv=nn.Conv2d(1, 3, 3),
        norm=nn.BatchNorm2d(3),
        act=nn.ReLU(inplace=True),
        out=nn.Linear(27, 1),
    )
    return module, noise(1, 5, 5)


@row("recomputed activations", refused="always")
def _() -> tuple[nn.Module, Any]:
    def forward(self: Any, x: Tensor) -> Tensor:
        return self.out(checkpoint(self.body, x, use_reentrant=False))

    return Body(forward, body=nn.Sequential(nn.Linear(4, 4), nn.Tanh()), out=nn.Linear(4, 1)), noise(4)


@row("a branch on data", refused="always", coupled=True, on_meta=False)
def _() -> tuple[nn.Module, Any]:
    def forward(self: Any, x: Tensor) -> Tensor:
        return self.out(x) if x.sum().item() > 0 else self.out(x.sin())

    return Body(forward, out=nn.Linear(4, 1)), noise(4)


@row("a boolean mask", refused="always", on_meta=False)
def _() -> tuple[nn.Module, Any]:
    def forward(self: Any, x: Tensor) -> Tensor:
        hidden = self.layer(x)
        return torch.stack([line[line > 0].sum() for line in hidden]) + self.out(hidden)[:, 0]

    return Body(forward, layer=nn.Linear(4, 5), out=nn.Linear(5, 1)), noise(4)


NAMES = [architecture.name for architecture in ARCHITECTURES]
BY_NAME = dict(zip(NAMES, ARCHITECTURES, strict=True))

# Rows most of whose parameters enter an operation without a rule: the engine `ghost` refuses them, and no others.
WITHOUT_RULE = frozenset({"LSTM", "LSTM of two layers both ways", "GRU", "RNN"})
assert set(NAMES) >= WITHOUT_RULE
assert len(BY_NAME) == len(ARCHITECTURES), "two rows have one name"


class JointScorer(nn.Module):
    """Takes both items of a pair: no score of one item exists."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 5), nn.Tanh(), nn.Linear(5, 1))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return self.body(torch.cat([first, second], dim=1)) - self.body(torch.cat([second, first], dim=1))


class JointGRU(nn.Module):
    """A joint scorer that vmap cannot run."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRU(4, 3, batch_first=True)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return self.cell(torch.stack([first, second], dim=1))[0][:, -1].sum(1)

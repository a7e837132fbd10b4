"""Parameters that reach items through other tensors, and operations without a rule of their own."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
import torch.nn.utils.parametrize as parametrize
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

import tracin_func as ti
from tests.support.architectures import Body
from tests.support.jobs import check, job_of
from tests.support.reference import reference

ITEMS, POSITIONS, WIDTH = 8, 5, 6
TRAIN = ti.Pairs([0, 1, 2, 3, 0, 7], [1, 2, 3, 4, 5, 6], [1, -1, 1, 1, -1, 1])
TEST = ti.Pairs([4, 6], [7, 2], [1, -1])


def captured(module: nn.Module, items: Any, **settings: Any) -> dict[str, dict[str, Any]]:
    """The plan of each parameter, where scores equal the reference's and no parameter is left to vmap."""
    job = job_of(module.double(), items, train=TRAIN, test=TEST)
    found = check(job, reference(job), "ghost", torch.float64, **settings).self_influence
    assert found is not None
    parts = {part["parameter"]: part for part in found.run.engine["parts"]}
    assert [name for name, part in parts.items() if part["form"] == "vmap"] == []
    assert parts.keys() == {name for name, _ in module.named_parameters()}
    return parts


def noise(*shape: int) -> Tensor:
    return torch.randn(ITEMS, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def tokens() -> Tensor:
    return torch.randint(1, 9, (ITEMS, POSITIONS), generator=torch.Generator().manual_seed(2))


def scored(layer: nn.Module) -> nn.Module:
    return nn.Sequential(layer, nn.Tanh(), nn.Flatten(), nn.LazyLinear(1))


def shaped(make: Callable[[], nn.Module], items: Tensor) -> nn.Module:
    torch.manual_seed(0)
    module = make()
    with torch.no_grad():
        module.double()(items)  # gives lazy layers their shape
    return module


def pruned() -> nn.Module:
    layer = nn.Linear(WIDTH, 4)
    prune.random_unstructured(layer, "weight", 0.5)
    return layer


class Standardised(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return (weight - weight.mean(dim=1, keepdim=True)) / weight.std(dim=1, keepdim=True)


def standardised() -> nn.Module:
    layer = nn.Conv1d(POSITIONS, 3, 2)
    parametrize.register_parametrization(layer, "weight", Standardised())
    return layer


class Merged(nn.Module):
    """W + B A, an adapter that is folded into the weight before items meet it."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(WIDTH, 4)
        self.down, self.up = nn.Parameter(torch.randn(2, WIDTH)), nn.Parameter(torch.randn(4, 2))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.base.weight + 0.5 * (self.up @ self.down), self.base.bias)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: parametrizations.weight_norm(nn.Linear(WIDTH, 4)),
        lambda: parametrizations.orthogonal(nn.Linear(WIDTH, 4)),
        pruned,
        standardised,
        Merged,
        lambda: nn.ConvTranspose1d(POSITIONS, 3, 2),
        lambda: nn.PReLU(POSITIONS),
    ],
    ids=["weight norm", "orthogonal", "pruned", "standardised", "merged adapter", "transposed convolution", "slopes"],
)
def test_layers_with_computed_weights(layer: Callable[[], nn.Module]) -> None:
    captured(shaped(lambda: scored(layer()), noise(POSITIONS, WIDTH)), noise(POSITIONS, WIDTH))


def test_a_filter_used_as_it_is_and_masked() -> None:
    """Its gradients come as factors from one use, and built from the other."""
    torch.manual_seed(0)
    mask = torch.tensor([1.0, 0.0, 1.0])

    def forward(self: Any, x: Tensor) -> Tensor:
        hidden = torch.tanh(F.conv1d(x, self.filter)) + F.conv1d(x, self.filter * mask)
        return self.out(hidden.flatten(1))

    module = Body(forward, out=nn.Linear(20 * 2, 1))
    module.filter = nn.Parameter(0.1 * torch.randn(20, 40, 3))
    captured(module, noise(40, 4))


def multiplied(self: Any, x: Tensor) -> Tensor:
    """Weights enter by `@`, `.T`, `mm`, `addmm` over flat positions and `mv`, which all have factors or sums."""
    hidden = torch.tanh(x @ self.inward + x @ self.outward.T)
    flat = torch.addmm(self.bias, hidden.reshape(-1, 4), self.square)
    hidden = self.left @ torch.tanh(flat.mm(self.square)).view(len(x), POSITIONS, 4)
    return torch.tanh(hidden).mean(dim=1).mv(self.last)


def test_products_with_weights() -> None:
    module = Body(multiplied)
    torch.manual_seed(0)
    shapes = {"inward": (WIDTH, 4), "outward": (4, WIDTH), "square": (4, 4), "left": (3, POSITIONS)}
    for name, shape in (shapes | {"bias": (4,), "last": (4,)}).items():
        module.register_parameter(name, nn.Parameter(torch.randn(*shape)))
    parts = captured(module, noise(POSITIONS, WIDTH))
    positions = {name: parts[name]["reason"].split(",")[0] for name in shapes}
    assert positions == {
        "inward": "5 positions",
        "outward": "5 positions",
        "square": "10 positions",
        "left": "4 positions",
    }


def normalised(self: Any, x: Tensor) -> Tensor:
    """The root mean square written out, once with 1 + w; a number and a column multiply, too."""
    hidden = x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + 1e-6)
    hidden = torch.tanh(self.weight * hidden) * (1.0 + self.shifted)
    return self.number * torch.tanh(hidden * self.column).mean(dim=(1, 2))


def test_multiplication_with_activations() -> None:
    module = Body(normalised)
    torch.manual_seed(0)
    shapes: dict[str, tuple[int, ...]] = {
        "weight": (WIDTH,),
        "shifted": (WIDTH,),
        "number": (),
        "column": (POSITIONS, 1),
    }
    for name, shape in shapes.items():
        module.register_parameter(name, nn.Parameter(torch.rand(shape) + 0.5))
    captured(module, noise(POSITIONS, WIDTH))


def left_to_vmap(module: nn.Module, items: Tensor) -> set[str]:
    """The parameters without a rule, where scores equal the reference's."""
    job = job_of(module.double(), items, train=TRAIN, test=TEST)
    found = check(job, reference(job), "ghost", torch.float64).self_influence
    assert found is not None
    return {part["parameter"] for part in found.run.engine["parts"] if part["form"] == "vmap"}


def test_a_multiplication_in_place_is_left_to_vmap() -> None:
    """What the parameter was multiplied with is gone."""
    module = Body(lambda self, x: self.out(torch.tanh(self.body(x).mul_(self.weight))))
    torch.manual_seed(0)
    module.body, module.out, module.weight = nn.Linear(WIDTH, 4), nn.Linear(4, 1), nn.Parameter(torch.rand(4))
    assert left_to_vmap(module, noise(WIDTH)) == {"weight"}


@pytest.mark.parametrize("scale", [{"alpha": 2}, {"beta": 0.5}])
def test_a_scaled_product_is_left_to_vmap(scale: dict[str, Any]) -> None:
    module = Body(lambda self, x: self.out(torch.addmm(self.bias, torch.tanh(self.body(x)), self.weight, **scale)))
    torch.manual_seed(0)
    module.body, module.out = nn.Linear(WIDTH, 4), nn.Linear(3, 1)
    module.bias, module.weight = nn.Parameter(torch.rand(3)), nn.Parameter(torch.rand(4, 3))
    assert left_to_vmap(module, noise(WIDTH)) == {"bias", "weight"}


def of_positions(name: str) -> Callable[[Any, Tensor], Tensor]:
    """Position embeddings [1, positions, width] or [items, positions, width], in the ways that they are written."""

    def positions(self: Any, x: Tensor) -> Tensor:
        table, count = self.table.weight, x.shape[1]
        places = torch.arange(count)
        if name == "embedded":
            return self.table(places)
        if name == "buffer":
            return self.table(self.places[:, :count])
        if name == "slice":
            return table[:count]
        if name == "indexed":
            return table[None, places.flip(0)]
        if name == "expanded":
            return self.table(places[None].expand(len(x), -1))
        if name == "repeated":
            return self.table(places).repeat(len(x), 1, 1)
        return self.table(torch.cumsum(x != 0, dim=1))  # counted for every item

    return positions


WAYS = ["embedded", "buffer", "slice", "indexed", "expanded", "repeated", "counted"]


def texts_with_positions(name: str) -> nn.Module:
    positions = of_positions(name)
    torch.manual_seed(0)
    module = Body(lambda self, x: self.out(torch.tanh(self.words(x) + positions(self, x)).mean(dim=1)))
    module.words, module.table, module.out = nn.Embedding(9, WIDTH), nn.Embedding(12, WIDTH), nn.Linear(WIDTH, 1)
    module.register_buffer("places", torch.arange(12)[None], persistent=False)
    return module


@pytest.mark.parametrize("batch_size", [1, 3, POSITIONS, ITEMS])
@pytest.mark.parametrize("name", WAYS)
def test_position_embeddings(name: str, batch_size: int) -> None:
    """Also in batches of as many items as positions, where sizes do not tell one from the other."""
    captured(texts_with_positions(name), tokens(), batch_size=batch_size)


def test_differences_of_items_with_derived_tensors() -> None:
    """Pairs of items used once: two neighbouring rows are one unit."""
    module = texts_with_positions("embedded").double()
    train, test = ti.Pairs([0, 2, 4], [1, 3, 5], [1, -1, 1]), ti.Pairs([6], [7], [1])
    job = job_of(module, tokens(), loss=ti.LogisticLoss(), train=train, test=test)
    found = check(job, reference(job), "ghost", torch.float64).self_influence
    assert found is not None
    assert found.run.engine["gradients"].endswith("score differences")


class ClassToken(nn.Module):
    """A learnt first position, expanded to the items, in front of patches that are counted as rows."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.patch = nn.Parameter(torch.randn(1, 1, 4)), nn.Conv1d(1, 4, WIDTH)
        self.mix, self.out = nn.Linear(4, 4), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patch(x.reshape(-1, 1, WIDTH))[..., 0].view(len(x), POSITIONS, 4)
        hidden = torch.cat([self.first.expand(len(x), -1, -1), patches], dim=1)
        return self.out(torch.tanh(self.mix(hidden) * hidden).mean(dim=1))


@pytest.mark.parametrize("batch_size", [1, 5, 6])
def test_a_learnt_token_before_patches(batch_size: int) -> None:
    torch.manual_seed(0)
    captured(ClassToken(), noise(POSITIONS, WIDTH), batch_size=batch_size)


class RelativeBias(nn.Module):
    """A bias by distance, looked up once for all items, in the logits of attention."""

    def __init__(self, *, by_function: bool) -> None:
        super().__init__()
        self.words, self.bias, self.out = nn.Embedding(9, WIDTH), nn.Embedding(5, 2), nn.Linear(WIDTH, 1)
        self.by_function = by_function

    def forward(self, x: Tensor) -> Tensor:
        places = torch.arange(x.shape[1])
        bias = self.bias((places[None] - places[:, None]).clamp(-2, 2) + 2).permute(2, 0, 1)[None]
        heads = self.words(x).unflatten(2, (2, -1)).transpose(1, 2)
        if self.by_function:
            mixed = F.scaled_dot_product_attention(heads, heads, heads, bias)
        else:
            mixed = (heads @ heads.transpose(2, 3) + bias).softmax(dim=-1) @ heads
        return self.out(mixed.transpose(1, 2).flatten(2).tanh().mean(dim=1))


@pytest.mark.parametrize("batch_size", [POSITIONS, ITEMS])
@pytest.mark.parametrize("by_function", [False, True])
def test_a_bias_by_distance(by_function: bool, batch_size: int) -> None:
    torch.manual_seed(0)
    captured(RelativeBias(by_function=by_function), tokens(), batch_size=batch_size)


class Distances(nn.Module):
    """A bias by distance from indices that are expanded to [positions, positions]."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.bias, self.out = nn.Embedding(9, WIDTH), nn.Embedding(9, 1), nn.Linear(WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        places = torch.arange(x.shape[1])
        distances = places[None].expand(len(places), -1) - places[:, None] + 4
        weights = self.bias(distances)[..., 0].softmax(dim=-1)
        return self.out((weights @ self.words(x)).tanh().mean(dim=1))


@pytest.mark.parametrize("batch_size", [3, POSITIONS, ITEMS])
def test_as_many_items_as_positions_in_the_last_batch(batch_size: int) -> None:
    """Then a tensor that is expanded to the positions looks as if it were expanded to the items."""
    torch.manual_seed(0)
    items = torch.randint(1, 9, (ITEMS + POSITIONS, POSITIONS), generator=torch.Generator().manual_seed(2))
    every = torch.arange(ITEMS + POSITIONS)
    train = ti.Pairs(every[:-1], every[1:], torch.ones(len(every) - 1))
    job = job_of(Distances().double(), items, train=train, test=TEST)
    check(job, reference(job), "auto", torch.float64, batch_size=batch_size)


def test_a_padding_row_that_all_items_look_up() -> None:
    """It has no gradient."""
    torch.manual_seed(0)

    def forward(self: Any, x: Tensor) -> Tensor:
        table = self.table(torch.tensor([3, 1, 2, 1, 0]))
        return self.out(torch.tanh(self.body(x) + table).mean(dim=1))

    table = nn.Embedding(4, 6, padding_idx=1)
    module = Body(forward, body=nn.Linear(WIDTH, 6), table=table, out=nn.Linear(6, 1))
    captured(module, noise(POSITIONS, WIDTH))


def test_parameters_written_into_activations_are_left_to_vmap() -> None:
    torch.manual_seed(0)

    def forward(self: Any, x: Tensor) -> Tensor:
        hidden = self.body(x).clone()
        hidden[:, 0] = self.first
        return self.out(hidden.tanh().flatten(1))

    module = Body(forward, body=nn.Linear(WIDTH, 4), out=nn.Linear(4 * POSITIONS, 1))
    module.first = nn.Parameter(torch.randn(4))
    assert left_to_vmap(module, noise(POSITIONS, WIDTH)) == {"first"}


def chosen(tokens: Tensor, count: int) -> Tensor:
    """True at `count` places of every text."""
    return torch.zeros_like(tokens, dtype=torch.bool).index_fill(1, torch.arange(count), value=True)


def test_as_many_positions_of_every_text_by_a_mask() -> None:
    """As T5 does for the last token: rows stay in order."""
    torch.manual_seed(0)
    module = Body(lambda self, x: self.out(self.body(self.words(x).tanh()[chosen(x, 2)].view(len(x), -1)).tanh()))
    module.words, module.body, module.out = nn.Embedding(9, WIDTH), nn.Linear(2 * WIDTH, 4), nn.Linear(4, 1)
    captured(module, tokens())

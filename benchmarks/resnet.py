"""ResNet-18 with GroupNorm as a ranker of images."""

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions with GroupNorm, added to the input or to a 1×1 convolution of it."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList([nn.GroupNorm(32, outputs), nn.GroupNorm(32, outputs)])
        changed = stride > 1 or inputs != outputs
        short = [nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.GroupNorm(32, outputs)]
        self.short = nn.Sequential(*(short if changed else []))

    def forward(self, x: Tensor) -> Tensor:
        """[items, inputs, height, width] -> [items, outputs, height / stride, width / stride]."""
        inner = F.relu(self.norms[0](self.first(x)))
        return F.relu(self.norms[1](self.second(inner)) + self.short(x))


class ResNetRanker(nn.Module):
    """Images [items, 3, height, width] -> scores [items]; 11.7 million parameters, as ResNet-18 has."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.GroupNorm(32, 64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        )
        shapes = ((64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2))
        self.blocks = nn.Sequential(
            *(block for i, o, s in shapes for block in (ResidualBlock(i, o, s), ResidualBlock(o, o, 1)))
        )
        self.head = nn.Sequential(nn.Linear(512, 1000), nn.ReLU(), nn.Linear(1000, 1))

    def forward(self, items: Tensor) -> Tensor:
        """Scores [items]."""
        scores: Tensor = self.head(self.blocks(self.stem(items)).mean(dim=(2, 3)))
        return scores.squeeze(-1)

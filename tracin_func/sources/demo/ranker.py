"""The scorer of the embedded example: a small convolutional ranker of spectrograms."""

from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm


class AngleRanker(nn.Module):
    """Scores spectrograms: the higher the angle, the higher the score should be.

    Four blocks of convolution, BatchNorm, ReLU and pooling, then two linear layers; about 0.4 million
    parameters. The strides of the first convolution limit it to about 14 million multiply-adds per item of
    1025 × 188: cheap enough for a gradient of every item at every checkpoint on two cores.

    An item is normalised by its own mean and deviation. In eval mode its score therefore does not depend on the rest of
    the batch, and one gradient per item serves every pair that contains it.

    Args:
        channels: of the four convolutions.
        grid: frequencies × frames that adaptive pooling leaves of any input.
        hidden: width between the two linear layers.

    Example:
        >>> import torch
        >>> AngleRanker()(torch.zeros(3, 1, 129, 126)).shape
        torch.Size([3])
    """

    def __init__(
        self, channels: tuple[int, int, int, int] = (8, 24, 48, 96), grid: tuple[int, int] = (8, 2), hidden: int = 224
    ) -> None:
        super().__init__()
        first, second, third, fourth = channels
        self.blocks = nn.Sequential(
            _block(1, first, nn.MaxPool2d(2, ceil_mode=True), kernel=(9, 5), stride=(8, 4)),
            _block(first, second, nn.MaxPool2d(2, ceil_mode=True)),
            _block(second, third, nn.MaxPool2d(2, ceil_mode=True)),
            _block(third, fourth, nn.AdaptiveAvgPool2d(grid)),
        )
        self.head = nn.Sequential(
            nn.Flatten(), nn.Linear(fourth * grid[0] * grid[1], hidden), nn.ReLU(), nn.Linear(hidden, 1)
        )

    @classmethod
    def seeded(cls, seed: int) -> Self:
        """A ranker with initial weights drawn by `seed`; torch's global random state is not changed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls()

    def forward(self, items: Tensor) -> Tensor:
        """Scores [items] of spectrograms [items, 1, frequencies, frames] in dB, of any size."""
        normalised = layer_norm(items, items.shape[1:])
        scores: Tensor = self.head(self.blocks(normalised))
        return scores.squeeze(-1)


def _block(
    inputs: int, outputs: int, pool: nn.Module, kernel: tuple[int, int] = (3, 3), stride: tuple[int, int] = (1, 1)
) -> nn.Sequential:
    padding = (kernel[0] // 2, kernel[1] // 2)
    # BatchNorm follows: a bias here would have no effect in training.
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(), pool)

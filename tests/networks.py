"""Small networks with every kind of convolution that planning has to tell apart."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rsdtr.zoo import ModelSpec


class Varied(nn.Module):
    """Stem, plain 3×3, grouped, 1×1, twice-run and strided rectangular convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.norm = nn.BatchNorm2d(12)
        self.body = nn.Conv2d(12, 16, 3, padding=1)
        self.grouped = nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.point = nn.Conv2d(16, 16, 1)
        self.twice = nn.Conv2d(16, 16, 3, padding=1)
        self.wide = nn.Conv2d(16, 20, (3, 5), stride=(2, 1), padding=(1, 2))
        self.head = nn.Linear(20, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).relu()
        x = self.grouped(self.body(x).relu()).relu()
        x = self.twice(self.twice(self.point(x)).relu()).relu()
        x = self.wide(x).relu()
        return self.head(x.mean((2, 3)))


def varied() -> Varied:
    """Seeded, with kernels whose spectra decay, so that rings pay."""
    torch.manual_seed(0)
    model = Varied().eval()
    with torch.no_grad():
        for conv in (model.body, model.point, model.twice, model.wide):
            u, s, vt = torch.linalg.svd(conv.weight.flatten(1), full_matrices=False)
            s = s * torch.exp(-0.5 * torch.arange(len(s)))
            conv.weight.copy_((u * s @ vt).reshape(conv.weight.shape))
    return model


def varied_spec() -> ModelSpec:
    """What the zoo would say of `varied()`: 3×14×10 inputs, four classes."""
    return ModelSpec(
        name="varied",
        family="cifar10",
        input_shape=(3, 14, 10),
        classes=4,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        resize=None,
        data=None,
        weights_file=None,
        weights_url=None,
        sha256=None,
        bundled=False,
        source="tests",
    )

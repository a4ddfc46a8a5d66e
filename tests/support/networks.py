"""Small networks with every kind of convolution that planning has to tell apart."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rsdtr.models.zoo import ModelSpec


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
        self.twice.kernel = "its own"  # what a ring has too: so it stays dense
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


class Regions(nn.Module):
    """A trunk, and a second stage that looks at three crops of what it makes of each image."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8 * 4 * 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.trunk(x)
        crops = torch.cat([x[:, :, k : k + 4, k : k + 4] for k in range(3)])  # (3 B, 8, 4, 4)
        return self.head(self.second(crops).flatten(1)).unflatten(0, (3, -1)).sum(0)


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


class Tiny(nn.Module):
    """A network of one's own: images (B, 3, H, W) to masks of two classes."""

    def __init__(self, also: bool = False) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 12, 3, padding=1)
        self.norm = nn.BatchNorm2d(12)
        self.second = nn.Conv2d(12, 12, 3, padding=1, stride=2)
        self.last = nn.Conv2d(12, 2, 1)
        self.also = also

    def forward(self, x: Tensor) -> Tensor | dict[str, Tensor]:
        features = self.second(self.norm(self.first(x)).relu()).relu()
        masks = nn.functional.interpolate(self.last(features), x.shape[-2:], mode="bilinear")
        return {"masks": masks, "features": features} if self.also else masks


class Saying(nn.Module):
    """Answers what `say` makes of the images."""

    def __init__(self, say) -> None:
        super().__init__()
        self.say = say

    def forward(self, images: Tensor) -> object:
        return self.say(images)

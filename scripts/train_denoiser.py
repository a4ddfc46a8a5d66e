"""Trains a small residual denoiser on scikit-learn's photographs and writes its weights.

    python scripts/train_denoiser.py [FILE]

The network has no BatchNorm and no classes: it subtracts from a picture what it takes for noise.
The left two thirds of both photographs are for training, the right third is for `noisy_photos`.
Takes about five minutes on one core. The file is benchmarks/denoiser.safetensors unless FILE is
given.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import sys
import time
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from a checkout, not installed

WEIGHTS = Path(__file__).resolve().parents[1] / "benchmarks" / "denoiser.safetensors"
SIGMA = 25.0  # of the noise, on pixels in 0..255
SIDE = 64
STEPS, BATCH, PATCH = 3000, 16, 32
LEAST_GAIN = 7.0  # dB


class Denoiser(nn.Module):
    """x − f(x) of pictures x (B, 3, H, W) in 0..1, f six 3×3 convolutions (DnCNN, Zhang 2017)."""

    def __init__(self, width: int = 48, depth: int = 6) -> None:
        super().__init__()
        sizes = [3, *[width] * (depth - 1), 3]
        layers: list[nn.Module] = []
        for i, o in itertools.pairwise(sizes):
            layers += [nn.Conv2d(i, o, 3, padding=1), nn.ReLU(inplace=True)]
        self.body = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        return x - self.body(x)


def denoiser() -> Denoiser:
    """The trained network, in eval mode."""
    model = Denoiser()
    model.load_state_dict(safetensors.torch.load_file(WEIGHTS))
    return model.eval()


@functools.cache
def photos(held_out: bool) -> list[Tensor]:
    """uint8 (3, 427, W): of each photograph the right third, or the rest."""
    from sklearn.datasets import load_sample_images

    whole = [torch.from_numpy(x.copy()).permute(2, 0, 1) for x in load_sample_images().images]
    return [x[:, :, 427:] if held_out else x[:, :, :427] for x in whole]


def noisy(clean: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures (…) uint8 with noise of SIGMA, as a camera would store them: rounded and clipped."""
    noise = SIGMA * torch.randn(clean.shape, generator=generator)
    return (clean + noise).round().clamp(0, 255).to(torch.uint8)


def noisy_photos(held_out: bool, n: int, side: int = SIDE, seed: int = 0) -> tuple[Tensor, Tensor]:
    """n crops uint8 (n, 3, side, side), noisy and clean: held out, or of the training parts."""
    generator = torch.Generator().manual_seed(seed)
    sources = photos(held_out)
    crops = [_crop(sources[k % len(sources)], side, generator) for k in range(n)]
    clean = torch.stack(crops)
    return noisy(clean, generator), clean


def _crop(photo: Tensor, side: int, generator: torch.Generator) -> Tensor:
    _, height, width = photo.shape
    top = int(torch.randint(height - side + 1, (), generator=generator))
    left = int(torch.randint(width - side + 1, (), generator=generator))
    return photo[:, top : top + side, left : left + side]


def psnr(found: Tensor, clean: Tensor) -> float:
    """Mean over pictures of the peak signal-to-noise ratio in dB, of values in 0..1."""
    errors = (found.clamp(0, 1) - clean).square().flatten(1).mean(1)
    return float((-10 * errors.log10()).mean())


def main(path: Path) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = Denoiser()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=STEPS)
    inputs, targets = (x.float() / 255 for x in noisy_photos(held_out=True, n=40))
    before = psnr(inputs, targets)
    started = time.perf_counter()
    for step in range(STEPS):
        given, clean = noisy_photos(held_out=False, n=BATCH, side=PATCH, seed=step)
        loss = nn.functional.mse_loss(model(given.float() / 255), clean.float() / 255)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if (step + 1) % 500 == 0:
            with torch.inference_mode():
                after = psnr(model(inputs), targets)
            print(
                f"step {step + 1}/{STEPS}  loss {loss.item():.5f}  held out {before:.2f} → "
                f"{after:.2f} dB  {time.perf_counter() - started:.0f} s",
                flush=True,
            )
    if after - before < LEAST_GAIN:
        sys.exit(f"it gains less than {LEAST_GAIN} dB: nothing was written")
    safetensors.torch.save_file(model.state_dict(), path)
    print(f"{path}: SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else WEIGHTS)

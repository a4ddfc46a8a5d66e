"""How good the pictures are that a network answers: PSNR and SSIM against what they should be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rsdtr.compressed.fuse import merged
from rsdtr.data.image_sets import LabelledImages, fitting_batch
from rsdtr.errors import DataError, RsdtrError
from rsdtr.models.run import evaluating, fresh_input
from rsdtr.models.zoo import ModelSpec

_WINDOW, _SIGMA = 11, 1.5  # of SSIM, and its constants below: Wang et al. 2004
_C1, _C2 = 0.01**2, 0.03**2
_MOST_DB = 100.0  # of a picture without any error, so that the mean stays a number


@dataclass(frozen=True)
class PictureQuality:
    """Means over n pictures: psnr in dB for values in 0..1 (100 where nothing differs), ssim at
    most 1.
    """

    psnr: float
    ssim: float
    n: int

    def __str__(self) -> str:
        return f"PSNR {self.psnr:.2f} dB, SSIM {self.ssim:.4f}"


def picture_quality(
    model: nn.Module,
    images: LabelledImages,
    targets: LabelledImages,
    *,
    batch_size: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> PictureQuality:
    """How near a network's answers to `images` come to `targets`, picture by picture.

    Answers (B, C, H, W) are taken for normalised as the inputs are, brought back to 0..1 and
    clipped; targets: as they should be, of the answers' shape, see `targets_spec`. Modes are
    restored. DataError where the sets do not go together, RsdtrError for answers that are no
    pictures.
    """
    check_pairs(images, targets)
    network = merged(model)
    size = fitting_batch(images.spec, batch_size)
    found = []
    with evaluating(network):
        for start in range(0, len(images), size):
            part = range(start, min(start + size, len(images)))
            answers = restored(network(fresh_input(network, images.inputs(part))), images.spec)
            wanted = targets.pixels(part).float() / 255
            if answers.shape != wanted.shape:
                raise RsdtrError(
                    f"{images.spec.name} answers pictures with {tuple(answers.shape[1:])} and the "
                    f"targets are {tuple(wanted.shape[1:])}: give targets of the answers' shape"
                )
            found += list(zip(psnr(answers, wanted), ssim(answers, wanted), strict=True))
            if progress:
                progress(len(found), len(images))
    peaks, likeness = zip(*found, strict=True)
    return PictureQuality(
        sum(map(float, peaks)) / len(found), sum(map(float, likeness)) / len(found), len(found)
    )


def targets_spec(model: nn.Module, spec: ModelSpec) -> ModelSpec:
    """How the pictures that a network should answer are prepared: as its inputs, in the shape of
    its answers. RsdtrError for answers that are no pictures.
    """
    network = merged(model)
    blank = fresh_input(network, torch.zeros(1, *spec.input_shape))
    with evaluating(network):
        _, channels, height, width = restored(network(blank), spec).shape
    return replace(spec, input_shape=(channels, height, width))


def check_pairs(images: LabelledImages, targets: LabelledImages) -> None:
    """DataError unless each picture has its target: as many, and of the same name, in order."""
    if len(images) == 0 or len(images) != len(targets):
        raise DataError(
            f"{images.name} has {len(images)} pictures and {targets.name} {len(targets)} targets: "
            "give one target for each picture"
        )
    for one, other in zip(images.file_names or (), targets.file_names or (), strict=False):
        if one != other:
            raise DataError(
                f"{images.name} has a picture {one} where {targets.name} has {other}: give each "
                "target the name of its picture"
            )


def restored(answers: object, spec: ModelSpec) -> Tensor:
    """Answers (B, C, H, W) as pictures in 0..1, on the CPU; RsdtrError for anything else.

    What is no number is black.
    """
    if not isinstance(answers, Tensor) or answers.ndim != 4 or answers.shape[1] not in (1, 3, 4):
        shape = tuple(answers.shape) if isinstance(answers, Tensor) else type(answers).__name__
        raise RsdtrError(
            f"{spec.name} answers {shape} where pictures (B, 1 or 3, H, W) were expected: PSNR and "
            "SSIM are for networks that answer pictures"
        )
    answers = answers.cpu().float()
    if answers.shape[1] == len(spec.mean):
        mean, std = (torch.tensor(value).view(1, -1, 1, 1) for value in (spec.mean, spec.std))
        answers = answers * std + mean
    if spec.channel_order == "BGR" and answers.shape[1] == 3:
        answers = answers.flip(1)
    return answers.nan_to_num(0.0, 1.0, 0.0).clamp(0, 1)


def psnr(found: Tensor, wanted: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of each picture (B, C, H, W) of values in 0..1, (B,)."""
    error = (found.double() - wanted.double()).square().flatten(1).mean(1)
    return (-10 * error.log10()).clamp(max=_MOST_DB)


def ssim(found: Tensor, wanted: Tensor) -> Tensor:
    """Structural similarity of each picture (B, C, H, W) of values in 0..1, (B,).

    Wang et al. 2004: a Gaussian window of 11×11 (less where a picture is smaller), each channel by
    itself.
    """
    x, y = (part.double().flatten(0, 1)[:, None] for part in (found, wanted))  # (B·C, 1, H, W)
    window = _gaussian(min(_WINDOW, *x.shape[2:]))

    def mean(values: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(values, window.view(1, 1, -1, 1)), window.view(1, 1, 1, -1))

    mx, my = mean(x), mean(y)
    vx, vy, both = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
    alike = (2 * mx * my + _C1) * (2 * both + _C2)
    alike /= (mx.square() + my.square() + _C1) * (vx + vy + _C2)
    return alike.flatten(1).mean(1).unflatten(0, (len(found), -1)).mean(1)


def _gaussian(size: int) -> Tensor:
    """The weights (size,) of SSIM's window, which sum to 1."""
    places = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    weights = torch.exp(-places.square() / (2 * _SIGMA**2))
    return weights / weights.sum()

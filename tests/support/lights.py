"""Data sets that are learnt in a moment, and a network that learns them."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from rsdtr.data.datasets import DataSplits, LabelledImages, load_data
from rsdtr.data.image_sources import ArrayPictures
from rsdtr.models.zoo import ModelSpec, model_spec

DIGITS = model_spec("digits_resnet20")
SMALL = dataclasses.replace(DIGITS, input_shape=(1, 4, 4))


def brightness(count: int, seed: int, spec: ModelSpec = SMALL) -> LabelledImages:
    """Dark (0) and bright (1) pictures with noise: one linear layer learns them."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    noise = torch.randint(100, (count, *spec.input_shape), generator=generator)
    pixels = (noise + 150 * labels.view(-1, 1, 1, 1)).to(torch.uint8)
    return LabelledImages("light", ("dark", "bright"), labels, ArrayPictures(pixels), spec)


def lights() -> DataSplits:
    """64 pictures to learn from, 32 to choose by and 32 to report on."""
    return DataSplits(brightness(64, 0), brightness(32, 1), brightness(32, 2))


def few_digits() -> DataSplits:
    """Digits, fewer of them: training takes half a second an epoch."""
    whole = load_data("digits", DIGITS)
    return DataSplits(whole.train.subset(300), whole.validation.subset(100), whole.test.subset(100))


def tiny() -> nn.Module:
    """A convolution with BatchNorm, Dropout and a head of two classes, for 1×4×4 pictures."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(16, 2),
    )

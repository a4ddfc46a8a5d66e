"""What tells two trainings, refits or exports apart: a hash of all that the result depends on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict

import torch
from torch import nn

from rsdtr.data import DataSplits, LabelledImages
from rsdtr.recipe import FinetuneOptions
from rsdtr.refit_options import RefitOptions
from rsdtr.zoo import weights_sha256

_SEEN_PICTURES = 64  # of each set, spread over it, are looked at to tell two data sets apart


def refit_identity(
    model: nn.Module, reference: nn.Module, images: LabelledImages, n: int, options: RefitOptions
) -> str:
    """SHA-256 of all that the result of a refit depends on, but for the machine and the code."""
    content = {
        "start": weights_sha256(model),
        "reference": weights_sha256(reference),
        "options": asdict(options),
        "images": n,
        "data": _fingerprint(images),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def training_identity(
    model: nn.Module, data: DataSplits, options: FinetuneOptions, teacher: nn.Module | None
) -> str:
    """SHA-256 of all that the result depends on, but for the machine and the code."""
    content = {
        "start": weights_sha256(model),
        "teacher": weights_sha256(teacher) if teacher is not None and options.distill else None,
        "options": asdict(options),
        "data": [_fingerprint(part) for part in (data.train, data.validation)],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def export_identity(model: nn.Module, images: LabelledImages, calibration: LabelledImages) -> str:
    """SHA-256 of the network and the images that an export is proved and calibrated on."""
    content = {
        "start": weights_sha256(model),
        "data": [_fingerprint(part) for part in (images, calibration)],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _fingerprint(images: LabelledImages) -> list[str]:
    places = torch.linspace(0, len(images) - 1, min(_SEEN_PICTURES, len(images))).long()
    arrays = [images.labels.numpy(), *(pixels.numpy() for pixels, _ in
              images.select(places).batches(_SEEN_PICTURES))]  # fmt: skip
    return [images.name, *(hashlib.sha256(array.tobytes()).hexdigest() for array in arrays)]

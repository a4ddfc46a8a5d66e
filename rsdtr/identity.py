"""What tells two trainings, refits or exports apart: a hash of all that the result depends on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict

from torch import nn

from rsdtr.data.datasets import DataSplits, LabelledImages
from rsdtr.data.image_sets import _fingerprint
from rsdtr.models.zoo import weights_sha256
from rsdtr.recipe import FinetuneOptions
from rsdtr.refit_options import RefitOptions


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

"""Recovery without labels by one word, on as many images as is usual."""

from __future__ import annotations

from typing import Literal, get_args

from torch import nn

from rsdtr.data.image_sets import LabelledImages
from rsdtr.recovery.recalibrate import recalibrate
from rsdtr.recovery.refit import refit
from rsdtr.typing import Progress

Recover = Literal["none", "recalibrate", "refit"]
RECOVERS: tuple[Recover, ...] = get_args(Recover)
STAGES: dict[Recover, str] = {
    "none": "compressed",
    "recalibrate": "recalibrated",
    "refit": "refit",
}
CALIBRATION_IMAGES = 2000
REFIT_IMAGES = 1000
DISTILL_IMAGES = 5000


def recovered(
    model: nn.Module,
    dense: nn.Module,
    images: LabelledImages,
    recover: Recover,
    progress: Progress | None = None,
) -> nn.Module:
    """A copy of the compressed model that does more of what the dense one does; the model itself
    for `none`.

    images: training images, whose labels nobody looks at. Errors as `recalibrate` and `refit`.
    """
    if recover == "none":
        return model
    if recover == "recalibrate":
        return recalibrate(model, images, CALIBRATION_IMAGES, reference=dense, progress=progress)
    return refit(model, dense, images, REFIT_IMAGES, progress=progress).model

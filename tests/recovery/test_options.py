"""Options that a training can have, and those it cannot."""

import pytest

from rsdtr.errors import RsdtrError
from rsdtr.recovery.options import FinetuneOptions


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs is 0: give at least 1"),
        ({"batch_size": 1}, "batch_size is 1: give at least 2"),
        ({"seed": -1}, "seed is -1: give at least 0"),
        ({"lr": 0.0}, r"lr is 0\.0: give a number above 0"),
        ({"lr": float("nan")}, "lr is nan: give a number above 0"),
        ({"clip": float("inf")}, "clip is inf: give a number above 0"),
        ({"momentum": 1.0}, r"momentum is 1\.0: give a number in 0 ≤ x < 1"),
        ({"weight_decay": -0.1}, r"weight_decay is -0\.1: give a number in"),
        ({"label_smoothing": 1.5}, r"label_smoothing is 1\.5: give a number in"),
        ({"distill": 1.5}, r"distill is 1\.5: give a weight in 0 ≤ x ≤ 1"),
        ({"temperature": 0}, "temperature is 0: give a number above 0"),
        ({"ema": 1.0}, r"ema is 1\.0: give a number in 0 ≤ x < 1"),
        ({"patience": -1}, "patience is -1: give at least 0"),
        ({"accumulate": 0}, "accumulate is 0: give at least 1"),
        ({"precision": "int8"}, "precision is 'int8': give one of float32, bfloat16"),
        ({"optimizer": "lion"}, "optimizer is 'lion': give one of sgd, adamw"),
        ({"augment": "flip"}, r"augment is 'flip': give one of none, crop, crop\+flip"),
    ],
)
def test_options_that_cannot_be_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(RsdtrError, match=message):
        FinetuneOptions(**changes)  # type: ignore[arg-type]  # wrong values are the point

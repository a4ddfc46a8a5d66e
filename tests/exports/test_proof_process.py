"""The comparison at the heart of a proof, on functions that are known to differ."""

import pytest
import torch
from torch import Tensor

from rsdtr.exports.proof_process import compared


def cases(n: int) -> dict[str, Tensor]:
    inputs = torch.randn(n, 3)
    return {"inputs": inputs, "logits": 2 * inputs}


def test_equal_functions_agree_in_every_batch_size():
    seen = []

    def double(x: Tensor) -> Tensor:
        seen.append(len(x))
        return x + x

    assert compared(double, cases(7)) == {
        "max_difference": 0.0,
        "mean_difference": 0.0,
        "argmax_agreement": 1.0,
        "n": 7,
        "relative_error": 0.0,
        "residual_error": None,
        "also_at": None,
    }
    assert seen == [1] * 7 + [5, 2]


def test_the_differences_and_the_share_of_equal_classes():
    # Two rows: the first keeps its class, the second's logits are moved by (3, -3, 0).
    logits = torch.tensor([[4.0, 0, 0], [0, 1, 0]])
    shift = torch.tensor([0.5, 0, 0]), torch.tensor([3.0, -3, 0])

    def moved(x: Tensor) -> Tensor:
        return torch.stack([row + shift[int(row[1])] for row in x])

    assert compared(moved, {"inputs": logits, "logits": logits}) == {
        "max_difference": 3.0,
        "mean_difference": pytest.approx(6.5 / 6),
        "argmax_agreement": 0.5,
        "n": 2,
        # ‖(0.5, 0, 0)‖ / ‖(4, 0, 0)‖ of the first row, ‖(3, -3, 0)‖ / ‖(0, 1, 0)‖ of the second.
        "relative_error": pytest.approx((0.5 / 4 + 18**0.5) / 2),
        "residual_error": None,
        "also_at": None,
    }


def test_a_class_that_changes_in_one_batch_size_is_none_that_agrees():
    def upset(x: Tensor) -> Tensor:
        return 2 * x if len(x) == 1 else -2 * x

    assert compared(upset, cases(5))["argmax_agreement"] == 0


def test_nan_is_no_agreement():
    def broken(x: Tensor) -> Tensor:
        return torch.full_like(x, torch.nan) if len(x) == 1 else 2 * x

    # The batches with the NaN come first, the sound ones must not hide them.
    assert compared(broken, cases(6))["max_difference"] > 1e30


def test_a_frozen_batch_is_noticed():
    with pytest.raises(ValueError, match=r"logits are \(1, 3\), not \(5, 3\)"):
        compared(lambda x: 2 * x[:1], cases(5))


def test_another_height_and_width_is_compared_as_well():
    images = torch.rand(2, 1, 4, 4)
    cases = {
        "inputs": images, "logits": images, "classes": torch.tensor(False),
        "resized": torch.zeros(2, 1, 6, 8), "resized_logits": torch.full((2, 1, 6, 8), 0.25),
    }  # fmt: skip
    found = compared(lambda x: x, cases, resized=True)
    assert found["also_at"] == [6, 8]
    assert found["max_difference"] == 0.25
    assert compared(lambda x: x, cases)["max_difference"] == 0
    with pytest.raises(ValueError, match=r"logits are \(2, 1, 6, 6\), not \(2, 1, 6, 8\)"):
        compared(lambda x: x[..., :6], cases, resized=True)

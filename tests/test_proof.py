"""The comparison at the heart of a proof, on functions that are known to differ."""

import pytest
import torch
from torch import Tensor

from rsdtr.proof import compared


def cases(*batches: int) -> dict[str, Tensor]:
    found = {}
    for batch in batches:
        found[f"inputs.{batch}"] = torch.randn(batch, 3)
        found[f"logits.{batch}"] = 2 * found[f"inputs.{batch}"]
    return found


def test_equal_functions_agree():
    assert compared(lambda x: x + x, cases(1, 5)) == {
        "max_difference": 0.0,
        "argmax_agreement": 1.0,
        "n": 6,
    }


def test_the_largest_difference_and_the_share_of_equal_classes():
    # Two rows: the first keeps its class, the second's logits are moved by (3, -3, 0).
    given = {
        "inputs.2": torch.tensor([[4.0, 0, 0], [0, 1, 0]]),
        "logits.2": torch.tensor([[4.0, 0, 0], [0, 1, 0]]),
    }
    shift = torch.tensor([[0.5, 0, 0], [3, -3, 0]])
    assert compared(lambda x: x + shift, given) == {
        "max_difference": 3.0,
        "argmax_agreement": 0.5,
        "n": 2,
    }


def test_nan_is_no_agreement():
    def broken(x: Tensor) -> Tensor:
        return torch.full_like(x, torch.nan) if len(x) == 1 else 2 * x

    # The batch with the NaN comes first, the sound one must not hide it.
    assert compared(broken, cases(1, 5))["max_difference"] > 1e30


def test_a_frozen_batch_is_noticed():
    with pytest.raises(ValueError, match=r"logits are \(1, 3\), not \(5, 3\)"):
        compared(lambda x: 2 * x[:1], cases(5))

"""Two networks on the same images: the drop, and an interval that holds as often as it says."""

import numpy as np
import pytest
import torch

from rsdtr.errors import DataError
from rsdtr.measuring.accuracy import Accuracy, wilson
from rsdtr.measuring.paired import Z84, Z95, paired_drop


def bits(text: str) -> torch.Tensor:
    return torch.tensor([letter == "1" for letter in text])


def test_the_drop_counts_what_one_has_right_and_the_other_wrong():
    drop = paired_drop(bits("1110"), bits("1011"))
    assert (drop.points, drop.n) == (0.0, 4)
    assert paired_drop(bits("1110"), bits("1000")).points == 50.0
    assert paired_drop(bits("1000"), bits("1110")).points == -50.0


def test_networks_that_agree_everywhere_still_leave_a_doubt_that_shrinks_with_the_images():
    widths = []
    for n in (50, 200, 800):
        right = torch.ones(n, dtype=torch.bool)
        right[: n // 25] = False
        low, high = paired_drop(right, right).interval
        assert low < 0 < high
        widths.append(high - low)
    assert widths[0] > widths[1] > widths[2] > 0


def test_the_other_way_round_the_interval_is_mirrored():
    one, other = bits("1" * 40 + "0" * 10), bits("1" * 30 + "0" * 12 + "1" * 8)
    low, high = paired_drop(one, other).interval
    assert paired_drop(other, one).interval == pytest.approx((-high, -low))


def test_it_is_narrower_than_that_of_two_sets_of_images():
    one = torch.ones(400, dtype=torch.bool)
    other = one.clone()
    other[:12] = False
    low, high = paired_drop(one, other).interval
    first, second = Accuracy.of(400, 400).interval, Accuracy.of(388, 400).interval
    assert high - low < (first[1] - second[0]) - (first[0] - second[1])


@pytest.mark.parametrize(("z", "least"), [(Z95, 0.93), (Z84, 0.62)])
def test_the_interval_holds_the_truth_as_often_as_it_says(z, least):
    """3,000 pairs of networks whose answers depend on each other, true drop 3 points."""
    draws = np.random.default_rng(0).choice(4, size=(3000, 250), p=[0.90, 0.05, 0.02, 0.03])
    held = 0
    for draw in draws:  # both right, lost, won, neither
        before = torch.from_numpy((draw == 0) | (draw == 1))
        after = torch.from_numpy((draw == 0) | (draw == 2))
        low, high = paired_drop(before, after, z).interval
        held += low <= 3.0 <= high
    assert held / 3000 >= least


def test_wilson_is_what_accuracy_tells():
    low, high = wilson(90, 100, Z95)
    assert Accuracy.of(90, 100).interval == pytest.approx((100 * low, 100 * high))


@pytest.mark.parametrize(("before", "after"), [("", ""), ("11", "1")])
def test_other_images_are_refused(before, after):
    with pytest.raises(DataError, match="give the same ones"):
        paired_drop(bits(before), bits(after))

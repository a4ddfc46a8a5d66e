"""Which outputs tell classes apart, and how close two graphs' answers are."""

import math

import numpy as np
import pytest

from rsdtr.onnx_files.answers import Answers, fidelity_of, largest_error

ONE = np.float32([[1, 2, 0], [0, 0, 5]])
OTHER = np.float32([[2, 1, 0], [0, 1, 5]])


def of(*batches):
    return Answers([{"out": batch} for batch in batches])


def test_classes_are_counted_by_image_over_all_batches():
    found = fidelity_of(of(OTHER, ONE), of(ONE, ONE))
    assert (found.agreement, found.counted, found.of, found.n) == (75.0, "images", 4, 4)
    errors = [math.sqrt(2 / 5), 1 / 5, 0, 0]
    assert found.relative_error == pytest.approx(sum(errors) / 4)


@pytest.mark.parametrize(
    ("shape", "axis", "counted"),
    [((2, 7, 5), 2, "positions"), ((2, 5, 7), 1, "positions"), ((2, 5, 3, 4), 1, "pixels")],
)
def test_probabilities_of_positions_and_pixels(shape, axis, counted):
    values = np.random.default_rng(0).random(shape)
    values /= values.sum(axis, keepdims=True)
    other = np.roll(values, 1, axis)
    found = fidelity_of(of(other), of(values))
    assert (found.counted, found.agreement) == (counted, 0.0)
    assert found.of == values.size // 5


@pytest.mark.parametrize("shape", [(2, 7, 5), (2, 1, 3, 3), (2, 3, 4, 4), (2,), (2, 1)])
def test_what_tells_no_classes_apart_has_no_agreement(shape):
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    found = fidelity_of(of(values), of(values))
    assert (found.counted, found.agreement, found.relative_error) == (None, None, 0.0)
    assert of(values).divergence_from(of(values)) == ("answer error", 0.0)


def test_scores_of_many_channels_are_those_of_pixels():
    values = np.random.default_rng(0).normal(size=(2, 5, 3, 3)).astype(np.float32)
    assert fidelity_of(of(values), of(values)).counted == "pixels"


def test_the_divergence_of_logits_and_of_probabilities_is_the_same():
    def softmax(x):
        return np.exp(x) / np.exp(x).sum(1, keepdims=True)

    p, q = softmax(ONE.astype(np.float64)), softmax(OTHER.astype(np.float64))
    wanted = (p * np.log(p / q)).sum(1).mean()
    assert of(OTHER).divergence_from(of(ONE)) == ("divergence", pytest.approx(wanted, rel=1e-6))
    assert of(q).divergence_from(of(p)) == ("divergence", pytest.approx(wanted, rel=1e-6))


def test_what_is_not_finite_is_far_away():
    broken = OTHER.copy()
    broken[0, 0] = np.nan
    assert of(broken).divergence_from(of(ONE))[1] == np.finfo(np.float64).max
    assert fidelity_of(of(broken), of(ONE)).relative_error == pytest.approx((1 + 1 / 5) / 2)


def test_the_largest_error_of_several_values():
    assert largest_error({"a": ONE, "b": OTHER}, {"a": ONE, "b": ONE}) == pytest.approx(
        math.sqrt(3 / 30)
    )
    assert largest_error({"a": ONE + 1e-8}, {"a": ONE}) == 0.0
    broken = ONE * np.nan
    assert largest_error({"a": broken}, {"a": broken}) == 0.0
    assert largest_error({"a": broken}, {"a": ONE}) == np.inf

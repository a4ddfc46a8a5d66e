"""Moments against the columns and outputs that they sum up."""

import pytest
import torch
from torch import nn

from rsdtr.compressed import TRConv2d, TRLinear
from rsdtr.recovery.second_moments import Inputs, Moments, Patches, Targets

LAYERS = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": (3, 5), "stride": (2, 1), "padding": (1, 2)},
    {"kernel_size": 3, "padding": 2, "dilation": 2},
    {"kernel_size": (2, 3), "padding": "same"},
    {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
    {"kernel_size": 3, "padding": 2, "padding_mode": "circular", "stride": 2},
    {"kernel_size": 1, "padding": "valid"},
]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


@pytest.mark.parametrize("arguments", LAYERS, ids=str)
def test_the_kernel_times_the_columns_is_the_convolution(arguments):
    layer = TRConv2d(3, 4, ranks=(2, 2, 2, 1), bias=False, dtype=torch.float64, **arguments)
    x = noise(2, 3, 9, 8)
    with torch.no_grad():
        expected = layer(x)
        patches = Patches.of(layer, x, 1000, generator())
        found = patches.columns @ layer.kernel().flatten(1).T
    assert len(patches.drawn) == expected.shape[2] * expected.shape[3]
    torch.testing.assert_close(found, patches.at(expected))
    torch.testing.assert_close(
        patches.at(expected), expected.permute(0, 2, 3, 1).flatten(0, 2)
    )  # all of them, in their order


@pytest.mark.parametrize(("leading", "pixels"), [((), 1), ((6,), 6), ((2, 3), 6)])
def test_the_weight_times_the_rows_is_the_linear_layer(leading, pixels):
    layer = TRLinear(12, 5, (2, 2, 2, 1), map_size=(2, 3), bias=False, dtype=torch.float64)
    x = noise(4, *leading, 12)
    with torch.no_grad():
        expected = layer(x)
        patches = Patches.of(layer, x, 1000, generator())
        found = patches.columns @ layer.kernel().flatten(1).T
    assert len(patches.drawn) == pixels
    torch.testing.assert_close(found, patches.at(expected))
    torch.testing.assert_close(patches.at(expected), expected.reshape(-1, 5))


def test_fewer_pixels_are_drawn_without_replacement_and_the_same_for_a_seed():
    layer = TRConv2d(3, 4, 3, (1, 1, 1, 1), padding=1)
    x = torch.randn(2, 3, 9, 8)
    one, same, other = (Patches.of(layer, x, 10, generator(seed)) for seed in (1, 1, 2))
    assert len(set(one.drawn.tolist())) == 10
    assert one.columns.shape == (20, 27)
    assert torch.equal(one.columns, same.columns)
    assert not torch.equal(one.drawn, other.drawn)
    # The centre of a padded 3×3 patch is the input's own pixel: column i·9 + 4.
    torch.testing.assert_close(one.columns[:, 4::9], one.at(x))


def test_error_and_bias_are_those_of_the_columns():
    x, y = noise(50, 12), noise(50, 4, seed=1) + 3
    kernel, bias = noise(4, 3, 2, 2, seed=2), noise(4, seed=3)
    moments = Moments(Inputs.of(x), Targets.of(x, y))

    def missed(b: torch.Tensor) -> float:
        return float((y - x @ kernel.flatten(1).T - b).square().sum())

    assert moments.error(kernel, bias) == pytest.approx(missed(bias))
    best = moments.best_bias(kernel)
    torch.testing.assert_close(best, (y - x @ kernel.flatten(1).T).mean(0))
    assert moments.error(kernel, best) == pytest.approx(missed(best))
    assert moments.centred().error(kernel, torch.zeros(4)) == pytest.approx(missed(best))


def test_moments_add_up_over_batches():
    x, y = noise(50, 12), noise(50, 4, seed=1)
    inputs = Inputs.of(x[:20]) + Inputs.of(x[20:])
    targets = Targets.of(x[:20], y[:20]) + Targets.of(x[20:], y[20:])
    torch.testing.assert_close(inputs.gram, x.T @ x)
    torch.testing.assert_close(inputs.total, x.sum(0))
    assert inputs.count == 50
    torch.testing.assert_close(targets.cross, y.T @ x)
    torch.testing.assert_close(targets.total, y.sum(0))
    assert targets.power == pytest.approx(float(y.square().sum()))


def test_the_prior_is_white_noise_that_met_its_kernel():
    x, y, kernel = noise(50, 12), noise(50, 4, seed=1), noise(4, 3, 2, 2, seed=2)
    moments = Moments(Inputs.of(x), Targets.of(x, y))
    ridge = 0.1 * float((x.T @ x).trace()) / 12
    # √ridge times the unit vectors are 12 columns whose gram is ridge·1.
    more = ridge**0.5 * torch.eye(12, dtype=torch.float64)
    together = torch.cat([y, more @ kernel.flatten(1).T]), torch.cat([x, more])
    other = noise(4, 3, 2, 2, seed=5)
    expected = (together[0] - together[1] @ other.flatten(1).T).square().sum()
    found = moments.with_prior(kernel, 0.1).error(other, torch.zeros(4))
    assert found == pytest.approx(float(expected))
    assert moments.inputs.gram[0, 0] == pytest.approx(float(x[:, 0].square().sum()))  # unchanged


def test_single_precision_columns_are_summed_in_double():
    x = torch.randn(10, 6)
    assert Inputs.of(x).gram.dtype == Targets.of(x, x).cross.dtype == torch.float64
    assert Inputs.of(x).total.dtype == Targets.of(x, nn.functional.relu(x)).total.dtype

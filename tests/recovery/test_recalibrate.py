"""Recalibration: what changes, and what must not."""

import copy

import pytest
import torch
from torch import nn

from rsdtr.data.datasets import DataSplits, load_data
from rsdtr.errors import DataError, RsdtrError
from rsdtr.measuring.accuracy import accuracy
from rsdtr.models.model_loading import load_model
from rsdtr.models.zoo import model_spec, weights_sha256
from rsdtr.recovery.recalibrate import recalibrate
from tests.support.lights import brightness, few_digits, lights, tiny


@pytest.fixture(scope="module")
def digits() -> DataSplits:
    return few_digits()


@pytest.fixture
def light() -> DataSplits:
    return lights()


def test_recalibrated_statistics_are_the_average_over_batches(light: DataSplits) -> None:
    model = tiny().eval()
    new = recalibrate(model, light.train, n=64, batch_size=32, seed=3)
    generator = torch.Generator().manual_seed(3)
    convolution = model.get_submodule("0")
    outputs = [convolution(x) for x, _ in light.train.batches(32, generator)]  # (32, 4, 2, 2) each
    means = torch.stack([y.mean((0, 2, 3)) for y in outputs])
    variances = torch.stack([y.var((0, 2, 3)) for y in outputs])
    torch.testing.assert_close(new.get_buffer("1.running_mean"), means.mean(0))
    torch.testing.assert_close(new.get_buffer("1.running_var"), variances.mean(0))


def test_recalibrate_changes_only_a_copys_statistics(light: DataSplits) -> None:
    model = tiny()
    model.get_submodule("1").eval()
    before = weights_sha256(model)
    new = recalibrate(model, light.train)
    assert weights_sha256(model) == before
    changed = {
        name
        for name, value in new.state_dict().items()
        if not torch.equal(value, model.state_dict()[name])
    }
    assert changed == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert [m.training for m in new.modules()] == [m.training for m in model.modules()]
    assert new.get_submodule("1").momentum == 0.1
    assert all(p.grad is None for p in new.parameters())


def test_recalibrate_repairs_spoilt_statistics(digits: DataSplits) -> None:
    model = load_model("digits_resnet20")
    for name, statistic in model.named_buffers():
        if name.endswith("running_mean"):
            statistic += 1
    assert accuracy(model, digits.test).percent < 60
    seen: list[tuple[int, int]] = []
    new = recalibrate(model, digits.train, n=200, progress=lambda *n: seen.append(n))
    assert accuracy(new, digits.test).percent > 90
    assert seen == [(200, 200)]


def test_recalibrate_is_the_same_for_a_seed_and_leaves_the_random_state(light: DataSplits) -> None:
    model = tiny()
    state = torch.get_rng_state()
    hashes = [weights_sha256(recalibrate(model, light.train, 20, seed=s)) for s in (1, 1, 2)]
    assert hashes[0] == hashes[1] != hashes[2]
    assert torch.equal(state, torch.get_rng_state())


def test_recalibrate_without_batchnorm_is_a_copy(light: DataSplits) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    new = recalibrate(model, light.train)
    assert new is not model
    assert weights_sha256(new) == weights_sha256(model)


def test_recalibrate_does_without_a_last_batch_of_one() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 4), nn.BatchNorm2d(2))  # one output pixel
    new = recalibrate(model, brightness(5, 0), batch_size=4)
    assert new.get_buffer("1.num_batches_tracked") == 1


def test_recalibrate_refuses_what_has_no_variance(light: DataSplits) -> None:
    with pytest.raises(DataError, match="asked for with 1 images: give at least 2"):
        recalibrate(tiny(), light.train, n=1)
    with pytest.raises(DataError, match="asked for with 1 images: give at least 2"):
        recalibrate(tiny(), brightness(1, 0))
    with pytest.raises(RsdtrError, match="batch_size=1: give at least 2"):
        recalibrate(tiny(), light.train, batch_size=1)


def test_with_the_dense_network_as_reference_nothing_moves_that_compression_did_not_move():
    spec = model_spec("digits_resnet20")
    dense = load_model(spec.name)
    images = load_data("digits", spec).train
    plain = recalibrate(dense, images, 200)
    referred = recalibrate(dense, images, 200, reference=dense)
    name = "layer2.0.bn1.running_var"
    trained = dense.state_dict()
    assert not torch.allclose(plain.state_dict()[name], trained[name], rtol=1e-3)
    for key, value in referred.state_dict().items():
        if key.endswith("num_batches_tracked"):
            continue
        torch.testing.assert_close(value, trained[key], rtol=1e-4, atol=1e-5)


def test_a_shifted_layer_is_shifted_back():
    spec = model_spec("digits_resnet20")
    dense = load_model(spec.name)
    images = load_data("digits", spec).train
    moved = copy.deepcopy(dense)
    with torch.no_grad():
        moved.conv1.weight *= 3
    repaired = recalibrate(moved, images, 200, reference=dense)
    ratio = repaired.state_dict()["bn1.running_var"] / dense.state_dict()["bn1.running_var"]
    torch.testing.assert_close(ratio, torch.full_like(ratio, 9.0), rtol=1e-3, atol=0)
    repaired_mean = repaired.state_dict()["bn1.running_mean"]
    assert not torch.allclose(repaired_mean, dense.state_dict()["bn1.running_mean"])


def test_a_reference_of_another_architecture_is_refused():
    spec = model_spec("digits_resnet20")
    images = load_data("digits", spec).train
    other = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4))
    with pytest.raises(RsdtrError, match="reference with other BatchNorm layers"):
        recalibrate(load_model(spec.name), images, 64, reference=other)

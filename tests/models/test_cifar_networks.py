"""The CIFAR networks: sizes that follow from the papers, names of the published files."""

import pytest
import torch
from torch import nn

from rsdtr.models.cifar_networks import CifarResNet, CifarVGG, SliceAndPad


def _params(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def _resnet_params(n: int, channels: int, classes: int) -> int:
    """Counted from He et al. 2016, section 4.2: weights, BatchNorm pairs, classifier."""
    stem = 9 * channels * 16 + 2 * 16
    total, before = stem, 16
    for width in (16, 32, 64):
        first = 9 * before * width + 2 * width
        total += first + (2 * n - 1) * (9 * width * width + 2 * width)
        before = width
    return total + 64 * classes + classes


@pytest.mark.parametrize(("blocks", "channels", "classes"), [(3, 3, 10), (1, 1, 7), (18, 3, 10)])
def test_resnet_has_the_parameters_of_the_paper(blocks: int, channels: int, classes: int) -> None:
    model = CifarResNet(blocks, channels, classes)
    assert _params(model) == _resnet_params(blocks, channels, classes)


def test_resnet20_has_the_published_number_of_parameters() -> None:
    assert _params(CifarResNet(3)) == 269_722  # akamaster's README: 0.27M


def test_resnet_takes_any_picture_and_gives_logits() -> None:
    model = CifarResNet(1, in_channels=1, classes=7).eval()
    assert model(torch.randn(2, 1, 16, 16)).shape == (2, 7)
    assert model(torch.randn(1, 1, 9, 13)).shape == (1, 7)


def test_the_shortcut_is_the_published_one() -> None:
    x = torch.randn(2, 16, 8, 8)
    y = SliceAndPad(16, 32, 2)(x)
    assert y.shape == (2, 32, 4, 4)
    assert torch.equal(y[:, 8:24], x[:, :, ::2, ::2])
    assert y[:, :8].abs().sum() == 0
    assert y[:, 24:].abs().sum() == 0


def test_resnet_names_are_the_published_ones() -> None:
    names = set(CifarResNet(3).state_dict())
    assert {"conv1.weight", "bn1.running_var", "layer1.0.conv1.weight", "linear.bias"} <= names
    assert not any("shortcut" in name for name in names)


@pytest.mark.parametrize(("depth", "convolutions"), [(16, 13), (19, 16)])
def test_vgg_is_depth_minus_three_convolutions_and_three_linear_layers(
    depth: int, convolutions: int
) -> None:
    model = CifarVGG(depth, classes=10).eval()
    kinds = [type(module) for module in model.modules()]
    assert kinds.count(nn.Conv2d) == kinds.count(nn.BatchNorm2d) == convolutions
    assert kinds.count(nn.Linear) == 3
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    assert {"features.0.weight", "classifier.6.bias"} <= set(model.state_dict())


def test_resnet_goes_through_torch_export() -> None:
    model = CifarResNet(1, in_channels=1).eval()
    x = torch.randn(2, 1, 16, 16)
    batch = torch.export.Dim("batch", min=1, max=64)
    exported = torch.export.export(model, (x,), dynamic_shapes=({0: batch},)).module()
    y = torch.randn(5, 1, 16, 16)
    torch.testing.assert_close(exported(y), model(y))

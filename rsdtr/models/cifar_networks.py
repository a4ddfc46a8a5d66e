"""CIFAR-style networks that torchvision does not have: ResNet-(6n+2) and small VGG-BN."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SliceAndPad(nn.Module):
    """Parameter-free "option A" shortcut (He et al. 2016, section 4.2).

    (B, in_channels, H, W) -> (B, out_channels, ceil(H/stride), ceil(W/stride)): every
    `stride`-th pixel, and zeros for the channels that the input does not have, half of them
    before and the rest after.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.before = (out_channels - in_channels) // 2
        self.after = out_channels - in_channels - self.before

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, self.before, self.after))


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and an option-A shortcut."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        same_shape = stride == 1 and in_channels == channels
        self.shortcut = nn.Identity() if same_shape else SliceAndPad(in_channels, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + self.shortcut(x))


class CifarResNet(nn.Module):
    """The ResNet of He et al. 2016, section 4.2, with 6·`blocks`+2 layers.

    (B, in_channels, H, W) -> logits (B, classes), any H and W of at least 4. The names of the
    weights are those of github.com/akamaster/pytorch_resnet_cifar10 without `module.`.
    """

    def __init__(self, blocks: int, in_channels: int = 3, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, blocks, stride=1)
        self.layer2 = _stage(16, 32, blocks, stride=2)
        self.layer3 = _stage(32, 64, blocks, stride=2)
        self.linear = nn.Linear(64, classes)
        _kaiming_(self)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        x = torch.flatten(F.adaptive_avg_pool2d(x, 1), 1)  # (B, 64)
        logits: Tensor = self.linear(x)
        return logits


def _stage(in_channels: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
    first = BasicBlock(in_channels, channels, stride)
    return nn.Sequential(first, *(BasicBlock(channels, channels, 1) for _ in range(blocks - 1)))


# Convolutions per stage; every stage ends in a 2×2 max-pool (Simonyan & Zisserman 2015, table 1).
_VGG_CHANNELS = (64, 128, 256, 512, 512)
_VGG_CONVOLUTIONS = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


class CifarVGG(nn.Module):
    """VGG-16 or VGG-19 with BatchNorm for 32×32 pictures.

    (B, in_channels, 32, 32) -> logits (B, classes). The five pools leave one pixel, so the
    classifier has three small linear layers; the names of the weights are those of
    github.com/chenyaofo/pytorch-cifar-models.
    """

    def __init__(self, depth: int, in_channels: int = 3, classes: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels, convolutions in zip(_VGG_CHANNELS, _VGG_CONVOLUTIONS[depth], strict=True):
            for _ in range(convolutions):
                layers.append(nn.Conv2d(in_channels, channels, 3, padding=1))
                layers += [nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
                in_channels = channels
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(512, 512),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(512, 512),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(512, classes),
        )
        _kaiming_(self)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.flatten(self.features(x), 1)  # (B, 512, 1, 1) -> (B, 512)
        logits: Tensor = self.classifier(x)
        return logits


def _kaiming_(model: nn.Module) -> None:
    """He et al. 2015: the initialisation that deep ReLU networks of this kind are trained from."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


# What builds each of them; called with the number of classes where that is another than 10.
CIFAR_NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "digits_resnet20": partial(CifarResNet, 3, 1),
    "cifar10_resnet20": partial(CifarResNet, 3, 3),
    "cifar10_resnet32": partial(CifarResNet, 5, 3),
    "cifar10_resnet44": partial(CifarResNet, 7, 3),
    "cifar10_resnet56": partial(CifarResNet, 9, 3),
    "cifar10_resnet110": partial(CifarResNet, 18, 3),
    "cifar10_vgg16_bn": partial(CifarVGG, 16, 3),
    "cifar10_vgg19_bn": partial(CifarVGG, 19, 3),
}

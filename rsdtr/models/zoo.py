"""The models: what each one is called, what it eats, and where its weights come from."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Literal, TypeVar, get_args

import torch
from pydantic import Field
from torch import Tensor, nn

from rsdtr.errors import RsdtrError, UnknownName
from rsdtr.models import torchvision_networks
from rsdtr.models.cifar_networks import CifarResNet, CifarVGG
from rsdtr.models.run import Example, first_of_each, fresh_input, give_lazy_layers_weights
from rsdtr.models.surgery import copied, made_by
from rsdtr.models.synthetic_weights import decaying_spectrum_
from rsdtr.models.weights import weights_sha256

__all__ = [
    "ModelSpec",
    "Task",
    "class_names",
    "decaying_spectrum_",
    "model_names",
    "model_spec",
    "own_model",
    "weights_sha256",
]
_AKAMASTER = "https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/pretrained_models/"
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
# CIFAR-10's own, as in github.com/chenyaofo/pytorch-cifar-models, whose VGG files fit ours.
_CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
_CIFAR10_STD = (0.2023, 0.1994, 0.2010)
Task = Literal["classification", "segmentation", "detection", "other"]
Crop = Literal["center", "squash"]
Interpolation = Literal["nearest", "bilinear", "bicubic"]
ChannelOrder = Literal["RGB", "BGR"]
MOST_CLASSES = 1_000_000

_OF_THE_PAPER = ("resnet18", "resnet34")  # those of ImageNet that arXiv 2405.10802 compresses
_TASKS: dict[str, Task] = {"voc": "segmentation", "coco": "detection"}

CIFAR10_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


# A manifest says only what differs from the usual: those written before there was a choice stay
# what they are, to the byte.
_Value = TypeVar("_Value")
_Told = Annotated[_Value, Field(exclude_if=lambda value: value in ((), "center", "RGB"))]


@dataclass(frozen=True)
class ModelSpec:
    """What must be known about a model besides its weights.

    input_shape is (C, H, W); mean and std are per channel as the network takes them, of pixels in
    0..1; resize is the short side before the crop (None: the input's own size); crop: "center", or
    "squash" for pictures that are resized to the input whatever their shape; sha256 is the full
    hash of weights_file or its first 8 or more hex digits.
    """

    name: str
    family: str  # "digits", "cifar10", "imagenet", "voc", "coco", or "own " and its task
    input_shape: tuple[int, int, int]
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: int | None
    data: str | None
    weights_file: str | None
    weights_url: str | None
    sha256: str | None
    bundled: bool
    source: str
    interpolation: str = "bilinear"
    class_names: _Told[tuple[str, ...]] = ()  # of its outputs, where `class_names` cannot know them
    crop: _Told[Crop] = "center"
    channel_order: _Told[ChannelOrder] = "RGB"

    @property
    def task(self) -> Task:
        """What it answers: logits (B, classes), logits (B, classes, H, W), boxes, or else."""
        for task in get_args(Task):
            if self.family == f"own {task}":
                return task
        return _TASKS.get(self.family, "classification")

    @property
    def usual_layers(self) -> Literal["paper", "auto"]:
        """Which layers become rings where nobody asks: of the paper's networks those that its
        program compresses, of any other all that store less.
        """
        ours = self.family in ("digits", "cifar10")
        return "paper" if ours or name_and_classes(self.name)[0] in _OF_THE_PAPER else "auto"

    def example(self, model: nn.Module) -> Example:
        """One input of such a model: the first of its example_inputs, or else a blank image."""
        given = _EXAMPLES.get(self.name)
        if given is None:
            return fresh_input(model, torch.zeros(1, *self.input_shape))
        return first_of_each(given)

    def build(self) -> nn.Module:
        """The architecture with fresh weights from torch's global random state.

        Of `own_model` a copy of what its `build` answers, which may be the trained network itself.
        RsdtrError for one that cannot be copied, or that a compiler made.
        """
        name, classes = name_and_classes(self.name)
        if name not in _OWN:
            return torchvision_networks.build(name, classes)
        build = _OWN[name][0]
        network = build() if classes is None else build(classes)
        if not self.family.startswith("own "):
            return network
        if tool := made_by(network):
            raise RsdtrError(
                f"{self.name} has no nn.Conv2d, for it came out of {tool}: give the nn.Module that "
                "it was made from"
            )
        network = copied(network)
        give_lazy_layers_weights(network, self.example(network))
        return network

    def normalise(self, pixels: Tensor) -> Tensor:
        """uint8 (B, C, H, W) in 0..255 -> float32 (B, C, H, W), mean 0 and std 1 per channel.

        The pixels' colours are in the order RGB, whatever the network's.
        """
        if self.channel_order == "BGR":
            pixels = torch.cat([pixels[:, :3].flip(1), pixels[:, 3:]], 1)
        mean = torch.tensor(self.mean, device=pixels.device).view(1, -1, 1, 1)
        std = torch.tensor(self.std, device=pixels.device).view(1, -1, 1, 1)
        return (pixels.float() / 255 - mean) / std


def _digits(name: str) -> ModelSpec:
    return ModelSpec(
        name=name,
        family="digits",
        input_shape=(1, 16, 16),
        classes=10,
        mean=(0.3052,),
        std=(0.3187,),
        resize=None,
        data="digits",
        weights_file="digits_resnet20.safetensors",
        weights_url=None,
        sha256="d932f8567a0e42f1bdce3dd1da37e1adedd9e803949e72f8ec5e5d1856d7fe61",
        bundled=True,
        source="He et al. 2016; trained by scripts/train_digits.py on scikit-learn's digits",
    )


def _cifar10(name: str, file: str | None = None, sha256: str | None = None) -> ModelSpec:
    published = "github.com/akamaster/pytorch_resnet_cifar10, BSD-2-Clause"
    return ModelSpec(
        name=name,
        family="cifar10",
        input_shape=(3, 32, 32),
        classes=10,
        mean=_IMAGENET_MEAN if file else _CIFAR10_MEAN,
        std=_IMAGENET_STD if file else _CIFAR10_STD,
        resize=None,
        data="cifar10",
        weights_file=file,
        weights_url=_AKAMASTER + file if file else None,
        sha256=sha256,
        bundled=False,
        source=f"He et al. 2016; weights: {published}" if file else "Simonyan & Zisserman 2015",
    )


# name -> (architecture, spec). The hashes of ResNet-44 and -110 are those in their file names.
_OWN: dict[str, tuple[Callable[..., nn.Module], ModelSpec]] = {
    "digits_resnet20": (partial(CifarResNet, 3, 1), _digits("digits_resnet20")),
    "cifar10_resnet20": (
        partial(CifarResNet, 3, 3),
        _cifar10(
            "cifar10_resnet20",
            "resnet20-12fca82f.th",
            "12fca82f0bebc4135bf1f32f6e3710e61d5108578464b84fd6d7f5c1b04036c8",
        ),
    ),
    "cifar10_resnet32": (
        partial(CifarResNet, 5, 3),
        _cifar10(
            "cifar10_resnet32",
            "resnet32-d509ac18.th",
            "d509ac1820d7f25398913559d7e81a13229b1e7adc5648e3bfa5e22dc137f850",
        ),
    ),
    "cifar10_resnet44": (
        partial(CifarResNet, 7, 3),
        _cifar10("cifar10_resnet44", "resnet44-014dd654.th", "014dd654"),
    ),
    "cifar10_resnet56": (
        partial(CifarResNet, 9, 3),
        _cifar10(
            "cifar10_resnet56",
            "resnet56-4bfd9763.th",
            "4bfd97631478d6b638d2764fd2baff3edb1d7d82252d54439343b6596b9b5367",
        ),
    ),
    "cifar10_resnet110": (
        partial(CifarResNet, 18, 3),
        _cifar10("cifar10_resnet110", "resnet110-1d1ed7c2.th", "1d1ed7c2"),
    ),
    "cifar10_vgg16_bn": (partial(CifarVGG, 16, 3), _cifar10("cifar10_vgg16_bn")),
    "cifar10_vgg19_bn": (partial(CifarVGG, 19, 3), _cifar10("cifar10_vgg19_bn")),
}


_EXAMPLES: dict[str, Example | None] = {}


def model_names() -> tuple[str, ...]:
    """Every model: the bundled one first, then CIFAR-10's and those of `own_model`, then
    torchvision's CNNs for classification, segmentation and detection.
    """
    return (*_OWN, *torchvision_networks.names())


def model_spec(name: str) -> ModelSpec:
    """The spec of a model. Raises UnknownName with the closest names.

    NAME@N is the model NAME with N classes, for weights that were trained for so many.
    """
    if name in _OWN:
        return _OWN[name][1]
    if name in torchvision_networks.names():
        return _vision_spec(name)
    base, classes = name_and_classes(name)
    if classes and (base in torchvision_networks.names() or (base in _OWN and not _is_users(base))):
        return of_classes(model_spec(base), classes)
    close = difflib.get_close_matches(name, model_names(), n=3)
    hint = (
        f"did you mean {', '.join(close)}?"
        if close
        else "`python -m rsdtr models` lists them, and rsdtr.models.zoo.own_model adds yours"
    )
    raise UnknownName(f"there is no model {name!r}: {hint}")


def name_and_classes(name: str) -> tuple[str, int | None]:
    """The architecture's name, and the number of classes where the name tells it."""
    base, _, number = name.rpartition("@")
    if name in _OWN or not base or not number.isdecimal() or not 0 < int(number) <= MOST_CLASSES:
        return name, None
    return base, int(number)


def _is_users(name: str) -> bool:
    return _OWN[name][1].family.startswith("own ")


def of_classes(spec: ModelSpec, classes: int) -> ModelSpec:
    if classes == spec.classes:
        return spec
    return replace(
        spec,
        name=f"{spec.name}@{classes}",
        classes=classes,
        data=None if spec.task == "classification" else spec.data,
        weights_file=None,
        weights_url=None,
        sha256=None,
        bundled=False,
    )


def own_model(
    name: str,
    build: Callable[[], nn.Module],
    input_shape: tuple[int, int, int],
    classes: int,
    *,
    task: Task = "classification",
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    example_inputs: Example | None = None,
    class_names: Sequence[str] | None = None,
    resize: int | None = None,
    crop: Crop = "center",
    interpolation: Interpolation = "bilinear",
    channel_order: ChannelOrder = "RGB",
    pixel_range: Literal[1, 255] = 1,
) -> ModelSpec:
    """Make a network of one's own a model of this process: its spec, which its name stands for.

    build: answers the network with the weights that `load_model` shall give, which is copied and
    never changed; input_shape: (C, H, W); classes: 1 for a network that answers one logit, of two
    classes. mean, std: per channel as the network takes them, of pixels in 0..pixel_range, by
    default 0 and 1. example_inputs: as `profile` takes them, for a network that takes more than one
    image. class_names: of its outputs, in order; folders of pictures are matched with them. resize:
    the short side before the crop of the input's size, by default the least that fills it; crop:
    "squash" resizes to the input's height and width whatever the picture's. channel_order: of the
    colours that the network takes. What was saved of it is read where it was made known before, by
    the same name.
    example_inputs: as `profile` takes them, for a network that takes more than one image.
    RsdtrError for a name that is taken, or values that do not fit each other.
    """
    if name in torchvision_networks.names() or (name in _OWN and not _is_users(name)):
        raise RsdtrError(f"{name} is a model of this program: give your network another name")
    names = tuple(class_names or ())
    outputs = max(classes, 2)
    if names and (len(names) != outputs or len(set(map(str.casefold, names))) < outputs):
        raise RsdtrError(
            f"{name} has {outputs} classes and was given {len(names)} names of which "
            f"{len(set(map(str.casefold, names)))} differ: give one of its own for each class"
        )
    for word, value, kind in (
        ("crop", crop, Crop), ("interpolation", interpolation, Interpolation),
        ("channel_order", channel_order, ChannelOrder),
        ("pixel_range", pixel_range, Literal[1, 255]),
    ):  # fmt: skip
        if value not in get_args(kind):
            known = ", ".join(map(repr, get_args(kind)))
            raise RsdtrError(f"{name} was given {word}={value!r}: give one of {known}")
    if resize is not None and (crop == "squash" or resize < min(input_shape[1:])):
        raise RsdtrError(
            f"{name} was given resize={resize} and crop={crop!r} for inputs of "
            f"{input_shape[1]}×{input_shape[2]}: give a resize that the crop fits into, and none "
            "with 'squash'"
        )
    if channel_order == "BGR" and input_shape[0] not in (3, 4):
        raise RsdtrError(f"{name} takes {input_shape[0]} channels: BGR is an order of 3 or 4")
    channels = input_shape[0]
    mean, std = mean or (0.0,) * channels, std or (1.0,) * channels
    if len(mean) != channels or len(std) != channels or min(*input_shape, classes) < 1:
        raise RsdtrError(
            f"{name} was given input {input_shape}, {classes} classes, {len(mean)} means and "
            f"{len(std)} deviations: give (C, H, W), at least one class, and C of each"
        )
    spec = ModelSpec(
        name=name,
        family=f"own {task}",
        input_shape=input_shape,
        classes=classes,
        mean=tuple(value / pixel_range for value in mean),
        std=tuple(value / pixel_range for value in std),
        resize=resize,
        interpolation=interpolation,
        class_names=names,
        crop=crop,
        channel_order=channel_order,
        data=None if task == "classification" else torchvision_networks.DATA,
        weights_file=None,
        weights_url=None,
        sha256=None,
        bundled=False,
        source="given by its user",
    )
    _OWN[name] = (build, spec)
    _EXAMPLES[name] = example_inputs
    return spec


@functools.cache
def _vision_spec(name: str) -> ModelSpec:
    published = torchvision_networks.published(name)
    file = published.url.rsplit("/", 1)[-1]
    digits = re.search(r"-([0-9a-f]{8,})\.pth$", file)  # torchvision checks the same prefix
    return ModelSpec(
        name=name,
        family=published.family,
        input_shape=(3, published.side, published.side),
        classes=len(published.classes),
        mean=published.mean,
        std=published.std,
        resize=published.resize,
        data=None if published.family == "imagenet" else torchvision_networks.DATA,
        weights_file=file,
        weights_url=published.url,
        sha256=digits[1] if digits else None,
        bundled=False,
        source=published.source,
        interpolation=published.interpolation,
    )


def class_names(spec: ModelSpec) -> tuple[str, ...]:
    """The names of a model's outputs, in order; their numbers where nobody has named them."""
    if spec.class_names:
        return spec.class_names
    if spec.family.startswith("own ") or name_and_classes(spec.name)[1] is not None:
        return tuple(str(number) for number in range(max(spec.classes, 2)))
    if spec.family == "digits":
        return tuple(str(digit) for digit in range(10))
    if spec.family == "cifar10":
        return CIFAR10_CLASSES
    return torchvision_networks.published(spec.name).classes

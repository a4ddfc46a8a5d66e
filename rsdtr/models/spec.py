"""What must be known of a model besides its weights."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace
from typing import Annotated, Literal, TypeVar, get_args

import torch
from pydantic import Field
from torch import Tensor, nn

from rsdtr.errors import UnknownName
from rsdtr.models import timm_networks, torchvision_networks
from rsdtr.models.cifar_networks import CIFAR_NETWORKS
from rsdtr.models.run import Example, fresh_input

Task = Literal["classification", "segmentation", "detection", "other"]
Crop = Literal["center", "squash"]
Interpolation = Literal["nearest", "bilinear", "bicubic"]
ChannelOrder = Literal["RGB", "BGR"]
Policy = Literal["paper", "auto"]
MOST_CLASSES = 1_000_000
# Per channel of RGB, of pixels in 0..1, as most networks of photographs are trained with.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# Those of arXiv 2405.10802: ResNets and VGGs of small pictures, and two of ImageNet.
PAPER_NETWORKS = frozenset(CIFAR_NETWORKS) | {"resnet18", "resnet34"}
_TASKS: dict[str, Task] = {"voc": "segmentation", "coco": "detection"}
# A manifest says only what differs from the usual: those written before there was a choice stay
# what they are, to the byte.
_Value = TypeVar("_Value")
_Told = Annotated[_Value, Field(exclude_if=lambda value: value in ((), "", "center", "RGB"))]


@dataclass(frozen=True)
class ModelSpec:
    """What must be known about a model besides its weights.

    input_shape is (C, H, W); mean and std are per channel as the network takes them, of pixels in
    0..1; resize is the short side before the crop (None: the input's own size); crop: "center", or
    "squash" for pictures that are resized to the input whatever their shape; sha256 is the full
    hash of weights_file or its first 8 or more hex digits. architecture: what builds it where its
    name does not, `timm:NAME` or `torchvision:NAME`; arguments: of that, (name, value) pairs; hub:
    the repository that holds its weights, `owner/name` or `owner/name@revision`.
    """

    name: str
    family: str  # "digits", "cifar10", "imagenet", "voc", "coco", …, or "own " and its task
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
    architecture: _Told[str] = ""
    arguments: _Told[timm_networks.Arguments] = ()
    hub: _Told[str] = ""

    @property
    def own(self) -> bool:
        """Whether it is a network of somebody's own, which its name does not build."""
        return self.family.startswith("own ")

    @property
    def task(self) -> Task:
        """What it answers: logits (B, classes), logits (B, classes, H, W), boxes, or else."""
        for task in get_args(Task):
            if self.family == f"own {task}":
                return task
        return _TASKS.get(self.family, "classification")

    @property
    def usual_layers(self) -> Policy:
        """The policy of layers where nobody asks: networks of small pictures are the paper's."""
        if self.family in ("digits", "cifar10"):
            return "paper"
        return "auto" if self.own else usual_layers(self.name)

    @property
    def written(self) -> ModelSpec:
        """What a file can say of it."""
        names = [field.name for field in dataclasses.fields(ModelSpec)]
        return ModelSpec(**{name: getattr(self, name) for name in names})

    @property
    def inputs(self) -> int:
        """How many tensors one call of it takes; only one image can be told from a data set."""
        return 1

    def example(self, model: nn.Module) -> Example:
        """One input of such a model: the first of its example_inputs, or else a blank image."""
        return fresh_input(model, torch.zeros(1, *self.input_shape))

    def build(self) -> nn.Module:
        """The architecture with fresh weights from torch's global random state.

        UnknownName for a network of somebody's own that this process was told nothing but the spec
        of; RsdtrError for one that cannot be copied, or that a compiler made.
        """
        if self.own:
            raise UnknownName(
                f"{self.name} is a network of one's own that this process cannot build: give the "
                "network itself"
            )
        name, classes = without_classes(self.name)
        kind, _, architecture = self.architecture.partition(":")
        if kind == "timm":
            return timm_networks.build(architecture, dict(self.arguments), self.classes)
        if kind == "torchvision":
            return torchvision_networks.build(architecture, self.classes)
        if name in CIFAR_NETWORKS:
            return CIFAR_NETWORKS[name](*([] if classes is None else [classes]))
        return torchvision_networks.build(name, classes)

    def of_classes(self, classes: int) -> ModelSpec:
        """The same architecture with another number of classes, which nobody published."""
        if classes == self.classes:
            return self
        return replace(
            self,
            name=f"{self.name}@{classes}",
            classes=classes,
            data=None if self.task == "classification" else self.data,
            class_names=(),
            weights_file=None,
            weights_url=None,
            sha256=None,
            bundled=False,
            hub="",
        )

    def normalise(self, pixels: Tensor) -> Tensor:
        """uint8 (B, C, H, W) in 0..255 -> float32 (B, C, H, W), mean 0 and std 1 per channel.

        The pixels' colours are in the order RGB, whatever the network's.
        """
        if self.channel_order == "BGR":
            pixels = torch.cat([pixels[:, :3].flip(1), pixels[:, 3:]], 1)
        mean = torch.tensor(self.mean, device=pixels.device).view(1, -1, 1, 1)
        std = torch.tensor(self.std, device=pixels.device).view(1, -1, 1, 1)
        return (pixels.float() / 255 - mean) / std


def without_classes(name: str) -> tuple[str, int | None]:
    """The architecture's name, and the number of classes where the name tells it, NAME@N."""
    base, _, number = name.rpartition("@")
    if not base or not number.isdecimal() or not 0 < int(number) <= MOST_CLASSES:
        return name, None
    return base, int(number)


def usual_layers(name: str) -> Policy:
    """Which layers of a model become rings where nobody asks: of the paper's networks, by their
    names, those that its program compresses; of any other all that store less.
    """
    return "paper" if without_classes(name)[0] in PAPER_NETWORKS else "auto"

"""The models: what each one is called, what it eats, and where its weights come from."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from rsdtr.errors import RsdtrError, UnknownName, WeightsError
from rsdtr.models import torchvision_networks
from rsdtr.models.cifar_networks import CifarResNet, CifarVGG
from rsdtr.models.run import Example, first_of_each, fresh_input, give_lazy_layers_weights
from rsdtr.models.surgery import copied, made_by
from rsdtr.models.synthetic_weights import decaying_spectrum_
from rsdtr.models.weights import fill, read_state_dict, weights_sha256
from rsdtr.system.download import published_file
from rsdtr.typing import Progress

__all__ = [
    "ModelSpec",
    "Task",
    "class_names",
    "decaying_spectrum_",
    "load_model",
    "model_names",
    "model_spec",
    "own_model",
    "weights_sha256",
]

ASSETS = Path(__file__).parents[1] / "assets"
_AKAMASTER = "https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/pretrained_models/"
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
# CIFAR-10's own, as in github.com/chenyaofo/pytorch-cifar-models, whose VGG files fit ours.
_CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
_CIFAR10_STD = (0.2023, 0.1994, 0.2010)
Task = Literal["classification", "segmentation", "detection", "other"]

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


@dataclass(frozen=True)
class ModelSpec:
    """What must be known about a model besides its weights.

    input_shape is (C, H, W); mean and std are per channel, of pixels in 0..1; resize is the short
    side before the centre crop (None: the input's own size); sha256 is the full hash of
    weights_file or its first 8 or more hex digits.
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

    @property
    def task(self) -> Task:
        """What it answers: logits (B, classes), logits (B, classes, H, W), boxes, or else."""
        for task in get_args(Task):
            if self.family == f"own {task}":
                return task
        return _TASKS.get(self.family, "classification")

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
        if self.name not in _OWN:
            return torchvision_networks.build(self.name)
        network = _OWN[self.name][0]()
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
        """uint8 (B, C, H, W) in 0..255 -> float32 (B, C, H, W), mean 0 and std 1 per channel."""
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
_OWN: dict[str, tuple[Callable[[], nn.Module], ModelSpec]] = {
    "digits_resnet20": (lambda: CifarResNet(3, in_channels=1), _digits("digits_resnet20")),
    "cifar10_resnet20": (
        lambda: CifarResNet(3),
        _cifar10(
            "cifar10_resnet20",
            "resnet20-12fca82f.th",
            "12fca82f0bebc4135bf1f32f6e3710e61d5108578464b84fd6d7f5c1b04036c8",
        ),
    ),
    "cifar10_resnet32": (
        lambda: CifarResNet(5),
        _cifar10(
            "cifar10_resnet32",
            "resnet32-d509ac18.th",
            "d509ac1820d7f25398913559d7e81a13229b1e7adc5648e3bfa5e22dc137f850",
        ),
    ),
    "cifar10_resnet44": (
        lambda: CifarResNet(7),
        _cifar10("cifar10_resnet44", "resnet44-014dd654.th", "014dd654"),
    ),
    "cifar10_resnet56": (
        lambda: CifarResNet(9),
        _cifar10(
            "cifar10_resnet56",
            "resnet56-4bfd9763.th",
            "4bfd97631478d6b638d2764fd2baff3edb1d7d82252d54439343b6596b9b5367",
        ),
    ),
    "cifar10_resnet110": (
        lambda: CifarResNet(18),
        _cifar10("cifar10_resnet110", "resnet110-1d1ed7c2.th", "1d1ed7c2"),
    ),
    "cifar10_vgg16_bn": (lambda: CifarVGG(16), _cifar10("cifar10_vgg16_bn")),
    "cifar10_vgg19_bn": (lambda: CifarVGG(19), _cifar10("cifar10_vgg19_bn")),
}


_EXAMPLES: dict[str, Example | None] = {}


def model_names() -> tuple[str, ...]:
    """Every model: the bundled one first, then CIFAR-10's and those of `own_model`, then
    torchvision's CNNs for classification, segmentation and detection.
    """
    return (*_OWN, *torchvision_networks.names())


def model_spec(name: str) -> ModelSpec:
    """The spec of a model. Raises UnknownName with the closest names."""
    if name in _OWN:
        return _OWN[name][1]
    if name in torchvision_networks.names():
        return _vision_spec(name)
    close = difflib.get_close_matches(name, model_names(), n=3)
    hint = (
        f"did you mean {', '.join(close)}?"
        if close
        else "`python -m rsdtr models` lists them, and rsdtr.models.zoo.own_model adds yours"
    )
    raise UnknownName(f"there is no model {name!r}: {hint}")


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
) -> ModelSpec:
    """Make a network of one's own a model of this process: its spec, which its name stands for.

    build: answers the network with the weights that `load_model` shall give, which is copied and
    never changed; input_shape: (C, H, W); mean, std: per channel, of pixels in 0..1, by default 0
    and 1; example_inputs: as `profile` takes them, for a network that takes more than one image.
    What was saved of it is read where it was made known before, by the same name.
    RsdtrError for a name that is taken, or numbers that do not fit each other.
    """
    known = _OWN.get(name)
    if name in torchvision_networks.names() or (known and not known[1].family.startswith("own ")):
        raise RsdtrError(f"{name} is a model of this program: give your network another name")
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
        mean=mean,
        std=std,
        resize=None,
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
    """The names of a model's outputs, in order."""
    if spec.family.startswith("own "):
        return tuple(str(number) for number in range(spec.classes))
    if spec.family == "digits":
        return tuple(str(digit) for digit in range(10))
    if spec.family == "cifar10":
        return CIFAR10_CLASSES
    return torchvision_networks.published(spec.name).classes


def load_model(
    name: str, weights: str | Path | None = None, *, progress: Progress | None = None
) -> nn.Module:
    """A model with weights, in eval mode, on the CPU.

    `weights` is None for the published (or bundled) ones, the path of an own file, or "none" for
    seeded weights with a decaying spectrum, for timing where no trained ones are at hand.
    `progress` gets the (done, total) bytes of a download.
    Raises UnknownName, or WeightsError: no weights published, not found, wrong hash, no fit.
    """
    spec = model_spec(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = spec.build()
    if weights == "none":
        return decaying_spectrum_(model).eval()
    if weights is None and spec.family.startswith("own "):
        return model.eval()
    path = Path(weights) if weights is not None else _published(spec, progress)
    state = read_state_dict(path)
    fill(
        model,
        state if name in _OWN else torchvision_networks.in_todays_names(name, state),
        str(path),
    )
    return model.eval()


def _published(spec: ModelSpec, progress: Progress | None) -> Path:
    if spec.bundled and spec.weights_file:
        return ASSETS / spec.weights_file
    if spec.weights_file is None or spec.weights_url is None or spec.sha256 is None:
        raise WeightsError(
            f"{spec.name} has no published weights: give your own file (.safetensors or .pth), "
            f"or train model_spec({spec.name!r}).build() with rsdtr.recovery.finetune and save it"
        )
    return published_file(spec.weights_file, spec.weights_url, spec.sha256, progress)

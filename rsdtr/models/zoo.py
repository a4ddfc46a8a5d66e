"""The models: what each one is called, and where its weights come from."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Unpack

from torch import nn

from rsdtr.errors import RsdtrError, UnknownName
from rsdtr.models import factories, hub, timm_networks, torchvision_networks
from rsdtr.models.own_networks import OwnSpec, Preparation, own_spec
from rsdtr.models.run import Example
from rsdtr.models.spec import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    MOST_CLASSES,
    ModelSpec,
    Task,
    without_classes,
)
from rsdtr.models.synthetic_weights import decaying_spectrum_
from rsdtr.models.weights import weights_sha256

__all__ = [
    "MOST_CLASSES",
    "ModelSpec",
    "Task",
    "class_names",
    "decaying_spectrum_",
    "is_model",
    "know",
    "model_names",
    "model_spec",
    "name_and_classes",
    "own_model",
    "remember",
    "spec_of",
    "weights_sha256",
]
_AKAMASTER = "https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/pretrained_models/"
# CIFAR-10's own, as in github.com/chenyaofo/pytorch-cifar-models, whose VGG files fit ours.
_CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
_CIFAR10_STD = (0.2023, 0.1994, 0.2010)

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
        mean=IMAGENET_MEAN if file else _CIFAR10_MEAN,
        std=IMAGENET_STD if file else _CIFAR10_STD,
        resize=None,
        data="cifar10",
        weights_file=file,
        weights_url=_AKAMASTER + file if file else None,
        sha256=sha256,
        bundled=False,
        source=f"He et al. 2016; weights: {published}" if file else "Simonyan & Zisserman 2015",
    )


# The hashes of ResNet-44 and -110 are those in their file names.
_PUBLISHED: dict[str, ModelSpec] = {
    spec.name: spec
    for spec in (
        _digits("digits_resnet20"),
        _cifar10(
            "cifar10_resnet20",
            "resnet20-12fca82f.th",
            "12fca82f0bebc4135bf1f32f6e3710e61d5108578464b84fd6d7f5c1b04036c8",
        ),
        _cifar10(
            "cifar10_resnet32",
            "resnet32-d509ac18.th",
            "d509ac1820d7f25398913559d7e81a13229b1e7adc5648e3bfa5e22dc137f850",
        ),
        _cifar10("cifar10_resnet44", "resnet44-014dd654.th", "014dd654"),
        _cifar10(
            "cifar10_resnet56",
            "resnet56-4bfd9763.th",
            "4bfd97631478d6b638d2764fd2baff3edb1d7d82252d54439343b6596b9b5367",
        ),
        _cifar10("cifar10_resnet110", "resnet110-1d1ed7c2.th", "1d1ed7c2"),
        _cifar10("cifar10_vgg16_bn"),
        _cifar10("cifar10_vgg19_bn"),
    )
}
_OWN: dict[str, ModelSpec] = {}  # what its user has made known by a name
_READ: dict[str, ModelSpec] = {}  # what saved folders told, for words whose source may be gone


def model_names() -> tuple[str, ...]:
    """Every model that can be listed: the bundled one first, then CIFAR-10's, those of
    `own_model` and of RSDTR_MODELS, then torchvision's CNNs for classification, segmentation and
    detection. Beside them are words: `timm:NAME`, `hf:owner/name`, and a folder of such a network.
    """
    own = dict.fromkeys((*_OWN, *factories.server_models()))
    return (*_PUBLISHED, *own, *torchvision_networks.names())


def is_model(name: str) -> bool:
    """Whether `model_spec` has an answer, as far as can be said without a network."""
    if name.startswith(hub.PREFIX):
        return hub.is_repository(name.removeprefix(hub.PREFIX))
    try:
        model_spec(name)
    except RsdtrError:
        return False
    return True


def model_spec(name: str) -> ModelSpec:
    """The spec of a model. Raises UnknownName with the closest names.

    NAME@N is the model NAME with N classes, for weights that were trained for so many. timm:NAME,
    hf:owner/name and a folder that `save_pretrained` wrote are looked up, where need be over the
    network: RsdtrError, WeightsError if that fails.
    """
    if name in _OWN:
        return _OWN[name]
    server = factories.server_models()
    if name in server:
        return factories.server_spec(name, server[name])
    base, classes = name_and_classes(name)
    found = _spec(base)
    if found is not None:
        return found if classes is None else found.of_classes(classes)
    close = difflib.get_close_matches(name, model_names(), n=3)
    hint = (
        f"did you mean {', '.join(close)}?"
        if close
        else "`python -m rsdtr models` lists them, and rsdtr.models.own_model adds yours"
    )
    raise UnknownName(f"there is no model {name!r}: {hint}")


def _spec(name: str) -> ModelSpec | None:
    if name in _PUBLISHED:
        return _PUBLISHED[name]
    if name in torchvision_networks.names():
        return _vision_spec(name)
    if name.startswith(timm_networks.PREFIX):
        return _timm_spec(name)
    if name in _READ:
        return _READ[name]
    if name.startswith(hub.PREFIX) or hub.is_pretrained(Path(name)):
        return hub.spec(name)
    return None


def spec_of(network: nn.Module, name: str) -> ModelSpec:
    """The spec that a network carries, as one of `rsdtr.shrink` does, or else that of the name."""
    carried = getattr(network, "spec", None)
    if isinstance(carried, ModelSpec) and carried.name == name:
        return carried
    return model_spec(name)


def remember(spec: ModelSpec) -> None:
    """Let what a saved folder tells of a network stand for its name in this process.

    Only of what says itself what builds it: its repository or folder may be out of reach.
    """
    if spec.architecture and not spec.own:
        _READ.setdefault(without_classes(spec.name)[0], spec)


def name_and_classes(name: str) -> tuple[str, int | None]:
    """The architecture's name, and the number of classes where the name tells it."""
    return (name, None) if name in _OWN else without_classes(name)


def own_model(
    name: str,
    build: nn.Module | Callable[[], nn.Module],
    input_shape: tuple[int, int, int],
    classes: int,
    *,
    task: Task = "classification",
    example_inputs: Example | None = None,
    **said: Unpack[Preparation],
) -> ModelSpec:
    """Make a network of one's own a model of this process: its spec, which its name stands for.

    build: the network with the weights that `load_model` shall give, or what answers it; it is
    copied and never changed. input_shape: (C, H, W); classes: 1 for a network that answers one
    logit, of two classes. example_inputs: as `profile` takes them, for a network that takes more
    than one image. mean, std: per channel as the network takes them, of pixels in 0..pixel_range
    (1 or 255), by default 0 and 1. class_names: of its outputs, in order; folders of pictures are
    matched with them. resize: the short side before the crop of the input's size, by default the
    least that fills it; crop: "center", or "squash", which resizes to the input's height and width
    whatever the picture's; interpolation: "bilinear", "nearest" or "bicubic"; channel_order: of the
    colours that the network takes, "RGB" or "BGR". What was saved of it is read where it was made
    known before, by the same name.
    RsdtrError for a name that is taken, or values that do not fit each other.
    """
    if name in _PUBLISHED or name in torchvision_networks.names():
        raise RsdtrError(f"{name} is a model of this program: give your network another name")
    return know(
        own_spec(
            name, build, input_shape, classes, task=task, example_inputs=example_inputs, **said
        )
    )


def know(spec: OwnSpec) -> OwnSpec:
    """Let a name stand for a network of one's own in this process."""
    _OWN[spec.name] = spec
    return spec


@functools.lru_cache(maxsize=256)
def _timm_spec(name: str) -> ModelSpec:
    told = timm_networks.published(name.removeprefix(timm_networks.PREFIX))
    return hub.spec_from(
        name, told, f"timm, {told.hub or told.architecture}",
        imagenet=told.classes == timm_networks.IMAGENET_CLASSES,
    )  # fmt: skip


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
    if not spec.own and name_and_classes(spec.name)[1] is None:
        if spec.family == "digits":
            return tuple(str(digit) for digit in range(10))
        if spec.family == "cifar10":
            return CIFAR10_CLASSES
        if spec.family == timm_networks.OTHER_IMAGENET:
            return timm_networks.wordnet_ids(spec.classes)
        if not spec.architecture:
            return torchvision_networks.published(spec.name).classes
        if spec.family == "imagenet":  # in the same order
            return torchvision_networks.published("resnet18").classes
    return tuple(str(number) for number in range(max(spec.classes, 2)))

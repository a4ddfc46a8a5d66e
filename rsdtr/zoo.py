"""The models: what each one is called, what it eats, and where its weights come from."""

import difflib
import functools
import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from rsdtr.architectures import CifarResNet, CifarVGG
from rsdtr.errors import UnknownName, WeightsError
from rsdtr.weights import Progress, fill, published_file, read_state_dict, weights_sha256

__all__ = [
    "ModelSpec",
    "class_names",
    "decaying_spectrum_",
    "load_model",
    "model_names",
    "model_spec",
    "weights_sha256",
]

ASSETS = Path(__file__).parent / "assets"
_AKAMASTER = "https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/pretrained_models/"
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
# CIFAR-10's own, as in github.com/chenyaofo/pytorch-cifar-models, whose VGG files fit ours.
_CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
_CIFAR10_STD = (0.2023, 0.1994, 0.2010)
# torchvision's classification models whose body is attention, not convolutions.
_NOT_A_CNN = ("maxvit", "swin", "vit")

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
    family: str  # "digits", "cifar10" or "imagenet"
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

    def build(self) -> nn.Module:
        """The architecture with fresh weights from torch's global random state."""
        if self.name in _OWN:
            return _OWN[self.name][0]()
        import torchvision

        options: dict[str, bool] = {}
        if self.name in ("googlenet", "inception_v3"):
            # transform_input: the published weights expect [-1, 1], not ImageNet's mean and std.
            # The auxiliary classifiers only serve training from scratch.
            options = {"aux_logits": False, "init_weights": False, "transform_input": True}
        model: nn.Module = torchvision.models.get_model(self.name, weights=None, **options)
        return model

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


@functools.cache
def _torchvision_names() -> tuple[str, ...]:
    import torchvision

    names = torchvision.models.list_models(module=torchvision.models)
    return tuple(name for name in names if not name.startswith(_NOT_A_CNN))


def model_names() -> tuple[str, ...]:
    """Every model: the bundled one first, then CIFAR-10's, then torchvision's CNNs."""
    return (*_OWN, *_torchvision_names())


def model_spec(name: str) -> ModelSpec:
    """The spec of a model. Raises UnknownName with the closest names."""
    if name in _OWN:
        return _OWN[name][1]
    if name not in _torchvision_names():
        close = difflib.get_close_matches(name, model_names(), n=3)
        hint = (
            f"did you mean {', '.join(close)}?" if close else "`python -m rsdtr models` lists them"
        )
        raise UnknownName(f"there is no model {name!r}: {hint}")
    return _torchvision_spec(name)


@functools.cache
def _torchvision_spec(name: str) -> ModelSpec:
    import torchvision

    weights = torchvision.models.get_model_weights(name).DEFAULT
    eval_transform = weights.transforms()
    side = eval_transform.crop_size[0]
    file = weights.url.rsplit("/", 1)[-1]
    digits = re.search(r"-([0-9a-f]{8,})\.pth$", file)  # torchvision checks the same prefix
    return ModelSpec(
        name=name,
        family="imagenet",
        input_shape=(3, side, side),
        classes=len(weights.meta["categories"]),
        mean=tuple(eval_transform.mean),
        std=tuple(eval_transform.std),
        resize=eval_transform.resize_size[0],
        data=None,
        weights_file=file,
        weights_url=weights.url,
        sha256=digits[1] if digits else None,
        bundled=False,
        source=f"torchvision, {weights}",
        interpolation=eval_transform.interpolation.value,
    )


def class_names(spec: ModelSpec) -> tuple[str, ...]:
    """The names of a model's outputs, in order."""
    if spec.family == "digits":
        return tuple(str(digit) for digit in range(10))
    if spec.family == "cifar10":
        return CIFAR10_CLASSES
    import torchvision

    weights = torchvision.models.get_model_weights(spec.name).DEFAULT
    return tuple(weights.meta["categories"])


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
    path = Path(weights) if weights is not None else _published(spec, progress)
    fill(model, _in_todays_names(spec, read_state_dict(path)), str(path))
    return model.eval()


def _published(spec: ModelSpec, progress: Progress | None) -> Path:
    if spec.bundled and spec.weights_file:
        return ASSETS / spec.weights_file
    if spec.weights_file is None or spec.weights_url is None or spec.sha256 is None:
        raise WeightsError(
            f"{spec.name} has no published weights: give your own file (.safetensors or .pth), "
            f"or train model_spec({spec.name!r}).build() with rsdtr.finetune and save it"
        )
    return published_file(spec.weights_file, spec.weights_url, spec.sha256, progress)


def _in_todays_names(
    spec: ModelSpec, state: "OrderedDict[str, Tensor]"
) -> "OrderedDict[str, Tensor]":
    """Published files of three torchvision families hold names that their classes do not."""
    if spec.family != "imagenet":
        return state
    if spec.name.startswith("densenet"):  # written before dots were forbidden in module names
        old = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")
        renamed = OrderedDict((old.sub(r"\1\2.", n), value) for n, value in state.items())
        if renamed.keys() == state.keys():
            return state
        return renamed
    if spec.name in ("googlenet", "inception_v3"):
        for unused in [n for n in state if n.startswith(("aux1.", "aux2.", "AuxLogits."))]:
            del state[unused]
    return state


def decaying_spectrum_(model: nn.Module) -> nn.Module:
    """Gives every convolution of `model`, in place, the spectrum of a trained one.

    The singular values of its (O, I·KH·KW) unfolding become exp(-6 k/(n-1)), k = 0..n-1, scaled
    to the Frobenius norm they had. Random weights have flat spectra, on which low rank is
    hopeless; these are for timing, never for accuracy. Computed by one thread: the last bits, and
    so the SHA-256 that results are stored under, would depend on how many there are.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        _decay_spectra(model)
    finally:
        torch.set_num_threads(threads)
    return model


def _decay_spectra(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            unfolding = module.weight.detach().flatten(1)  # (O, I·KH·KW)
            left, old, right = torch.linalg.svd(unfolding, full_matrices=False)
            new = torch.exp(-6 * torch.linspace(0, 1, len(old)))
            new *= old.norm() / new.norm()
            with torch.no_grad():
                module.weight.copy_(((left * new) @ right).view_as(module.weight))

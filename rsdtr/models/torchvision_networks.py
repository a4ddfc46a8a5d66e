"""torchvision's networks: how they are built, fed and filled.

A segmentation network answers logits (B, classes, H, W) here; torchvision's own puts them into a
dict, beside those of an auxiliary head that only serves training. A detection network answers as
torchvision's does: for every image a dict of boxes (n, 4), labels (n,) and scores (n,).
"""

import functools
import re
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

DATA = "photos"  # the data set of networks that need no labels
# Classification models whose body is attention, not convolutions.
_NOT_A_CNN = ("maxvit", "swin", "vit")
_DETECTION = ("fasterrcnn", "fcos", "retinanet", "ssd")
# Their published weights were trained with BatchNorm that adds nothing to the variance.
_WITHOUT_EPS = ("fasterrcnn_resnet50_fpn", "retinanet_resnet50_fpn")
_REGISTERED = re.compile(r"^@register_model\(\)\n(?:.*\n)*?def (\w+)\(", re.MULTILINE)


class Segmentation(nn.Module):
    """Images (B, 3, H, W) -> logits (B, classes, H, W), by the parts of torchvision's network."""

    def __init__(self, backbone: nn.Module, classifier: nn.Module, by_name: bool) -> None:
        super().__init__()
        self.backbone, self.classifier = backbone, classifier
        self.by_name = by_name  # whether the classifier takes all features, or the last one

    def forward(self, images: Tensor) -> Tensor:
        features = self.backbone(images)
        logits = self.classifier(features if self.by_name else features["out"])
        return F.interpolate(logits, images.shape[-2:], mode="bilinear", align_corners=False)


@dataclass(frozen=True)
class Published:
    """What is published of a network: family and resize as in a ModelSpec; side: of its square
    input, in pixels; classes: with the background, where there is one; mean, std: of pixels in
    0..1 (0 and 1 where the network normalises them itself).
    """

    family: str
    side: int
    resize: int
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    url: str
    source: str
    interpolation: str = "bilinear"


@functools.cache
def names() -> tuple[str, ...]:
    """The networks for classification, for segmentation, and those that answer boxes alone."""
    return (
        *(name for name in _listed("") if not name.startswith(_NOT_A_CNN)),
        *_segmentation(),
        *(name for name in _listed("detection") if name.startswith(_DETECTION)),
    )


def _segmentation() -> tuple[str, ...]:
    return _listed("segmentation")


@functools.cache
def _listed(task: str) -> tuple[str, ...]:
    """What torchvision.models.list_models answers of models, or of its package `task`.

    Read from the sources: importing torchvision takes two seconds, for torch's compiler.
    """
    folders = cast(ModuleSpec, find_spec("torchvision")).submodule_search_locations or []
    sources = (Path(folders[0]) / "models" / task).glob("*.py")
    registered = (_REGISTERED.findall(path.read_text(encoding="utf-8")) for path in sources)
    return tuple(sorted(name for some in registered for name in some))


def build(name: str, classes: int | None = None) -> nn.Module:
    """The architecture with fresh weights from torch's global random state.

    classes: how many it tells apart, by default those of its published weights.
    """
    from torchvision import models

    options: dict[str, object] = {} if classes is None else {"num_classes": classes}
    if name in ("googlenet", "inception_v3"):
        # transform_input: the published weights expect [-1, 1], not ImageNet's mean and std.
        # The auxiliary classifiers only serve training from scratch.
        options |= {"aux_logits": False, "init_weights": False, "transform_input": True}
    elif name in _segmentation() or name.startswith(_DETECTION):
        options |= {"weights_backbone": None}
    network: nn.Module = models.get_model(name, weights=None, **options)
    if name in _segmentation():
        backbone, classifier = (
            network.get_submodule("backbone"),
            network.get_submodule("classifier"),
        )
        return Segmentation(backbone, classifier, name.startswith("lraspp"))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and name in _WITHOUT_EPS:
            module.eps = 0.0
    return network


@functools.cache
def published(name: str) -> Published:
    """What torchvision tells of a network's weights."""
    from torchvision import models

    weights = models.get_model_weights(name).DEFAULT
    source = f"torchvision, {weights}"
    classes = tuple(weights.meta["categories"])
    if name.startswith(_DETECTION):
        side = {"ssd300_vgg16": 300}.get(name, 320 if "320" in name else 800)
        unchanged = (0.0,) * 3, (1.0,) * 3
        return Published("coco", side, side, classes, *unchanged, weights.url, source)
    given = weights.transforms()
    family, side = "voc", given.resize_size[0]
    if name not in _segmentation():
        family, side = "imagenet", given.crop_size[0]
    return Published(
        family, side, given.resize_size[0], classes, tuple(given.mean), tuple(given.std),
        weights.url, source, given.interpolation.value,
    )  # fmt: skip


def todays_name(model: str, key: str) -> str | None:
    """The name that a published tensor has in today's class, None for one of a head that only
    served training; of any model.
    """
    if model in ("googlenet", "inception_v3"):
        unused: tuple[str, ...] = ("aux1.", "aux2.", "AuxLogits.")
    elif model in ("fcn_resnet50", "fcn_resnet101") or model.startswith("deeplabv3"):
        unused = ("aux_classifier.",)
    else:
        unused = ()
    return None if key.startswith(unused) else _todays(model, key)


def _todays(name: str, key: str) -> str:
    """Files of some families hold old names."""
    if name.startswith("densenet"):  # written before dots were forbidden in module names
        return re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", key)
    if not name.startswith(_DETECTION):
        return key
    # What was a convolution in 2021 has become a block of convolution and norm.
    key = re.sub(r"(fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)$", r"\1.0.\2", key)
    key = re.sub(r"^(rpn\.head\.conv)\.(weight|bias)$", r"\1.0.0.\2", key)
    if not name.startswith("retinanet"):
        return key
    return re.sub(
        r"^(head\.\w+_head\.conv)\.(\d+)\.(weight|bias)$",
        lambda found: f"{found[1]}.{int(found[2]) // 2}.0.{found[3]}",  # ReLUs were between them
        key,
    )

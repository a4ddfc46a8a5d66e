"""timm's networks: how they are built, and what timm tells of them and of a repository's config."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, cast

from torch import nn

from rsdtr.errors import RsdtrError, UnknownName, first_line
from rsdtr.system.extras import missing_extra

PREFIX = "timm:"
IMAGENET_CLASSES = 1000
OTHER_IMAGENET = "imagenet by WordNet ids"  # family of its larger subsets
Argument = bool | int | float | str | tuple[int, ...] | tuple[float, ...] | None
Arguments = tuple[tuple[str, Argument], ...]
_INTERPOLATIONS = ("nearest", "bilinear", "bicubic")
# Of `timm.create_model`, what would look for weights, or say how it is run: no part of a structure.
_NOT_A_STRUCTURE = (
    "pretrained", "checkpoint", "cache_dir", "scriptable", "exportable", "no_jit", "features_only",
    "device", "dtype", "num_classes",
)  # fmt: skip


@dataclass(frozen=True)
class TimmFacts:
    """What is told of a network: how its pictures are prepared, and where its weights lie.

    input_shape: (C, H, W); resize: the short side before the crop; class_names: empty where nobody
    named them; hub: the repository of its published weights, or "".
    """

    architecture: str
    input_shape: tuple[int, int, int]
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: int
    interpolation: str
    squash: bool
    class_names: tuple[str, ...]
    hub: str


def build(architecture: str, arguments: Mapping[str, Argument], classes: int) -> nn.Module:
    """The architecture with fresh weights; RsdtrError where timm does not build it."""
    if wrong := [name for name in arguments if not _is_structure(name)]:
        raise RsdtrError(f"{architecture} is not built with {wrong[0]!r}: leave it out")
    try:
        network: nn.Module = _timm().create_model(
            architecture, pretrained=False, num_classes=classes, **arguments
        )
    except Exception as error:  # whatever a class raises at arguments that it does not know
        first = first_line(error)
        raise RsdtrError(f"timm does not build {architecture} ({first})") from error
    return network


def known(architecture: str) -> bool:
    """Whether timm has an architecture of this name, without a tag."""
    found: bool = _timm().is_model(architecture)
    return found


@functools.cache
def published(name: str) -> TimmFacts:
    """What timm tells of NAME or NAME.TAG; UnknownName for a name that it does not have."""
    timm = _timm()
    architecture, _, _ = name.partition(".")
    if not known(architecture):
        close = timm.list_models(f"*{architecture[:6]}*")[:3] if architecture else []
        hint = f": it has {', '.join(close)} and others" if close else ""
        raise UnknownName(f"timm {timm.__version__} has no model {name!r}{hint}")
    try:
        told = timm.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError:
        tags = ", ".join(timm.list_pretrained(f"{architecture}.*")[:4])
        raise UnknownName(f"timm has no weights {name!r}: it has {tags or 'none'}") from None
    return facts(architecture, told.to_dict() if told is not None else {})


def facts(architecture: str, config: Mapping[str, Any]) -> TimmFacts:
    """What a `pretrained_cfg` tells; RsdtrError for one that describes no classifier of images."""
    from timm.data.config import resolve_model_data_config

    try:
        # timm asks for a model only where there is no config.
        asked = resolve_model_data_config(
            None, pretrained_cfg=dict(config) or {"num_classes": 1000}
        )
        channels, height, width = (int(size) for size in asked["input_size"])
        classes = int(config.get("num_classes", IMAGENET_CLASSES))
        mean, std = (_each(asked[word], channels) for word in ("mean", "std"))
        resize = math.floor(min(height, width) / float(asked["crop_pct"]))
        names = tuple(str(name) for name in config.get("label_names") or ())
        hub = str(config.get("hf_hub_id") or "")
    except (TypeError, ValueError, KeyError, ZeroDivisionError) as error:
        raise RsdtrError(
            f"what is told of {architecture} cannot be read ({error}): its pretrained_cfg has to "
            "be one that timm writes"
        ) from error
    if min(channels, height, width) < 1 or classes < 0 or resize < min(height, width):
        raise RsdtrError(
            f"{architecture} is said to take {channels}×{height}×{width} and to tell {classes} "
            "classes apart: its pretrained_cfg has to be one that timm writes"
        )
    if classes == 0:
        raise RsdtrError(f"{architecture} is published without a classifier: choose another tag")
    way = asked["interpolation"]
    return TimmFacts(
        architecture, (channels, height, width), classes, mean, std, resize,
        way if way in _INTERPOLATIONS else "bicubic", asked["crop_mode"] == "squash",
        names if len(names) == classes else (), hub,
    )  # fmt: skip


@functools.cache
def wordnet_ids(classes: int) -> tuple[str, ...]:
    """The WordNet ids of the subset of ImageNet that has so many classes; none if there is none."""
    from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset({"num_classes": classes})
    return () if subset is None else tuple(ImageNetInfo(subset).label_names())


def arguments_of(told: object) -> Arguments:
    """`model_args` of a config; RsdtrError for what says nothing about a structure."""
    if not isinstance(told, Mapping):
        raise RsdtrError(f"model_args are a {type(told).__name__}, expected names and values")
    pairs = []
    for name, value in told.items():
        if name in ("num_classes", "pretrained"):
            continue
        if isinstance(value, list):
            value = tuple(value)
        plain = value if isinstance(value, tuple) else (value,)
        if not _is_structure(name) or any(
            item is not None and not isinstance(item, bool | int | float | str) for item in plain
        ):
            raise RsdtrError(
                f"model_args say {name!r}: {str(value)[:40]!r}, which is no part of a structure"
            )
        pairs.append((name, cast(Argument, value)))
    return tuple(sorted(pairs))


def _is_structure(name: str) -> bool:
    return name.isidentifier() and not name.startswith(_NOT_A_STRUCTURE)


def _each(values: object, channels: int) -> tuple[float, ...]:
    found = [float(value) for value in values] if isinstance(values, tuple | list) else []
    if len(found) == 1:
        found *= channels
    if len(found) != channels:
        raise ValueError(f"{len(found)} means or deviations for {channels} channels")
    return tuple(found)


def _timm() -> ModuleType:
    try:
        import timm
    except ModuleNotFoundError as error:
        raise missing_extra(error) or error from None
    found: ModuleType = timm
    return found

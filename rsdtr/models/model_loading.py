"""A model with weights: published, bundled, seeded, or of one's own file."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rsdtr.errors import RsdtrError, WeightsError
from rsdtr.models import hub, torchvision_networks
from rsdtr.models.synthetic_weights import decaying_spectrum_
from rsdtr.models.weights import fill, read_for
from rsdtr.models.weights_source import WeightsLike, WeightsSource
from rsdtr.models.zoo import (
    MOST_CLASSES,
    ModelSpec,
    model_spec,
    name_and_classes,
)
from rsdtr.system.download import published_file
from rsdtr.typing import Progress

ASSETS = Path(__file__).parents[1] / "assets"
_log = logging.getLogger(__name__)


def load_model(
    name: str, weights: WeightsLike = None, *, progress: Progress | None = None
) -> nn.Module:
    """A model with weights, in eval mode, on the CPU.

    `weights` is None for the published (or bundled) ones, the path of an own file, or "none" for
    seeded weights with a decaying spectrum, for timing where no trained ones are at hand.
    `progress` gets the (done, total) bytes of a download.
    Raises UnknownName, or WeightsError: no weights published, not found, wrong hash, no fit.
    """
    spec, source = model_spec(name), WeightsSource.of(weights)
    model = _fresh(spec)
    if source.synthetic:
        return decaying_spectrum_(model).eval()
    if source.published and spec.own:
        return model.eval()
    path = source.file or _published(spec, progress)
    state = _read(model, spec, path)
    told = _classes_told(model, state, spec)
    if told is not None:
        _log.warning("%s tells %d classes apart: it is read as %s@%d", path, told, name, told)
        model = _fresh(model_spec(f"{name}@{told}"))
    fill(model, state, str(path))
    return model.eval()


def with_classes(name: str, weights: WeightsLike, classes: int | None = None) -> str:
    """The model's name for weights that were trained for another number of classes than its own.

    classes: that number; by default it is read from the last layer in the file of weights.
    UnknownName, WeightsError as `load_model`; RsdtrError where the number cannot be chosen.
    """
    spec = model_spec(name)
    if classes is not None:
        if spec.own:
            raise RsdtrError(f"{name} has the classes that it was made known with: name no others")
        return model_spec(f"{name_and_classes(name)[0]}@{classes}").name
    file = WeightsSource.of(weights).file
    if file is None or spec.own or name_and_classes(name)[1]:
        return name
    model = _fresh(spec)
    told = _classes_told(model, _read(model, spec, file), spec)
    return name if told is None else f"{name}@{told}"


def _fresh(spec: ModelSpec) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return spec.build()


def _read(model: nn.Module, spec: ModelSpec, path: Path) -> OrderedDict[str, Any]:
    base = spec.architecture.removeprefix("torchvision:") or name_and_classes(spec.name)[0]
    return read_for(
        model,
        path,
        partial(torchvision_networks.todays_name, base)
        if base in torchvision_networks.names()
        else str,
    )


def _classes_told(model: nn.Module, state: Mapping[str, Any], spec: ModelSpec) -> int | None:
    """How many classes a file is for, where that is all that its shapes differ by; else None."""
    if spec.own or name_and_classes(spec.name)[1] is not None:
        return None
    told = set()
    for name, own in model.state_dict().items():
        value = state.get(name)
        if not isinstance(value, Tensor) or value.shape == own.shape:
            continue
        each, rest = divmod(own.shape[0] if own.ndim else 0, spec.classes)
        if rest or not each or value.shape[1:] != own.shape[1:] or value.shape[0] % each:
            return None
        told.add(value.shape[0] // each)
    if len(told) != 1 or not 0 < (classes := told.pop()) <= MOST_CLASSES:
        return None
    shapes = _fresh(spec.of_classes(classes)).state_dict()
    fits = all(name in shapes and shapes[name].shape == v.shape for name, v in state.items())
    return classes if fits else None


def _published(spec: ModelSpec, progress: Progress | None) -> Path:
    if spec.bundled and spec.weights_file:
        return ASSETS / spec.weights_file
    if spec.hub or (spec.weights_file and hub.is_pretrained(Path(spec.name))):
        return hub.weights(spec)
    if spec.weights_file is None or spec.weights_url is None or spec.sha256 is None:
        raise WeightsError(
            f"{spec.name} has no published weights: give your own file (.safetensors, .pth …), or "
            f"train model_spec({spec.name!r}).build() with rsdtr.recovery.finetune and save it"
        )
    return published_file(spec.weights_file, spec.weights_url, spec.sha256, progress)

"""Every layer in the form that runs fastest here, and the networks beside each other."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

from rsdtr import measure
from rsdtr.compress import replace_module
from rsdtr.fuse import fuse, plain_convolutions
from rsdtr.layers import TRConv2d
from rsdtr.methods.factored import FactoredConv2d
from rsdtr.profile import ModelProfile
from rsdtr.ring.forms import FORMS

BATCH = 16
_LAYER_RUNS, _NETWORK_RUNS = 5, 9


def fastest(model: nn.Module, profile: ModelProfile, batch: int = BATCH) -> nn.Module:
    """A fused copy in which each compressed layer is its chain, or one of its forms, or dense.

    Whichever took least processor time on one thread, for a batch of noise. profile: of the
    original network.
    """
    new = copy.deepcopy(model).eval().requires_grad_(False)
    for layer in profile.layers:
        module = dict(new.named_modules()).get(layer.name)
        if isinstance(module, TRConv2d | FactoredConv2d):
            images = torch.randn(batch, layer.shape[1], *layer.input_size)
            best = _fastest({str(k): form for k, form in enumerate(_forms(module))}, images)
            replace_module(new, module, best)
    return fuse(new)


def latency_ratio(model: nn.Module, dense: nn.Module, images: Tensor) -> float:
    """Processor time of a pass over the images, model / dense, on one thread: medians."""
    times = _times({"model": model, "dense": dense}, images, _NETWORK_RUNS)
    return times["model"].median_ms / times["dense"].median_ms


def _forms(module: TRConv2d | FactoredConv2d) -> list[nn.Module]:
    if isinstance(module, FactoredConv2d):
        return [module.plain(), module.to_dense()]
    forms: list[nn.Module] = []
    for form in FORMS:
        module.form = form
        forms.append(plain_convolutions(module))
    return forms


def _fastest(forms: Mapping[str, nn.Module], images: Tensor) -> nn.Module:
    times = _times(forms, images, _LAYER_RUNS)
    return forms[min(times, key=lambda name: times[name].best_ms)]


def _times(models: Mapping[str, nn.Module], images: Tensor, runs: int) -> dict[str, measure.Spread]:
    works = {name: partial(_run, model, images) for name, model in models.items()}
    with measure.threads(1):
        return measure.interleaved(works, runs=runs, seconds=5.0, clock=time.process_time)


def _run(model: nn.Module, images: Tensor) -> None:
    with torch.inference_mode():
        model(images)

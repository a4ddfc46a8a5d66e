"""What a method's network costs: ρ from shapes alone, and every layer in the form fastest here.

ρ is the FLOPs of a tensorized tensor ring beside those of RSDTR's four sublayers: arXiv 2405.10802
argues with this ratio. Here the tensorized layer (Wang et al. 2018) is given the best order of
contraction there is, so that ρ is the least that can be said against it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import isqrt

import torch
from torch import Tensor, nn

from rsdtr.baselines.conv_chain import FactoredConv2d
from rsdtr.baselines.tensorized_ring import tensorized_macs, tensorized_storage
from rsdtr.compressed.fuse import fuse, plain_layers
from rsdtr.compressed.ring_layer import RingLayer
from rsdtr.measuring import stopwatch
from rsdtr.models.surgery import copied, replaced
from rsdtr.planning.model_profile import ModelProfile
from rsdtr.planning.plan import CompressionPlan
from rsdtr.ring.cost import Size, pipeline_macs
from rsdtr.ring.forms import FORMS
from rsdtr.ring.tensor_ring import ring_storage

CHANNELS = (16, 32, 64, 128, 256, 512)
RANKS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
_PIXELS = 32  # per axis, of the curves: only cores that meet each other depend on it


@dataclass(frozen=True)
class LayerRatio:
    """One layer as both rings: ranks R_0…R_3 and storage of RSDTR's; rank: R of the tensorized one.

    storage, tensorized_storage: scalars; macs, tensorized_macs: for one input.
    """

    name: str
    shape: tuple[int, int, int, int]
    ranks: tuple[int, int, int, int]
    rank: int
    storage: int
    tensorized_storage: int
    macs: int
    tensorized_macs: int

    @property
    def rho(self) -> float:
        """FLOPs, tensorized / RSDTR: above 1 the tensorized ring multiplies more."""
        return self.tensorized_macs / self.macs


def flops_ratio(
    shape: Sequence[int], ranks: Sequence[int], rank: int, input_size: Size, output_size: Size
) -> float:
    """ρ of a kernel (O, I, KH, KW): a tensorized ring of rank R over a ring of ranks R_0…R_3.

    input_size, output_size: (H, W). RSDTR is counted as its four sublayers.
    """
    ours = pipeline_macs(shape, ranks, input_size, output_size)
    return tensorized_macs(shape, rank, input_size, output_size) / ours


def rank_for(shape: Sequence[int], storage: int) -> int:
    """The largest R whose tensorized ring stores no more than this; 1 where none does."""
    return max(1, isqrt(storage // tensorized_storage(shape, 1)))


def layer_ratios(decided: CompressionPlan, profile: ModelProfile) -> tuple[LayerRatio, ...]:
    """Every ring of a plan beside the tensorized ring of the same storage, or just below it."""
    found = []
    for layer in decided.layers:
        if layer.ranks is None:
            continue
        layer_profile = profile.layer(layer.name)
        rank = rank_for(layer.shape, layer.storage)
        found.append(
            LayerRatio(
                layer.name,
                layer.shape,
                layer.ranks,
                rank,
                layer.storage,
                tensorized_storage(layer.shape, rank),
                layer_profile.pipeline_macs(layer.ranks),
                layer_profile.over_runs(partial(tensorized_macs, layer.shape, rank)),
            )
        )
    return tuple(found)


def curve(channels: int, kernel: int = 3) -> tuple[tuple[int, float], ...]:
    """(R, ρ) of a k×k layer with as many input as output channels, all four ranks being R.

    The tensorized ring has the storage of that ring, or just below; R as long as the ring stores
    less than the kernel.
    """
    shape, size = (channels, channels, kernel, kernel), (_PIXELS, _PIXELS)
    found = []
    for rank in RANKS:
        storage = ring_storage(shape, (rank,) * 4)
        if storage < channels * channels * kernel * kernel:
            equal = rank_for(shape, storage)
            found.append((rank, flops_ratio(shape, (rank,) * 4, equal, size, size)))
    return tuple(found)


BATCH = 16
_LAYER_RUNS, _NETWORK_RUNS = 5, 9


def fastest(model: nn.Module, profile: ModelProfile, batch: int = BATCH) -> nn.Module:
    """A fused copy in which each compressed layer is its chain, or one of its forms, or dense.

    Whichever took least processor time on one thread, for a batch of noise. profile: of the
    original network.
    """
    modules = dict(model.named_modules())
    best: dict[nn.Module, nn.Module] = {}
    for layer in profile.layers:
        module = modules.get(layer.name)
        if isinstance(module, RingLayer | FactoredConv2d):
            images = torch.randn(batch, *layer.input_shape)
            forms = {str(k): form for k, form in enumerate(_forms(copied(module).eval()))}
            best[module] = _fastest(forms, images)
    return fuse(replaced(model, best).requires_grad_(False))


def latency_ratio(model: nn.Module, dense: nn.Module, images: Tensor) -> float:
    """Processor time of a pass over the images, model / dense, on one thread: medians."""
    times = _times({"model": model, "dense": dense}, images, _NETWORK_RUNS)
    return times["model"].median_ms / times["dense"].median_ms


def _forms(module: nn.Module) -> list[nn.Module]:
    if isinstance(module, FactoredConv2d):
        return [module.plain(), module.to_dense()]
    assert isinstance(module, RingLayer)
    forms: list[nn.Module] = []
    for form in FORMS:
        module.form = form
        forms.append(plain_layers(module))
    return forms


def _fastest(forms: Mapping[str, nn.Module], images: Tensor) -> nn.Module:
    times = _times(forms, images, _LAYER_RUNS)
    return forms[min(times, key=lambda name: times[name].best_ms)]


def _times(
    models: Mapping[str, nn.Module], images: Tensor, runs: int
) -> dict[str, stopwatch.Spread]:
    works = {name: partial(_run, model, images) for name, model in models.items()}
    with stopwatch.thread_count(1):
        return stopwatch.interleaved(works, runs=runs, seconds=5.0, clock=time.process_time)


def _run(model: nn.Module, images: Tensor) -> None:
    with torch.inference_mode():
        model(images)

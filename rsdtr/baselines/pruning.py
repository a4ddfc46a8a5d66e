"""Structured pruning of whole channels, by torch-pruning (Fang et al. 2023).

Only channels that one convolution makes go: those that a shortcut adds would have to go from every
block of a stage, and the zeros that pad an option-A shortcut have a fixed number.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsdtr.data.datasets import LabelledImages
from rsdtr.errors import PlanError
from rsdtr.models.run import fresh_input
from rsdtr.models.zoo import ModelSpec
from rsdtr.planning.model_profile import ModelProfile, profile

Importance = Literal["l2", "taylor"]
TAYLOR_IMAGES, BATCH = 512, 128
MOST = 93  # percent of the channels of a layer: of 16, one is left


@dataclass(frozen=True, eq=False)
class Pruned:
    """A pruned network, its profile, and which channels went, as torch-pruning writes it down."""

    model: nn.Module
    profile: ModelProfile
    history: tuple[tuple[str, bool, list[int]], ...]

    def repeated(self, model: nn.Module, spec: ModelSpec) -> nn.Module:
        """A copy of another network of the same architecture without the same channels."""
        import torch_pruning as tp  # loads torch's compiler too, and timm where it is installed

        other = copy.deepcopy(model)
        example = torch.zeros(1, *spec.input_shape)
        graph = tp.DependencyGraph().build_dependency(other, example_inputs=example)
        graph.load_pruning_history(list(self.history))
        return other


def pruned(
    model: nn.Module,
    spec: ModelSpec,
    importance: Importance,
    pcr: float,
    images: LabelledImages | None = None,
) -> Pruned:
    """A smaller copy at the least share of channels, in percent, that reaches the PCR.

    importance: `l2`, the norm of a channel's weights, or `taylor`, gradient times weight of the
    labels' cross-entropy on 512 of the images. The same share goes in every layer that can be
    pruned. PlanError if that does not reach the PCR.
    """
    whole = profile(model, spec).params
    trained = copy.deepcopy(model).eval()
    if importance == "taylor":
        if images is None:
            raise PlanError("Taylor pruning needs labelled images: give --data")
        _take_gradients(trained, images)

    def at(percent: int) -> Pruned:
        smaller, history = _pruned_by(trained, spec, importance, percent / 100)
        return Pruned(smaller, profile(smaller, spec), history)

    low, high = 0, MOST
    best = at(high)
    if whole / best.profile.params < pcr:
        raise PlanError(
            "pruning the channels inside of blocks reaches PCR "
            f"{whole / best.profile.params:.3g} at most, not {pcr:g}: ask for less"
        )
    while high - low > 1:
        middle = (low + high) // 2
        found = at(middle)
        if whole / found.profile.params >= pcr:
            high, best = middle, found
        else:
            low = middle
    best.model.zero_grad(set_to_none=True)
    return best


def _pruned_by(
    trained: nn.Module, spec: ModelSpec, importance: Importance, share: float
) -> tuple[nn.Module, tuple[tuple[str, bool, list[int]], ...]]:
    import torch_pruning as tp

    model = copy.deepcopy(trained)
    for one, other in zip(model.parameters(), trained.parameters(), strict=True):
        one.grad = None if other.grad is None else other.grad.clone()
    example = torch.zeros(1, *spec.input_shape)
    score = (
        tp.importance.GroupMagnitudeImportance(p=2)
        if importance == "l2"
        else tp.importance.GroupTaylorImportance()
    )
    pruner = tp.pruner.BasePruner(
        model, example, importance=score, pruning_ratio=share, ignored_layers=_kept(model, example)
    )
    pruner.step()
    return model, tuple(pruner.pruning_history())


def _kept(model: nn.Module, example: Tensor) -> list[nn.Module]:
    """Layers whose output channels cannot go alone: their group has another layer's outputs too."""
    import torch_pruning as tp

    graph = tp.DependencyGraph().build_dependency(model, example_inputs=example)
    kept: list[nn.Module] = []
    for module in model.modules():
        if isinstance(module, nn.Linear):
            kept.append(module)
        if not isinstance(module, nn.Conv2d):
            continue
        group = graph.get_pruning_group(module, tp.prune_conv_out_channels, idxs=[0])
        outputs = [
            item.dep.target.module
            for item in group
            if item.dep.handler in (tp.prune_conv_out_channels, tp.prune_linear_out_channels)
        ]
        if len(outputs) > 1:
            kept.append(module)
    return kept


def _take_gradients(model: nn.Module, images: LabelledImages) -> None:
    model.requires_grad_(True)
    for pixels, labels in images.subset(TAYLOR_IMAGES).batches(BATCH):
        F.cross_entropy(model(fresh_input(model, pixels)), labels).backward()

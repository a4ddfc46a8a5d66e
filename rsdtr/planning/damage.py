"""Measuring damage: how far a network's output moves when one of its layers becomes a ring."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rsdtr.data.image_sets import fitting_batch
from rsdtr.data.tensor_images import ImageSource, images_of
from rsdtr.errors import DataError
from rsdtr.models.outputs import answers
from rsdtr.models.run import fresh_input
from rsdtr.models.surgery import Weighted, copied
from rsdtr.planning.model_profile import ModelProfile
from rsdtr.planning.plan import policy_layers
from rsdtr.planning.target_solver import Damage
from rsdtr.search.candidate import Objective, Question, Rule
from rsdtr.search.ring_svd import ring_svd

MEASURED_EPS = (0.2, 0.35, 0.5, 0.6, 0.7, 0.8, 0.9)
LARGE = 16  # images, where every pixel or anchor has an answer
BATCH = 256  # enough that the BatchNorm statistics of a batch stand for those of all images


@torch.no_grad()
def measure_damage(
    model: nn.Module,
    profile: ModelProfile,
    images: ImageSource,
    n: int = 512,
    *,
    rule: Rule = "paper",
    objective: Objective = "storage",
    layers: str | Sequence[str] | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Damage:
    """Damage of each layer at seven ε_p from 0.2 to 0.9, all others dense, on n unlabelled images.

    BatchNorm runs on the statistics of the batch, with and without the ring, which measures what is
    left after recalibration. ‖z − ẑ‖²/‖z‖² of the network's answers z is averaged over the images.
    All answers are kept: of a network that tells more than classes, 16 images are the most.
    The model is not changed. progress: called with (runs done, runs in all). DataError for fewer
    than 2 images.
    """
    images = images_of(images)
    if n < 2 or len(images) < 2:
        raise DataError(
            f"damage was to be measured on {min(n, len(images))} images: give at least 2"
        )
    if images.spec.task != "classification":
        n = min(n, LARGE)
    network = copied(model)
    chosen = images.subset(n, seed)
    generator = torch.Generator().manual_seed(seed)
    size = fitting_batch(images.spec, BATCH)
    batches = [fresh_input(network, pixels) for pixels, _ in chosen.batches(size, generator)]
    names = policy_layers(profile, layers)
    free = [layer for layer in profile.layers if layer.name in names and layer.obstacle is None]
    runs = len(free) * len(MEASURED_EPS)
    curves: dict[str, list[tuple[float, float]]] = {}
    _take_batch_statistics(network)
    expected = [answers(network, pixels) for pixels in batches]
    for position, layer in enumerate(free):
        conv = network.get_submodule(layer.name)
        assert isinstance(conv, Weighted)
        trained = conv.weight.clone()
        curves[layer.name] = []
        for step, eps in enumerate(MEASURED_EPS):
            if progress:
                progress(position * len(MEASURED_EPS) + step, runs)
            ring = profile.winner(layer, Question(rule, objective, eps))
            if ring.storage < layer.kernel.numel():
                kernel = ring_svd(layer.kernel, ring.shift, ring.ranks).to_tensor()
                conv.weight.copy_(kernel.reshape(conv.weight.shape))
                found = [answers(network, pixels) for pixels in batches]
                curves[layer.name].append((ring.relative_error, _moved(expected, found)))
        conv.weight.copy_(trained)
    if progress:
        progress(runs, runs)
    return Damage({name: tuple(sorted(points)) for name, points in curves.items()})


def _moved(expected: Sequence[Tensor], found: Sequence[Tensor]) -> float:
    """Mean over images of ‖z − ẑ‖²/‖z‖²; what is not finite counts as all of the output."""
    ratios = torch.cat(
        [
            (one - other).square().sum(1) / one.square().sum(1)
            for one, other in zip(expected, found, strict=True)
        ]
    )
    return float(ratios.nan_to_num(1.0, 1.0, 1.0).mean())


def _take_batch_statistics(network: nn.Module) -> None:
    """Every BatchNorm on the statistics of its batch, its own left alone; the rest in eval."""
    network.eval()
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.train()
            module.momentum = 0.0

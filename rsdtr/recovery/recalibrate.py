"""Winning accuracy back without labels or gradients: BatchNorm statistics."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rsdtr.compressed.fuse import merged
from rsdtr.data.image_sets import LabelledImages, fitting_batch
from rsdtr.data.tensor_images import ImageSource, images_of
from rsdtr.errors import DataError, RsdtrError
from rsdtr.models.run import fresh_input
from rsdtr.models.surgery import copied


def recalibrate(
    model: nn.Module,
    images: ImageSource,
    n: int = 2000,
    *,
    reference: nn.Module | None = None,
    batch_size: int = 200,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> nn.Module:
    """A copy of the model whose BatchNorm statistics are those of n unlabelled images.

    The statistics are the plain average over batches (momentum None); nothing else changes and
    no gradient is taken. reference: the dense network that `model` was made from. Its statistics
    come from training, on augmented images, and these n have others; with it, each mean is moved by
    as much, and each variance scaled by as much, as compression moves and scales them on the same
    images. A model without BatchNorm comes back as a copy, see `nothing_to_recalibrate`.
    batch_size: of images up to 224×224, fewer of larger ones. `progress` gets (seen, all) images.
    Raises DataError when n is below 2, RsdtrError when batch_size is, or when the reference is
    another network.
    """
    images = images_of(images)
    if n < 2 or len(images) < 2:
        raise DataError(
            f"recalibration was asked for with {min(n, len(images))} images: give at least 2"
        )
    if batch_size < 2:
        raise RsdtrError(f"recalibrate got batch_size={batch_size}: give at least 2")
    model = copied(model)
    norms = norms_of(model)
    if not norms:
        return model
    chosen = images.subset(n, seed)
    batch_size = fitting_batch(images.spec, batch_size)
    everything = len(chosen) * (1 if reference is None else 2)

    def show(seen: int) -> None:
        if progress:
            progress(seen, everything)

    if reference is None:
        _take_statistics(model, chosen, batch_size, seed, show)
        return model
    trained = norms_of(reference)
    if [norm.num_features for norm in trained] != [norm.num_features for norm in norms]:
        raise RsdtrError(
            "recalibrate was given a reference with other BatchNorm layers than the model: give "
            "the dense network that the model was compressed from"
        )
    here = copied(reference)
    _take_statistics(here, chosen, batch_size, seed, show)
    _take_statistics(model, chosen, batch_size, seed, lambda seen: show(len(chosen) + seen))
    move_statistics(model, here, reference)
    return model


def nothing_to_recalibrate(model: nn.Module) -> str | None:
    """Why `recalibrate` would change nothing, in words; None where it would."""
    if norms_of(model):
        return None
    return "no BatchNorm that keeps statistics: nothing to recalibrate"


def move_statistics(model: nn.Module, here: nn.Module, trained: nn.Module) -> None:
    """Move the BatchNorm statistics of `model`, in place, from `here` to what was trained.

    here, trained: the dense network with the statistics of the same images, and with its own. All
    three have the same BatchNorm layers.
    """
    three = zip(norms_of(model), norms_of(here), norms_of(trained), strict=True)
    for norm, before, own in three:
        mean, variance = _statistics(norm)
        dense_mean, dense_variance = _statistics(before)
        own_mean, own_variance = _statistics(own)
        mean += own_mean - dense_mean
        variance *= own_variance / dense_variance.clamp_min(norm.eps)


def _statistics(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return norm.running_mean, norm.running_var


def norms_of(model: nn.Module) -> list[_BatchNorm]:
    """The BatchNorm layers that keep statistics, in the order of the modules."""
    return [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]


def _take_statistics(
    model: nn.Module,
    chosen: LabelledImages,
    batch_size: int,
    seed: int,
    show: Callable[[int], None],
) -> None:
    """Give every BatchNorm of `model`, in place, the average statistics of these images."""
    network = merged(model)  # its buffers are the model's
    norms = norms_of(network)
    modes = {module: module.training for module in network.modules()}
    momenta = [norm.momentum for norm in norms]
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    seen = 0
    # Shuffled: folders come class by class, and a batch of one class has too small a variance.
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for pixels, labels in chosen.batches(batch_size, generator):
            if len(labels) > 1:  # a single picture has no variance in layers of 1×1 pixels
                network(fresh_input(network, pixels))
            seen += len(labels)
            show(seen)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    for module, training in modes.items():
        module.training = training

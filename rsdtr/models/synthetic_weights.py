"""Seeded networks that stand in for trained ones where time is what counts, never accuracy."""

import torch
from torch import nn


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

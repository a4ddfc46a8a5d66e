"""Slow, obvious counterparts that the project is held against."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from rsdtr.compressed.tr_conv2d import TRConv2d
from rsdtr.ring.tensor_ring import TensorRing


def ring_by_einsum(cores: Sequence[Tensor]) -> Tensor:
    """𝓦[o,i,h,w] = trace(G0[:,o,:] G1[:,i,:] G2[:,h,:] G3[:,w,:]), written out."""
    return torch.einsum("aob,bic,chd,dwa->oihw", *cores)


def rank_by_svd(values: Tensor, eps: float) -> int:
    """Smallest rank whose tail is strictly below ε_p/√3 of the norm, one rank after another."""
    bound = eps / math.sqrt(3) * float(values.norm())
    for rank in range(1, len(values)):
        if float(values[rank:].norm()) < bound:
            return rank
    return len(values)


def exhaustive(
    kernel: Tensor, eps: float, *, with_error: bool = True
) -> list[tuple[int, int, tuple[int, ...], int, float]]:
    """The published procedure with a plain SVD at each step: (shift, r0, ranks, storage, error).

    Ranks are in the mode order O, I, KH, KW; the error is measured on the rebuilt kernel, or NaN
    where it is not wanted: rebuilding takes longer than the search.
    """
    found = []
    for shift in range(4):
        order = [(shift + k) % 4 for k in range(4)]
        tensor = kernel.double().permute(order).contiguous()
        a, b, c, d = tensor.shape
        u, s, vt = torch.linalg.svd(tensor.reshape(a, -1), full_matrices=False)
        # The published program works in single precision, whose signs decide the split ranks.
        single = torch.linalg.svd(tensor.reshape(a, -1).float(), full_matrices=False).U
        sign = torch.where((u * single).sum(0) < 0, -1.0, 1.0)
        u, vt = u * sign, vt * sign[:, None]
        r = rank_by_svd(s, eps)
        for r0 in range(1, r + 1):
            if r % r0:
                continue
            r1 = r // r0
            core_a = u[:, :r].reshape(a, r0, r1).permute(1, 0, 2)
            rest = (s[:r, None] * vt[:r]).reshape(r0, r1, b * c * d)
            rest = rest.permute(1, 2, 0).reshape(r1 * b, c * d * r0)
            u2, s2, vt2 = torch.linalg.svd(rest, full_matrices=False)
            r2 = rank_by_svd(s2, eps)
            rest = (s2[:r2, None] * vt2[:r2]).reshape(r2 * c, d * r0)
            u3, s3, vt3 = torch.linalg.svd(rest, full_matrices=False)
            r3 = rank_by_svd(s3, eps)
            shifted = [
                core_a,
                u2[:, :r2].reshape(r1, b, r2),
                u3[:, :r3].reshape(r2, c, r3),
                (s3[:r3, None] * vt3[:r3]).reshape(r3, d, r0),
            ]
            cores = [shifted[(k - shift) % 4] for k in range(4)]
            error = float("nan")
            if with_error:
                rebuilt = ring_by_einsum(cores)
                error = float((rebuilt - kernel.double()).norm() / kernel.double().norm())
            ranks = tuple(core.shape[0] for core in cores)
            found.append((shift, r0, ranks, sum(core.numel() for core in cores), error))
    return found


def counted_macs(module, x):
    with FlopCounterMode(display=False) as counter:
        module(x)
    return counter.get_total_flops() // 2


def random_kernel(shape, seed, decay=0.0):
    generator = torch.Generator().manual_seed(seed)
    kernel = torch.randn(shape, generator=generator, dtype=torch.float64)
    u, s, vt = torch.linalg.svd(kernel.reshape(shape[0], -1), full_matrices=False)
    s = s * torch.exp(-decay * torch.arange(len(s), dtype=torch.float64))
    return (u * s @ vt).reshape(shape)


def layer_and_dense(conv, ranks=(2, 3, 4, 2), form="pipeline"):
    """A ring layer with random cores, and the convolution with the kernel they stand for."""
    ring = TensorRing.random(conv.weight.shape, ranks, seed=1)
    layer = TRConv2d.from_conv(conv, ring, form=form)
    dense = copy.deepcopy(conv)
    with torch.no_grad():
        dense.weight.copy_(ring.to_tensor())
    return layer, dense


def relative_difference(one, other):
    return float(((one - other).abs().max() / other.abs().max()).detach())

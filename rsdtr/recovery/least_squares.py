"""Least squares for rings: the cores that make a convolution's output what it should be.

Each core enters the kernel linearly, so with the others fixed its best value solves a linear system
in the second moments of the layer (see `moments`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rsdtr.errors import RingError
from rsdtr.recovery.second_moments import Moments
from rsdtr.ring.forms import sublayer_kernels
from rsdtr.ring.tensor_ring import TensorRing

# Above so many unknowns a core is solved by conjugate gradients, without its normal matrix; below
# it too where the matrix takes more arithmetic.
DIRECT = 2500
STEPS = 60  # of conjugate gradients
# Directions that change nothing (cores may exchange factors) make normal matrices singular.
JITTER = 1e-10


def fitted(ring: TensorRing, moments: Moments, modes: Sequence[int], sweeps: int = 1) -> TensorRing:
    """The ring after so many sweeps of exact solves over the cores of `modes`, in that order.

    The error by these moments never rises. RingError when they are of another kernel.
    """
    o, *spatial = ring.shape
    if tuple(moments.targets.cross.shape) != (o, math.prod(spatial)):
        raise RingError(
            f"the moments are of {tuple(moments.targets.cross.shape)} products, the ring "
            f"stands for {ring.shape}: take the moments of this layer"
        )
    cores = [core.double() for core in ring.cores]
    gram = moments.inputs.gram.reshape(*spatial, *spatial)
    cross = moments.targets.cross.reshape(o, *spatial)
    for _ in range(sweeps):
        for mode in modes:
            cores[mode] = (
                _first_core(cores, gram, cross)
                if mode == 0
                else _spatial_core(cores, gram, cross, mode)
            )
        cores = _balanced(cores)
    c0, c1, c2, c3 = cores
    return TensorRing((c0, c1, c2, c3), ring.shift)


def _balanced(cores: list[Tensor]) -> list[Tensor]:
    """The same ring with cores of equal norm."""
    norms = [float(core.norm()) for core in cores]
    if min(norms) <= 0:
        return cores
    mean = math.prod(norms) ** 0.25
    return [core * (mean / norm) for core, norm in zip(cores, norms, strict=True)]


def _first_core(cores: Sequence[Tensor], gram: Tensor, cross: Tensor) -> Tensor:
    """The best O core (R0, O, R1): a regression on the R0·R1 channels that the others make."""
    g0, g1, g2, g3 = cores
    tail = torch.einsum("bic,chd,dwa->abihw", g1, g2, g3).flatten(0, 1)  # (R0·R1, I, KH, KW)
    made = torch.einsum("pihw,ihwjkl->pjkl", tail, gram)
    normal = torch.einsum("pihw,qihw->pq", made, tail)
    now = g0.permute(1, 0, 2).flatten(1)  # (O, R0·R1)
    slope = torch.einsum("oihw,pihw->op", cross, tail) - now @ normal
    step = _solved(normal, slope.T).T
    return (now + step).reshape(len(now), g0.shape[0], g0.shape[2]).permute(1, 0, 2).contiguous()


def _spatial_core(cores: Sequence[Tensor], gram: Tensor, cross: Tensor, mode: int) -> Tensor:
    """The best core (R_k, n, R_k+1) of mode k = 1, 2 or 3."""
    # The error only sees the O core's column space: at most R0·R1 outputs O', not O.
    g0 = cores[0].permute(1, 0, 2).flatten(1)  # (O, R0·R1)
    basis, small = torch.linalg.qr(g0)
    head = small.reshape(len(small), cores[0].shape[0], cores[0].shape[2]).permute(1, 0, 2)
    cross = torch.einsum("op,oihw->pihw", basis, cross)
    chain = [head, *cores[1:]]

    def kernel_of(core: Tensor) -> Tensor:
        (kernel,) = sublayer_kernels("dense", [*chain[:mode], core, *chain[mode + 1 :]])
        return kernel

    def weighted(kernel: Tensor) -> Tensor:
        return torch.einsum("pihw,ihwjkl->pjkl", kernel, gram)

    # The kernel is linear in the core, so that its derivative is the same everywhere.
    kernel, pulled = torch.func.vjp(kernel_of, chain[mode])[:2]
    (slope,) = pulled(cross - weighted(kernel))
    if _is_direct(chain, mode):
        normal = _normal_of(chain, gram, mode)
        step = _solved(normal, slope.permute(0, 2, 1).reshape(-1, 1))
        left, n, right = slope.shape
        return (chain[mode] + step.reshape(left, right, n).permute(0, 2, 1)).contiguous()
    return chain[mode] + _conjugate(slope, lambda core: pulled(weighted(kernel_of(core)))[0])


def _is_direct(chain: Sequence[Tensor], mode: int) -> bool:
    """Whether a core is solved with its normal matrix: by unknowns, and by MACs."""
    left, n, right = chain[mode].shape
    if left * n * right > DIRECT:
        return False
    ranks, outputs = left * right, chain[0].shape[1]
    others = math.prod(core.shape[1] for core in chain[1:]) // n
    if others <= n:  # as in `_normal`
        matrix = ranks**2 * others**2 * (outputs + n**2)
    else:
        matrix = n * (n + 1) // 2 * ranks * outputs * others * (others + ranks)
    return matrix + (ranks * n) ** 3 // 3 <= STEPS * outputs * (n * others) ** 2


def _normal_of(chain: Sequence[Tensor], gram: Tensor, mode: int) -> Tensor:
    """The normal matrix of the core of this mode, its unknowns in the order R_k, R_k+1, n."""
    # The other cores from the one after `mode` round to the one before: (R_k+1, modes…, R_k).
    order = [(mode + step) % 4 for step in (1, 2, 3)]
    rest = torch.einsum("xpy,yqz,zru->xpqru", *(chain[k] for k in order))
    # Own mode first, then the two other spatial ones in the order of the kernel.
    others = [k for k in (1, 2, 3) if k != mode]
    places = [1 + order.index(k) for k in (0, *others)]
    rest = rest.permute(4, 0, *places)  # (R_k, R_k+1, O', p, q)
    left, right, outputs, p, q = rest.shape
    axes = [mode - 1, *(k - 1 for k in others)]
    n = chain[mode].shape[1]
    gram = gram.permute(*axes, *(3 + axis for axis in axes)).reshape(n, p * q, n, p * q)
    return _normal(rest.reshape(left * right, outputs, p * q), gram)


def _normal(rest: Tensor, gram: Tensor) -> Tensor:
    """The normal matrix (R·n, R·n) of a spatial core; rest (R, O', e), gram (n, e, n, e)."""
    ranks, e = len(rest), rest.shape[2]
    n = len(gram)
    if e * e <= n * n:  # few other entries: contract the outputs first
        pairs = torch.einsum("roe,sof->rsef", rest, rest).reshape(ranks * ranks, e * e)
        by_entry = gram.permute(1, 3, 0, 2).reshape(e * e, n * n)
        return (
            (pairs @ by_entry)
            .reshape(ranks, ranks, n, n)
            .permute(0, 2, 1, 3)
            .reshape(ranks * n, -1)
        )
    normal = rest.new_empty(ranks, n, ranks, n)
    for one in range(n):
        for other in range(one, n):
            block = (rest @ gram[one, :, other]).flatten(1) @ rest.flatten(1).T
            normal[:, one, :, other] = block
            normal[:, other, :, one] = block.T
    return normal.reshape(ranks * n, ranks * n)


def _solved(normal: Tensor, slope: Tensor) -> Tensor:
    """The step that makes the gradient vanish; the jitter only makes it a little shorter."""
    jitter = JITTER * float(normal.diagonal().mean())
    scaled = normal + jitter * torch.eye(len(normal), dtype=normal.dtype, device=normal.device)
    factor, info = torch.linalg.cholesky_ex(scaled)
    if int(info) == 0:
        return torch.cholesky_solve(slope, factor)
    values, vectors = torch.linalg.eigh(normal)
    kept = values > 1e-9 * values[-1].clamp_min(1e-300)
    inverse = torch.where(kept, 1 / values, 0.0)
    return vectors @ (inverse[:, None] * (vectors.T @ slope))


def _conjugate(slope: Tensor, normal: Callable[[Tensor], Tensor]) -> Tensor:
    """The same step by conjugate gradients, each of which lowers the error.

    normal: the normal matrix times a core.
    """
    step = torch.zeros_like(slope)
    left, direction = slope, slope
    power = start = float(left.square().sum())
    for _ in range(STEPS):
        if power <= 1e-16 * start:
            break
        made = normal(direction)
        bend = float((direction * made).sum())
        if bend <= 0:
            break
        length = power / bend
        step = step + length * direction
        left = left - length * made
        before, power = power, float(left.square().sum())
        direction = left + (power / before) * direction
    return step

"""Random convolutions: each becomes a ring that computes it, or is refused with a reason.

python -m tests.soak.convolutions N   N of them, as `make soak` does
"""

from __future__ import annotations

import math
import random
import sys
from collections import Counter

import torch
from torch import nn

from rsdtr.compressed.tr_conv2d import PADDING_MODES, TRConv2d
from rsdtr.errors import RingError
from rsdtr.ring.forms import FORMS
from rsdtr.ring.rank_selection import MINIMUM_EPS
from rsdtr.ring.tensor_ring import TensorRing
from rsdtr.search.paper_rule import KernelSpectra
from rsdtr.search.ring_svd import ring_svd
from rsdtr.search.tight_rule import best_tight

KERNELS = ("random", "decaying", "constant", "rank one", "zero", "denormal", "nan", "infinite")
HALVES = (torch.float16, torch.bfloat16)


def convolution(generator: random.Random) -> tuple[nn.Conv2d, str]:
    """A convolution that torch accepts, and what its kernel is like."""
    draw = generator.randint
    groups = generator.choice((1, 1, 1, 1, 2, 3))
    # Most are small: 65 channels of 7×7 take a second.
    most = (65 if draw(0, 5) == 0 else 16) // groups
    inputs, outputs = draw(1, most) * groups, draw(1, most) * groups
    size = draw(1, 7), draw(1, 7)
    stride, dilation = (draw(1, 3), draw(1, 3)), (draw(1, 2), draw(1, 3))
    padding: str | tuple[int, int] = (draw(0, 3), draw(0, 3))
    if stride == (1, 1) and generator.random() < 0.5:
        padding = "same"
    conv = nn.Conv2d(
        inputs, outputs, size, stride, padding, dilation, groups,
        bias=generator.random() < 0.5, padding_mode=generator.choice(PADDING_MODES),
        dtype=generator.choice((torch.float32, torch.float64)),
    )  # fmt: skip
    fair, hopeless = KERNELS[:4], KERNELS[4:]
    kind = generator.choice(hopeless if draw(0, 4) == 0 else fair)
    weight = conv.weight.data
    if kind == "decaying":
        u, s, vt = torch.linalg.svd(weight.flatten(1), full_matrices=False)
        weight.copy_((u * s * torch.exp(-torch.arange(len(s))) @ vt).view_as(weight))
    elif kind == "rank one":
        o, i, h, w = (torch.randn(n, dtype=weight.dtype) for n in weight.shape)
        weight.copy_(torch.einsum("o,i,h,w->oihw", o, i, h, w))
    elif kind == "denormal":
        weight.mul_(torch.finfo(weight.dtype).tiny * 1e-2)
    elif kind != "random":
        value = {"zero": 0.0, "constant": 0.5, "nan": float("nan"), "infinite": float("inf")}[kind]
        weight.fill_(value)
    if draw(0, 7) == 0:
        conv.to(generator.choice(HALVES))
    return conv.eval(), kind


@torch.no_grad()
def outcome(generator: random.Random) -> str:
    """`right`, or why it was refused; AssertionError if the answer is silently wrong."""
    conv, kind = convolution(generator)
    within, past = (MINIMUM_EPS, 0.02, 0.3, 0.6, 0.95, 0.9999), (0, -0.1, 1, 1.5, math.nan)
    eps = generator.choice(past if generator.random() < 0.2 else within)
    fair = conv.groups == 1 and MINIMUM_EPS <= eps < 1 and kind in KERNELS[:4]
    fair = fair and conv.weight.dtype not in HALVES
    try:
        spectra = KernelSpectra(conv.weight)
        found = best_tight(spectra, eps) if generator.random() < 0.5 else spectra.best(eps)
        ring = ring_svd(conv.weight, found.winner.shift, found.winner.ranks)
        layers = [TRConv2d.from_conv(conv, ring, form=form).eval() for form in FORMS]
    except RingError as error:
        if fair:
            raise AssertionError(f"{kind} at ε_p {eps} was refused") from error
        return str(error).partition(":")[0].partition(" is ")[0]
    return _right(conv, ring, layers, eps)


def _right(conv: nn.Conv2d, ring: TensorRing, layers: list[TRConv2d], eps: float) -> str:
    weight = conv.weight.double()
    norm = weight.norm()
    slack = 1e-4 if conv.weight.dtype == torch.float32 else 1e-10
    error = (ring.to_tensor().double() - weight).norm()
    assert error <= (eps + slack) * norm, f"error {error / norm} at ε_p {eps}"
    exact = nn.Conv2d(
        conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding,
        conv.dilation, conv.groups, conv.bias is not None, conv.padding_mode,
        dtype=torch.float64,
    )  # fmt: skip
    exact.weight.copy_(ring.to_tensor())
    if exact.bias is not None and conv.bias is not None:
        exact.bias.copy_(conv.bias)
    images = torch.randn(2, conv.in_channels, 23, 21, dtype=torch.float64)
    expected = exact(images)
    for layer in layers:
        found = layer(images.to(conv.weight.dtype)).double()
        assert found.shape == expected.shape, f"{layer.form}: {found.shape}"
        difference = (found - expected).abs().max()
        assert difference <= slack * (1 + expected.abs().max()), f"{layer.form}: {difference}"
    return "right"


def main(count: int) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    generator = random.Random(0)
    found: Counter[str] = Counter()
    wrong = 0
    for number in range(count):
        try:
            found[outcome(generator)] += 1
        except Exception as error:
            wrong += 1
            print(f"{number}: {type(error).__name__}: {error}", flush=True)
    for reason, times in found.most_common():
        print(f"{times:5,} {reason}")
    print(f"{wrong:5,} wrong")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main(int(sys.argv[1]))

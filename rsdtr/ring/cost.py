"""What a convolution costs, dense or as a ring: pure formulas of shapes. 1 MAC = 2 FLOPs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from math import prod

from rsdtr.ring.forms import Form, Sublayer, sublayers

Size = tuple[int, int]


def conv_macs(shape: Sequence[int], output_size: Size) -> int:
    """MACs of a convolution for one input: weight shape (O, I/groups, KH, KW), output (H', W')."""
    o, i, kh, kw = shape
    return o * i * kh * kw * output_size[0] * output_size[1]


def form_macs(
    form: Form,
    shape: Sequence[int],
    ranks: Sequence[int],
    input_size: Size,
    output_size: Size,
    groups: int = 1,
) -> int:
    """MACs of a ring layer for one input in the form it runs in, its kernels being merged already.

    shape: (O, I/groups, KH, KW).
    A sublayer has the input's size along the axes that no sublayer has strided yet, and the
    output's along the others.
    """
    return _form_macs(form, tuple(shape), tuple(ranks), input_size, output_size, groups)


@lru_cache(maxsize=1 << 16)  # a target asks for the same few thousand rings again and again
def _form_macs(
    form: Form,
    shape: tuple[int, ...],
    ranks: tuple[int, ...],
    input_size: Size,
    output_size: Size,
    groups: int,
) -> int:
    return sum(sublayer_macs(form, shape, ranks, input_size, output_size, groups))


def sublayer_macs(
    form: Form,
    shape: Sequence[int],
    ranks: Sequence[int],
    input_size: Size,
    output_size: Size,
    groups: int = 1,
) -> tuple[int, ...]:
    """The same for each sublayer, in the order they run."""
    return tuple(
        step.copies * prod(step.kernel) * prod(size)
        for step, size in _sizes(form, shape, ranks, input_size, output_size, groups)
    )


def form_activations(
    form: Form,
    shape: Sequence[int],
    ranks: Sequence[int],
    input_size: Size,
    output_size: Size,
    groups: int = 1,
) -> int:
    """Elements of all intermediate outputs of a ring layer for one input; its own output is not
    one of them. Training keeps every one of them until the backward pass.
    """
    *between, _ = _sizes(form, shape, ranks, input_size, output_size, groups)
    return sum(step.copies * step.kernel[0] * prod(size) for step, size in between)


def _sizes(
    form: Form,
    shape: Sequence[int],
    ranks: Sequence[int],
    input_size: Size,
    output_size: Size,
    groups: int = 1,
) -> Iterator[tuple[Sublayer, Size]]:
    """The sublayers of a form, each with the size (H, W) of its output."""
    height, width = input_size
    for step in sublayers(form, shape, ranks, groups):
        height = output_size[0] if 0 in step.axes else height
        width = output_size[1] if 1 in step.axes else width
        yield step, (height, width)


def pipeline_macs(
    shape: Sequence[int],
    ranks: Sequence[int],
    input_size: Size,
    output_size: Size,
    groups: int = 1,
) -> int:
    """MACs of the paper's four sublayers for one input (arXiv 2405.10802, section 3.2).

    1×1 from I to R1·R2 channels at the input's size, KH×1 and 1×KW with R1 in the batch, 1×1 from
    R1·R0 channels to O at the output's size. Each sublayer carries the stride of its own axis.
    groups: of a kernel (O, I/groups, KH, KW); all but the last one run for each group.
    """
    o, i, kh, kw = shape
    r0, r1, r2, r3 = ranks
    (h, w), (h_out, w_out) = input_size, output_size
    channels_in = i * r1 * r2 * h * w
    rows = r1 * r2 * kh * r3 * h_out * w
    columns = r1 * r3 * kw * r0 * h_out * w_out
    channels_out = r1 * r0 * o * h_out * w_out
    return groups * (channels_in + rows + columns) + channels_out


def pipeline_macs_per_pixel(shape: Sequence[int], ranks: Sequence[int]) -> int:
    """MACs of the four sublayers per pixel where the input is as large as the output."""
    return pipeline_macs(shape, ranks, (1, 1), (1, 1))

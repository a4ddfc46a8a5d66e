"""The forms of a ring layer: which convolutions compute it, from shapes, and their kernels.

Cutting the ring at two bonds gives two tensors, and each is the kernel of an ordinary convolution.
The bonds that were cut become its channels; the form's name tells which modes share a kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

Form = Literal["pipeline", "O|IHW", "I|HWO", "IH|WO", "dense"]
FORMS: tuple[Form, ...] = get_args(Form)
Kernels = tuple[Tensor, ...]


@dataclass(frozen=True)
class Sublayer:
    """One convolution of a form.

    kernel: its shape (out, in, kh, kw); axes: the spatial axes (0 rows, 1 columns) that it strides,
    dilates and pads; copies: how many groups of channels, folded into the batch, share the kernel;
    groups: as nn.Conv2d has them, each with outputs of its own.
    """

    kernel: tuple[int, int, int, int]
    axes: tuple[int, ...]
    copies: int = 1
    groups: int = 1


def sublayers(
    form: Form, shape: Sequence[int], ranks: Sequence[int], groups: int = 1
) -> tuple[Sublayer, ...]:
    """The convolutions of a form in the order they run, for a kernel (O, I, KH, KW) of R_0…R_3.

    groups: of a grouped convolution, whose kernel is (O, I/groups, KH, KW). All groups share the
    kernels of I, KH and KW; the last one, that of O, has a part for each.
    """
    *before, last = _of_one_group(form, shape, ranks)
    return (
        *(replace(step, copies=step.copies * groups) for step in before),
        replace(last, groups=groups),
    )


def _of_one_group(form: Form, shape: Sequence[int], ranks: Sequence[int]) -> tuple[Sublayer, ...]:
    o, i, kh, kw = shape
    r0, r1, r2, r3 = ranks
    if form == "O|IHW":
        return Sublayer((r0 * r1, i, kh, kw), (0, 1)), Sublayer((o, r0 * r1, 1, 1), ())
    if form == "I|HWO":
        return Sublayer((r1 * r2, i, 1, 1), ()), Sublayer((o, r1 * r2, kh, kw), (0, 1))
    if form == "IH|WO":
        return Sublayer((r3 * r1, i, kh, 1), (0,)), Sublayer((o, r3 * r1, 1, kw), (1,))
    if form == "dense":
        return (Sublayer((o, i, kh, kw), (0, 1)),)
    return (
        Sublayer((r1 * r2, i, 1, 1), ()),
        Sublayer((r3, r2, kh, 1), (0,), copies=r1),
        Sublayer((r0, r3, 1, kw), (1,), copies=r1),
        Sublayer((o, r1 * r0, 1, 1), ()),
    )


def sublayer_kernels(form: Form, cores: Sequence[Tensor]) -> Kernels:
    """The kernels of `sublayers`, contracted from the cores; gradients flow to the cores."""
    return _CONTRACTIONS[form](*cores)


def _dense(g0: Tensor, g1: Tensor, g2: Tensor, g3: Tensor) -> Kernels:
    """From the two convolutions with the fewest channels between them: P of them.

    Another order may hold R_0·R_2 times the kernel in between: gigabytes, for wide layers.
    """
    r0, r1, r2, r3 = (len(core) for core in (g0, g1, g2, g3))
    cuts: tuple[tuple[int, Form], ...] = (
        (r0 * r1, "O|IHW"),
        (r1 * r2, "I|HWO"),
        (r3 * r1, "IH|WO"),
    )
    _, form = min(cuts)
    first, second = _CONTRACTIONS[form](g0, g1, g2, g3)  # (P, I, h, w), (O, P, x, y)
    kernel = torch.einsum("pihw,opxy->oihxwy", first, second)  # h or x is 1, and w or y
    return (kernel.flatten(4).flatten(2, 3),)  # (O, I, KH, KW)


def _o_ihw(g0: Tensor, g1: Tensor, g2: Tensor, g3: Tensor) -> Kernels:
    tail = torch.einsum("chd,dwa->chwa", g2, g3)
    spatial = torch.einsum("bic,chwa->abihw", g1, tail).flatten(0, 1)  # (R0·R1, I, KH, KW)
    return spatial, _pointwise(g0.permute(1, 0, 2).flatten(1))  # (O, R0·R1, 1, 1)


def _i_hwo(g0: Tensor, g1: Tensor, g2: Tensor, g3: Tensor) -> Kernels:
    tail = torch.einsum("chd,dwa->chwa", g2, g3)
    spatial = torch.einsum("aob,chwa->obchw", g0, tail).flatten(1, 2)  # (O, R1·R2, KH, KW)
    return _pointwise(g1.permute(0, 2, 1).flatten(0, 1)), spatial  # (R1·R2, I, 1, 1)


def _ih_wo(g0: Tensor, g1: Tensor, g2: Tensor, g3: Tensor) -> Kernels:
    rows = torch.einsum("bic,chd->dbih", g1, g2).flatten(0, 1)  # (R3·R1, I, KH)
    columns = torch.einsum("dwa,aob->odbw", g3, g0).flatten(1, 2)  # (O, R3·R1, KW)
    return rows.unsqueeze(3), columns.unsqueeze(2)


def _pipeline(g0: Tensor, g1: Tensor, g2: Tensor, g3: Tensor) -> Kernels:
    return (
        _pointwise(g1.permute(0, 2, 1).flatten(0, 1)),  # (R1·R2, I, 1, 1)
        g2.permute(2, 0, 1).unsqueeze(3),  # (R3, R2, KH, 1)
        g3.permute(2, 0, 1).unsqueeze(2),  # (R0, R3, 1, KW)
        _pointwise(g0.permute(1, 2, 0).flatten(1)),  # (O, R1·R0, 1, 1)
    )


def _pointwise(matrix: Tensor) -> Tensor:
    """(out, in) as the kernel of a 1×1 convolution."""
    return matrix[:, :, None, None]


_CONTRACTIONS: dict[Form, Callable[[Tensor, Tensor, Tensor, Tensor], Kernels]] = {
    "pipeline": _pipeline,
    "O|IHW": _o_ihw,
    "I|HWO": _i_hwo,
    "IH|WO": _ih_wo,
    "dense": _dense,
}

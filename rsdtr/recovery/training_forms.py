"""How a network is laid out while it trains: by a rule of shapes, the same on every machine.

Measuring would choose better by a few percent, and differently from one time to the next: then a
training that was interrupted could not end as it would have.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn

from rsdtr.compressed.ring_layer import RingLayer
from rsdtr.compressed.tr_conv2d import TRConv2d
from rsdtr.compressed.tr_linear import TRLinear
from rsdtr.models.run import evaluating, fresh_input
from rsdtr.ring.cost import form_activations, form_macs
from rsdtr.ring.forms import FORMS, Form

MACS_PER_KEPT = 64  # what writing an element, and reading it in the backward pass, costs about


def training_form(layer: RingLayer) -> Form:
    """The form in which a training step of this layer should be the fastest.

    Of all but the paper's sublayers, which take several times as long, it is the one of the fewest
    MACs, where an element that is kept between two convolutions counts as 64.
    """
    size = layer.map_size if isinstance(layer, TRLinear) else cast(TRConv2d, layer).stride
    sizes = layer.kernel_shape, layer.ranks, size, (1, 1), layer.groups

    def cost(form: Form) -> int:
        return form_macs(form, *sizes) + MACS_PER_KEPT * form_activations(form, *sizes)

    return min((form for form in FORMS if form != "pipeline"), key=cost)


@contextmanager
def laid_out_for_training(model: nn.Module, images: Tensor) -> Iterator[None]:
    """Inside of the block every ring has its training form, and the network is channels-last.

    images: some of its inputs (n, C, H, W), on its device; a network that they cannot pass
    through channels-last keeps its layout. Afterwards all is as it was, but for the weights.
    """
    before = [(ring, ring.form) for ring in model.modules() if isinstance(ring, RingLayer)]
    for ring, _ in before:
        ring.form = training_form(ring)
    model.to(memory_format=torch.channels_last)
    if not _takes(model, images):
        model.to(memory_format=torch.contiguous_format)
    try:
        yield
    finally:
        for ring, form in before:
            ring.form = form
        model.to(memory_format=torch.contiguous_format)


def _takes(model: nn.Module, images: Tensor) -> bool:
    try:
        with evaluating(model):
            model(fresh_input(model, images))
    except RuntimeError:  # of a `view` of an activation, as torch words it
        return False
    return True

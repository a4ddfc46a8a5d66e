"""The peer to beat: a ring layer computed the way the paper's program does it.

arXiv 2405.10802, section 3.2: tensordot with the core of the input channels, two Conv3d whose third
axis is the ring index R_1, tensordot with the core of the output channels. Same cores, same result
as `TRConv2d`; only the way there differs.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rsdtr.compressed.tr_conv2d import TRConv2d
from rsdtr.errors import RingError


class PaperConv2d(nn.Module):
    """Computes a ring layer as the paper does. RingError for what its program does not handle:
    a padding mode other than zeros, and padding='same' or 'valid'.
    """

    def __init__(self, layer: TRConv2d) -> None:
        super().__init__()
        padding = layer.padding
        if layer.padding_mode != "zeros" or isinstance(padding, str):
            raise RingError(
                f"the paper's pipeline pads with numbers of zeros, not padding={padding!r}, "
                f"padding_mode={layer.padding_mode!r}"
            )
        self.cores, self.bias = layer.cores, layer.bias
        self.stride, self.dilation = layer.stride, layer.dilation
        self.padding = (padding, padding) if isinstance(padding, int) else padding

    def forward(self, x: Tensor) -> Tensor:
        g0, g1, g2, g3 = self.cores  # (R0, O, R1), (R1, I, R2), (R2, KH, R3), (R3, KW, R0)
        (sh, sw), (ph, pw), (dh, dw) = self.stride, self.padding, self.dilation
        x = torch.tensordot(x, g1, dims=([1], [1]))  # (B, H, W, R1, R2)
        x = x.permute(0, 4, 3, 1, 2)  # (B, R2, R1, H, W)
        rows = g2.permute(2, 0, 1)[:, :, None, :, None]  # (R3, R2, 1, KH, 1)
        x = F.conv3d(x, rows, None, (1, sh, 1), (0, ph, 0), (1, dh, 1))
        columns = g3.permute(2, 0, 1)[:, :, None, None, :]  # (R0, R3, 1, 1, KW)
        x = F.conv3d(x, columns, None, (1, 1, sw), (0, 0, pw), (1, 1, dw))  # (B, R0, R1, H', W')
        x = torch.tensordot(x, g0, dims=([1, 2], [0, 2]))  # (B, H', W', O)
        x = x.permute(0, 3, 1, 2)
        return x if self.bias is None else x + self.bias[:, None, None]


def paper_network(model: nn.Module) -> nn.Module:
    """A copy of the model, sharing its parameters, whose ring layers are computed like that."""
    shared = {id(value): value for value in (*model.parameters(), *model.buffers())}
    new = copy.deepcopy(model, shared)
    rings = [(name, m) for name, m in new.named_modules() if isinstance(m, TRConv2d)]
    for name, ring in rings:
        new.set_submodule(name, PaperConv2d(ring).train(ring.training))
    return new

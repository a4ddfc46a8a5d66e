"""Pictures of a batch shifted and mirrored at random, on the device they are on."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def augmented(pixels: Tensor, how: str, generator: torch.Generator) -> Tensor:
    """(B, C, H, W) -> the same shape, every picture shifted and mirrored by its own draw.

    how: one of `recipe.AUGMENTS`. Drawn on the CPU, so that a seed means the same on every device.
    """
    if how == "none":
        return pixels
    batch, _, height, width = pixels.shape
    reach_y, reach_x = height // 8, width // 8
    # The border is repeated: black would be an edge that no real picture has.
    padded = F.pad(pixels, (reach_x, reach_x, reach_y, reach_y), mode="replicate")
    top = torch.randint(2 * reach_y + 1, (batch, 1), generator=generator)
    left = torch.randint(2 * reach_x + 1, (batch, 1), generator=generator)
    columns = torch.arange(width).expand(batch, width)
    if how == "crop+flip":
        mirror = torch.rand(batch, 1, generator=generator) < 0.5
        columns = torch.where(mirror, columns.flip(1), columns)
    rows, columns = torch.arange(height) + top, columns + left  # (B, H), (B, W)
    numbers = torch.arange(batch)[:, None, None]
    rows, columns = rows[:, :, None].to(pixels.device), columns[:, None, :].to(pixels.device)
    picked = padded[numbers.to(pixels.device), :, rows, columns]  # (B, H, W, C)
    return picked.permute(0, 3, 1, 2).contiguous()

"""Pictures of a batch shifted and mirrored at random, on the device they are on."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def augmented(
    pixels: Tensor, how: str, generator: torch.Generator, first: int = 0, of: int | None = None
) -> Tensor:
    """(B, C, H, W) -> the same shape, every picture shifted and mirrored by its own draw.

    how: one of `options.AUGMENTS`. Drawn on the CPU, so that a seed means the same on every device.
    first, of: where these stand among so many pictures, for all of which is drawn; by default they
    are all.
    """
    if how == "none":
        return pixels
    batch, _, height, width = pixels.shape
    drawn, own = batch if of is None else of, slice(first, first + batch)
    reach_y, reach_x = height // 8, width // 8
    # The border is repeated: black would be an edge that no real picture has.
    padded = F.pad(pixels, (reach_x, reach_x, reach_y, reach_y), mode="replicate")
    top = torch.randint(2 * reach_y + 1, (drawn, 1), generator=generator)[own]
    left = torch.randint(2 * reach_x + 1, (drawn, 1), generator=generator)[own]
    columns = torch.arange(width).expand(batch, width)
    if how == "crop+flip":
        mirror = torch.rand(drawn, 1, generator=generator)[own] < 0.5
        columns = torch.where(mirror, columns.flip(1), columns)
    rows, columns = torch.arange(height) + top, columns + left  # (B, H), (B, W)
    numbers = torch.arange(batch)[:, None, None]
    rows, columns = rows[:, :, None].to(pixels.device), columns[:, None, :].to(pixels.device)
    picked = padded[numbers.to(pixels.device), :, rows, columns]  # (B, H, W, C)
    return picked.permute(0, 3, 1, 2).contiguous()

"""Shifts and mirrors of a batch's pictures."""

import torch

from rsdtr.data.augmentation import augmented


def test_a_crop_shifts_every_picture_by_its_own_draw_and_never_mirrors() -> None:
    pixels = torch.arange(16.0).view(1, 1, 1, 16).repeat(200, 1, 16, 1)  # columns 0, 1, … 15
    out = augmented(pixels, "crop", torch.Generator().manual_seed(0))
    shifts = (out[:, 0, 8, 8] - 8).tolist()
    assert set(shifts) == {-2, -1, 0, 1, 2}  # 1/8 of 16 to either side
    for picture, shift in zip(out, shifts, strict=True):
        expected = (torch.arange(16.0) + shift).clamp(0, 15)  # the border is repeated
        assert torch.equal(picture[0], expected.expand(16, 16))


def test_a_flip_mirrors_about_half_of_the_pictures() -> None:
    pixels = torch.arange(16.0).view(1, 1, 1, 16).repeat(200, 2, 16, 1)
    out = augmented(pixels, "crop+flip", torch.Generator().manual_seed(0))
    falling = (out[:, 0, 0, 15] < out[:, 0, 0, 0]).float().mean()
    assert out.shape == pixels.shape
    assert torch.equal(out[:, 0], out[:, 1])
    assert 0.35 < falling < 0.65


def test_no_augmentation_is_none() -> None:
    pixels = torch.rand(3, 1, 16, 16)
    assert augmented(pixels, "none", torch.Generator().manual_seed(0)) is pixels

"""Labelled images: subsets, batches and splits, and what they are without labels."""

import dataclasses
import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from rsdtr.data.datasets import (
    LabelledImages,
    data_identity,
    is_at_hand,
    load_data,
    stratified,
)
from rsdtr.data.image_sets import fitting_batch
from rsdtr.data.image_sources import ArrayPictures, fitted
from rsdtr.errors import DataError, UnknownName
from rsdtr.measuring.accuracy import accuracy
from rsdtr.models.zoo import ModelSpec, model_spec
from rsdtr.recovery.finetune import finetune
from tests.support.data_on_disk import parts

DIGITS = model_spec("digits_resnet20")
CIFAR10 = model_spec("cifar10_resnet20")


def _in_memory(count: int, spec: ModelSpec = DIGITS) -> LabelledImages:
    """`count` pictures whose every pixel is their number, of `count` % 3 classes."""
    pixels = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).repeat(1, *spec.input_shape)
    labels = torch.arange(count) % 3
    return LabelledImages("numbers", ("a", "b", "c"), labels, ArrayPictures(pixels), spec)


def test_a_subset_is_seeded_sorted_and_never_larger() -> None:
    images = _in_memory(20)
    some = images.subset(7, seed=1)
    numbers = some.pixels(range(7))[:, 0, 0, 0].tolist()
    assert len(some) == 7
    assert numbers == sorted(set(numbers))
    assert torch.equal(some.labels, torch.tensor(numbers) % 3)
    assert torch.equal(images.subset(7, seed=1).pixels(range(7)), some.pixels(range(7)))
    assert not torch.equal(images.subset(7, seed=2).labels, some.labels)
    assert images.subset(20) is images
    with pytest.raises(DataError, match="0 images were asked for: ask for at least 1"):
        images.subset(0)


def test_batches_are_in_order_unless_given_a_generator() -> None:
    images = _in_memory(10)
    ordered = list(images.batches(4))
    assert [len(labels) for _, labels in ordered] == [4, 4, 2]
    assert torch.equal(torch.cat([labels for _, labels in ordered]), images.labels)
    assert torch.equal(ordered[0][0], DIGITS.normalise(images.pixels(range(4))))
    shuffled = [
        torch.cat(
            [x[:, 0, 0, 0] for x, _ in images.batches(4, torch.Generator().manual_seed(seed))]
        )
        for seed in (0, 0, 1)
    ]
    assert torch.equal(shuffled[0], shuffled[1])
    assert not torch.equal(shuffled[0], shuffled[2])
    everything = torch.cat([x[:, 0, 0, 0] for x, _ in ordered])
    assert torch.equal(shuffled[0].sort().values, everything)


def test_shuffled_pictures_keep_their_labels() -> None:
    for pixels, labels in _in_memory(30).batches(8, torch.Generator().manual_seed(3)):
        number = (pixels[:, 0, 0, 0] * DIGITS.std[0] + DIGITS.mean[0]) * 255
        assert torch.equal(number.round().long() % 3, labels)


def test_stratified_holds_out_one_in_every_of_each_class() -> None:
    labels = torch.tensor([0] * 50 + [1] * 30 + [2] * 20)
    kept, held_out = stratified(labels, every=10)
    assert labels[held_out].bincount().tolist() == [5, 3, 2]
    assert torch.equal(torch.cat([kept, held_out]).sort().values, torch.arange(100))
    assert torch.equal(held_out, stratified(labels, every=10)[1])
    assert not torch.equal(held_out, stratified(labels, every=10, seed=1)[1])


def test_digits_are_split_disjointly_and_the_same_each_time() -> None:
    splits = load_data(None, DIGITS)
    assert [len(part) for part in parts(splits)] == [1149, 288, 360]
    assert sorted(torch.cat([part._indices for part in parts(splits)]).tolist()) == list(
        range(1797)
    )
    assert torch.equal(splits.test.labels, load_data("digits", DIGITS).test.labels)
    for part in parts(splits):
        share = part.labels.bincount() / len(part)
        assert share.min() > 0.09
        assert share.max() < 0.11


def test_digits_are_16_by_16_of_full_range_and_match_the_spec() -> None:
    train = load_data("digits", DIGITS).train
    pixels = train.pixels(slice(None))
    assert pixels.dtype == torch.uint8
    assert pixels.shape == (1149, 1, 16, 16)
    assert (int(pixels.min()), int(pixels.max())) == (0, 255)
    normalised = DIGITS.normalise(pixels)
    assert normalised.mean().abs() < 1e-3
    assert (normalised.std() - 1).abs() < 1e-3


def test_digits_become_colour_pictures_for_a_colour_model() -> None:
    grey = load_data("digits", DIGITS).test.pixels([0, 1])
    colour = load_data("digits", CIFAR10).test.pixels([0, 1])
    assert colour.shape == (2, 3, 32, 32)
    assert torch.equal(colour[:, 0], colour[:, 2])
    assert (colour.float().mean() - grey.float().mean()).abs() < 1


def test_colour_becomes_grey_by_luma_as_in_pil() -> None:
    colours = torch.tensor([[200, 100, 50], [0, 255, 7]], dtype=torch.uint8)
    pixels = colours.view(2, 3, 1, 1).expand(2, 3, 16, 16)
    grey = fitted(pixels, DIGITS)
    for colour, value in zip(colours.tolist(), grey[:, 0, 0, 0].tolist(), strict=True):
        assert (
            abs(Image.new("RGB", (1, 1), tuple(colour)).convert("L").getpixel((0, 0)) - value) <= 1
        )


def test_tensors_are_resized_and_cropped_like_pictures() -> None:
    spec = model_spec("resnet18")
    pixels = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    pixels[..., 8:24, 8:24] = 200
    out = fitted(pixels, spec)
    assert out.shape == (1, 3, 224, 224)
    assert out[0, 0, 112, 112] == 200
    assert out[0, 0, 0, 0] == 0
    assert torch.equal(out, out.flip(-1))


def test_photos_are_crops_of_two_photographs_without_labels() -> None:
    splits = load_data("photos", CIFAR10)
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [12, 4, 8]
    assert not splits.test.labelled
    assert splits.test.labels.tolist() == [-1] * 8
    pixels = splits.train.pixels(slice(None))
    assert pixels.shape == (12, 3, 32, 32)
    assert len({tuple(picture.flatten().tolist()) for picture in pixels}) == 12
    again = load_data("photos", CIFAR10).train.pixels(slice(None))
    assert torch.equal(pixels, again)


def test_what_needs_labels_says_so() -> None:
    images = load_data("photos", CIFAR10).test
    with pytest.raises(DataError, match="accuracy needs labels, and those of photos tell nothing"):
        accuracy(CIFAR10.build(), images)
    with pytest.raises(DataError, match="fine-tuning needs labels"):
        finetune(CIFAR10.build(), load_data("photos", CIFAR10))


def test_known_labels_tell_nothing_to_a_network_without_classes(offline: Path) -> None:
    masks = dataclasses.replace(CIFAR10, name="masks", family="voc")
    assert load_data("cifar10", CIFAR10).test.labelled
    assert not load_data("cifar10", masks).test.labelled


@pytest.mark.parametrize(
    ("side", "batch"),
    [(32, 200), (224, 200), (448, 50), (800, 15), (10_000, 2)],  # 200 · 224² / 800² = 15.7
)
def test_batches_hold_fewer_large_pictures(side: int, batch: int) -> None:
    spec = dataclasses.replace(CIFAR10, input_shape=(3, side, side))
    assert fitting_batch(spec, 200) == batch


def test_the_identity_of_images_is_known_without_reading_one(tmp_path, monkeypatch):
    spec = model_spec("digits_resnet20")
    monkeypatch.delenv("RSDTR_DATA", raising=False)
    assert data_identity(None, spec) == data_identity("digits", spec) == "digits"
    assert data_identity("cifar10", spec) == "cifar10"
    folder = tmp_path / "mine"
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "one.png").write_bytes(b"1")
    first = data_identity(folder, spec)
    assert first == data_identity(str(folder), spec)
    (folder / "a" / "two.png").write_bytes(b"2")
    second = data_identity(folder, spec)
    os.utime(folder / "a" / "two.png", (1, 1))
    third = data_identity(folder, spec)
    (folder / "a" / "two.png").rename(folder / "a" / "three.png")
    assert len({first, second, third, data_identity(folder, spec)}) == 4
    with pytest.raises(UnknownName, match="neither a data set"):
        data_identity(tmp_path / "none", spec)
    with pytest.raises(DataError, match="no data set of its own"):
        data_identity(None, model_spec("resnet18"))


def test_cifar10_is_told_by_its_files_and_is_at_hand_once_they_are_there(tmp_path, monkeypatch):
    spec = CIFAR10
    monkeypatch.setenv("RSDTR_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RSDTR_DATA", raising=False)
    assert not is_at_hand(None, spec)
    assert is_at_hand("digits", spec)
    (tmp_path / "cache" / "data" / "cifar-10-batches-py").mkdir(parents=True)
    assert is_at_hand(None, spec)
    (tmp_path / "own" / "cifar10").mkdir(parents=True)
    (tmp_path / "own" / "cifar10" / "test-0.parquet").write_bytes(b"1")
    monkeypatch.setenv("RSDTR_DATA", str(tmp_path / "own"))
    assert data_identity(None, spec).startswith("cifar10 ")

"""Folders of pictures: how they are split, brought to a model's input, and skipped or refused."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from rsdtr.data.datasets import load_data
from rsdtr.data.image_sources import obstacle
from rsdtr.errors import DataError, UnknownName
from rsdtr.models.zoo import CIFAR10_CLASSES, model_spec
from tests.support.data_on_disk import bomb, class_folders, parts, picture

DIGITS = model_spec("digits_resnet20")
CIFAR10 = model_spec("cifar10_resnet20")


def test_class_folders_without_splits_are_split_eight_to_one_to_one(tmp_path: Path) -> None:
    splits = load_data(class_folders(tmp_path, ["x", "y"], each=50), CIFAR10)
    assert [len(part) for part in parts(splits)] == [80, 10, 10]
    assert [part.labels.bincount().tolist() for part in parts(splits)] == [
        [40] * 2,
        [5] * 2,
        [5] * 2,
    ]
    assert splits.test.classes == ("x", "y")
    colours = torch.cat([part.pixels(slice(None))[:, :2, 0, 0] for part in parts(splits)])
    assert len({tuple(colour) for colour in colours.tolist()}) == 100  # disjoint and complete
    for part in parts(splits):
        assert torch.equal(part.pixels(slice(None))[:, 0, 0, 0].long(), part.labels)


def test_train_val_and_test_folders_are_taken_as_they_are(tmp_path: Path) -> None:
    for name, each in (("train", 5), ("val", 2), ("test", 3)):
        class_folders(tmp_path / name, ["x", "y"], each)
    splits = load_data(tmp_path, CIFAR10)
    assert [len(part) for part in parts(splits)] == [10, 4, 6]


@pytest.mark.parametrize("held_out", ["val", "test"])
def test_a_single_held_out_folder_is_the_test_set(tmp_path: Path, held_out: str) -> None:
    class_folders(tmp_path / "train", ["x", "y"], 10)
    class_folders(tmp_path / held_out, ["x", "y"], 2)
    splits = load_data(tmp_path, CIFAR10)
    assert [len(part) for part in parts(splits)] == [18, 2, 4]


def test_a_folder_is_found_by_name_under_the_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class_folders(tmp_path / "pets", ["x", "y"], 10)
    monkeypatch.setenv("RSDTR_DATA", str(tmp_path))
    assert len(load_data("pets", CIFAR10).train) == 16


def test_folders_named_after_outputs_of_the_model_mean_those_outputs(tmp_path: Path) -> None:
    splits = load_data(class_folders(tmp_path, ["dog", "cat"], each=10), CIFAR10)
    assert splits.test.classes == CIFAR10_CLASSES
    assert sorted(splits.test.labels.tolist()) == [3, 5]
    red = splits.train.pixels(slice(None))[:, 0, 0, 0]  # 0 for dog, 1 for cat
    assert torch.equal(splits.train.labels, 5 - 2 * red.long())


def test_pictures_are_resized_by_the_short_side_and_cropped_in_the_middle(tmp_path: Path) -> None:
    wide = Image.new("RGB", (96, 32))
    wide.paste((255, 255, 255), (32, 0, 64, 32))  # only the middle third is white
    for number in range(10):
        path = tmp_path / "x" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        wide.save(path)
    assert load_data(tmp_path, CIFAR10).train.pixels([0]).float().mean() == 255
    large = dataclasses.replace(CIFAR10, resize=64)  # the crop is the middle of the white third
    assert load_data(tmp_path, large).train.pixels([0]).float().mean() == 255
    spec = model_spec("resnet18")
    ours = load_data(tmp_path, spec).train.pixels([0])[0]
    transform = torchvision.transforms.Compose(
        [torchvision.transforms.Resize(256), torchvision.transforms.CenterCrop(224)]
    )
    theirs = torch.from_numpy(np.array(transform(wide))).permute(2, 0, 1)
    assert torch.equal(ours, theirs)


def test_pictures_of_every_kind_become_the_models_channels(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    folder.mkdir()
    transparent = Image.new("P", (20, 20))
    transparent.putpalette([10, 20, 30] * 256)
    transparent.save(folder / "p.png", transparency=bytes([7] * 256))
    Image.new("L", (20, 20), 9).save(folder / "l.png")
    Image.new("RGBA", (20, 20), (10, 20, 30, 40)).save(folder / "a.png")
    for number in range(9):
        Image.new("1", (20, 20), 1).save(folder / f"{number}.png")
    for spec, channels in ((CIFAR10, 3), (DIGITS, 1)):
        splits = load_data(tmp_path, spec)
        for part in parts(splits):
            assert part.pixels(slice(None)).shape[1:] == (channels, *spec.input_shape[1:])


def test_unreadable_files_are_skipped_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class_folders(tmp_path, ["x", "y"], each=10)
    (tmp_path / "x" / "broken.jpg").write_bytes(b"no picture")
    (tmp_path / "x" / "notes.txt").write_text("not a picture, and not meant as one")
    (tmp_path / ".hidden").mkdir()
    splits = load_data(tmp_path, CIFAR10)
    assert sum(len(part) for part in parts(splits)) == 20
    assert [path.name for path in splits.train.skipped] == ["broken.jpg"]
    assert "1 pictures under" in caplog.text


def test_hostile_and_odd_pictures_are_skipped_with_a_count_and_a_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "set"
    class_folders(root, ["x", "y"], each=5)
    odd = root / "x"
    bomb(odd / "bomb.png")
    Image.new("I;16", (40, 40), 40_000).save(odd / "deep.png")
    frames = [Image.new("L", (40, 40), grey) for grey in (0, 200)]
    frames[0].save(odd / "moves.gif", save_all=True, append_images=frames[1:])
    (odd / "text.png").write_text("no picture")
    (odd / "broken.png").write_bytes((odd / "0.png").read_bytes()[:20])
    (odd / "folder.png").mkdir()
    Image.new("RGB", (40, 40)).save(tmp_path / "outside.png")
    (odd / "link.png").symlink_to(tmp_path / "outside.png")
    (odd / "nowhere.png").symlink_to(root / "nothing.png")
    (root / "empty").mkdir()
    Image.new("CMYK", (40, 40), (255, 0, 0, 0)).save(odd / "cmyk.jpg")
    Image.new("L", (40, 40), 9).save(odd / "grey.png")
    splits = load_data(root, CIFAR10)
    assert sum(len(part) for part in parts(splits)) == 12
    assert sorted(path.stem for path in splits.test.skipped) == [
        "bomb", "broken", "deep", "folder", "link", "moves", "nowhere", "text",
    ]  # fmt: skip
    assert "8 pictures under" in caplog.text
    reasons = "1 animated, 2 broken, 1 links out of the folder, 2 no files, 1 no pictures"
    assert f"{reasons}, 1 of 16 or more bits" in caplog.text
    assert "class empty under" in caplog.text
    # The whole CMYK picture is cyan: no red, all green and blue.
    (cyan,) = [p for part in parts(splits) for p in part.pixels(slice(None)) if p[1].min() > 200]
    assert cyan[0].max() < 40
    assert cyan[2].min() > 200


def test_a_tiff_whose_second_page_has_no_width_is_broken(tmp_path: Path) -> None:
    """PIL answers with a TypeError; found by mutation."""
    page = Image.new("L", (19, 17))
    page.save(tmp_path / "a.tif", save_all=True, append_images=[page])
    content = bytearray((tmp_path / "a.tif").read_bytes())
    content[content.rindex(b"\x00\x01\x04\x00") + 1] = 9  # the tag of the second width
    (tmp_path / "a.tif").write_bytes(content)
    assert obstacle(tmp_path / "a.tif", tmp_path) == "broken"


def test_a_large_picture_is_refused_before_it_is_decoded(tmp_path: Path, monkeypatch) -> None:
    class_folders(tmp_path, ["x"], each=9)
    monkeypatch.setattr("rsdtr.data.image_sources.MOST_PIXELS", 100)
    with pytest.raises(DataError, match="holds no readable pictures"):
        load_data(tmp_path, CIFAR10)


def test_a_picture_that_breaks_off_is_left_out_of_its_batch(tmp_path: Path) -> None:
    class_folders(tmp_path, ["x"], each=30)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    noise.save(tmp_path / "x" / "0.png")
    whole = (tmp_path / "x" / "0.png").read_bytes()
    (tmp_path / "x" / "0.png").write_bytes(whole[: len(whole) // 2])
    splits = load_data(tmp_path, CIFAR10)
    seen = [len(labels) for part in parts(splits) for _, labels in part.batches(5)]
    assert sum(seen) == 29
    assert sum(len(labels) for part in parts(splits) for _, labels in part.batches(1)) == 29
    assert [path.name for path in splits.train.skipped] == ["0.png"]
    broken = next(part for part in parts(splits) if 0 in part._indices)
    with pytest.raises(DataError, match=r"0\.png cannot be decoded .*: replace or remove it"):
        broken.pixels(slice(None))


def test_folders_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UnknownName, match=r"'digit' is neither a data set \(digits, cifar10, photos\)"
    ):
        load_data("digit", DIGITS)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="empty holds no readable pictures: give a folder with"):
        load_data(empty, DIGITS)
    few = class_folders(tmp_path / "few", ["x"], each=2)
    with pytest.raises(DataError, match="few has only 2 readable pictures: give at least 3"):
        load_data(few, CIFAR10)
    many = class_folders(tmp_path / "many", [f"c{n}" for n in range(11)], each=3)
    with pytest.raises(DataError, match="has 11 classes, cifar10_resnet20 tells 10 apart: give"):
        load_data(many, CIFAR10)
    class_folders(tmp_path / "one" / "train", ["x"], each=1)
    class_folders(tmp_path / "one" / "test", ["x"], each=1)
    with pytest.raises(DataError, match="train has only 1 readable picture: give at least 2"):
        load_data(tmp_path / "one", CIFAR10)
    with pytest.raises(DataError, match="resnet18 has no data set of its own: give a folder"):
        load_data(None, model_spec("resnet18"))


def test_a_network_without_classes_takes_any_pictures_of_a_folder(tmp_path: Path) -> None:
    masks = dataclasses.replace(CIFAR10, name="masks", family="voc")
    class_folders(tmp_path / "a", ["cat", "dog"], 5)
    picture(tmp_path / "alone.png", (9, 9, 9))
    splits = load_data(tmp_path, masks)
    parts = (splits.train, splits.validation, splits.test)
    assert sum(len(part) for part in parts) == 11
    assert not any(part.labelled for part in parts)
    assert all(len(part) for part in parts)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no readable pictures: give a folder of pictures$"):
        load_data(tmp_path / "empty", masks)

"""Splits, decoding and folders: what a model gets to see, and every refusal."""

import dataclasses
import io
import struct
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torchvision
from PIL import Image

from rsdtr.data import DataSplits, LabelledImages, load_data, stratified
from rsdtr.errors import DataError, UnknownName
from rsdtr.evaluate import accuracy
from rsdtr.finetune import finetune
from rsdtr.images import fitting_batch
from rsdtr.pictures import ArrayPictures, fitted, obstacle
from rsdtr.zoo import CIFAR10_CLASSES, ModelSpec, model_spec

DIGITS = model_spec("digits_resnet20")
CIFAR10 = model_spec("cifar10_resnet20")


def _picture(
    path: Path, colour: int | tuple[int, int, int], size: tuple[int, int] = (32, 32)
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = "L" if isinstance(colour, int) else "RGB"
    Image.new(mode, size, colour).save(path)


def _class_folders(root: Path, classes: list[str], each: int) -> Path:
    """`each` one-coloured pictures per class; the colour is (class, picture, 0)."""
    for label, name in enumerate(classes):
        for number in range(each):
            _picture(root / name / f"{number}.png", (label, number, 0))
    return root


def _in_memory(count: int, spec: ModelSpec = DIGITS) -> LabelledImages:
    """`count` pictures whose every pixel is their number, of `count` % 3 classes."""
    pixels = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).repeat(1, *spec.input_shape)
    labels = torch.arange(count) % 3
    return LabelledImages("numbers", ("a", "b", "c"), labels, ArrayPictures(pixels), spec)


def _parts(splits: DataSplits) -> list[LabelledImages]:
    return [splits.train, splits.validation, splits.test]


# --- LabelledImages ---


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


# --- splits ---


def test_stratified_holds_out_one_in_every_of_each_class() -> None:
    labels = torch.tensor([0] * 50 + [1] * 30 + [2] * 20)
    kept, held_out = stratified(labels, every=10)
    assert labels[held_out].bincount().tolist() == [5, 3, 2]
    assert torch.equal(torch.cat([kept, held_out]).sort().values, torch.arange(100))
    assert torch.equal(held_out, stratified(labels, every=10)[1])
    assert not torch.equal(held_out, stratified(labels, every=10, seed=1)[1])


def test_digits_are_split_disjointly_and_the_same_each_time() -> None:
    splits = load_data(None, DIGITS)
    assert [len(part) for part in _parts(splits)] == [1149, 288, 360]
    assert sorted(torch.cat([part._indices for part in _parts(splits)]).tolist()) == list(
        range(1797)
    )
    assert torch.equal(splits.test.labels, load_data("digits", DIGITS).test.labels)
    for part in _parts(splits):
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


def test_cifar10_from_parquet_is_the_official_one(offline: Path) -> None:
    splits = load_data(None, CIFAR10)
    assert [len(part) for part in _parts(splits)] == [45_000, 5_000, 10_000]
    assert splits.test.labels[:8].tolist() == [3, 8, 8, 0, 6, 6, 1, 6]  # cat, ship, ship, plane…
    assert splits.test.labels.bincount().tolist() == [1000] * 10
    train = torch.cat([splits.train._indices, splits.validation._indices])
    assert torch.equal(train.sort().values, torch.arange(50_000))
    first = splits.test.pixels([0])
    assert first.shape == (1, 3, 32, 32)
    assert first[0, :, 0, 0].tolist() == [158, 112, 49]  # the published first test picture
    assert torch.equal(splits.test.subset(50).pixels([3]), splits.test.subset(50).pixels([3]))


# --- CIFAR-10 that is not there, or broken ---


def _write_parquet(folder: Path, split: str, pictures: list[bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    img = [{"bytes": content, "path": None} for content in pictures]
    labels = [number % 10 for number in range(len(pictures))]
    pq.write_table(
        pa.table({"img": img, "label": labels}), folder / f"{split}-00000-of-00001.parquet"
    )


def _png(colour: tuple[int, int, int]) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (32, 32), colour).save(file, "PNG")
    return file.getvalue()


def test_parquet_rows_are_decoded_once_and_broken_ones_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RSDTR_DATA", str(tmp_path))
    _write_parquet(tmp_path / "cifar10", "train", [_png((n, 2, 3)) for n in range(20)])
    _write_parquet(tmp_path / "cifar10", "test", [_png((7, 8, 9)), b"broken"])
    splits = load_data("cifar10", CIFAR10)
    assert [len(part) for part in _parts(splits)] == [18, 2, 2]
    assert splits.test.pixels([0])[0, :, 5, 5].tolist() == [7, 8, 9]
    assert splits.train.pixels([3, 3])[:, 0, 0, 0].tolist() == [int(splits.train._indices[3])] * 2
    with pytest.raises(DataError, match=r"picture 1 of .*cifar10 cannot be read .*download"):
        splits.test.pixels([0, 1])
    with pytest.raises(DataError, match="picture 1 of"):
        list(splits.test.batches(2))


def test_parquet_files_that_are_missing_or_unreadable_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RSDTR_DATA", str(tmp_path))
    _write_parquet(tmp_path / "cifar10", "train", [_png((1, 2, 3))] * 10)
    with pytest.raises(DataError, match=r"cifar10 has no test-\*\.parquet: put CIFAR-10's"):
        load_data("cifar10", CIFAR10)
    (tmp_path / "cifar10" / "test-00000-of-00001.parquet").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"test-00000-of-00001\.parquet cannot be read .*again"):
        load_data("cifar10", CIFAR10)


def test_without_parquet_cifar10_is_torchvisions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, bool]] = []

    def stand_in(root: str, train: bool, download: bool) -> SimpleNamespace:
        asked.append((root, train))
        count = 50 if train else 10
        data = np.zeros((count, 32, 32, 3), np.uint8)
        data[:, 1, 2] = (7, 8, 9)
        return SimpleNamespace(data=data, targets=[n % 10 for n in range(count)])

    monkeypatch.delenv("RSDTR_DATA", raising=False)
    monkeypatch.setenv("RSDTR_CACHE", str(tmp_path))
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", stand_in)
    splits = load_data("cifar10", CIFAR10)
    assert asked == [(str(tmp_path / "data"), True), (str(tmp_path / "data"), False)]
    assert [len(part) for part in _parts(splits)] == [45, 5, 10]
    assert splits.test.pixels([4])[0, :, 1, 2].tolist() == [7, 8, 9]
    assert splits.test.classes == CIFAR10_CLASSES


def test_no_network_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RSDTR_DATA", raising=False)
    monkeypatch.setenv("RSDTR_CACHE", str(tmp_path))
    unreachable = "http://127.0.0.1:9/cifar-10-python.tar.gz"
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", unreachable)
    with pytest.raises(
        DataError, match=r"not be downloaded \(.*refused.*: put .*RSDTR_DATA"
    ) as caught:
        load_data("cifar10", CIFAR10)
    assert "\n" not in str(caught.value)


# --- folders ---


def test_class_folders_without_splits_are_split_eight_to_one_to_one(tmp_path: Path) -> None:
    splits = load_data(_class_folders(tmp_path, ["x", "y"], each=50), CIFAR10)
    assert [len(part) for part in _parts(splits)] == [80, 10, 10]
    assert [part.labels.bincount().tolist() for part in _parts(splits)] == [
        [40] * 2,
        [5] * 2,
        [5] * 2,
    ]
    assert splits.test.classes == ("x", "y")
    colours = torch.cat([part.pixels(slice(None))[:, :2, 0, 0] for part in _parts(splits)])
    assert len({tuple(colour) for colour in colours.tolist()}) == 100  # disjoint and complete
    for part in _parts(splits):
        assert torch.equal(part.pixels(slice(None))[:, 0, 0, 0].long(), part.labels)


def test_train_val_and_test_folders_are_taken_as_they_are(tmp_path: Path) -> None:
    for name, each in (("train", 5), ("val", 2), ("test", 3)):
        _class_folders(tmp_path / name, ["x", "y"], each)
    splits = load_data(tmp_path, CIFAR10)
    assert [len(part) for part in _parts(splits)] == [10, 4, 6]


@pytest.mark.parametrize("held_out", ["val", "test"])
def test_a_single_held_out_folder_is_the_test_set(tmp_path: Path, held_out: str) -> None:
    _class_folders(tmp_path / "train", ["x", "y"], 10)
    _class_folders(tmp_path / held_out, ["x", "y"], 2)
    splits = load_data(tmp_path, CIFAR10)
    assert [len(part) for part in _parts(splits)] == [18, 2, 4]


def test_a_folder_is_found_by_name_under_the_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _class_folders(tmp_path / "pets", ["x", "y"], 10)
    monkeypatch.setenv("RSDTR_DATA", str(tmp_path))
    assert len(load_data("pets", CIFAR10).train) == 16


def test_folders_named_after_outputs_of_the_model_mean_those_outputs(tmp_path: Path) -> None:
    splits = load_data(_class_folders(tmp_path, ["dog", "cat"], each=10), CIFAR10)
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
        for part in _parts(splits):
            assert part.pixels(slice(None)).shape[1:] == (channels, *spec.input_shape[1:])


def test_unreadable_files_are_skipped_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _class_folders(tmp_path, ["x", "y"], each=10)
    (tmp_path / "x" / "broken.jpg").write_bytes(b"no picture")
    (tmp_path / "x" / "notes.txt").write_text("not a picture, and not meant as one")
    (tmp_path / ".hidden").mkdir()
    splits = load_data(tmp_path, CIFAR10)
    assert sum(len(part) for part in _parts(splits)) == 20
    assert [path.name for path in splits.train.skipped] == ["broken.jpg"]
    assert "1 pictures under" in caplog.text


def bomb(path: Path) -> None:
    """A PNG of 70 bytes that says it has 100,000 × 100,000 pixels."""
    whole = io.BytesIO()
    Image.new("L", (1, 1)).save(whole, "PNG")
    content = bytearray(whole.getvalue())
    content[16:24] = struct.pack(">II", 100_000, 100_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)


def test_hostile_and_odd_pictures_are_skipped_with_a_count_and_a_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "set"
    _class_folders(root, ["x", "y"], each=5)
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
    assert sum(len(part) for part in _parts(splits)) == 12
    assert sorted(path.stem for path in splits.test.skipped) == [
        "bomb", "broken", "deep", "folder", "link", "moves", "nowhere", "text",
    ]  # fmt: skip
    assert "8 pictures under" in caplog.text
    reasons = "1 animated, 2 broken, 1 links out of the folder, 2 no files, 1 no pictures"
    assert f"{reasons}, 1 of 16 or more bits" in caplog.text
    assert "class empty under" in caplog.text
    # The whole CMYK picture is cyan: no red, all green and blue.
    (cyan,) = [p for part in _parts(splits) for p in part.pixels(slice(None)) if p[1].min() > 200]
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
    _class_folders(tmp_path, ["x"], each=9)
    monkeypatch.setattr("rsdtr.pictures.MOST_PIXELS", 100)
    with pytest.raises(DataError, match="holds no readable pictures"):
        load_data(tmp_path, CIFAR10)


def parquet(folder: Path, **columns: object) -> None:
    (folder / "cifar10").mkdir(exist_ok=True)
    table = pa.table({"img": [{"bytes": b"no", "path": ""}] * 3, "label": [0, 1, 2]} | columns)
    for split in ("train", "test"):
        pq.write_table(table, folder / "cifar10" / f"{split}-0.parquet")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": [0, 1, None]}, "1 pictures have no label"),
        ({"label": [0, 1, 10]}, "labels are 0 to 10, expected 0 to 9"),
        ({"label": [0, 1, -1]}, "labels are -1 to 1, expected 0 to 9"),
        ({"label": ["a", "b", "c"]}, r"cannot be read \("),
    ],
)
def test_parquet_labels_that_are_none(tmp_path: Path, monkeypatch, columns, message) -> None:
    monkeypatch.setenv("RSDTR_DATA", str(tmp_path))
    parquet(tmp_path, **columns)
    with pytest.raises(DataError, match=message):
        load_data("cifar10", CIFAR10)


def test_parquet_pictures_that_are_none(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("RSDTR_DATA", str(tmp_path))
    bomb(tmp_path / "bomb.png")
    one = io.BytesIO()
    Image.new("RGB", (1, 1)).save(one, "PNG")
    for content in (b"no", (tmp_path / "bomb.png").read_bytes(), None, one.getvalue()):
        parquet(tmp_path, img=[{"bytes": content, "path": ""}] * 3)
        with pytest.raises(DataError, match=r"picture 0 of .* cannot be read"):
            load_data("cifar10", CIFAR10).test.pixels([0])
    parquet(tmp_path, img=["no struct"] * 3)
    with pytest.raises(DataError, match=r"picture 0 of .* cannot be read"):
        load_data("cifar10", CIFAR10).test.pixels([0])
    monkeypatch.setattr("rsdtr.pictures._KEEP_BYTES", 5000)
    with pytest.raises(DataError, match="says that it holds 3 pictures in"):
        load_data("cifar10", CIFAR10)


def test_a_picture_that_breaks_off_is_left_out_of_its_batch(tmp_path: Path) -> None:
    _class_folders(tmp_path, ["x"], each=30)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    noise.save(tmp_path / "x" / "0.png")
    whole = (tmp_path / "x" / "0.png").read_bytes()
    (tmp_path / "x" / "0.png").write_bytes(whole[: len(whole) // 2])
    splits = load_data(tmp_path, CIFAR10)
    seen = [len(labels) for part in _parts(splits) for _, labels in part.batches(5)]
    assert sum(seen) == 29
    assert sum(len(labels) for part in _parts(splits) for _, labels in part.batches(1)) == 29
    assert [path.name for path in splits.train.skipped] == ["0.png"]
    broken = next(part for part in _parts(splits) if 0 in part._indices)
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
    few = _class_folders(tmp_path / "few", ["x"], each=2)
    with pytest.raises(DataError, match="few has only 2 readable pictures: give at least 3"):
        load_data(few, CIFAR10)
    many = _class_folders(tmp_path / "many", [f"c{n}" for n in range(11)], each=3)
    with pytest.raises(DataError, match="has 11 classes, cifar10_resnet20 tells 10 apart: give"):
        load_data(many, CIFAR10)
    _class_folders(tmp_path / "one" / "train", ["x"], each=1)
    _class_folders(tmp_path / "one" / "test", ["x"], each=1)
    with pytest.raises(DataError, match="train has only 1 readable picture: give at least 2"):
        load_data(tmp_path / "one", CIFAR10)
    with pytest.raises(DataError, match="resnet18 has no data set of its own: give a folder"):
        load_data(None, model_spec("resnet18"))


# --- tensors brought to a model's input ---


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


# --- without labels ---


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


def test_a_network_without_classes_takes_any_pictures_of_a_folder(tmp_path: Path) -> None:
    masks = dataclasses.replace(CIFAR10, name="masks", family="voc")
    _class_folders(tmp_path / "a", ["cat", "dog"], 5)
    _picture(tmp_path / "alone.png", (9, 9, 9))
    splits = load_data(tmp_path, masks)
    parts = (splits.train, splits.validation, splits.test)
    assert sum(len(part) for part in parts) == 11
    assert not any(part.labelled for part in parts)
    assert all(len(part) for part in parts)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no readable pictures: give a folder of pictures$"):
        load_data(tmp_path / "empty", masks)


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

"""What folders of people's pictures are called, and what their names mean to a network."""

import dataclasses
import io
from pathlib import Path

import pytest
import torch
from PIL import Image, features

from rsdtr.data.class_labels import label_meaning, wnids
from rsdtr.data.datasets import load_data
from rsdtr.data.image_folder import split_of
from rsdtr.errors import DataError
from rsdtr.measuring.accuracy import accuracy
from rsdtr.models import zoo
from rsdtr.models.zoo import class_names, model_spec, own_model
from rsdtr.recovery.finetune import finetune
from tests.support.data_on_disk import class_folders, parts, picture

CIFAR10 = model_spec("cifar10_resnet20")
IMAGENET = dataclasses.replace(model_spec("resnet18"), input_shape=(3, 32, 32), resize=32)
ANIMALS = ["cat", "dog"]


@pytest.fixture(autouse=True)
def _own_models_are_of_one_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "_OWN", dict(zoo._OWN))


def own(classes: int, **words: object):
    return own_model("folder_names_own", torch.nn.Identity, (3, 32, 32), classes, **words)


# --- splits ---


@pytest.mark.parametrize(
    ("train", "held_out"),
    [
        ("train", "valid"), ("train", "validation"), ("Train", "Test"), ("TRAIN", "VAL"),
        ("training", "testing"), ("training_set", "test_set"), ("seg_train", "seg_test"),
        ("train2017", "val2017"), ("trainset", "testset"), ("train-images", "dev"),
    ],
)  # fmt: skip
def test_two_splits_by_any_usual_name(tmp_path: Path, train: str, held_out: str) -> None:
    class_folders(tmp_path / train, ANIMALS, 10)
    class_folders(tmp_path / held_out, ANIMALS, 2)
    splits = load_data(tmp_path, CIFAR10)
    assert [len(part) for part in parts(splits)] == [18, 2, 4]
    assert set(splits.test.labels.tolist()) == {3, 5}


@pytest.mark.parametrize("held_out", [("valid", "test"), ("Validation", "Testing")])
def test_three_splits_are_taken_as_they_are(tmp_path: Path, held_out: tuple[str, str]) -> None:
    for name, each in (("train", 5), (held_out[0], 2), (held_out[1], 3)):
        class_folders(tmp_path / name, ANIMALS, each)
    assert [len(part) for part in parts(load_data(tmp_path, CIFAR10))] == [10, 4, 6]


def test_train_alone_is_split_and_said_to_be(tmp_path: Path, caplog) -> None:
    class_folders(tmp_path / "train", ANIMALS, 50)
    splits = load_data(tmp_path, CIFAR10)
    assert [len(part) for part in parts(splits)] == [80, 10, 10]
    assert set(splits.train.labels.tolist()) == {3, 5}
    assert "has train alone: all three splits are drawn from it" in caplog.text


def test_validation_serves_where_there_is_no_train(tmp_path: Path) -> None:
    class_folders(tmp_path / "val", ANIMALS, 10)
    class_folders(tmp_path / "test", ANIMALS, 3)
    assert [len(part) for part in parts(load_data(tmp_path, CIFAR10))] == [18, 2, 6]


def test_a_folder_in_a_folder_in_an_archive(tmp_path: Path) -> None:
    class_folders(tmp_path / "archive" / "seg_train" / "seg_train", ANIMALS, 10)
    class_folders(tmp_path / "archive" / "seg_test" / "seg_test", ANIMALS, 2)
    (tmp_path / "__MACOSX" / "archive").mkdir(parents=True)
    assert [len(part) for part in parts(load_data(tmp_path, CIFAR10))] == [18, 2, 4]


def test_a_class_may_be_called_train(tmp_path: Path, caplog) -> None:
    splits = load_data(class_folders(tmp_path, ["car", "plane", "train"], 10), own(3))
    assert splits.test.classes == ("car", "plane", "train")


def test_splits_without_class_folders_are_left_out_and_said_to_be(tmp_path: Path, caplog) -> None:
    class_folders(tmp_path / "train", ANIMALS, 10)
    class_folders(tmp_path / "valid", ANIMALS, 2)
    picture(tmp_path / "test" / "1.png", 3)
    assert [len(part) for part in parts(load_data(tmp_path, CIFAR10))] == [18, 2, 4]
    assert "no pictures in test/ are taken" in caplog.text


def test_names_that_can_mean_two_things_are_refused(tmp_path: Path) -> None:
    for name in ("val", "valid", "train"):
        class_folders(tmp_path / "twice" / name, ANIMALS, 2)
    with pytest.raises(DataError, match="holds val/, valid/, which both say validation: leave one"):
        load_data(tmp_path / "twice", CIFAR10)
    class_folders(tmp_path / "mixed" / "train", ["freight", "fast"], 2)
    class_folders(tmp_path / "mixed", ["car"], 2)
    with pytest.raises(DataError, match="holds train, which may be a split or a class, beside car"):
        load_data(tmp_path / "mixed", CIFAR10)
    for name in ("train", "test"):
        picture(tmp_path / "flat" / name / "1.png", 3)
    with pytest.raises(DataError, match="holds train/, test/ and no class folders in there"):
        load_data(tmp_path / "flat", CIFAR10)


@pytest.mark.parametrize("name", ["trainer", "trains", "tested", "cat", "testtube", "train test"])
def test_other_names_are_no_splits(name: str) -> None:
    assert split_of(name) is None


def test_what_systems_leave_behind_is_neither_class_nor_picture(tmp_path: Path, caplog) -> None:
    class_folders(tmp_path, ANIMALS, 10)
    for junk in ("__MACOSX", ".ipynb_checkpoints", "@eaDir", "__pycache__"):
        picture(tmp_path / junk / "cat" / "1.png", 3)
        picture(tmp_path / "cat" / junk / "1.png", 3)
    (tmp_path / "cat" / "._0.png").write_bytes(b"of a Mac")
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "0.xml").write_text("<a/>")
    splits = load_data(tmp_path, CIFAR10)
    assert sum(len(part) for part in parts(splits)) == 20
    assert splits.test.skipped == []
    assert "annotations/ under" in caplog.text
    assert "holds no pictures, and is no class" in caplog.text


# --- classes ---


def test_wordnet_ids_are_classes_of_an_imagenet_network(tmp_path: Path) -> None:
    assert len(set(wnids())) == len(class_names(IMAGENET)) == 1000
    # Known pairs, as in torchvision's own list and in Imagenette's description.
    for wnid, name in (("n01440764", "tench"), ("n02979186", "cassette player"),
                       ("n03888257", "parachute")):  # fmt: skip
        assert class_names(IMAGENET)[wnids().index(wnid)] == name
    class_folders(tmp_path / "train", ["n01440764", "n03888257"], 10)
    class_folders(tmp_path / "val", ["n01440764", "n03888257"], 2)
    splits = load_data(tmp_path, IMAGENET)
    assert splits.test.classes == class_names(IMAGENET)
    assert splits.test.labels.unique().tolist() == [0, 701]
    assert splits.test.unknown is None


@pytest.mark.parametrize(
    ("names", "spec", "outputs"),
    [
        (["Airplane", "TRUCK"], CIFAR10, [0, 9]),
        (["golden_retriever", "Goldfish"], IMAGENET, [207, 1]),
        (["n01440764-Tench", "goldfish, Carassius auratus"], IMAGENET, [0, 1]),
        (["1.airplane", "0-truck"], CIFAR10, [0, 9]),
        (["00", "07", "3"], model_spec("digits_resnet20"), [0, 7, 3]),
    ],
)
def test_names_match_without_case_and_in_their_usual_forms(names, spec, outputs) -> None:
    meaning = label_meaning(names, spec)
    assert (list(meaning.outputs), meaning.unknown, meaning.assumed) == (outputs, None, None)


@pytest.mark.parametrize(
    "names",
    [["airplane", "bird", "zebra"], ["plane", "car"], ["1", "10"], ["n01440764", "bird"]],
)
def test_accuracy_by_labels_that_nothing_vouches_for_is_refused(tmp_path, names, caplog) -> None:
    splits = load_data(class_folders(tmp_path, names, 10), CIFAR10)
    assert "there is no accuracy by these labels" in caplog.text
    with pytest.raises(DataError, match="accuracy needs labels that mean the outputs of cifar10_"):
        accuracy(CIFAR10.build(), splits.test)
    with pytest.raises(DataError, match=f"fine-tuning needs labels .* of {len(names)} class fold"):
        finetune(CIFAR10.build(), splits)


def test_numbers_are_taken_for_outputs_and_said_to_be(tmp_path: Path, caplog) -> None:
    """Twelve folders of a network trained with ImageFolder, for which "10" comes before "2"."""
    root = class_folders(tmp_path, [str(k) for k in range(12)], 3)
    splits = load_data(root, own(12))
    red = splits.train.pixels(slice(None))[:, 0, 0, 0].long()  # the number of the folder
    assert torch.equal(splits.train.labels, red)
    said = "folder 2 is taken for output 2, by its number; torchvision's ImageFolder"
    assert said in caplog.text
    as_texts = sorted(map(str, range(12)))
    named = load_data(root, own(12, class_names=as_texts))
    assert named.train.assumed is None
    red = named.train.pixels(slice(None))[:, 0, 0, 0]
    assert named.train.labels.tolist() == [as_texts.index(str(int(number))) for number in red]


def test_the_order_of_folders_is_an_assumption_that_accuracy_carries(tmp_path: Path) -> None:
    class Says(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.eye(2)[x[:, 0, 0, 0].mul(255).round().long()]

    root = class_folders(tmp_path / "two", ["ham", "spam"], 10)
    splits = load_data(root, own(2))
    reached = accuracy(Says(), splits.test)
    assert reached.percent == 100
    assert "in the order of their names (ham, spam)" in reached.assumed
    with pytest.raises(DataError, match="1 of 1 class folders"):
        accuracy(Says(), load_data(class_folders(tmp_path / "one", ["ham"], 10), own(2)).test)
    known = load_data(root, own(2, class_names=("Spam", "Ham"))).test
    assert known.assumed is None
    assert accuracy(Says(), known).percent == 0


def test_half_of_a_thousand_classes_are_empty_in_one_line(tmp_path: Path, caplog) -> None:
    for k, wnid in enumerate(wnids()):
        (tmp_path / wnid).mkdir()
        if k % 100 == 0:
            picture(tmp_path / wnid / "0.png", 3)
            picture(tmp_path / wnid / "1.png", 3)
    load_data(tmp_path, IMAGENET)
    lines = [record.getMessage() for record in caplog.records]
    (line,) = lines
    assert line.startswith(f"990 of 1000 classes under {tmp_path} are empty (n01443537, n01484850,")


# --- pictures ---


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".JPG", ".pgm"])
def test_endings_of_kinds_that_are_read(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "cat").mkdir()
    for number in range(10):
        form = "PPM" if suffix == ".pgm" else "JPEG"
        Image.new("L", (40, 40), 200).save(tmp_path / "cat" / f"{number}{suffix}", form)
    assert len(load_data(tmp_path, CIFAR10).train) == 8


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_avif(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    for number in range(10):
        Image.new("RGB", (40, 40), (200, 0, 0)).save(tmp_path / "cat" / f"{number}.avif")
    assert load_data(tmp_path, CIFAR10).train.pixels([0])[0, 0].float().mean() > 180


def test_kinds_that_are_not_read_are_counted(tmp_path: Path, caplog) -> None:
    class_folders(tmp_path, ["cat"], 10)
    for number in range(3):
        (tmp_path / "cat" / f"{number}.heic").write_bytes(b"of a phone")
    splits = load_data(tmp_path, CIFAR10)
    assert len(splits.test.skipped) == 3
    assert "3 .heic files, which are not read here" in caplog.text


def test_the_first_view_of_a_camera_s_picture_is_taken(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    views = [Image.new("RGB", (40, 40), colour) for colour in ((200, 0, 0), (0, 0, 200))]
    for number in range(10):
        path = tmp_path / "cat" / f"{number}.jpg"
        views[0].save(path, "MPO", save_all=True, append_images=views[1:])
    assert load_data(tmp_path, CIFAR10).train.pixels([0])[0, 0].float().mean() > 180


def test_four_channels_get_transparency_and_five_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    for number in range(10):
        Image.new("RGBA", (32, 32), (10, 20, 30, 40)).save(tmp_path / "cat" / f"{number}.png")
    four = dataclasses.replace(CIFAR10, input_shape=(4, 32, 32), mean=(0,) * 4, std=(1,) * 4)
    assert load_data(tmp_path, four).train.pixels([0])[0, :, 0, 0].tolist() == [10, 20, 30, 40]
    opaque = load_data("photos", four).train.pixels([0])
    assert opaque[0, 3].unique().tolist() == [255]
    five = dataclasses.replace(CIFAR10, input_shape=(5, 32, 32), mean=(0,) * 5, std=(1,) * 5)
    with pytest.raises(DataError, match="takes 5 channels, and pictures have 1, 3 or 4"):
        load_data(tmp_path, five)


def broken_off(path: Path) -> None:
    """A JPEG whose second half is missing: its size is readable, its pixels are not."""
    whole = io.BytesIO()
    noise = torch.randint(0, 256, (64, 64, 3), dtype=torch.uint8).numpy()
    Image.fromarray(noise).save(whole, "JPEG")
    path.write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])


def test_pictures_that_break_off_are_passed_over(tmp_path: Path, caplog) -> None:
    class_folders(tmp_path / "train", ["cat", "dog"], 5)
    class_folders(tmp_path / "test", ["cat", "dog"], 5)
    broken_off(tmp_path / "test" / "cat" / "00.jpg")  # the very first
    broken_off(tmp_path / "test" / "dog" / "9.jpg")  # the very last
    test = load_data(tmp_path, CIFAR10).test
    assert len(test) == 12
    assert test.first(5).inputs(slice(None)).shape == (5, 3, 32, 32)
    assert test.last(5).labels.tolist() == [5] * 5
    assert [len(labels) for _, labels in test.batches(6)] == [5, 5]
    assert sorted(path.name for path in test.skipped) == ["00.jpg", "9.jpg"]
    assert caplog.text.count("skipped: ") == 2

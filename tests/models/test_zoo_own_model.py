"""Images as a network of one's own takes them, as it was described."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as transforms

from rsdtr.compressed.compress import compress
from rsdtr.compressed.manifest import MANIFEST
from rsdtr.compressed.saved import load, save
from rsdtr.data.datasets import load_data
from rsdtr.errors import RsdtrError
from rsdtr.exports.export import export
from rsdtr.models import zoo
from rsdtr.models.zoo import class_names, own_model
from rsdtr.planning.model_profile import profile
from rsdtr.planning.plan import plan
from tests.support.data_on_disk import class_folders

SHAPE = (3, 16, 16)


@pytest.fixture(autouse=True)
def _own_models_are_of_one_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "_OWN", dict(zoo._OWN))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 2),
    )  # fmt: skip


def picture(folder: Path) -> Image.Image:
    """Twelve copies of a wide picture without symmetry, in one class; the picture."""
    pixels = torch.randint(0, 256, (20, 50, 3), generator=torch.Generator().manual_seed(0))
    image = Image.fromarray(pixels.to(torch.uint8).numpy())
    (folder / "a").mkdir(parents=True)
    for number in range(12):
        image.save(folder / "a" / f"{number}.png")
    return image


def inputs(folder: Path, **words: object) -> torch.Tensor:
    spec = own_model("described", network, SHAPE, 2, **words)
    return load_data(folder, spec).train.inputs([0])[0]


@pytest.mark.parametrize("name", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("resize", [16, 18])
def test_resize_crop_and_interpolation_are_torchvision_s(tmp_path, name: str, resize: int) -> None:
    image = picture(tmp_path)
    resized = transforms.resize(image, resize, InterpolationMode[name.upper()])
    expected = transforms.to_tensor(transforms.center_crop(resized, SHAPE[1:]))
    assert torch.equal(inputs(tmp_path, resize=resize, interpolation=name), expected)


def test_squashed_as_resize_of_a_pair_does(tmp_path: Path) -> None:
    expected = transforms.to_tensor(transforms.resize(picture(tmp_path), SHAPE[1:]))
    assert torch.equal(inputs(tmp_path, crop="squash"), expected)


def test_blue_first_and_up_to_255_as_caffe_s_networks_take_them(tmp_path: Path) -> None:
    image = transforms.center_crop(transforms.resize(picture(tmp_path), 16), SHAPE[1:])
    mean = (103.94, 116.78, 123.68)  # of blue, green and red
    pixels = transforms.pil_to_tensor(image).float().flip(0)
    expected = pixels - torch.tensor(mean).view(3, 1, 1)
    found = inputs(tmp_path, channel_order="BGR", mean=mean, pixel_range=255)
    assert torch.allclose(found, expected, atol=1e-4)


def test_what_was_said_is_saved_and_exported(tmp_path: Path) -> None:
    class_folders(tmp_path / "data", ["Yes", "No"], 5)
    spec = own_model(
        "described", network, SHAPE, 2, channel_order="BGR", mean=(1.0, 2.0, 3.0),
        pixel_range=255, class_names=("no", "yes"), crop="squash",
    )  # fmt: skip
    model = network().eval()
    decided = plan(profile(model, spec), 0.5, layers="all")
    small = compress(model, decided)
    assert load(save(small, decided, tmp_path / "saved")).spec == spec
    manifest = json.loads((tmp_path / "saved" / MANIFEST).read_text())
    assert manifest["spec"]["class_names"] == ["no", "yes"]
    test = load_data(tmp_path / "data", spec).test
    assert test.classes == ("no", "yes")
    export(small, decided, test, ["safetensors"], tmp_path / "out")
    text = (tmp_path / "out" / "rsdtr_model.py").read_text()
    program: dict[str, object] = {}
    exec(compile(text, "rsdtr_model.py", "exec"), program)
    pixels = test.pixels([0])
    assert torch.equal(program["normalise"](pixels), spec.normalise(pixels))
    assert "in the order BGR" in (tmp_path / "out" / "README.md").read_text()


def test_the_network_itself_serves_as_well_as_what_builds_it() -> None:
    mine = network()
    spec = own_model("itself", mine, SHAPE, 2)
    built = spec.build()
    assert built is not mine
    assert all(
        torch.equal(a, b) for a, b in zip(built.parameters(), mine.parameters(), strict=True)
    )


def test_a_binary_network_has_two_classes_of_folders(tmp_path: Path) -> None:
    class_folders(tmp_path, ["ham", "spam"], 5)
    spec = own_model("binary", network, SHAPE, 1, class_names=["Ham", "Spam"])
    assert class_names(spec) == ("Ham", "Spam")
    assert set(load_data(tmp_path, spec).train.labels.tolist()) == {0, 1}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"class_names": ["a"]}, "has 2 classes and was given 1 names of which 1 differ"),
        ({"class_names": ["a", "A"]}, "was given 2 names of which 1 differ: give one of its own"),
        ({"interpolation": "cubic"}, "interpolation='cubic': give one of 'nearest', 'bilinear'"),
        ({"crop": "five"}, "crop='five': give one of 'center', 'squash'"),
        ({"pixel_range": 100}, "pixel_range=100: give one of 1, 255"),
        ({"resize": 8}, "resize=8 and crop='center' for inputs of 16×16: give a resize that"),
        ({"resize": 20, "crop": "squash"}, "resize=20 and crop='squash'"),
        ({"channel_order": "RBG"}, "channel_order='RBG': give one of 'RGB', 'BGR'"),
    ],
)
def test_what_makes_no_sense_is_told(words: dict[str, object], message: str) -> None:
    with pytest.raises(RsdtrError, match=message):
        own_model("described", network, SHAPE, 2, **words)


def test_grey_has_no_order_of_colours() -> None:
    with pytest.raises(RsdtrError, match="takes 1 channels: BGR is an order of 3 or 4"):
        own_model("described", network, (1, 8, 8), 2, channel_order="BGR")

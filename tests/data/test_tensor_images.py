"""Tensors, Datasets and DataLoaders as images."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset
from torchvision.datasets import ImageFolder

from rsdtr.data import images_of
from rsdtr.data.class_labels import wnids
from rsdtr.errors import DataError
from rsdtr.measuring import accuracy, fidelity
from rsdtr.models import model_spec
from tests.support.data_on_disk import class_folders

CIFAR10 = model_spec("cifar10_resnet20")


class Reads(nn.Module):
    """Says class 1 for a positive first value of an input, else class 0."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        positive = (x[:, 0, 0, 0] > 0).float()
        return torch.stack([1 - positive, positive], 1)


class Items(Dataset):
    def __init__(self, items: list[object]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> object:
        return self.items[index]


SIGNS = torch.tensor([1.0, -1.0, 1.0, 1.0])
INPUTS = SIGNS.view(4, 1, 1, 1).expand(4, 3, 8, 8).clone()
LABELS = torch.tensor([1, 0, 0, 1])  # three of four are what `Reads` says


@pytest.mark.parametrize(
    "source",
    [
        (INPUTS, LABELS),
        TensorDataset(INPUTS, LABELS),
        Subset(TensorDataset(INPUTS, LABELS), range(4)),
        DataLoader(TensorDataset(INPUTS, LABELS), batch_size=3),
        Items([(x, int(y)) for x, y in zip(INPUTS, LABELS, strict=True)]),
        Items([{"image": x, "label": y} for x, y in zip(INPUTS, LABELS, strict=True)]),
        DataLoader(Items([{"image": x, "label": y} for x, y in zip(INPUTS, LABELS, strict=True)])),
    ],
    ids=lambda source: type(source).__name__,
)
def test_accuracy_of_whatever_holds_inputs_and_labels(source: object) -> None:
    reached = accuracy(Reads(), source)
    assert (reached.percent, reached.n, reached.assumed) == (75.0, 4, None)


@pytest.mark.parametrize("source", [INPUTS, TensorDataset(INPUTS), DataLoader(Items(list(INPUTS)))])
def test_inputs_without_labels_serve_what_needs_none(source: object) -> None:
    assert fidelity(Reads(), Reads(), source).relative_error == 0
    with pytest.raises(DataError, match="accuracy needs labels"):
        accuracy(Reads(), source)


def test_pictures_are_prepared_as_the_model_takes_them() -> None:
    array = np.zeros((40, 40, 3), np.uint8)
    array[..., 0] = 200
    expected = CIFAR10.normalise(torch.tensor([200, 0, 0], dtype=torch.uint8).view(1, 3, 1, 1))
    for item in (array, Image.fromarray(array), torch.from_numpy(array).permute(2, 0, 1)):
        inputs = images_of(Items([(item, 1), (item, 2)]), CIFAR10).inputs(slice(None))
        assert inputs.shape == (2, 3, 32, 32)
        assert torch.allclose(inputs, expected.expand_as(inputs), atol=1e-6)


def test_the_classes_of_a_dataset_are_matched_by_name(tmp_path) -> None:
    """ImageFolder numbers three of ImageNet's folders from 0, which are other outputs."""
    names = [wnids()[output] for output in (5, 217, 701)]
    folder = ImageFolder(str(class_folders(tmp_path, names, 2)))
    spec = dataclasses.replace(model_spec("resnet18"), input_shape=(3, 8, 8), resize=8)
    images = images_of(folder, spec)
    assert images.labels.tolist() == [5, 5, 217, 217, 701, 701]
    strangers = images_of(ImageFolder(str(class_folders(tmp_path / "b", ["x", "y"], 2))), spec)
    with pytest.raises(DataError, match="accuracy needs labels that mean the outputs of resnet18"):
        accuracy(Reads(), strangers)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (7, "int holds no images that are known here: give a tensor"),
        (torch.zeros(3, 8, 8), r"the images are \(3, 8, 8\): give a tensor"),
        (torch.zeros(0, 3, 8, 8), r"the images are \(0, 3, 8, 8\)"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.int64), "int64: give uint8 pictures, or float inputs"),
        ((INPUTS, LABELS[:3]), r"4 images have labels of shape \(3,\)"),
        ((INPUTS, LABELS.float()), r"labels of shape \(4,\), torch.float32: give one whole"),
        (Items([]), "the Items is empty"),
        (Items([("a", 1)]), "an item of the Dataset holds a str"),
        (DataLoader(Items([torch.zeros(3)])), r"a batch of the DataLoader holds an array \(1, 3\)"),
    ],
)  # fmt: skip
def test_what_holds_no_images_is_told(source: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        images_of(source)


def test_what_does_not_fit_the_model_is_told() -> None:
    with pytest.raises(DataError, match=r"of \(3, 8, 8\) and cifar10_resnet20 takes \(3, 32"):
        images_of(INPUTS, CIFAR10).inputs([0])
    with pytest.raises(DataError, match="labels are 0 to 12, and cifar10_resnet20 tells 10"):
        images_of((INPUTS, torch.tensor([0, 1, 2, 12])), CIFAR10)
    mixed = Items([torch.zeros(3, 8, 8), torch.zeros(3, 9, 9)])
    with pytest.raises(DataError, match="have several shapes or types"):
        images_of(mixed).inputs([0, 1])

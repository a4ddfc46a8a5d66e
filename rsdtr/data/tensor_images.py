"""Tensors, Datasets and DataLoaders as images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from rsdtr.data.class_labels import label_meaning
from rsdtr.data.image_sets import LabelledImages
from rsdtr.data.image_sources import ArrayPictures, fitted
from rsdtr.errors import DataError
from rsdtr.models.zoo import ModelSpec

ImageSource = LabelledImages | Tensor | Sequence[Any] | Dataset[Any] | DataLoader[Any]
MOST_BYTES = 2 << 30  # of what a DataLoader gives
_EXPECTED = (
    "give a tensor (n, C, H, W), a pair of it with labels (n,), a Dataset of (image, label), or a "
    "DataLoader of them"
)


def images_of(source: ImageSource, spec: ModelSpec | None = None) -> LabelledImages:
    """What somebody has as images, as the functions here take them; a LabelledImages as it is.

    source: a tensor (n, C, H, W), a pair of it with labels (n,), a Dataset whose items are an
    image or (image, label), or a DataLoader, which is read once and kept. An image is a picture, if
    it is a PIL.Image or uint8, and prepared as `spec` says; floating-point images are taken as the
    network takes its inputs. Without a spec they are those of a network of their shape. Where a
    Dataset names its classes, these are matched with the network's as class folders are.
    DataError for anything else, for no images, and for labels that are no outputs.
    """
    if isinstance(source, LabelledImages):
        return source
    if isinstance(source, DataLoader):
        names = getattr(source.dataset, "classes", None)
        images, labels = _whole(source)
        return _set(images, labels, names, spec)
    if isinstance(source, Tensor):
        return _set(source, None, None, spec)
    if isinstance(source, tuple | list) and len(source) == 2 and isinstance(source[0], Tensor):
        return _set(source[0], torch.as_tensor(source[1]), None, spec)
    if hasattr(source, "__getitem__") and hasattr(source, "__len__"):
        return _dataset(source, spec)
    raise DataError(f"{type(source).__name__} holds no images that are known here: {_EXPECTED}")


class DatasetPictures:
    """The images of a Dataset, each read when it is asked for."""

    def __init__(self, dataset: Any, spec: ModelSpec) -> None:
        self._dataset, self._spec = dataset, spec

    def __len__(self) -> int:
        return len(self._dataset)

    def pixels(self, indices: Tensor) -> Tensor:
        images = [_image(self._dataset[index])[None] for index in indices.tolist()]
        if not images:
            return torch.empty(0, *self._spec.input_shape, dtype=torch.uint8)
        whole = [i if i.is_floating_point() else fitted(i, self._spec) for i in images]
        if len({(image.shape, image.dtype) for image in whole}) > 1:
            raise DataError(
                "the images of the Dataset have several shapes or types: give it a transform that "
                "brings them to one"
            )
        return torch.cat(whole)


def _dataset(source: Any, spec: ModelSpec | None) -> LabelledImages:
    if len(source) == 0:
        raise DataError(f"the {type(source).__name__} is empty: give at least one image")
    labels = _labels(source)
    spec = spec or _spec_of(_image(source[0]), labels)
    pictures = DatasetPictures(source, spec)
    return _labelled(
        type(source).__name__, pictures, labels, getattr(source, "classes", None), spec
    )


def _labels(dataset: Any) -> Tensor | None:
    """The label of each item, without reading the images where the Dataset tells them."""
    told = getattr(dataset, "targets", None)
    if told is None and isinstance(dataset, TensorDataset):
        told = dataset.tensors[1] if len(dataset.tensors) > 1 else None
        if told is None:
            return None
    if told is None:
        items = [_parts(dataset[index])[1] for index in range(len(dataset))]
        if any(item is None for item in items):
            return None
        told = items
    return _as_labels(told, len(dataset))


def _as_labels(told: object, n: int) -> Tensor:
    try:
        labels = torch.as_tensor(told)
    except (TypeError, ValueError, RuntimeError):
        labels = torch.empty(0)
    if labels.shape != (n,) or labels.is_floating_point() or labels.is_complex():
        raise DataError(
            f"{n} images have labels of shape {tuple(labels.shape)}, {labels.dtype}: give one "
            "whole number for each, the output that it means"
        )
    return labels.long()


def _set(
    images: Tensor, labels: Tensor | None, names: Sequence[str] | None, spec: ModelSpec | None
) -> LabelledImages:
    if images.ndim != 4 or len(images) == 0:
        raise DataError(f"the images are {tuple(images.shape)}: {_EXPECTED}")
    if not images.is_floating_point() and images.dtype != torch.uint8:
        raise DataError(f"the images are {images.dtype}: give uint8 pictures, or float inputs")
    if labels is not None:
        labels = _as_labels(labels, len(images))
    spec = spec or _spec_of(images[0], labels)
    return _labelled("tensors", ArrayPictures(images.detach().cpu()), labels, names, spec)


def _labelled(
    name: str, pictures: Any, labels: Tensor | None, names: Sequence[str] | None, spec: ModelSpec
) -> LabelledImages:
    n = len(pictures)
    if labels is None or spec.task != "classification":
        return LabelledImages(name, (), torch.full((n,), -1), pictures, spec)
    outputs = max(spec.classes, 2)
    named = names is not None and all(isinstance(one, str) for one in names)
    meaning = label_meaning(list(names), spec) if named and names else None
    most = len(meaning.outputs) if meaning else outputs
    if labels.min() < 0 or labels.max() >= most:
        raise DataError(
            f"labels are {int(labels.min())} to {int(labels.max())}, and {spec.name} tells "
            f"{outputs} classes apart: give labels from 0 to {most - 1}"
        )
    if meaning is None:
        classes = tuple(str(number) for number in range(outputs))
        return LabelledImages(name, classes, labels, pictures, spec)
    return LabelledImages(
        name, meaning.classes, torch.tensor(meaning.outputs)[labels], pictures, spec,
        assumed=meaning.assumed, unknown=meaning.unknown,
    )  # fmt: skip


def _spec_of(image: Tensor, labels: Tensor | None) -> ModelSpec:
    """What is known of a network that takes such images."""
    channels, height, width = image.shape
    classes = 1 if labels is None else max(int(labels.max()) + 1, 2)
    return ModelSpec(
        name="the network", family="own other" if labels is None else "own classification",
        input_shape=(channels, height, width), classes=classes,
        mean=(0.0,) * channels, std=(1.0,) * channels, resize=None, data=None, weights_file=None,
        weights_url=None, sha256=None, bundled=False, source="given by its user",
    )  # fmt: skip


def _whole(batches: Iterable[Any]) -> tuple[Tensor, Tensor | None]:
    images, labels, held = [], [], 0
    for batch in batches:
        image, label = _parts(batch)
        if not isinstance(image, Tensor) or image.ndim != 4:
            raise DataError(f"a batch of the DataLoader holds {_told(image)}: {_EXPECTED}")
        images.append(image.detach().cpu())
        labels.append(label)
        held += image.numel() * image.element_size()
        if held > MOST_BYTES:
            raise DataError(
                f"the DataLoader has more than {MOST_BYTES >> 20:,} MB of images, which are kept "
                "in memory: give its Dataset, or fewer"
            )
    if not images:
        raise DataError(f"the DataLoader has no batches: {_EXPECTED}")
    given = [torch.as_tensor(label) for label in labels if label is not None]
    return torch.cat(images), torch.cat(given) if len(given) == len(images) else None


def _parts(item: object) -> tuple[object, object | None]:
    """The image and the label of an item or a batch."""
    if isinstance(item, dict):
        image, label = (
            next((item[key] for key in keys if key in item), None)
            for keys in (("image", "images", "img", "pixel_values"), ("label", "labels", "target"))
        )
        return image, label
    if isinstance(item, tuple | list) and item:
        return item[0], item[1] if len(item) > 1 else None
    return item, None


def _image(item: object) -> Tensor:
    """(C, H, W), uint8 or floating-point, of one item."""
    image, _ = _parts(item)
    if isinstance(image, Image.Image):
        image = np.array(image if image.mode in ("L", "RGB", "RGBA") else image.convert("RGB"))
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim in (2, 3):
        image = torch.from_numpy(image)
        image = image[None] if image.ndim == 2 else image.permute(2, 0, 1)
    if not isinstance(image, Tensor) or image.ndim != 3:
        raise DataError(f"an item of the Dataset holds {_told(image)}: {_EXPECTED}")
    return image


def _told(value: object) -> str:
    if isinstance(value, Tensor | np.ndarray):
        return f"an array {tuple(value.shape)}"
    return f"a {type(value).__name__}"

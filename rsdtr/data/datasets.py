"""Data sets: scikit-learn's digits and photographs, CIFAR-10, and any folder of pictures."""

import hashlib
import os
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from rsdtr.data.image_folder import load_folder
from rsdtr.data.image_sets import (
    SPLIT_SEED,
    DataSplits,
    LabelledImages,
    carved,
    stratified,
)
from rsdtr.data.image_sources import (
    ArrayPictures,
    ParquetPictures,
    fitted,
    mode_of,
)
from rsdtr.errors import DataError, UnknownName
from rsdtr.models.zoo import CIFAR10_CLASSES, ModelSpec, class_names
from rsdtr.system.cache_folder import cache_folder, private_folder

__all__ = ["NAMES", "DataSplits", "LabelledImages", "data_identity", "load_data", "stratified"]

NAMES = ("digits", "cifar10", "photos")


def load_data(name_or_dir: str | Path | None, spec: ModelSpec) -> DataSplits:
    """The splits of a data set for one model; nothing is decoded yet.

    None is the data set of the model; "digits", "cifar10" and "photos" (crops of scikit-learn's two
    photographs, without labels) are known by name; anything else is a folder (or its name under
    $RSDTR_DATA) of class folders, or with such folders in splits by their usual names, as
    `image_folder` knows them. Splits that do not exist are drawn with a fixed seed. A model that
    does not tell classes apart, such as one for
    segmentation, takes all pictures of a folder, wherever they lie in it, and no labels.
    Raises UnknownName; DataError: no network, nothing readable, too few pictures, more classes
    than the model has outputs, a model whose channels no picture has.
    """
    mode_of(spec)
    if name_or_dir is None:
        if spec.data is None:
            raise DataError(
                f"{spec.name} has no data set of its own: give a folder of class folders"
            )
        name_or_dir = spec.data
    if name_or_dir == "digits":
        splits = _digits(spec)
    elif name_or_dir == "cifar10":
        splits = _cifar10(spec)
    elif name_or_dir == "photos":
        splits = _photos(spec)
    else:
        splits = _folder(name_or_dir, spec)
    if spec.task != "classification":
        return splits.without_labels()
    classes = splits.test.classes
    if len(classes) > len(class_names(spec)):
        raise DataError(
            f"{name_or_dir} has {len(classes)} classes, {spec.name} tells {spec.classes} apart: "
            "give data of at most as many classes"
        )
    return splits


def data_identity(name_or_dir: str | Path | None, spec: ModelSpec) -> str:
    """What tells the images of `load_data` from others, without reading one.

    A name where the images are the same everywhere; else a SHA-256 of a folder's files, by name,
    size and time of change. DataError and UnknownName as in `load_data`.
    """
    if name_or_dir is None and spec.data is None:
        raise DataError(f"{spec.name} has no data set of its own: give a folder of class folders")
    name = str(spec.data if name_or_dir is None else name_or_dir)
    if name == "cifar10" and (own := _own_cifar10()) is not None:
        return f"cifar10 {_listing(own)}"
    return name if name in NAMES else _listing(_root(name))


def is_at_hand(name_or_dir: str | Path | None, spec: ModelSpec) -> bool:
    """Whether the images of `load_data` are on this machine, so that nothing is downloaded."""
    name = str(spec.data if name_or_dir is None else name_or_dir)
    downloaded = cache_folder() / "data" / "cifar-10-batches-py"
    return name != "cifar10" or _own_cifar10() is not None or downloaded.is_dir()


def _listing(root: Path) -> str:
    digest = hashlib.sha256()
    for folder, folders, files in os.walk(root):
        folders.sort()
        for file in sorted(files):
            path = Path(folder, file)
            try:
                told = path.stat()
            except OSError:  # gone, or a broken link: no picture
                continue
            line = f"{path.relative_to(root)}\0{told.st_size}\0{told.st_mtime_ns}\n"
            digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _digits(spec: ModelSpec) -> DataSplits:
    """1,797 pictures of 8×8 in 0..16, brought to 16×16 in 0..255; 1,149 + 288 + 360."""
    from sklearn.datasets import load_digits

    table = load_digits()
    grey = torch.from_numpy(table.images).float()[:, None] * (255 / 16)  # (N, 1, 8, 8)
    large = F.interpolate(grey, (16, 16), mode="bilinear").round().to(torch.uint8)
    labels = torch.from_numpy(table.target).long()
    classes = tuple(str(digit) for digit in range(10))
    whole = LabelledImages("digits", classes, labels, ArrayPictures(large), spec)
    return carved("digits", whole, (5, 5))


def _photos(spec: ModelSpec) -> DataSplits:
    """Square crops of scikit-learn's two photographs, china.jpg and flower.jpg, each 427×640.

    12 from the left two thirds of the first one, 4 from its right third; 8 from the second one.
    """
    from sklearn.datasets import load_sample_images

    china, flower = (
        torch.from_numpy(picture.copy()).permute(2, 0, 1) for picture in load_sample_images().images
    )
    generator = torch.Generator().manual_seed(SPLIT_SEED)

    def crops(photo: Tensor, n: int) -> LabelledImages:
        _, height, width = photo.shape
        most = min(height, width)
        found = []
        for _ in range(n):
            side = int(torch.randint(most // 2, most + 1, (), generator=generator))
            top = int(torch.randint(height - side + 1, (), generator=generator))
            left = int(torch.randint(width - side + 1, (), generator=generator))
            crop = photo[None, :, top : top + side, left : left + side]
            found.append(fitted(crop, spec))
        pictures = ArrayPictures(torch.cat(found))
        return LabelledImages("photos", (), torch.full((n,), -1), pictures, spec)

    return DataSplits(
        train=crops(china[:, :, :427], 12),
        validation=crops(china[:, :, 427:], 4),
        test=crops(flower, 8),
    )


def _cifar10(spec: ModelSpec) -> DataSplits:
    """The official 10,000 test pictures; 5,000 of the 50,000 for training are validation."""
    folder = _own_cifar10()
    if folder is not None:
        train, test = (_cifar10_parquet(folder, split, spec) for split in ("train", "test"))
    else:
        train, test = (_cifar10_torchvision(split, spec) for split in (True, False))
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(SPLIT_SEED))
    held_out = len(train) // 10
    return DataSplits(
        train=train.select(order[held_out:].sort().values),
        validation=train.select(order[:held_out].sort().values),
        test=test,
    )


def _own_cifar10() -> Path | None:
    """The folder of Parquet files that the user has put under $RSDTR_DATA."""
    own = os.environ.get("RSDTR_DATA")
    folder = Path(own) / "cifar10" if own else None
    return folder if folder and any(folder.glob("*.parquet")) else None


def _cifar10_parquet(folder: Path, split: str, spec: ModelSpec) -> LabelledImages:
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = sorted(folder.glob(f"{split}-*.parquet"))
    if not files:
        raise DataError(f"{folder} has no {split}-*.parquet: put CIFAR-10's Parquet files there")
    try:
        pictures = ParquetPictures(files, "img", side=32)
        tables = [pq.read_table(file, columns=["label"]) for file in files]
        told = pa.concat_tables(tables).column("label").cast(pa.int64())
        if told.null_count:
            raise ValueError(f"{told.null_count} pictures have no label")
        labels = torch.tensor(told.to_numpy())
        if ((labels < 0) | (labels >= len(CIFAR10_CLASSES))).any():
            raise ValueError(f"labels are {labels.min()} to {labels.max()}, expected 0 to 9")
    except (OSError, KeyError, ValueError, RuntimeError, pa.ArrowException) as error:
        raise DataError(
            f"{files[0]} cannot be read ({error}): download CIFAR-10's Parquet files again"
        ) from error
    return LabelledImages("cifar10", CIFAR10_CLASSES, labels, pictures, spec)


def _cifar10_torchvision(train: bool, spec: ModelSpec) -> LabelledImages:
    import torchvision

    folder = cache_folder() / "data"
    try:
        private_folder(folder)
        images = torchvision.datasets.CIFAR10(str(folder), train=train, download=True)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"CIFAR-10 could not be downloaded ({getattr(error, 'reason', error)}): put its "
            f"Parquet files into $RSDTR_DATA/cifar10, or cifar-10-python.tar.gz into {folder}"
        ) from error
    pixels = torch.from_numpy(images.data).permute(0, 3, 1, 2).contiguous()  # (N, 3, 32, 32)
    labels = torch.tensor(images.targets, dtype=torch.int64)
    return LabelledImages("cifar10", CIFAR10_CLASSES, labels, ArrayPictures(pixels), spec)


def _folder(name: str | Path, spec: ModelSpec) -> DataSplits:
    return load_folder(str(name), _root(name), spec)


def _root(name: str | Path) -> Path:
    root = Path(name)
    if not root.is_dir() and (own := os.environ.get("RSDTR_DATA")):
        root = Path(own) / name
    if not root.is_dir():
        raise UnknownName(
            f"{str(name)!r} is neither a data set ({', '.join(NAMES)}) nor a folder: "
            "give one of these names or the path of a folder of class folders"
        )
    return root

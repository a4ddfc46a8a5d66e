"""Labelled images: scikit-learn's digits, CIFAR-10, and any folder of class folders."""

import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from rsdtr.errors import DataError, UnknownName
from rsdtr.pictures import (
    FILE_SUFFIXES,
    ArrayPictures,
    FilePictures,
    ParquetPictures,
    Pictures,
    fitted,
    obstacle,
)
from rsdtr.weights import cache_folder, private_folder
from rsdtr.zoo import CIFAR10_CLASSES, ModelSpec, class_names

NAMES = ("digits", "cifar10")
_SPLIT_SEED = 20240517
_log = logging.getLogger(__name__)


class LabelledImages:
    """Pictures with labels, as one model takes them.

    labels is int64 (N,), each an index into classes. A picture is decoded when it is asked for.
    skipped holds the paths of picture files that could not be read.
    """

    def __init__(
        self,
        name: str,
        classes: tuple[str, ...],
        labels: Tensor,
        pictures: Pictures,
        spec: ModelSpec,
        *,
        indices: Tensor | None = None,
        skipped: list[Path] | None = None,
    ) -> None:
        self.name = name
        self.classes = classes
        self.spec = spec
        self.skipped: list[Path] = [] if skipped is None else skipped
        self._pictures = pictures
        self._all_labels = labels
        self._indices = torch.arange(len(pictures)) if indices is None else indices

    def __len__(self) -> int:
        return len(self._indices)

    @property
    def labels(self) -> Tensor:
        return self._all_labels[self._indices]

    def pixels(self, indices: Tensor | Sequence[int] | slice) -> Tensor:
        """uint8 (n, C, H, W) at the model's input size. Raises DataError for a broken file."""
        return fitted(self._pictures.pixels(self._at(indices)), self.spec)

    def _at(self, indices: Tensor | Sequence[int] | slice) -> Tensor:
        return self._indices[indices if isinstance(indices, slice) else torch.as_tensor(indices)]

    def select(self, indices: Tensor | Sequence[int] | slice) -> "LabelledImages":
        """Those images, in that order, sharing what is decoded."""
        return LabelledImages(
            self.name,
            self.classes,
            self._all_labels,
            self._pictures,
            self.spec,
            indices=self._at(indices),
            skipped=self.skipped,
        )

    def subset(self, n: int, seed: int = 0) -> "LabelledImages":
        """n of them drawn without replacement, in the old order; itself when there are no more.

        Raises DataError when n is not at least 1.
        """
        if n < 1:
            raise DataError(f"{n} images were asked for: ask for at least 1")
        if n >= len(self):
            return self
        chosen = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))[:n]
        return self.select(chosen.sort().values)

    def batches(
        self, batch_size: int, generator: torch.Generator | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """(normalised float32 (b, C, H, W), labels (b,)) pairs; shuffled when given a generator.

        A file that turns out to be broken is left out and noted in skipped.
        """
        order = (
            torch.arange(len(self))
            if generator is None
            else torch.randperm(len(self), generator=generator)
        )
        for start in range(0, len(order), batch_size):
            part = order[start : start + batch_size]
            try:
                pixels = self.pixels(part)
            except DataError:
                part = self._readable(part)
                if len(part) == 0:
                    continue
                pixels = self.pixels(part)
            yield self.spec.normalise(pixels), self.labels[part]

    def _readable(self, part: Tensor) -> Tensor:
        kept = []
        for index in part.tolist():
            try:
                self.pixels([index])
                kept.append(index)
            except DataError as error:
                if not isinstance(self._pictures, FilePictures):
                    raise
                path = self._pictures.path(int(self._indices[index]))
                if path not in self.skipped:
                    self.skipped.append(path)
                    _log.warning("skipped: %s", error)
        return torch.tensor(kept, dtype=torch.int64)


@dataclass(frozen=True)
class DataSplits:
    """Three disjoint sets: fit on train, choose on validation, report on test."""

    train: LabelledImages
    validation: LabelledImages
    test: LabelledImages


def load_data(name_or_dir: str | Path | None, spec: ModelSpec) -> DataSplits:
    """The splits of a data set for one model; nothing is decoded yet.

    None is the data set of the model; "digits" and "cifar10" are known by name; anything else is
    a folder (or its name under $RSDTR_DATA) of class folders, or with such folders in train/ and
    val/ or test/. Splits that do not exist are drawn with a fixed seed.
    Raises UnknownName; DataError: no network, nothing readable, too few pictures, more classes
    than the model has outputs.
    """
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
    else:
        splits = _folder(name_or_dir, spec)
    classes = splits.test.classes
    if len(classes) > spec.classes:
        raise DataError(
            f"{name_or_dir} has {len(classes)} classes, {spec.name} tells {spec.classes} apart: "
            "give data of at most as many classes"
        )
    return splits


def stratified(labels: Tensor, every: int, seed: int = _SPLIT_SEED) -> tuple[Tensor, Tensor]:
    """Indices (kept, held out): one in `every`, the classes in proportion, drawn by `seed`."""
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    held_out = torch.arange(len(labels)) % every == 0
    return by_class[~held_out].sort().values, by_class[held_out].sort().values


def _carved(name: str, whole: LabelledImages, every: tuple[int, int]) -> DataSplits:
    """Splits `whole` into train, validation (one in every[1]) and test (one in every[0])."""
    rest, test = stratified(whole.labels, every[0])
    kept, validation = stratified(whole.labels[rest], every[1])
    splits = DataSplits(
        train=whole.select(rest[kept]),
        validation=whole.select(rest[validation]),
        test=whole.select(test),
    )
    if min(len(splits.train), len(splits.validation), len(splits.test)) == 0:
        raise DataError(f"{name} has only {len(whole)} readable pictures: give at least 3")
    return splits


def _digits(spec: ModelSpec) -> DataSplits:
    """1,797 pictures of 8×8 in 0..16, brought to 16×16 in 0..255; 1,149 + 288 + 360."""
    from sklearn.datasets import load_digits

    table = load_digits()
    grey = torch.from_numpy(table.images).float()[:, None] * (255 / 16)  # (N, 1, 8, 8)
    large = F.interpolate(grey, (16, 16), mode="bilinear").round().to(torch.uint8)
    labels = torch.from_numpy(table.target).long()
    classes = tuple(str(digit) for digit in range(10))
    whole = LabelledImages("digits", classes, labels, ArrayPictures(large), spec)
    return _carved("digits", whole, (5, 5))


def _cifar10(spec: ModelSpec) -> DataSplits:
    """The official 10,000 test pictures; 5,000 of the 50,000 for training are validation."""
    own = os.environ.get("RSDTR_DATA")
    folder = Path(own) / "cifar10" if own else None
    if folder and any(folder.glob("*.parquet")):
        train, test = (_cifar10_parquet(folder, split, spec) for split in ("train", "test"))
    else:
        train, test = (_cifar10_torchvision(split, spec) for split in (True, False))
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(_SPLIT_SEED))
    held_out = len(train) // 10
    return DataSplits(
        train=train.select(order[held_out:].sort().values),
        validation=train.select(order[:held_out].sort().values),
        test=test,
    )


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
    root = Path(name)
    if not root.is_dir() and (own := os.environ.get("RSDTR_DATA")):
        root = Path(own) / name
    if not root.is_dir():
        raise UnknownName(
            f"{str(name)!r} is neither a data set ({', '.join(NAMES)}) nor a folder: "
            "give one of these names or the path of a folder of class folders"
        )
    held_out = [folder for part in ("test", "val") if (folder := root / part).is_dir()]
    if not (root / "train").is_dir() or not held_out:
        return _carved(str(name), _class_folders(str(name), [root], spec)[0], (10, 9))
    train, *rest = _class_folders(str(name), [root / "train", *held_out], spec)
    if len(rest) == 2:
        return DataSplits(train=train, validation=rest[1], test=rest[0])
    # The only held-out folder is for the report; what is chosen is chosen on a part of train/.
    kept, validation = stratified(train.labels, 10)
    if len(kept) == 0:
        raise DataError(f"{root / 'train'} has only {len(train)} readable picture: give at least 2")
    return DataSplits(train.select(kept), train.select(validation), rest[0])


def _class_folders(name: str, roots: Sequence[Path], spec: ModelSpec) -> list[LabelledImages]:
    found = sorted({f.name for root in roots for f in root.iterdir() if _visible_folder(f)})
    known = class_names(spec)
    # Folders named after outputs of the model mean those outputs, even when only a few are there.
    classes = known if found and set(found) <= set(known) else tuple(found)
    sets = []
    for root in roots:
        paths: list[Path] = []
        labels: list[int] = []
        skipped: list[Path] = []
        reasons: Counter[str] = Counter()
        for label in found:
            before = len(paths)
            for path in sorted((root / label).rglob("*")):
                if path.suffix.lower() not in FILE_SUFFIXES or path.name.startswith("."):
                    continue
                if reason := obstacle(path, root):
                    skipped.append(path)
                    reasons[reason] += 1
                else:
                    paths.append(path)
                    labels.append(classes.index(label))
            if len(paths) == before:
                _log.warning("class %s under %s is empty: no readable picture in it", label, root)
        if skipped:
            told = ", ".join(f"{n} {reason}" for reason, n in sorted(reasons.items()))
            _log.warning("%d pictures under %s were skipped: %s", len(skipped), root, told)
        if not paths:
            raise DataError(
                f"{root} holds no readable pictures: give a folder with one folder of pictures "
                "per class"
            )
        pictures = FilePictures(paths, spec)
        numbers = torch.tensor(labels, dtype=torch.int64)
        sets.append(LabelledImages(name, classes, numbers, pictures, spec, skipped=skipped))
    return sets


def _visible_folder(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".")

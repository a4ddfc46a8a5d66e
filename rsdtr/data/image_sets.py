"""Sets of pictures as one model takes them, with labels or without, and how a set is split."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rsdtr.data.image_sources import FilePictures, Pictures, fitted
from rsdtr.errors import DataError
from rsdtr.models.zoo import ModelSpec

SPLIT_SEED = 20240517
_PIXELS = 224 * 224  # of an image that batches were sized for
_TOLD_EACH = 100  # pictures that break off: each of the first so many gets a line
_log = logging.getLogger(__name__)


class LabelledImages:
    """Pictures with labels, as one model takes them.

    labels is int64 (N,), each an index into classes; where nobody labelled the pictures, there are
    no classes and the labels are -1. A picture is decoded when it is asked for. skipped holds the
    paths of picture files that could not be read. assumed, unknown: as in a
    `class_labels.LabelMeaning`.
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
        assumed: str | None = None,
        unknown: str | None = None,
    ) -> None:
        if spec.inputs != 1:
            raise DataError(
                f"{spec.name} takes {spec.inputs} inputs, and a set of images tells one of them: "
                "plan, compress, save and load it, and measure it by code of your own"
            )
        self.name = name
        self.classes = classes
        self.spec = spec
        self.skipped: list[Path] = [] if skipped is None else skipped
        self.assumed, self.unknown = assumed, unknown
        self._pictures = pictures
        self._all_labels = labels
        self._indices = torch.arange(len(pictures)) if indices is None else indices

    def __len__(self) -> int:
        return len(self._indices)

    @property
    def labels(self) -> Tensor:
        return self._all_labels[self._indices]

    @property
    def file_names(self) -> tuple[str, ...] | None:
        """Of each picture, without its ending; None for pictures that lie in no files."""
        if not isinstance(self._pictures, FilePictures):
            return None
        return tuple(self._pictures.path(index).stem for index in self._indices.tolist())

    @property
    def labelled(self) -> bool:
        """Whether the labels say anything."""
        return bool(self.classes)

    @property
    def means_outputs(self) -> bool:
        """Whether the labels are known to mean the model's outputs."""
        return self.labelled and not self.unknown

    def check_labelled(self, purpose: str) -> None:
        """DataError for labels that do not mean the model's outputs, and for none; purpose: what
        needs them, in words.
        """
        if not self.labelled:
            raise DataError(
                f"{purpose} needs labels, and those of {self.name} tell nothing to "
                f"{self.spec.name}: without labels there are recalibration and fidelity"
            )
        if self.unknown:
            raise DataError(
                f"{purpose} needs labels that mean the outputs of {self.spec.name}: of "
                f"{self.name}, {self.unknown}; without them there are recalibration and fidelity"
            )

    @property
    def are_inputs(self) -> bool:
        """Whether they are the model's inputs as they are, and no pictures."""
        if isinstance(self._pictures, FilePictures) or len(self) == 0:
            return False
        return self._pictures.pixels(self._at([0])).is_floating_point()

    def without_labels(self, spec: ModelSpec | None = None) -> LabelledImages:
        """The same pictures without what somebody said of them; spec: for another model, which
        prepares them alike.
        """
        nothing = torch.full_like(self._all_labels, -1)
        return LabelledImages(
            self.name, (), nothing, self._pictures, spec or self.spec,
            indices=self._indices, skipped=self.skipped,
        )  # fmt: skip

    def pixels(self, indices: Tensor | Sequence[int] | slice) -> Tensor:
        """uint8 (n, C, H, W) at the model's input size. Raises DataError for a broken file, and
        for images that are no pictures.
        """
        found = self._pictures.pixels(self._at(indices))
        if found.is_floating_point():
            raise DataError(f"{self.name} holds inputs of a network, not pictures: give uint8 ones")
        return fitted(found, self.spec)

    def inputs(self, indices: Tensor | Sequence[int] | slice) -> Tensor:
        """float32 (n, C, H, W) as the model takes them, in memory of their own; errors as `pixels`.

        Floating-point images are the model's inputs as they are.
        """
        found = self._pictures.pixels(self._at(indices))
        if not found.is_floating_point():
            return self.spec.normalise(fitted(found, self.spec))
        if found.shape[1:] != self.spec.input_shape:
            raise DataError(
                f"{self.name} holds inputs of {tuple(found.shape[1:])} and {self.spec.name} takes "
                f"{self.spec.input_shape}: give inputs of that shape, or uint8 pictures"
            )
        return found.float()

    def _at(self, indices: Tensor | Sequence[int] | slice) -> Tensor:
        return self._indices[indices if isinstance(indices, slice) else torch.as_tensor(indices)]

    def select(self, indices: Tensor | Sequence[int] | slice) -> LabelledImages:
        """Those images, in that order, sharing what is decoded."""
        return LabelledImages(
            self.name,
            self.classes,
            self._all_labels,
            self._pictures,
            self.spec,
            indices=self._at(indices),
            skipped=self.skipped,
            assumed=self.assumed,
            unknown=self.unknown,
        )

    def subset(self, n: int, seed: int = 0) -> LabelledImages:
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
        self,
        batch_size: int,
        generator: torch.Generator | None = None,
        share: tuple[int, int] = (0, 1),
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """(float32 (b, C, H, W) as `inputs`, labels (b,)) pairs; shuffled when given a generator.

        share: (which, of how many) parts of each batch is decoded, as `tensor_split` has them. A
        file that turns out to be broken is left out and noted in skipped.
        """
        order = (
            torch.arange(len(self))
            if generator is None
            else torch.randperm(len(self), generator=generator)
        )
        for start in range(0, len(order), batch_size):
            part = order[start : start + batch_size].tensor_split(share[1])[share[0]]
            try:
                inputs = self.inputs(part)
            except DataError:
                part = self._readable(part)
                if len(part) == 0:
                    continue
                inputs = self.inputs(part)
            yield inputs, self.labels[part]

    def first(self, n: int) -> LabelledImages:
        """The first n that can be decoded, or all of these if there are fewer."""
        kept: list[int] = []
        for start in range(0, len(self), n):
            part = torch.arange(start, min(start + n, len(self)))
            kept += self._readable(part)[: n - len(kept)].tolist()
            if len(kept) == n:
                break
        return self.select(kept)

    def last(self, n: int) -> LabelledImages:
        """The last n that can be decoded, in their order."""
        backwards = self.select(torch.arange(len(self) - 1, -1, -1)).first(n)
        return backwards.select(torch.arange(len(backwards) - 1, -1, -1))

    def _readable(self, part: Tensor) -> Tensor:
        """Those of these indices whose pictures can be decoded; the others are noted in skipped."""
        kept = []
        for index in part.tolist():
            try:
                self.inputs([index])
                kept.append(index)
            except DataError as error:
                if not isinstance(self._pictures, FilePictures):
                    raise
                path = self._pictures.path(int(self._indices[index]))
                if path not in self.skipped:
                    self.skipped.append(path)
                    self._tell_skipped(error)
        return torch.tensor(kept, dtype=torch.int64)

    def _tell_skipped(self, error: DataError) -> None:
        """A line for the first few, and then for every so many more: not one for each."""
        n = len(self.skipped)
        if n <= _TOLD_EACH:
            _log.warning("skipped: %s", error)
        elif n % _TOLD_EACH == 0:
            _log.warning("%d pictures of %s were skipped by now, such as %s", n, self.name, error)


@dataclass(frozen=True)
class DataSplits:
    """Three disjoint sets: fit on train, choose on validation, report on test."""

    train: LabelledImages
    validation: LabelledImages
    test: LabelledImages

    def without_labels(self) -> DataSplits:
        """The same sets without labels."""
        return DataSplits(
            self.train.without_labels(),
            self.validation.without_labels(),
            self.test.without_labels(),
        )


def fitting_batch(spec: ModelSpec, usual: int) -> int:
    """How many pictures of a model's size go into a batch that would hold `usual` of 224×224.

    At least 2, so that a batch has a variance, and at most `usual`.
    """
    _, height, width = spec.input_shape
    return min(usual, max(2, usual * _PIXELS // (height * width)))


def stratified(labels: Tensor, every: int, seed: int = SPLIT_SEED) -> tuple[Tensor, Tensor]:
    """Indices (kept, held out): one in `every`, the classes in proportion, drawn by `seed`."""
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    held_out = torch.arange(len(labels)) % every == 0
    return by_class[~held_out].sort().values, by_class[held_out].sort().values


def carved(name: str, whole: LabelledImages, every: tuple[int, int]) -> DataSplits:
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


_SEEN_PICTURES = 64  # of each set, spread over it, are looked at to tell two data sets apart


def fingerprint(images: LabelledImages) -> list[str]:
    places = torch.linspace(0, len(images) - 1, min(_SEEN_PICTURES, len(images))).long()
    arrays = [images.labels.numpy(), *(pixels.numpy() for pixels, _ in
              images.select(places).batches(_SEEN_PICTURES))]  # fmt: skip
    return [images.name, *(hashlib.sha256(array.tobytes()).hexdigest() for array in arrays)]

"""Where pixels come from: an array in memory, a Parquet column, or files; decoded when asked."""

import functools
import io
import struct
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError, features
from torch import Tensor
from torch.nn import functional as F

from rsdtr.errors import DataError
from rsdtr.models.zoo import ModelSpec

if TYPE_CHECKING:
    import pyarrow

_BY_FORMAT = {
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png", ".apng"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
} | ({"AVIF": (".avif",)} if features.check("avif") else {})
_FORMATS = tuple(_BY_FORMAT)
FILE_SUFFIXES = {suffix for suffixes in _BY_FORMAT.values() for suffix in suffixes}
# Pictures as well, of kinds that are not read here: they are counted among what is skipped.
OTHER_SUFFIXES = {
    ".avif", ".heic", ".heif", ".jxl", ".jp2", ".j2k", ".tga", ".ico", ".svg", ".psd", ".pcx",
    ".dng", ".cr2", ".cr3", ".nef", ".arw", ".exr", ".hdr", ".dcm",
} - FILE_SUFFIXES  # fmt: skip
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
MOST_PIXELS = 64_000_000
# What PIL's readers were seen to run into on bad files, beside what they mean to raise.
_BROKEN = (
    OSError, ValueError, SyntaxError, RuntimeError, TypeError, AttributeError, LookupError,
    ArithmeticError, EOFError, MemoryError, struct.error, Image.DecompressionBombError,
)  # fmt: skip
# Decoded files that stay in memory, so that the epochs after the first are fast.
_KEEP_BYTES = 1 << 30


class Pictures(Protocol):
    """Numbered pictures; pixels(indices (n,)) -> uint8 (n, C, H, W), or DataError."""

    def __len__(self) -> int: ...

    def pixels(self, indices: Tensor) -> Tensor: ...


class ArrayPictures:
    """Pictures already decoded: uint8 (N, C, H, W)."""

    def __init__(self, array: Tensor) -> None:
        self._array = array

    def __len__(self) -> int:
        return len(self._array)

    def pixels(self, indices: Tensor) -> Tensor:
        return self._array[indices]


class ParquetPictures:
    """The Hub's layout: `column` holds structs whose `bytes` are a PNG or JPEG of (3, side, side).

    The files are opened for the first picture; what was decoded stays decoded.
    """

    def __init__(self, files: Sequence[Path], column: str, side: int) -> None:
        import pyarrow.parquet as pq  # here, so that importing rsdtr stays quick

        self._files, self._column = files, column
        told = [pq.read_metadata(file) for file in files]
        self._count: int = sum(one.num_rows for one in told)
        unpacked = sum(
            one.row_group(k).total_byte_size for one in told for k in range(one.num_row_groups)
        )
        if self._count * 3 * side * side > _KEEP_BYTES or unpacked > _KEEP_BYTES:
            raise DataError(
                f"{files[0]} says that it holds {self._count:,} pictures in {unpacked:,} bytes: "
                "give CIFAR-10's own files"
            )
        self._array = torch.empty(self._count, 3, side, side, dtype=torch.uint8)
        self._decoded = torch.zeros(self._count, dtype=torch.bool)

    def __len__(self) -> int:
        return self._count

    @functools.cached_property
    def _bytes(self) -> "pyarrow.ChunkedArray":
        import pyarrow as pa
        import pyarrow.parquet as pq

        return pa.chunked_array(
            [
                chunk.field("bytes")
                for file in self._files
                for chunk in pq.read_table(file, columns=[self._column]).column(self._column).chunks
            ]
        )

    def pixels(self, indices: Tensor) -> Tensor:
        import pyarrow as pa

        for index in indices[~self._decoded[indices]].tolist():
            try:
                with _opened(io.BytesIO(self._bytes[index].as_py())) as picture:
                    if picture.size != (self._array.shape[3], self._array.shape[2]):
                        raise ValueError(f"it is {picture.width}×{picture.height}")
                    array = _channels_first(picture.convert("RGB"))
                self._array[index] = array
            except (*_BROKEN, pa.ArrowException) as error:
                raise DataError(
                    f"picture {index} of {self._files[0].parent} cannot be read ({error}): "
                    "download the Parquet files again"
                ) from error
            self._decoded[index] = True
        return self._array[indices]


class FilePictures:
    """Picture files, each resized and cropped to the input of `spec` when it is asked for."""

    def __init__(self, paths: Sequence[Path], spec: ModelSpec) -> None:
        self._paths, self._spec = paths, spec
        self._kept: dict[int, Tensor] = {}
        channels, height, width = spec.input_shape
        self._room = _KEEP_BYTES // (channels * height * width)

    def __len__(self) -> int:
        return len(self._paths)

    def path(self, index: int) -> Path:
        """The file of a picture."""
        return self._paths[index]

    def pixels(self, indices: Tensor) -> Tensor:
        return torch.stack([self._one(index) for index in indices.tolist()])

    def _one(self, index: int) -> Tensor:
        if index in self._kept:
            return self._kept[index]
        path = self._paths[index]
        try:
            with _opened(path) as picture:
                if reason := _unfit(picture):
                    raise ValueError(f"it is {reason}")
                array = _decode(picture, self._spec)
        except _BROKEN as error:
            raise DataError(f"{path} cannot be decoded ({error}): replace or remove it") from error
        if len(self._kept) < self._room:
            self._kept[index] = array
        return array


def obstacle(path: Path, root: Path) -> str | None:
    """Why a file under `root` cannot be a picture of a data set, in words; None if it can be.

    Only its beginning is read; pixels that break off are noticed when they are asked for.
    """
    try:
        if not path.resolve().is_relative_to(root.resolve()):
            return "links out of the folder"
        if (suffix := path.suffix.lower()) in OTHER_SUFFIXES and path.is_file():
            return f"{suffix} files, which are not read here"
        if not path.is_file():
            return "no files"
        with _opened(path) as picture:
            return _unfit(picture)
    except UnidentifiedImageError:
        return "no pictures"
    except _BROKEN:
        return "broken"


@contextmanager
def _opened(source: Path | io.BytesIO) -> Iterator[Image.Image]:
    with warnings.catch_warnings():
        # PIL warns of large pictures, which `_unfit` refuses, and of damaged notes in a TIFF.
        warnings.simplefilter("ignore")
        with Image.open(source, formats=_FORMATS) as picture:
            yield picture


def _unfit(picture: Image.Image) -> str | None:
    if picture.width * picture.height > MOST_PIXELS:
        return f"of more than {MOST_PIXELS // 1_000_000} million pixels"
    # A JPEG with further views, as cameras write it, is its first one.
    if picture.format != "MPO" and getattr(picture, "n_frames", 1) > 1:
        return "animated"
    if picture.mode.startswith(("I", "F")):  # PIL would clip them to white
        return "of 16 or more bits"
    return None


def _decode(picture: Image.Image, spec: ModelSpec) -> Tensor:
    """(C, H, W) uint8: short side to spec.resize, centre crop, as torchvision's evaluation does."""
    _, height, width = spec.input_shape
    if picture.mode == "P":
        # PIL warns when a palette with transparency goes to RGB in one step.
        picture = picture.convert("RGBA")
    picture = picture.convert(mode_of(spec))
    old_width, old_height = picture.size
    new_height, new_width = _resized(old_height, old_width, spec)
    if (new_height, new_width) != (old_height, old_width):
        way = Image.Resampling[spec.interpolation.upper()]
        picture = picture.resize((new_width, new_height), way)
    left, top = round((new_width - width) / 2), round((new_height - height) / 2)
    return _channels_first(picture.crop((left, top, left + width, top + height)))


def mode_of(spec: ModelSpec) -> str:
    """How PIL names pictures of so many channels; DataError where there are no such pictures."""
    channels = spec.input_shape[0]
    if channels not in _MODES:
        raise DataError(
            f"{spec.name} takes {channels} channels, and pictures have 1, 3 or 4: give tensors as "
            "images (rsdtr.data.images_of)"
        )
    return _MODES[channels]


def _channels_first(picture: Image.Image) -> Tensor:
    array = torch.from_numpy(np.array(picture))  # (H, W) or (H, W, 3)
    return array[None] if array.ndim == 2 else array.permute(2, 0, 1).contiguous()


def _resized(height: int, width: int, spec: ModelSpec) -> tuple[int, int]:
    """(H, W) after the short side became spec.resize, or the least that fills the input."""
    _, need_height, need_width = spec.input_shape
    if spec.crop == "squash":
        return need_height, need_width
    if spec.resize is None:
        scale = max(need_height / height, need_width / width)
        return max(round(height * scale), need_height), max(round(width * scale), need_width)
    short = spec.resize
    if height < width:
        return short, max(int(short * width / height), need_width)
    return max(int(short * height / width), need_height), short


def fitted(pixels: Tensor, spec: ModelSpec) -> Tensor:
    """uint8 (n, C', H', W') -> (n, C, H, W) of the spec: its channels, resize and crop.

    DataError where pictures of C' channels cannot have C.
    """
    _, height, width = spec.input_shape
    if pixels.shape[1:] == spec.input_shape:
        return pixels
    pixels = _with_channels(pixels, spec)
    size = _resized(pixels.shape[2], pixels.shape[3], spec)
    if size != pixels.shape[2:]:
        mode = {"nearest": "nearest-exact"}.get(spec.interpolation, spec.interpolation)
        smooth = F.interpolate(pixels.float(), size, mode=mode, antialias=mode != "nearest-exact")
        pixels = smooth.round().clamp(0, 255).to(torch.uint8)
    top, left = round((size[0] - height) / 2), round((size[1] - width) / 2)
    return pixels[:, :, top : top + height, left : left + width].contiguous()


def _with_channels(pixels: Tensor, spec: ModelSpec) -> Tensor:
    given, wanted = pixels.shape[1], len(mode_of(spec))
    if given == wanted:
        return pixels
    if given not in _MODES:
        raise DataError(
            f"{spec.name} takes {wanted} channels and was given pictures of {given}: give as many"
        )
    colours = pixels[:, :3].expand(-1, 3, -1, -1)
    if wanted == 1:
        luma = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)  # ITU-R 601, as PIL's "L"
        return (colours * luma).sum(1, keepdim=True).round().to(torch.uint8)
    if wanted == 3:
        return colours
    return torch.cat([colours, torch.full_like(colours[:, :1], 255)], 1)  # opaque

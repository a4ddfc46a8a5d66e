"""Inputs for a graph: from a folder of pictures, from NumPy's files, or random ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import helper

from rsdtr.data.image_sets import LabelledImages
from rsdtr.data.image_sources import FILE_SUFFIXES, FilePictures
from rsdtr.errors import DataError
from rsdtr.models.spec import IMAGENET_MEAN, IMAGENET_STD, ModelSpec
from rsdtr.onnx_files.onnx_file import brief_line
from rsdtr.onnx_files.onnx_network import OnnxNetwork
from rsdtr.onnx_files.runtime import Arrays
from rsdtr.onnx_files.value_shapes import is_floating, open_sizes, spatial_axes, true_inputs

ENOUGH = 100  # with fewer, what helps a layer may harm the network
_BATCH, _BATCH_PIXELS = 32, 32 * 224 * 224


@dataclass(frozen=True, eq=False)
class NetworkInputs:
    """Inputs of a graph, by the names of its inputs, each of shape (n, …).

    source: where they come from, in words; random: whether nobody has seen the like; fixed_batch:
    how many the graph insists on taking at once, None for any number.
    """

    arrays: Mapping[str, NDArray[np.generic]]
    source: str
    random: bool = False
    fixed_batch: int | None = None

    def __len__(self) -> int:
        return min(len(array) for array in self.arrays.values())

    def select(self, indices: Sequence[int] | NDArray[np.int64]) -> NetworkInputs:
        """Those of these numbers, in that order."""
        taken = {name: array[np.asarray(indices)] for name, array in self.arrays.items()}
        return replace(self, arrays=taken)

    def split(self, held_out: float, seed: int) -> tuple[NetworkInputs, NetworkInputs]:
        """Some to learn from, and a part drawn at random that only judges; each has at least one.

        DataError for fewer than 2.
        """
        n = len(self)
        if n < 2:
            raise DataError(f"a refit was asked for with {n} inputs: give at least 2")
        order = np.random.default_rng(seed).permutation(n)
        held = min(n - 1, max(1, round(held_out * n)))
        return self.select(order[held:]), self.select(order[:held])

    def batches(self) -> Iterator[Arrays]:
        """A few at a time, as many as one input's size allows."""
        sizes = [array[0].size for array in self.arrays.values() if len(array)]
        size = max(1, min(_BATCH, 3 * _BATCH_PIXELS // max([1, *sizes])))
        size = self.fixed_batch or size
        for start in range(0, len(self), size):
            yield {name: array[start : start + size] for name, array in self.arrays.items()}


def network_inputs(
    network: OnnxNetwork,
    data: str | Path | None,
    n: int,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    bgr: bool = False,
    seed: int = 0,
) -> NetworkInputs:
    """n inputs for a network, or as many as there are.

    data: a folder of pictures, an .npz file with an array for each input of the graph, an .npy file
    for its only one, or None for random numbers. Pictures are resized and cropped to the input's
    size; mean, std: per channel of pixels in 0..1, by default ImageNet's; bgr: the order of the
    colours. DataError for what does not fit the graph.
    """
    if data is None:
        return _checked(network, _random(network, n, seed), "random numbers", random=True)
    path = Path(data).expanduser()
    if path.is_dir():
        arrays = _pictures(network, path, n, mean, std, bgr, seed)
        return _checked(network, arrays, f"pictures of {path}")
    if path.suffix.lower() not in (".npz", ".npy") or not path.is_file():
        raise DataError(
            f"{data} is no folder of pictures and no .npz or .npy file: give one of these as "
            "inputs of an ONNX file"
        )
    arrays = _stored(network, path)
    inputs = _checked(network, arrays, str(path))
    order = np.random.default_rng(seed).permutation(len(inputs))[:n]
    return inputs.select(np.sort(order))


def _random(network: OnnxNetwork, n: int, seed: int) -> Arrays:
    generator = np.random.default_rng(seed)
    found: Arrays = {}
    for value in true_inputs(network.model):
        fixed = open_sizes(value)
        shape = network.shapes[value.name]
        rows = fixed[0] if fixed and fixed[0] is not None else 1
        count = -(-n // rows) * rows
        dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        if is_floating(value):
            found[value.name] = generator.standard_normal((count, *shape[1:])).astype(dtype)
        else:
            found[value.name] = np.zeros((count, *shape[1:]), dtype)
    return found


def _stored(network: OnnxNetwork, path: Path) -> Arrays:
    names = [value.name for value in true_inputs(network.model)]
    try:
        with path.open("rb") as file:
            content = np.load(file, allow_pickle=False)
            if isinstance(content, np.ndarray):
                found = {"": content}
            else:
                found = {name: content[name] for name in content.files}
    except Exception as error:  # numpy's, zipfile's and zlib's own kinds
        raise DataError(
            f"{path} cannot be read ({brief_line(error)}): give a file that numpy.save or "
            "numpy.savez wrote"
        ) from None
    if len(names) == 1 and len(found) == 1:
        return {names[0]: next(iter(found.values()))}
    if missing := [name for name in names if name not in found]:
        raise DataError(
            f"{path} holds {', '.join(found) or 'nothing'} and the graph takes {', '.join(names)}: "
            f"give it an array called {missing[0]}"
        )
    return {name: found[name] for name in names}


def _checked(
    network: OnnxNetwork, arrays: Arrays, source: str, random: bool = False
) -> NetworkInputs:
    """The inputs, in the types that the graph takes; DataError where they do not fit it."""
    batch, found = None, {}
    lengths = {len(array) if array.ndim else 0 for array in arrays.values()}
    for value in true_inputs(network.model):
        array, sizes = arrays[value.name], open_sizes(value)
        fits = array.ndim == len(sizes) and array.ndim > 0
        pairs = list(zip(array.shape, sizes, strict=False))[1:]
        if not fits or any(want not in (None, have) for have, want in pairs) or len(lengths) > 1:
            wanted = "×".join("?" if size is None else str(size) for size in ("n", *sizes[1:]))
            raise DataError(
                f"{source}: the graph's input {value.name} is {wanted}, and what was given "
                f"{'×'.join(map(str, array.shape))}: give as many of that shape for each input"
            )
        dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        if array.dtype.kind not in "fiub" or (array.dtype.kind == "f" and not is_floating(value)):
            raise DataError(
                f"{source}: the graph's input {value.name} is {dtype}, and what was given "
                f"{array.dtype}: give numbers of that type"
            )
        found[value.name] = array.astype(dtype, copy=False)
        batch = sizes[0] if sizes[0] is not None else batch
    inputs = NetworkInputs(found, source, random, batch)
    if batch is not None and batch > 1:  # whole batches only
        inputs = inputs.select(np.arange(len(inputs) // batch * batch))
    if len(inputs) == 0:
        raise DataError(f"{source}: there are no inputs for {network.name}: give at least one")
    return inputs


def _pictures(
    network: OnnxNetwork, folder: Path, n: int, mean: Sequence[float] | None,
    std: Sequence[float] | None, bgr: bool, seed: int,
) -> Arrays:  # fmt: skip
    """n pictures below a folder, drawn at random, as the network's only input takes them."""
    values = true_inputs(network.model)
    shape = network.shapes[values[0].name]
    axes = spatial_axes(open_sizes(values[0]))
    if len(values) != 1 or axes is None or not is_floating(values[0]):
        raise DataError(
            f"{network.name} takes no batch of pictures in floating-point numbers alone: give its "
            "inputs as an .npz file"
        )
    channels_last = axes == (1, 2)
    channels = shape[3] if channels_last else shape[1]
    if channels not in (1, 3, 4):
        raise DataError(
            f"{network.name} takes {channels} channels, and pictures have 1, 3 or 4: give its "
            "inputs as an .npz file"
        )
    if bgr and channels == 1:
        raise DataError(f"{network.name} takes one channel: BGR is an order of 3 or 4")
    usual = (
        (IMAGENET_MEAN, IMAGENET_STD) if channels == 3 else ((0.0,) * channels, (1.0,) * channels)
    )
    mean, std = tuple(mean or usual[0]), tuple(std or usual[1])
    if len(mean) != channels or len(std) != channels or not all(s > 0 for s in std):
        raise DataError(
            f"{network.name} takes {channels} channels and was given {len(mean)} means and "
            f"{len(std)} standard deviations: give one above 0 for each channel"
        )
    paths = sorted(
        path for path in folder.rglob("*")
        if path.suffix.lower() in FILE_SUFFIXES and path.is_file() and not path.name.startswith(".")
    )  # fmt: skip
    if not paths:
        raise DataError(f"{folder} holds no pictures: give a folder of JPEG, PNG or WebP files")
    order = np.random.default_rng(seed).permutation(len(paths))
    size = (channels, shape[axes[0]], shape[axes[1]])
    spec = ModelSpec(
        name=network.name, family="own other", input_shape=size, classes=0, mean=mean, std=std,
        resize=None, data=None, weights_file=None, weights_url=None, sha256=None, bundled=False,
        source="", channel_order="BGR" if bgr else "RGB",
    )  # fmt: skip
    taken = [paths[k] for k in order]
    images = LabelledImages(
        str(folder), (), torch.full((len(taken),), -1), FilePictures(taken, spec), spec
    ).first(n)
    pixels = images.inputs(range(len(images))) if len(images) else torch.zeros(0, *size)
    found = pixels.numpy()
    return {values[0].name: found.transpose(0, 2, 3, 1) if channels_last else found}

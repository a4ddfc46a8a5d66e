"""Safetensors files: how many bytes one has, its header checked before anything is allocated.

Source: github.com/huggingface/safetensors, "Format": 8 bytes with the header's length N, N bytes
of JSON, then the tensors' bytes without gaps.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from rsdtr.errors import WeightsError
from rsdtr.system.state_file import Stored, state_bytes, stored

DTYPES = {
    "BOOL": torch.bool, "U8": torch.uint8,
    "I8": torch.int8, "I16": torch.int16, "I32": torch.int32, "I64": torch.int64,
    "F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64,
}  # fmt: skip
# What the format's writer puts first, of one name after the other.
_ORDER = ("I64", "F64", "F32", "I32", "BF16", "F16", "I16", "I8", "U8", "BOOL")
_NAMES = {str(dtype).removeprefix("torch."): name for name, dtype in DTYPES.items()}
MOST_HEADER_BYTES = 16 << 20
MOST_TENSORS = 100_000
_MOST_AXES, _MOST_SIZE = 8, (1 << 31) - 1
_BLOCK = 1 << 20  # values that are looked at together


@dataclass(frozen=True)
class Entry:
    """One name of a state_dict: dtype as torch writes it ("float32"), bytes per scalar, shape.

    dtype and shape are those that are written; was: the tensor's own dtype where that is another;
    same_as: the name of the tensor that this is, and that is written once; extra: what is no
    tensor, as JSON.
    """

    dtype: str
    itemsize: int
    shape: tuple[int, ...]
    was: str | None = None
    same_as: str | None = None
    extra: str | None = None

    @classmethod
    def of(cls, tensor: Tensor) -> Entry:
        name = str(tensor.dtype).removeprefix("torch.")
        return cls(name, tensor.element_size(), tuple(tensor.shape))

    @property
    def bytes(self) -> int:
        return 0 if self.same_as or self.extra else self.itemsize * prod(self.shape)


def entries_of(model: nn.Module) -> dict[str, Entry]:
    """Everything in the model's state_dict; WeightsError for what no file holds."""
    found = stored(model.state_dict())
    entries = {
        name: replace(Entry.of(tensor), was=found.dtypes.get(name))
        for name, tensor in found.tensors.items()
    }
    for alias, name in found.aliases.items():
        entries[alias] = replace(entries[name], was=None, same_as=name)
    for name, value in found.extra.items():
        entries[name] = Entry("", 0, (), extra=json.dumps(value))
    return entries


def safetensors_bytes(entries: Mapping[str, Entry]) -> int:
    """Bytes of the file: 8 for the header's length, the header padded to 8, and the data.

    The format's writer puts one dtype after the other, larger scalars first, and each by name.
    """
    metadata = Stored(
        aliases={name: entry.same_as for name, entry in entries.items() if entry.same_as},
        dtypes={name: entry.was for name, entry in entries.items() if entry.was},
        extra={name: json.loads(e.extra) for name, e in entries.items() if e.extra is not None},
    ).metadata
    header: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    offset = 0
    written = {n: e for n, e in entries.items() if e.same_as is None and e.extra is None}

    def place(item: tuple[str, Entry]) -> tuple[int, str]:
        return _ORDER.index(_NAMES[item[1].dtype]), item[0]

    for name, entry in sorted(written.items(), key=place):
        header[name] = {
            "dtype": _NAMES[entry.dtype],
            "shape": entry.shape,
            "data_offsets": [offset, offset + entry.bytes],
        }
        offset += entry.bytes
    length = len(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode())
    return 8 + -(-length // 8) * 8 + offset


def with_ring(
    entries: Mapping[str, Entry], layer: str, cores: tuple[tuple[int, ...], ...]
) -> dict[str, Entry]:
    """The same file with the kernel of one convolution, by all its names, as a ring's cores."""
    changed = dict(entries)
    before = f"{layer}." if layer else ""  # the network may be the convolution
    first = f"{before}weight"
    kernel = changed.pop(first)
    names = [name for name, entry in changed.items() if entry.same_as == first]
    for k, shape in enumerate(cores):
        changed[f"{before}cores.{k}"] = Entry(kernel.dtype, kernel.itemsize, shape)
        for name in names:
            core = f"{name.removesuffix('weight')}cores.{k}"
            changed[core] = replace(changed[f"{before}cores.{k}"], same_as=f"{before}cores.{k}")
    for name in names:
        del changed[name]
    return changed


@dataclass(frozen=True)
class Header:
    """What a file holds: its tensors by name in the order of their bytes, and the texts of its
    `__metadata__`.
    """

    entries: dict[str, Entry]
    metadata: dict[str, str]


def read_header(path: Path, source: Path | None = None) -> Header:
    """The checked header of a safetensors file; source: the file to be named, if not this one.

    Raises WeightsError that names what is wrong: the header's length, its JSON, a dtype, a shape,
    offsets that leave gaps or overlap, or a file of another size than they say.
    """
    named = source or path
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
        if length > MOST_HEADER_BYTES:
            raise _refusal(named, f"its header cannot be {length:,} bytes long")
        with safe_open(path, framework="pt") as tensors:
            names = tensors.offset_keys()
            if len(names) > MOST_TENSORS:
                raise _refusal(named, f"it holds {len(names):,} tensors")
            slices = {name: tensors.get_slice(name) for name in names}
            entries = {
                name: _entry(named, name, one.get_dtype(), tuple(one.get_shape()))
                for name, one in slices.items()
            }
            return Header(entries, tensors.metadata() or {})
    except SafetensorError as error:
        reason = str(error).removeprefix("Error while deserializing header: ")
        raise _refusal(named, reason[:200]) from None
    except OSError as error:
        raise _refusal(named, error.strerror or str(error)) from error


def _entry(named: Path, name: str, dtype: str, shape: tuple[int, ...]) -> Entry:
    if dtype not in DTYPES:
        raise _refusal(named, f"{name[:80]}: dtype {dtype} is not one of {', '.join(DTYPES)}")
    if len(shape) > _MOST_AXES or max(shape, default=0) > _MOST_SIZE:
        raise _refusal(named, f"{name[:80]}: shape {str(shape)[:80]} is none")
    return Entry(str(DTYPES[dtype]).removeprefix("torch."), DTYPES[dtype].itemsize, shape)


def not_finite(path: Path) -> list[str]:
    """The names of the tensors with NaN or infinite values, block by block out of the file."""
    with safe_open(path, framework="pt") as tensors:
        return [name for name in tensors.offset_keys() if not _is_finite(tensors.get_tensor(name))]


def _is_finite(tensor: Tensor) -> bool:
    if not tensor.is_floating_point():
        return True
    return all(bool(part.isfinite().all()) for part in tensor.flatten().split(_BLOCK))


def _refusal(path: Path, reason: str) -> WeightsError:
    return WeightsError(f"cannot be read: give a .safetensors file that is whole ({reason})", path)


def saved_bytes(model: nn.Module) -> int:
    """Bytes of the model's state_dict as a safetensors file."""
    return len(state_bytes(model.state_dict()))

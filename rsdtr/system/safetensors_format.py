"""Safetensors files: how many bytes one has, its header checked before anything is allocated.

Source: github.com/huggingface/safetensors, "Format": 8 bytes with the header's length N, N bytes
of JSON, then the tensors' bytes without gaps.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from torch import Tensor, nn

from rsdtr.errors import WeightsError, first_problem
from rsdtr.system.state_file import Stored, state_bytes, stored

_NAMES = {
    "float64": "F64", "int64": "I64", "float32": "F32", "int32": "I32", "bfloat16": "BF16",
    "float16": "F16", "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip


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

    The format's writer puts larger scalars first and equal ones by name.
    """
    metadata = Stored(
        aliases={name: entry.same_as for name, entry in entries.items() if entry.same_as},
        dtypes={name: entry.was for name, entry in entries.items() if entry.was},
        extra={name: json.loads(e.extra) for name, e in entries.items() if e.extra is not None},
    ).metadata
    header: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    offset = 0
    written = {n: e for n, e in entries.items() if e.same_as is None and e.extra is None}
    for name, entry in sorted(written.items(), key=lambda item: (-item[1].itemsize, item[0])):
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


DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}
MOST_HEADER_BYTES = 16 << 20
MOST_TENSORS = 100_000
_BLOCK = 1 << 20  # values that are looked at together


class HeaderEntry(BaseModel):
    """One tensor: its dtype, its shape, and where it lies among the tensors' bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    dtype: str
    shape: tuple[int, ...] = Field(strict=False, max_length=8)
    data_offsets: tuple[int, int] = Field(strict=False)

    @model_validator(mode="after")
    def _fits(self) -> HeaderEntry:
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype {self.dtype[:20]!r} is not one of {', '.join(DTYPES)}")
        if any(not 0 <= size < 1 << 31 for size in self.shape):
            raise ValueError(f"shape {self.shape} is none")
        begin, end = self.data_offsets
        if end - begin != prod(self.shape) * DTYPES[self.dtype].itemsize:
            raise ValueError(f"{end - begin} bytes do not hold {self.dtype} {self.shape}")
        return self


@dataclass(frozen=True)
class Header:
    """What a file holds: its tensors by name in the order of their bytes, where those begin, and
    the texts of its `__metadata__`.
    """

    entries: dict[str, HeaderEntry]
    start: int
    metadata: dict[str, str]


_HEADER_ENTRIES = TypeAdapter(dict[str, HeaderEntry])
_TEXTS = TypeAdapter(dict[str, str])
_ANY = TypeAdapter(dict[str, Any])


def read_header(path: Path, source: Path | None = None) -> Header:
    """The checked header of a safetensors file; source: the file to be named, if not this one.

    Raises WeightsError that names what is wrong: the header's length, its JSON, a dtype, a shape,
    offsets that leave gaps or overlap, or a file of another size than they say.
    """
    named = source or path
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or not 2 <= length <= min(size - 8, MOST_HEADER_BYTES):
                raise _refusal(named, f"its header cannot be {length:,} bytes long")
            text = file.read(length)
    except OSError as error:
        raise _refusal(named, error.strerror or str(error)) from error
    try:
        content = _ANY.validate_json(text)
        metadata = _TEXTS.validate_python(content.pop("__metadata__", {}))
        entries = _HEADER_ENTRIES.validate_python(content)
    except ValidationError as error:
        raise _refusal(named, first_problem(error)) from None
    if len(entries) > MOST_TENSORS:
        raise _refusal(named, f"it holds {len(entries):,} tensors")
    ordered = dict(sorted(entries.items(), key=lambda item: item[1].data_offsets))
    end = 0
    for name, entry in ordered.items():
        if entry.data_offsets[0] != end:
            raise _refusal(named, f"{name[:80]} begins at byte {entry.data_offsets[0]}, not {end}")
        end = entry.data_offsets[1]
    if 8 + length + end != size:
        raise _refusal(named, f"it has {size:,} bytes where its header says {8 + length + end:,}")
    return Header(ordered, 8 + length, metadata)


def not_finite(path: Path, header: Header) -> list[str]:
    """The names of the tensors with NaN or infinite values, block by block out of the file."""
    if not any(entry.data_offsets[1] for entry in header.entries.values()):
        return []
    with path.open("rb") as file:
        # Copy on write, because torch warns of buffers that cannot be written; nothing is written.
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    return [
        name
        for name, entry in header.entries.items()
        if DTYPES[entry.dtype].is_floating_point
        and not all(bool(part.isfinite().all()) for part in _blocks(content, entry, header.start))
    ]


def _blocks(content: mmap.mmap, entry: HeaderEntry, start: int) -> Iterator[torch.Tensor]:
    dtype, values = DTYPES[entry.dtype], prod(entry.shape)
    for first in range(0, values, _BLOCK):
        yield torch.frombuffer(
            content,
            dtype=dtype,
            count=min(_BLOCK, values - first),
            offset=start + entry.data_offsets[0] + first * dtype.itemsize,
        )


def _refusal(path: Path, reason: str) -> WeightsError:
    return WeightsError(f"{path} cannot be read: give a .safetensors file that is whole ({reason})")


def saved_bytes(model: nn.Module) -> int:
    """Bytes of the model's state_dict as a safetensors file."""
    return len(state_bytes(model.state_dict()))

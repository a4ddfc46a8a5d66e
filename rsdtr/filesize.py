"""How many bytes a safetensors file has, from names, dtypes and shapes alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod

from torch import Tensor, nn

from rsdtr.state_file import Stored, stored

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
    """The same file with the kernel of one convolution, by all its names, as the cores of a ring."""
    changed = dict(entries)
    first = f"{layer}.weight"
    kernel = changed.pop(first)
    names = [name for name, entry in changed.items() if entry.same_as == first]
    for k, shape in enumerate(cores):
        changed[f"{layer}.cores.{k}"] = Entry(kernel.dtype, kernel.itemsize, shape)
        for name in names:
            core = f"{name.removesuffix('weight')}cores.{k}"
            changed[core] = replace(changed[f"{layer}.cores.{k}"], same_as=f"{layer}.cores.{k}")
    for name in names:
        del changed[name]
    return changed

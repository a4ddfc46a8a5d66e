"""How many bytes a safetensors file has, from names, dtypes and shapes alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from torch import Tensor, nn

_NAMES = {
    "float64": "F64", "int64": "I64", "float32": "F32", "int32": "I32", "bfloat16": "BF16",
    "float16": "F16", "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One tensor in a file: dtype as torch writes it ("float32"), bytes per scalar, shape."""

    dtype: str
    itemsize: int
    shape: tuple[int, ...]

    @classmethod
    def of(cls, tensor: Tensor) -> Entry:
        name = str(tensor.dtype).removeprefix("torch.")
        return cls(name, tensor.element_size(), tuple(tensor.shape))

    @property
    def bytes(self) -> int:
        return self.itemsize * prod(self.shape)


def entries_of(model: nn.Module) -> dict[str, Entry]:
    """Every tensor of the model's state_dict."""
    return {name: Entry.of(tensor) for name, tensor in model.state_dict().items()}


def safetensors_bytes(entries: Mapping[str, Entry]) -> int:
    """Bytes of the file: 8 for the header's length, the header padded to 8, and the data.

    The format's writer puts larger scalars first and equal ones by name.
    """
    header: dict[str, object] = {}
    offset = 0
    for name, entry in sorted(entries.items(), key=lambda item: (-item[1].itemsize, item[0])):
        header[name] = {
            "dtype": _NAMES[entry.dtype],
            "shape": entry.shape,
            "data_offsets": [offset, offset + entry.bytes],
        }
        offset += entry.bytes
    written = len(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode())
    return 8 + -(-written // 8) * 8 + offset


def with_ring(
    entries: Mapping[str, Entry], layer: str, cores: tuple[tuple[int, ...], ...]
) -> dict[str, Entry]:
    """The same file with the kernel of one convolution replaced by the cores of a ring."""
    changed = dict(entries)
    before = f"{layer}." if layer else ""  # the network may be the convolution
    kernel = changed.pop(f"{before}weight")
    for k, shape in enumerate(cores):
        changed[f"{before}cores.{k}"] = Entry(kernel.dtype, kernel.itemsize, shape)
    return changed

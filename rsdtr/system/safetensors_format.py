"""Safetensors files: how many bytes one has, its header checked before anything is allocated.

Source: github.com/huggingface/safetensors, "Format": 8 bytes with the header's length N, N bytes
of JSON, then the tensors' bytes without gaps.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from rsdtr.errors import WeightsError

DTYPES = {
    "BOOL": torch.bool, "U8": torch.uint8,
    "I8": torch.int8, "I16": torch.int16, "I32": torch.int32, "I64": torch.int64,
    "F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64,
}  # fmt: skip
_NAMES = {str(dtype).removeprefix("torch."): name for name, dtype in DTYPES.items()}
MOST_HEADER_BYTES = 16 << 20
MOST_TENSORS = 100_000
_MOST_AXES, _MOST_SIZE = 8, (1 << 31) - 1
_BLOCK = 1 << 20  # values that are looked at together


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
    kernel = changed.pop(f"{layer}.weight")
    for k, shape in enumerate(cores):
        changed[f"{layer}.cores.{k}"] = Entry(kernel.dtype, kernel.itemsize, shape)
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
    return WeightsError(f"{path} cannot be read: give a .safetensors file that is whole ({reason})")


def saved_bytes(model: nn.Module) -> int:
    """Bytes of the model's state_dict as a safetensors file."""
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    return len(safetensors.torch.save(state))

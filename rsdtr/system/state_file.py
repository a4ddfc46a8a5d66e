"""A state_dict as a safetensors file and back, whatever torch lets it hold.

The format knows plain tensors alone, each with memory of its own. What else there is stands in the
header's metadata, as one JSON: which names share a tensor that is written once, which tensors have
a dtype that no reader of the format must know, and what is no tensor (`get_extra_state`). A file
without any of it has no such metadata, and is what `safetensors.torch.save` would write.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import safetensors.torch
import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from rsdtr.errors import WeightsError

METADATA = "state"  # the key of the JSON in the header's metadata
EXTRA = "_extra_state"  # how torch names what a module says beside its tensors
PLAIN = {
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
    torch.float16, torch.bfloat16, torch.float32, torch.float64,
}  # fmt: skip
_SAME_SIZE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass
class Stored:
    """What is written of a state_dict.

    tensors: each memory once, in the order of the state_dict; aliases: a name → the name whose
    tensor it is; dtypes: of those that are written as others; extra: what is no tensor, as JSON.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    dtypes: dict[str, str] = field(default_factory=dict)
    extra: dict[str, object] = field(default_factory=dict)

    @property
    def metadata(self) -> dict[str, str]:
        """The header's metadata: nothing where plain tensors are all there is."""
        told = {"aliases": self.aliases, "dtypes": self.dtypes, "extra": self.extra}
        said = {name: value for name, value in told.items() if value}
        return {METADATA: json.dumps(said, ensure_ascii=False)} if said else {}


def stored(state: Mapping[str, object]) -> Stored:
    """What is to be written of a state_dict; no value is copied or moved.

    WeightsError for what no file here holds: tensors without values, sparse or quantised ones, and
    extra state that is neither tensors nor plain values in dicts, lists and tuples.
    """
    found = Stored()
    seen: dict[object, str] = {}
    for name, value in state.items():
        if isinstance(value, Tensor):
            _add(found, seen, name, value)
        else:
            found.extra[name] = _encoded(found, seen, name, value)
    return found


def state_bytes(state: Mapping[str, object], metadata: Mapping[str, str] | None = None) -> bytes:
    """The bytes of a safetensors file of a state_dict; WeightsError as `stored`.

    metadata: texts of one's own for the header.
    """
    found = stored(state)
    tensors = {}
    for name, value in found.tensors.items():
        here = value.detach().cpu().contiguous()
        # The format's writer refuses tensors that lie in one memory, even side by side.
        tensors[name] = here if _fills_its_memory(here) else here.clone()
    return safetensors.torch.save(tensors, dict(metadata or {}) | found.metadata or None)


def restored(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> OrderedDict[str, Any]:
    """The state_dict that `state_bytes` was given, from a file's tensors and its metadata.

    ValueError for metadata that do not fit the tensors.
    """
    told = json.loads(metadata.get(METADATA, "{}"))
    if not isinstance(told, dict):
        raise ValueError(f"its metadata are {type(told).__name__}, expected an object")
    aliases, dtypes, extra = (
        _texts(told, "aliases"), _texts(told, "dtypes"), told.get("extra", {}),
    )  # fmt: skip
    whole = dict(tensors)
    for name, dtype in dtypes.items():
        whole[name] = _as_dtype(whole, name, dtype)
    for alias, name in aliases.items():
        if alias in tensors or name not in tensors:
            raise ValueError(f"{alias[:80]} is said to be {name[:80]}, which cannot be")
        whole[alias] = whole[name]
    inside: set[str] = set()
    values = {name: _decoded(whole, inside, value) for name, value in extra.items()}
    return OrderedDict((n, v) for n, v in (whole | values).items() if n not in inside)


def in_parts(name: str, value: object) -> tuple[str, dict[str, Tensor]]:
    """Extra state as text, the same for the same state, and the tensors that the text names.

    WeightsError for what no file here holds.
    """
    found = Stored()
    text = json.dumps(_encoded(found, {}, name, value), ensure_ascii=False)
    return text, found.tensors


def _add(found: Stored, seen: dict[object, str], name: str, value: Tensor) -> None:
    if reason := unwritable(value):
        raise WeightsError(f"{name} {reason}")
    place = memory_place(value)
    if place is not None and place in seen:
        found.aliases[name] = seen[place]
        return
    if place is not None:
        seen[place] = name
    if value.dtype not in PLAIN:
        found.dtypes[name] = str(value.dtype).removeprefix("torch.")
        value = torch.view_as_real(value) if value.is_complex() else _as_integers(value)
    found.tensors[name] = value


def unwritable(value: Tensor) -> str | None:
    """Why a tensor cannot be written, in words that follow its name; None if it can."""
    if is_lazy(value):
        return "has no shape yet: run the network once before it is written"
    if value.device.type == "meta":
        return "has no values, being on the meta device: give it some before it is written"
    if value.layout != torch.strided or value.is_quantized or value.is_nested:
        return "is sparse, quantised or nested, which no file here holds: give a dense tensor"
    if not value.is_complex() and value.dtype not in PLAIN and value.itemsize not in _SAME_SIZE:
        return f"is {value.dtype}, which no file here holds: give another type"
    return None


def memory_place(value: object) -> object:
    """What two names of one tensor have in common; None where there is nothing to have."""
    if not isinstance(value, Tensor) or is_lazy(value) or value.numel() == 0:
        return None
    if value.layout != torch.strided or value.device.type == "meta":
        return None
    return value.device, value.data_ptr(), value.dtype, tuple(value.shape), value.stride()


def _fills_its_memory(value: Tensor) -> bool:
    return value.untyped_storage().nbytes() == value.numel() * value.element_size()


def _as_integers(value: Tensor) -> Tensor:
    return value.view(_SAME_SIZE[value.itemsize])


def _as_dtype(tensors: Mapping[str, Tensor], name: str, dtype: str) -> Tensor:
    wanted = getattr(torch, dtype, None)
    if name not in tensors or not isinstance(wanted, torch.dtype):
        raise ValueError(f"{name[:80]} is said to be {dtype[:20]}, which cannot be")
    value = tensors[name]
    if wanted.is_complex:
        if value.ndim == 0 or value.shape[-1] != 2 or value.dtype.to_complex() != wanted:
            raise ValueError(f"{name[:80]} is said to be {dtype[:20]}, which cannot be")
        # A file aligns a number by its own size, and processors a complex one by its whole.
        return torch.view_as_complex(value.clone())
    if wanted.itemsize != value.itemsize:
        raise ValueError(f"{name[:80]} is said to be {dtype[:20]}, which cannot be")
    return value.view(wanted)


def _texts(told: Mapping[str, object], key: str) -> dict[str, str]:
    found = told.get(key, {})
    if not isinstance(found, dict) or not all(isinstance(v, str) for v in found.values()):
        raise ValueError(f"its {key} are no names")
    return found


def _encoded(found: Stored, seen: dict[object, str], name: str, value: object) -> object:
    """Extra state as JSON; its tensors go among the others, by names below its own."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        below = f"{name}/{sum(n.startswith(f'{name}/') for n in (*found.tensors, *found.aliases))}"
        _add(found, seen, below, value)
        return {"tensor": below}
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, list):
        return [_encoded(found, seen, name, item) for item in value]
    if isinstance(value, tuple):
        return {"tuple": [_encoded(found, seen, name, item) for item in value]}
    if isinstance(value, dict) and type(value) in (dict, OrderedDict):
        pairs = [[_encoded(found, seen, name, part) for part in pair] for pair in value.items()]
        return {"dict": pairs}
    raise WeightsError(
        f"{name} holds a {type(value).__name__}, which no file here can: let get_extra_state "
        "return tensors, numbers, texts, and dicts, lists or tuples of them"
    )


def _decoded(tensors: Mapping[str, Tensor], inside: set[str], value: object) -> object:
    if isinstance(value, list):
        return [_decoded(tensors, inside, item) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        if content not in tensors:
            raise ValueError(f"its extra state names {str(content)[:80]}, which is not there")
        inside.add(content)
        return tensors[content]
    if kind == "bytes":
        return bytes.fromhex(content)
    items = [_decoded(tensors, inside, item) for item in content]
    if kind == "tuple":
        return tuple(items)
    if kind == "dict":
        pairs: list[Any] = items
        return {_hashable(key): item for key, item in pairs}
    raise ValueError(f"its extra state holds a {kind[:20]}, which there is not")


def _hashable(key: object) -> Any:
    hash(key)  # TypeError for what is no key
    return key

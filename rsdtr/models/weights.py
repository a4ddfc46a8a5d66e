"""Files of weights: where they lie, how they are downloaded, read, checked and hashed."""

import hashlib
import json
import os
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from rsdtr.errors import WeightsError
from rsdtr.models import pth_reader
from rsdtr.models.checkpoint_names import Todays, fitting, may_be_missing
from rsdtr.models.pth_reader import NO_STATE, REFUSED, UNREADABLE
from rsdtr.system.atomic_files import new_file
from rsdtr.system.cache_folder import cache_folder, private_folder
from rsdtr.system.download import file_sha256
from rsdtr.system.processes import TORCH, quiet, run
from rsdtr.system.safetensors_format import not_finite, read_header
from rsdtr.system.state_file import EXTRA, in_parts, memory_place, restored, unwritable

SUFFIXES = (".safetensors", ".pth", ".th", ".pt", ".ckpt", ".bin", ".tar")
_QUARANTINE_SECONDS = 300
_MOST_CONVERTED = 8  # files that stay; the least recently used goes first


def read_state_dict(path: Path, *, finite: bool = True) -> "OrderedDict[str, Any]":
    """The state_dict of a file of weights, on the CPU, by the names that the file has.

    A safetensors file is checked before anything is allocated. Any other is unpickled by a process
    of its own, `weights_only` and within limits, whose safetensors file is kept under the hash of
    the original and read instead. A state_dict is found wherever trainers put it.
    finite: refuse values that are not, before any is read.
    Raises WeightsError: no such file, another type, unreadable, no state_dict in it, values that
    are not finite.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise WeightsError(f"is not a weights file: give one of {', '.join(SUFFIXES)}", path)
    if not path.is_file():
        raise WeightsError("does not exist: give the path of a weights file", path)
    if path.suffix.lower() == ".safetensors":
        return _read_safetensors(path, path, finite)
    try:
        return _read_safetensors(_converted(path), path, finite)
    except OSError as error:
        raise WeightsError(
            f"could not be converted ({error.strerror or error}): give another cache folder "
            "in RSDTR_CACHE",
            path,
        ) from error


def _read_safetensors(path: Path, source: Path, finite: bool) -> "OrderedDict[str, Any]":
    header = read_header(path, source)
    if not header.entries:
        raise WeightsError(NO_STATE, source)
    if finite:
        _check_finite(not_finite(path), str(source))
    try:
        state = restored(safetensors.torch.load_file(path), header.metadata)
    except (OSError, safetensors.SafetensorError) as error:
        raise WeightsError(UNREADABLE, source) from error
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise WeightsError(
            f"cannot be read: its metadata do not fit its tensors ({error}): "
            "give a file that is whole",
            source,
        ) from error
    if path != source:
        versions = json.loads(header.metadata.get("versions", "{}"))
        # torch's own convention: which version of its class wrote each module's tensors.
        told = OrderedDict((module, {"version": version}) for module, version in versions.items())
        state._metadata = told  # type: ignore[attr-defined]
    return state


def _converted(path: Path) -> Path:
    """The safetensors file that the quarantine made, or makes now, of another weights file."""
    folder = private_folder(cache_folder() / "converted")
    target = folder / f"{file_sha256(path)}.safetensors"
    if target.is_file():
        os.utime(target)
        return target
    try:
        pth_reader.check_archive(path)  # quick, and spares most wrong files the process
    except (pth_reader.Refused, zipfile.BadZipFile) as error:
        reason = error if isinstance(error, pth_reader.Refused) else UNREADABLE
        raise WeightsError(str(reason), path) from None
    with new_file(target) as temporary:
        files = str(path.resolve()), str(temporary)
        command = [sys.executable, "-P", pth_reader.__file__, *files]
        try:
            ended = run(command, _QUARANTINE_SECONDS, environment=quiet(), imports=TORCH)
        except TimeoutError:
            raise WeightsError(
                f"could not be read within {_QUARANTINE_SECONDS} s: give a .safetensors file", path
            ) from None
        last = (ended.said.strip().splitlines() or [""])[-1]
        if ended.code != 0:
            raise WeightsError(last if ended.code == REFUSED else UNREADABLE, path)
    kept = sorted(folder.glob("*.safetensors"), key=lambda file: file.stat().st_mtime)
    for old in kept[:-_MOST_CONVERTED]:
        old.unlink(missing_ok=True)
    return target


def read_for(model: nn.Module, path: Path, todays: Todays = str) -> "OrderedDict[str, Any]":
    """The state_dict of a file by the names of the model's; see `checkpoint_names.fitting`.

    Raises WeightsError as `read_state_dict`, and for a file that holds the network several times.
    """
    own = model.state_dict()
    state = read_state_dict(path, finite=not _not_finite(own))
    try:
        return fitting(state, own, todays)
    except WeightsError as error:
        raise WeightsError(f"cannot be read: {error}", path) from None


def fill(model: nn.Module, state: "OrderedDict[str, Any]", source: str) -> None:
    """Copies `state` into `model` after checking every name, shape and value.

    Of a tensor that has several names in the model, one is enough.
    Raises WeightsError that names the first few missing, unexpected, mis-shaped or non-finite
    tensors; the model is untouched then.
    """
    own = model.state_dict()
    given = _with_second_names(own, state)
    found = {
        "missing": [n for n in own if n not in given and not may_be_missing(n)],
        "unexpected": [n for n in given if n not in own],
        "mis-shaped": [
            f"{n} {_kind(given[n])} for {_kind(own[n])}"
            for n in own
            if n in given and not n.endswith(EXTRA) and _kind(given[n]) != _kind(own[n])
        ],
    }
    if any(found.values()):
        wrong = "; ".join(f"{kind} {_few(names)}" for kind, names in found.items() if names)
        raise WeightsError(
            f"does not fit the model: {wrong}; give weights of this architecture, or name "
            "the model that they are of",
            source,
        )
    # As the model will hold them: a float64 value may be too large for its float32.
    complete = OrderedDict((n, _as_held(given.get(n, value), value)) for n, value in own.items())
    usual = set(_not_finite(own))  # an attention mask, the ranges of an observer
    _check_finite([n for n in _not_finite(complete) if n not in usual], source)
    # MNASNet asks for a version here; a safetensors file has none, and was saved by this class.
    metadata = getattr(state, "_metadata", None) or own._metadata  # type: ignore[attr-defined]
    complete._metadata = metadata  # type: ignore[attr-defined]
    model.load_state_dict(complete)


def _with_second_names(own: Mapping[str, Any], state: Mapping[str, Any]) -> dict[str, Any]:
    given = dict(state)
    by_place = {memory_place(own[name]): name for name in state if name in own}
    for name, value in own.items():
        place = memory_place(value)
        if name not in given and place is not None and place in by_place:
            given[name] = given[by_place[place]]
    return given


def _kind(value: object) -> str:
    if not isinstance(value, Tensor):
        return "no tensor"
    return f"complex {tuple(value.shape)}" if value.is_complex() else str(tuple(value.shape))


def _as_held(value: Any, own: Any) -> Any:
    return value.to(own.dtype) if isinstance(value, Tensor) else value


def _not_finite(state: Mapping[str, Any]) -> list[str]:
    return [
        name
        for name, value in state.items()
        if isinstance(value, Tensor)
        and (value.is_floating_point() or value.is_complex())
        and value.device.type != "meta"
        and not (value if value.itemsize > 1 else value.float()).isfinite().all()
    ]


def _check_finite(bad: list[str], source: str) -> None:
    if bad:
        raise WeightsError(
            f"holds NaN or infinite values in {_few(bad)}: give weights of a training "
            "that did not diverge",
            source,
        )


def _few(names: list[str], most: int = 3) -> str:
    return f"{', '.join(names[:most])}{', …' if len(names) > most else ''} ({len(names)})"


def weights_sha256(model: nn.Module) -> str:
    """SHA-256 (hex) of the state_dict's names, dtypes, shapes and bytes, in order."""
    return tensors_sha256(model.state_dict().items())


def tensors_sha256(state: Iterable[tuple[str, object]]) -> str:
    """SHA-256 (hex) of the names, dtypes, shapes and bytes of a state_dict's items, in order."""
    digest = hashlib.sha256()
    for name, value in state:
        if isinstance(value, Tensor):
            _digest(digest, name, value)
            continue
        text, parts = in_parts(name, value)
        digest.update(f"{name} {text}\n".encode())
        for part, tensor in parts.items():
            _digest(digest, part, tensor)
    return digest.hexdigest()


def _digest(digest: "hashlib._Hash", name: str, value: Tensor) -> None:
    if reason := unwritable(value):
        raise WeightsError(f"{name} {reason}")
    digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
    flat = value.detach().cpu().contiguous().reshape(-1)  # a 0-dim tensor has no byte view
    digest.update(flat.view(torch.uint8).numpy().data)

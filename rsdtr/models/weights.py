"""Files of weights: where they lie, how they are downloaded, read, checked and hashed."""

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from rsdtr.errors import WeightsError
from rsdtr.models import pth_reader
from rsdtr.models.pth_reader import NO_STATE, REFUSED, UNREADABLE
from rsdtr.system.atomic_files import new_file
from rsdtr.system.cache_folder import cache_folder, private_folder
from rsdtr.system.download import file_sha256
from rsdtr.system.safetensors_format import not_finite, read_header

SUFFIXES = (".safetensors", ".pth", ".th", ".pt")
_QUARANTINE_SECONDS = 300
_MOST_CONVERTED = 8  # files that stay; the least recently used goes first


def read_state_dict(path: Path) -> "OrderedDict[str, Tensor]":
    """The tensors of a .safetensors, .pth, .th or .pt file, on the CPU.

    A safetensors file is checked before anything is allocated. Any other is unpickled by a process
    of its own, `weights_only` and within limits, whose safetensors file is kept under the hash of
    the original and read instead. A surrounding {"state_dict": …} is unwrapped and DataParallel's
    `module.` prefix removed.
    Raises WeightsError: no such file, another type, unreadable, no state_dict in it, values that
    are not finite.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise WeightsError(f"{path} is not a weights file: give one of {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise WeightsError(f"{path} does not exist: give the path of a weights file")
    if path.suffix.lower() == ".safetensors":
        return _read_safetensors(path, path)
    try:
        return _read_safetensors(_converted(path), path)
    except OSError as error:
        raise WeightsError(
            f"{path} could not be converted ({error.strerror or error}): give another cache folder "
            "in RSDTR_CACHE"
        ) from error


def _read_safetensors(path: Path, source: Path) -> "OrderedDict[str, Tensor]":
    header = read_header(path, source)
    if not header.entries:
        raise WeightsError(f"{source} {NO_STATE}")
    _check_finite(not_finite(path), str(source))
    try:
        content = safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise WeightsError(f"{source} {UNREADABLE}") from error
    state = OrderedDict((name.removeprefix("module."), value) for name, value in content.items())
    if len(state) < len(content):
        raise WeightsError(f"{source} has tensors both with and without `module.`: give one kind")
    if path != source and state.keys() == content.keys():
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
        raise WeightsError(f"{path} {reason}") from None
    with new_file(target) as temporary:
        reader = [sys.executable, "-P", pth_reader.__file__]
        try:
            done = subprocess.run(
                [*reader, str(path.resolve()), str(temporary)],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_QUARANTINE_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise WeightsError(
                f"{path} could not be read within {_QUARANTINE_SECONDS} s: give a .safetensors file"
            ) from None
        last = (done.stderr.strip().splitlines() or [""])[-1]
        if done.returncode != 0:
            raise WeightsError(f"{path} {last if done.returncode == REFUSED else UNREADABLE}")
    kept = sorted(folder.glob("*.safetensors"), key=lambda file: file.stat().st_mtime)
    for old in kept[:-_MOST_CONVERTED]:
        old.unlink(missing_ok=True)
    return target


def fill(model: nn.Module, state: "OrderedDict[str, Tensor]", source: str) -> None:
    """Copies `state` into `model` after checking every name, shape and value.

    Raises WeightsError that names the first few missing, unexpected, mis-shaped or non-finite
    tensors; the model is untouched then.
    """
    own = model.state_dict()
    # BatchNorm's step counters came with torch 0.4.1; older published files lack them.
    counters = {name for name in own if name.endswith("num_batches_tracked")}
    found = {
        "missing": [n for n in own if n not in state and n not in counters],
        "unexpected": [n for n in state if n not in own],
        "mis-shaped": [
            f"{n} {tuple(state[n].shape)} for {tuple(own[n].shape)}"
            for n in own
            if n in state and state[n].shape != own[n].shape
        ],
    }
    if any(found.values()):
        wrong = "; ".join(f"{kind} {_few(names)}" for kind, names in found.items() if names)
        raise WeightsError(
            f"{source} does not fit the model: {wrong}; give weights of this architecture, or name "
            "the model that they are of"
        )
    # As the model will hold them: a float64 value may be too large for its float32.
    complete = OrderedDict((n, state[n].to(own[n].dtype) if n in state else own[n]) for n in own)
    _check_finite([n for n, v in complete.items() if not torch.isfinite(v).all()], source)
    # MNASNet asks for a version here; a safetensors file has none, and was saved by this class.
    metadata = getattr(state, "_metadata", None) or own._metadata  # type: ignore[attr-defined]
    complete._metadata = metadata  # type: ignore[attr-defined]
    model.load_state_dict(complete)


def _check_finite(bad: list[str], source: str) -> None:
    if bad:
        raise WeightsError(
            f"{source} holds NaN or infinite values in {_few(bad)}: give weights of a training "
            "that did not diverge"
        )


def _few(names: list[str], most: int = 3) -> str:
    return f"{', '.join(names[:most])}{', …' if len(names) > most else ''} ({len(names)})"


def weights_sha256(model: nn.Module) -> str:
    """SHA-256 (hex) of the state_dict's names, dtypes, shapes and bytes, in order."""
    return tensors_sha256(model.state_dict().items())


def tensors_sha256(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 (hex) of the names, dtypes, shapes and bytes of tensors, in order."""
    digest = hashlib.sha256()
    for name, value in tensors:
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        flat = value.detach().cpu().contiguous().reshape(-1)  # a 0-dim tensor has no byte view
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()

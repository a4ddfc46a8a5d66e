"""Files of weights: where they lie, how they are downloaded, read, checked and hashed."""

import hashlib
import http.client
import json
import os
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from rsdtr import quarantine
from rsdtr.checkpoint_names import Todays, fitting, may_be_missing
from rsdtr.errors import WeightsError
from rsdtr.header import not_finite, read_header
from rsdtr.quarantine import NO_STATE, REFUSED, UNREADABLE
from rsdtr.state_file import EXTRA, in_parts, memory_place, restored, unwritable

Progress = Callable[[int, int], None]
SUFFIXES = (".safetensors", ".pth", ".th", ".pt", ".ckpt", ".bin", ".tar")
_CHUNK = 1 << 20
_QUARANTINE_SECONDS = 300
_MOST_CONVERTED = 8  # files that stay; the least recently used goes first


def cache_folder() -> Path:
    """Where downloads are kept: $RSDTR_CACHE, else rsdtr/ in the platform's cache folder."""
    if chosen := os.environ.get("RSDTR_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rsdtr"


def private_folder(path: Path) -> Path:
    """Make a folder that only its owner can read, and those above it; OSError if that fails.

    Within the cache folder those above are the owner's alone as well.
    """
    for folder in (*reversed(path.parents), path):
        inside = folder.is_relative_to(cache_folder())
        folder.mkdir(mode=0o700 if inside else 0o777, exist_ok=True)
    return path


def published_file(file: str, url: str, sha256: str, progress: Progress | None = None) -> Path:
    """The path of a published file whose SHA-256 begins with `sha256`.

    Looks into $RSDTR_WEIGHTS, then the cache folder, and downloads it only then. `progress` gets
    (bytes so far, bytes in all; 0 when the server does not say).
    Raises WeightsError: a file with another hash, no network, no such address.
    """
    cache = cache_folder() / "weights"
    own = os.environ.get("RSDTR_WEIGHTS")
    for folder in ([Path(own)] if own else []) + [cache]:
        path = folder / file
        if path.is_file():
            found = _file_sha256(path)
            if not found.startswith(sha256):
                raise WeightsError(
                    f"{path} has SHA-256 {found[:8]}…, expected {sha256[:8]}…: "
                    f"replace it by the published file, {url}"
                )
            return path
    return _download(url, cache / file, sha256, Path(own) if own else cache, progress)


def _download(url: str, path: Path, sha256: str, folder: Path, progress: Progress | None) -> Path:
    private_folder(path.parent)
    descriptor, temporary = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
    try:
        digest = hashlib.sha256()
        with os.fdopen(descriptor, "wb") as out, urllib.request.urlopen(url, timeout=30) as answer:
            total, done = int(answer.headers.get("Content-Length") or 0), 0
            while chunk := answer.read(_CHUNK):
                out.write(chunk)
                digest.update(chunk)
                done += len(chunk)
                if progress:
                    progress(done, total)
        if not digest.hexdigest().startswith(sha256):
            raise WeightsError(
                f"{url} gave a file with SHA-256 {digest.hexdigest()[:8]}…, expected "
                f"{sha256[:8]}…: get {path.name} elsewhere and put it into {folder}"
            )
        os.replace(temporary, path)
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise WeightsError(
            f"{path.name} could not be downloaded ({reason}): get {url} and put it into {folder}"
        ) from error
    finally:
        Path(temporary).unlink(missing_ok=True)
    return path


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
        raise WeightsError(f"{path} is not a weights file: give one of {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise WeightsError(f"{path} does not exist: give the path of a weights file")
    if path.suffix.lower() == ".safetensors":
        return _read_safetensors(path, path, finite)
    try:
        return _read_safetensors(_converted(path), path, finite)
    except OSError as error:
        raise WeightsError(
            f"{path} could not be converted ({error.strerror or error}): give another cache folder "
            "in RSDTR_CACHE"
        ) from error


def _read_safetensors(path: Path, source: Path, finite: bool) -> "OrderedDict[str, Any]":
    header = read_header(path, source)
    if not header.entries:
        raise WeightsError(f"{source} {NO_STATE}")
    if finite:
        _check_finite(not_finite(path, header), str(source))
    try:
        state = restored(safetensors.torch.load_file(path), header.metadata)
    except (OSError, safetensors.SafetensorError) as error:
        raise WeightsError(f"{source} {UNREADABLE}") from error
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{source} cannot be read: its metadata do not fit its tensors ({error}): "
            "give a file that is whole"
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
    target = folder / f"{_file_sha256(path)}.safetensors"
    if target.is_file():
        os.utime(target)
        return target
    try:
        quarantine.check_archive(path)  # quick, and spares most wrong files the process
    except (quarantine.Refused, zipfile.BadZipFile) as error:
        reason = error if isinstance(error, quarantine.Refused) else UNREADABLE
        raise WeightsError(f"{path} {reason}") from None
    descriptor, temporary = tempfile.mkstemp(prefix=".writing-", dir=folder)
    os.close(descriptor)
    try:
        done = subprocess.run(
            [
                sys.executable, "-X", "utf8", "-P", str(Path(quarantine.__file__)),
                str(path.resolve()), temporary,
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_QUARANTINE_SECONDS,
            check=False,
        )  # fmt: skip
        last = (done.stderr.strip().splitlines() or [""])[-1]
        if done.returncode != 0:
            raise WeightsError(f"{path} {last if done.returncode == REFUSED else UNREADABLE}")
        os.replace(temporary, target)
    except subprocess.TimeoutExpired:
        raise WeightsError(
            f"{path} could not be read within {_QUARANTINE_SECONDS} s: give a .safetensors file"
        ) from None
    finally:
        Path(temporary).unlink(missing_ok=True)
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
        raise WeightsError(f"{path} cannot be read: {error}") from None


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
            f"{source} does not fit the model: {wrong}; give weights of this architecture, or name "
            "the model that they are of"
        )
    # As the model will hold them: a float64 value may be too large for its float32.
    complete = OrderedDict((n, _as_held(given.get(n, value), value)) for n, value in own.items())
    usual = set(_not_finite(own))  # an attention mask, the ranges of an observer
    _check_finite([n for n in _not_finite(complete) if n not in usual], source)
    # MNASNet asks for a version here; a safetensors file has none, and was saved by this class.
    metadata = getattr(state, "_metadata", None) or own._metadata
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
            f"{source} holds NaN or infinite values in {_few(bad)}: give weights of a training "
            "that did not diverge"
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

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
from collections.abc import Callable, Iterable
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from rsdtr import quarantine
from rsdtr.errors import WeightsError
from rsdtr.header import not_finite, read_header
from rsdtr.quarantine import NO_STATE, REFUSED, UNREADABLE

Progress = Callable[[int, int], None]
SUFFIXES = (".safetensors", ".pth", ".th", ".pt")
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
    _check_finite(not_finite(path, header), str(source))
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
            [sys.executable, "-P", str(Path(quarantine.__file__)), str(path.resolve()), temporary],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_QUARANTINE_SECONDS,
            check=False,
        )
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

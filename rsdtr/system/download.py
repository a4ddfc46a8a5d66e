"""Published files: found on disk or downloaded, and used only with the right SHA-256."""

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from pathlib import Path

from rsdtr.errors import WeightsError
from rsdtr.system.atomic_files import new_file
from rsdtr.system.cache_folder import cache_folder, private_folder
from rsdtr.typing import Progress

_CHUNK = 1 << 20


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
            found = file_sha256(path)
            if not found.startswith(sha256):
                raise WeightsError(
                    f"has SHA-256 {found[:8]}…, expected {sha256[:8]}…: "
                    f"replace it by the published file, {url}",
                    path,
                )
            return path
    return _download(url, cache / file, sha256, Path(own) if own else cache, progress)


def _download(url: str, path: Path, sha256: str, folder: Path, progress: Progress | None) -> Path:
    private_folder(path.parent)
    digest = hashlib.sha256()
    try:
        with new_file(path) as temporary:
            with temporary.open("wb") as out, urllib.request.urlopen(url, timeout=30) as answer:
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
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise WeightsError(
            f"{path.name} could not be downloaded ({reason}): get {url} and put it into {folder}"
        ) from error
    return path


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

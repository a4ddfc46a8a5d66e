"""The cache folder: where it is, and what lies in it."""

import os
import tempfile
from pathlib import Path

from rsdtr.errors import WeightsError


def cache_folder() -> Path:
    """Where downloads are kept: $RSDTR_CACHE, else rsdtr/ in the platform's cache folder.

    Who has no home folder, as in a container that runs under any number, gets a folder of the
    system's temporary ones. WeightsError where that is somebody else's.
    """
    if chosen := os.environ.get("RSDTR_CACHE"):
        return Path(chosen)
    if platform := os.environ.get("XDG_CACHE_HOME"):
        return Path(platform) / "rsdtr"
    try:
        return Path.home() / ".cache" / "rsdtr"
    except RuntimeError:
        return _temporary_folder()


def _temporary_folder() -> Path:
    number = os.getuid() if hasattr(os, "getuid") else 0
    folder = Path(tempfile.gettempdir()) / f"rsdtr-{number}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        mine = folder.lstat().st_uid == number and folder.is_dir() and not folder.is_symlink()
    except OSError:
        mine = False
    if not mine:
        raise WeightsError(
            f"there is no home folder, and {folder} is not this user's: name a folder for "
            "downloads and results in RSDTR_CACHE"
        )
    return folder


def private_folder(path: Path) -> Path:
    """Make a folder that only its owner can read, and those above it; OSError if that fails.

    Within the cache folder those above are the owner's alone as well.
    """
    for folder in (*reversed(path.parents), path):
        inside = folder.is_relative_to(cache_folder())
        folder.mkdir(mode=0o700 if inside else 0o777, exist_ok=True)
    return path

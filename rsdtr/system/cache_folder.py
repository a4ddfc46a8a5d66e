"""The cache folder: where it is, and what lies in it."""

import os
from pathlib import Path


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

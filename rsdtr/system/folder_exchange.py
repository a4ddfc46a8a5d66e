"""A folder that takes the place of another: whoever is killed leaves the old one or the new one."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

_EXCHANGE = 2  # RENAME_EXCHANGE of renameat2(2)
_RELATIVE = -100  # AT_FDCWD: names count from the working folder, as everywhere


@contextmanager
def sibling(target: Path) -> Iterator[Path]:
    """A new folder beside `target`, on the same file system; whatever is left of it goes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid4().hex}")
    temporary.mkdir()  # not mkdtemp: the folder keeps the permissions that new folders have
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def put(new: Path, target: Path) -> None:
    """Put `new` in the place of `target`, at once on Linux; the old one comes back if that fails.

    Elsewhere, and on file systems that cannot exchange two names, there is an instant between two
    renames in which only the hidden old folder is there.
    """
    if not target.exists():
        new.rename(target)
        return
    if _exchanged(new, target):
        shutil.rmtree(new, ignore_errors=True)
        return
    old = target.with_name(f".{target.name}.{uuid4().hex}")
    target.rename(old)
    try:
        new.rename(target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _exchanged(one: Path, other: Path) -> bool:
    """Let two folders change their names in one step; False where that is not to be had."""
    if sys.platform != "linux":
        return False
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    if rename is None:
        return False
    names = _RELATIVE, os.fsencode(one), _RELATIVE, os.fsencode(other)
    return bool(rename(*names, _EXCHANGE) == 0)

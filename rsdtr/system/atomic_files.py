"""Files that are whole or not there, and one writer at a time."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from filelock import FileLock

from rsdtr.system.cache_folder import cache_folder, private_folder

_log = logging.getLogger("rsdtr.system")

LOCK_SECONDS = 5.0  # a writer holds the lock for milliseconds; then we go on without it


PRIVATE, SHARED = 0o600, 0o666  # permissions of a new file, as far as the umask grants them


@contextmanager
def new_file(path: Path, permissions: int = PRIVATE) -> Iterator[Path]:
    """An empty file beside `path` to write into, which takes the place of `path` at the end.

    A reader of `path` sees the old file or the new one, never a part; after an error the old one.
    """
    temporary = path.with_name(f".writing-{uuid4().hex}")
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, permissions))
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def replace_file(path: Path, content: bytes | memoryview, permissions: int = PRIVATE) -> None:
    """Write a file so that a reader sees the old or the new one, never a part."""
    with new_file(path, permissions) as temporary:
        temporary.write_bytes(content)


@contextmanager
def locked() -> Iterator[None]:
    """Keep other writers out of the cache folder, as far as this platform and file system can.

    The operating system lifts the lock of a process that dies. Without a lock no file is ever
    broken: at worst one of two writers has to compute or write something again.
    """
    lock = FileLock(private_folder(cache_folder()) / "lock", timeout=LOCK_SECONDS)
    try:
        lock.acquire()
    except (OSError, NotImplementedError) as error:  # a Timeout is an OSError
        _log.debug("no lock on %s (%s): going on without", lock.lock_file, error)
    try:
        yield
    finally:
        lock.release()

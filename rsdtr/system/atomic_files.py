"""Files that are whole or not there, and one writer at a time."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from rsdtr.system.cache_folder import cache_folder, private_folder

_log = logging.getLogger("rsdtr.system")

LOCK_SECONDS = 5.0  # a writer holds the lock for milliseconds; then we go on without it


def replace_file(path: Path, content: bytes | memoryview) -> None:
    """Write a file so that a reader sees the old or the new one, never a part."""
    descriptor, temporary = tempfile.mkstemp(prefix=".writing-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


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

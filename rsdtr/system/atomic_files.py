"""Files that are whole or not there, and one writer at a time."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

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
    with (private_folder(cache_folder()) / "lock").open("ab") as file:
        deadline = time.monotonic() + LOCK_SECONDS
        while time.monotonic() < deadline:
            try:
                _lock(file)
                break
            except (BlockingIOError, PermissionError):
                time.sleep(0.01)
            except OSError as error:
                _log.debug("no lock on %s (%s): going on without", file.name, error)
                break
        yield  # closing the file unlocks it


if os.name == "nt":
    import msvcrt

    def _lock(file: IO[bytes]) -> None:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]  # Windows only

else:
    import fcntl

    def _lock(file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

"""Files that would do harm if they were trusted."""

from __future__ import annotations

from pathlib import Path


class Malicious:
    """Unpickling it as pickle does would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")

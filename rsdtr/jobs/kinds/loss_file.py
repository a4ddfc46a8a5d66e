"""The losses of a job that takes optimiser steps: appended as it goes on, read while it does."""

from __future__ import annotations

import time
from pathlib import Path

from rsdtr.jobs.running import Running
from rsdtr.system.atomic_files import replace_file

SHOWN_SECONDS = 0.5  # between two writings of what is there to be seen


class LossFile:
    """The file that losses and learning rates are appended to, now and then."""

    def __init__(self, running: Running, name: str, doing: str, first: int) -> None:
        """doing: what the steps are, in words; first: how many were taken before, and stay."""
        self._running, self._doing, self._first = running, doing, first
        self._path = running.folder / name
        self._lines: list[str] = []
        self._written = self._began = time.monotonic()
        # Steps after the checkpoint are made once more.
        kept = read_losses(self._path)[:first]
        replace_file(self._path, "".join(_line(*row) for row in kept).encode())

    def add(self, number: int, total: int, loss: float, learning_rate: float) -> None:
        """One step, counted from 1 over all runs of the job; the job's progress with it."""
        self._lines.append(_line(loss, learning_rate))
        now = time.monotonic()
        each = (now - self._began) / (number - self._first)
        self._running.progress(self._doing, number, total, each * (total - number))
        if now - self._written > SHOWN_SECONDS:
            self.write()

    def write(self) -> None:
        """Append what has come since the last time."""
        with self._path.open("a", encoding="ascii") as file:
            file.writelines(self._lines)
        self._lines, self._written = [], time.monotonic()


def read_losses(path: Path) -> list[tuple[float, float]]:
    """Loss and learning rate by step; a line that is only half written is left out."""
    try:
        text = path.read_text(encoding="ascii")
    except OSError:
        return []
    rows = (line.partition(",") for line in text[: text.rfind("\n") + 1].splitlines())
    return [(float(loss), float(rate)) for loss, _, rate in rows]


def _line(loss: float, rate: float) -> str:
    return f"{loss:.6g},{rate:.6g}\n"

"""A job that runs, as its own code sees it."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

from pydantic import JsonValue

from rsdtr.jobs.job import Job


class Running:
    """A job that runs, as its own code sees it: where to read and write, and whom to tell."""

    def __init__(self, job: Job, content: dict[str, JsonValue]) -> None:
        self.job = job
        self.content = content
        self.stop = threading.Event()

    @property
    def folder(self) -> Path:
        """The job's own folder."""
        return self.job.folder

    def should_stop(self) -> bool:
        """Whether it was cancelled: to be asked at every step."""
        return self.stop.is_set()

    def progress(
        self, doing: str, done: int, total: int, seconds_left: float | None = None
    ) -> None:
        """Tell how far it is; cheap. The table gets it with the next beat."""
        self.job = replace(
            self.job, doing=doing, done=done, total=total, seconds_left=seconds_left
        )  # fmt: skip

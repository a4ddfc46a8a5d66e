"""One process that fills the store for a model, and how others start it, watch it and stop it.

All that is known about it is a small JSON file beside the model's winners: who works, and how far
it is.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Collection, Generator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rsdtr.planning.grid_search import GridProgress, profile_grid
from rsdtr.planning.model_profile import ModelProfile
from rsdtr.planning.winners_on_disk import (
    load_winners,
    make_folder,
    save_winners,
    store_folder,
    store_path,
)
from rsdtr.system import processes
from rsdtr.system.atomic_files import locked, replace_file
from rsdtr.system.processes import ROOT, ProcessId

SAVE_SECONDS = 1.0  # between two writings of the store while the grid grows
MOST_AT_WORK = 2  # of those that `start` starts: each uses every core
NICE = 10  # it steps back behind the page that is waiting for its user

_log = logging.getLogger("rsdtr.planning.grid_process")


class _Status(BaseModel):
    """The status file."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model: str
    pid: int = Field(ge=1)
    born: str
    done: int = Field(default=0, ge=0)
    total: int = Field(default=0, ge=0)
    seconds: float = 0.0
    seconds_left: float | None = None
    coarse_seconds: float | None = None

    @property
    def process(self) -> ProcessId:
        """Who works."""
        return ProcessId(self.pid, self.born)


@dataclass(frozen=True)
class Progress:
    """What a page shows: winners known and in all, whether somebody works, seconds left if known.

    total is 0 while the worker has only just started.
    """

    done: int
    total: int
    alive: bool
    seconds_left: float | None


def fill_store(
    profile: ModelProfile,
    should_stop: Callable[[], bool] = lambda: False,
    *,
    processes: int | None = None,
    layers: Collection[str] | None = None,
) -> Generator[GridProgress, None, None]:
    """`profile_grid` that begins with what is stored, and stores what it finds as it goes on.

    Yields nothing if another process is at work on this model. However it ends, what was found is
    in the store; a store that cannot be written is a warning in the log, and the work goes on.
    """
    if not _claim(profile):
        return
    load_winners(profile)
    saved = time.monotonic()
    grid = profile_grid(profile, should_stop, processes=processes, layers=layers)
    last = None
    try:
        for last in grid:
            if time.monotonic() - saved > SAVE_SECONDS:
                save_winners(profile)
                _write(profile, _own(profile, last))
                saved = time.monotonic()
            yield last
    finally:
        grid.close()
        save_winners(profile)
        if last is not None:
            _write(profile, _own(profile, last))


def start(profile: ModelProfile, weights: str | Path | None = None) -> bool:
    """Let a process of its own fill the store for this model, unless one does so already.

    False, and nothing is started, while MOST_AT_WORK other models are worked on: ask again later.
    weights: what the model was loaded with, as in `load_model`. It outlives this process; what it
    has to say is in a log file beside the winners. A store that cannot be written: a warning.
    """
    command = [sys.executable, "-m", "rsdtr", "profile", profile.model]
    if weights is not None:
        own = str(weights) if weights == "none" else str(Path(weights).resolve())
        command += ["--weights", own]
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    try:
        make_folder()
        with locked():
            if (status := _read(_status_path(profile))) and status.process.alive:
                return True
            if _at_work() >= MOST_AT_WORK:
                return False
            log = store_path(profile).with_suffix(".log")
            log.write_bytes(b"")
            begun = processes.start(command, log, {"PYTHONPATH": os.pathsep.join(path)}, NICE)
            if begun is not None:
                _write(profile, _Status(model=profile.model, pid=begun.pid, born=begun.born))
    except OSError as error:
        _log.warning("no worker for %s (%s): winners are searched when asked", profile.model, error)
    return True


def progress(profile: ModelProfile) -> Progress | None:
    """How far the latest worker for this model is; None if there has been none. Cheap to ask."""
    processes.reap()
    status = _read(_status_path(profile))
    if status is None:
        return None
    return Progress(status.done, status.total, status.process.alive, status.seconds_left)


def cancel(profile: ModelProfile) -> None:
    """Ask the worker of this model to stop; it keeps what it has found. Nothing if none works."""
    status = _read(_status_path(profile))
    if status is not None and status.process.alive:
        with suppress(psutil.Error):
            psutil.Process(status.pid).terminate()


def _claim(profile: ModelProfile) -> bool:
    """Whether this process is the one to work on this model."""
    try:
        make_folder()
        with locked():
            status = _read(_status_path(profile))
            if status is not None and status.process.alive and status.pid != os.getpid():
                return False
            _write(profile, _own(profile, GridProgress(0, 0, 0.0, None, None)))
    except OSError as error:
        _log.debug("no status of the work on %s: %s", profile.model, error)
    return True


def _own(profile: ModelProfile, at: GridProgress) -> _Status:
    me = ProcessId.own()
    return _Status(model=profile.model, pid=me.pid, born=me.born, **asdict(at))


def _status_path(profile: ModelProfile) -> Path:
    return store_path(profile).with_suffix(".json")


def _at_work() -> int:
    """How many models are worked on now, by whomever."""
    found = (_read(path) for path in store_folder().glob("*.json"))
    return sum(status is not None and status.process.alive for status in found)


def _read(path: Path) -> _Status | None:
    try:
        return _Status.model_validate(json.loads(path.read_bytes()))
    except (OSError, ValueError, ValidationError):
        return None


def _write(profile: ModelProfile, status: _Status) -> None:
    with suppress(OSError):  # save_winners has said so
        replace_file(_status_path(profile), status.model_dump_json().encode())

"""One process that measures layers into the device profile; how others start, watch and stop it.

Measurements at the same time would disturb each other: there is one such process at most, whatever
the model. All that is known about it is a small JSON file beside the profile: who works, and
how far it is. Every
layer is kept as soon as it is measured, so that a process that is stopped loses one at most.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from pydantic import Field, ValidationError

from rsdtr.errors import RsdtrError
from rsdtr.measuring.layer_times import DeviceProfile, LayerCase, measure, own_path
from rsdtr.planning.winners_on_disk import make_folder
from rsdtr.system import processes
from rsdtr.system.atomic_files import locked, replace_file
from rsdtr.system.cache_folder import private_folder
from rsdtr.system.processes import ROOT, ProcessId
from rsdtr.typing import Frozen

STATUS, REQUEST, LOG = "measuring.json", "request.json", "measuring.log"


class _Request(Frozen):
    """What the process is to measure, and for what, in words; again: even if it is known."""

    label: str
    cases: tuple[LayerCase, ...]
    again: bool = False


class _Status(Frozen):
    """The status file; failure: why it ended before its time, as a sentence."""

    label: str
    pid: int = Field(ge=1)
    born: str
    done: int = Field(default=0, ge=0)
    total: int = Field(default=0, ge=0)
    seconds_left: float | None = None
    failure: str | None = None

    @property
    def process(self) -> ProcessId:
        """Who works."""
        return ProcessId(self.pid, self.born)


@dataclass(frozen=True)
class Measuring:
    """How far the measuring is: layers done and in all, for what, and how long it may still take.

    total is 0 while the process has only just started; failure: why it ended before its time.
    """

    label: str
    done: int
    total: int
    seconds_left: float | None = None
    alive: bool = True
    failure: str | None = None


def measured(
    label: str,
    cases: Iterable[LayerCase],
    should_stop: Callable[[], bool] = lambda: False,
    *,
    again: bool = False,
) -> Generator[Measuring, None, None]:
    """Measure what this machine's profile lacks of the cases; yield first and after each of them.

    What was measured is in the profile on disk by then. again: measure what is known anew, too.
    RsdtrError if the profile cannot be written.
    """
    asked = tuple(dict.fromkeys(cases))
    lacking = asked if again else DeviceProfile.own().missing(asked)
    started = time.perf_counter()
    yield Measuring(label, 0, len(lacking))
    for done, case in enumerate(lacking, 1):
        if should_stop():
            return
        found = tuple(measure([case]))
        DeviceProfile.own().extended(found).save()  # read again: others may have written
        each = (time.perf_counter() - started) / done
        yield Measuring(label, done, len(lacking), each * (len(lacking) - done))


def start(label: str, cases: Iterable[LayerCase], *, again: bool = False) -> bool:
    """Let a process of its own measure the cases; False if one is at work already.

    label: for what, in words; again: as in `measured`. The process outlives this one. RsdtrError
    if its request cannot be written.
    """
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    log, command = folder() / LOG, [sys.executable, "-m", "rsdtr.measuring.layer_times_process"]
    try:
        make_folder()
        private_folder(folder())
        with locked():
            if (status := _read()) and status.process.alive:
                return False
            request = _Request(label=label, cases=tuple(cases), again=again)
            replace_file(folder() / REQUEST, request.model_dump_json().encode())
            log.write_bytes(b"")
            environment = {"PYTHONPATH": os.pathsep.join(path)}
            begun = processes.start([*command, str(folder() / REQUEST)], log, environment)
            if begun is not None:
                _write(_Status(label=label, pid=begun.pid, born=begun.born))
    except OSError as error:
        raise RsdtrError(
            f"measuring could not be started ({error.strerror or error}): give another cache "
            "folder in RSDTR_CACHE"
        ) from error
    return True


def progress() -> Measuring | None:
    """How far the latest measuring on this machine is; None if there was none. Cheap to ask."""
    processes.reap()
    status = _read()
    if status is None:
        return None
    return Measuring(
        status.label,
        status.done,
        status.total,
        status.seconds_left,
        status.process.alive,
        status.failure,
    )


def cancel() -> None:
    """Stop it; what it has measured is kept. Nothing if none is at work."""
    status = _read()
    if status is not None and status.process.alive:
        with suppress(psutil.Error):
            psutil.Process(status.pid).terminate()


def folder() -> Path:
    """Where the status, the request and the log are: beside the device profile."""
    return own_path().parent


def _work(request: Path) -> None:
    """The process itself: do what the request says."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # and leave no temporary file behind
    asked = _Request.model_validate_json(request.read_bytes())
    latest = Measuring(asked.label, 0, 0)
    try:
        for latest in measured(asked.label, asked.cases, again=asked.again):
            _write(_own(latest))
    except RsdtrError as error:
        _write(_own(latest, str(error)))
    except Exception as error:
        _write(_own(latest, f"measuring failed ({type(error).__name__}): see {folder() / LOG}"))
        raise


def _own(at: Measuring, failure: str | None = None) -> _Status:
    me = ProcessId.own()
    numbers = {
        name: value for name, value in asdict(at).items() if name not in ("alive", "failure")
    }
    return _Status(pid=me.pid, born=me.born, failure=failure, **numbers)


def _read() -> _Status | None:
    try:
        return _Status.model_validate(json.loads((folder() / STATUS).read_bytes()))
    except (OSError, ValueError, ValidationError):
        return None


def _write(status: _Status) -> None:
    with suppress(OSError):  # the profile itself says so
        replace_file(folder() / STATUS, status.model_dump_json().encode())


if __name__ == "__main__":
    _work(Path(sys.argv[1]))

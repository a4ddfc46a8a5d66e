"""Processes of our own: who is alive, whatever the clock says, and how they are started and ended.

A pid is given away again, and the start time that the system tells in seconds moves when its clock
is set. Linux counts a process's start in ticks since the machine started, which nobody can set.
"""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]  # the folder that holds rsdtr
_started: list[subprocess.Popen[bytes]] = []  # ended ones must be waited for, or stay as zombies
_lock = threading.Lock()  # of that list: a server answers several pages at once


@dataclass(frozen=True)
class ProcessId:
    """One process among all that ever have its pid; born: when it began, as text."""

    pid: int
    born: str

    @staticmethod
    def of(pid: int) -> ProcessId | None:
        """The process that has this pid now; None if there is none, or only a zombie."""
        try:
            process = psutil.Process(pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return None
            return ProcessId(pid, _born(process))
        except (psutil.Error, OSError):
            return None

    @staticmethod
    def own() -> ProcessId:
        """This process."""
        me = psutil.Process()
        return ProcessId(me.pid, _born(me))

    @property
    def alive(self) -> bool:
        """Whether that very process still runs."""
        return ProcessId.of(self.pid) == self

    def kill(self, seconds: float = 5.0) -> None:
        """End it and all its children by force, and wait for that; nothing if it is gone."""
        if not self.alive:
            return
        with suppress(psutil.Error):
            process = psutil.Process(self.pid)
            family = [process, *process.children(recursive=True)]
            for member in family:
                with suppress(psutil.Error):
                    member.kill()
            psutil.wait_procs(family, timeout=seconds)
        reap()


def start(
    command: Sequence[str], log: Path, environment: Mapping[str, str | None], nice: int = 0
) -> ProcessId | None:
    """Start a process that outlives this one and appends what it has to say to `log`.

    environment: variables to change, or, where None, to take away. nice: how far it steps back
    behind others, where the platform knows that. None if it ended at once.
    OSError if it cannot be started.
    """
    reap()
    changed = {name: value for name, value in environment.items() if value is not None}
    kept = {name: value for name, value in os.environ.items() if name not in environment}
    detached = 0x208 if os.name == "nt" else 0  # DETACHED_PROCESS, CREATE_NEW_PROCESS_GROUP
    with log.open("ab") as out:
        process = subprocess.Popen(
            command,
            env=kept | changed,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=os.name != "nt",
            creationflags=detached,
        )
    with _lock:
        _started.append(process)
    if nice and os.name != "nt":
        with suppress(psutil.Error):
            psutil.Process(process.pid).nice(nice)
    return ProcessId.of(process.pid)


def reap() -> None:
    """Wait for those that this process has started and that have ended."""
    with _lock:
        _started[:] = [process for process in _started if process.poll() is None]


def _born(process: psutil.Process) -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        # The name, in parentheses, may hold spaces and parentheses; the start is field 22.
        fields = Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2]
        return f"{boot} {fields.split()[19]}"
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            raise
        return f"{process.create_time():.2f}"

"""Processes of our own: who is alive, whatever the clock says, and how they are started and ended.

A pid is given away again, and the start time that the system tells in seconds moves when its clock
is set. Linux counts a process's start in ticks since the machine started, which nobody can set.
"""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

from rsdtr.system.fork_server import POSSIBLE, ForkServer, Program, how_it_ended

ROOT = Path(__file__).parents[2]  # the folder that holds rsdtr
WAITING = "OMP_WAIT_POLICY"  # of threads
# What a process that reads a file of somebody else's finds imported: nothing of this program.
TORCH = ("torch", "safetensors.torch")
_started: list[subprocess.Popen[bytes]] = []  # ended ones must be waited for, or stay as zombies
_forks: list[ProcessId] = []  # started by a server of ours, which waits for them
_servers: dict[tuple[object, ...], ForkServer] = {}
_lock = threading.RLock()  # of these: a server of pages answers several at once
_MOST_SERVERS = 3
# Variables that libraries, and Python itself, look at only once.
_AT_LOADING = (
    "PYTHON", "LD_", "OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "BLIS_", "DNNL_", "ONEDNN_",
    "ATEN_", "TORCH", "PYTORCH_", "CUDA_", "HF_",
)  # fmt: skip


@dataclass(frozen=True)
class Ended:
    """How a program ended: its exit code, and what it said on standard error."""

    code: int
    said: str


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
    command: Sequence[str],
    log: Path,
    environment: Mapping[str, str | None],
    nice: int = 0,
    *,
    imports: Sequence[str] = (),
) -> ProcessId | None:
    """Start a process that outlives this one and appends what it has to say to `log`.

    environment: variables to change, or, where None, to take away. nice: how far it steps back
    behind others, where the platform knows that. imports: of a Python program, modules that it may
    find imported: it is a fork of a server that `prepare` has begun, if that is ready. None if it
    ended at once. OSError if it cannot be started.
    """
    reap()
    variables = _changed(environment)
    with log.open("ab") as out:
        pid = _forked(command, imports, variables, out.fileno()) if imports else None
        if pid is None:
            pid = _begun(command, variables, out)
    if nice and os.name != "nt":
        with suppress(psutil.Error):
            psutil.Process(pid).nice(nice)
    return ProcessId.of(pid)


def _begun(command: Sequence[str], variables: Mapping[str, str], out: IO[bytes]) -> int:
    process = subprocess.Popen(
        command,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=out,
        start_new_session=os.name != "nt",
        creationflags=0x208 if os.name == "nt" else 0,  # DETACHED_PROCESS, a process group
    )
    with _lock:
        _started.append(process)
    return process.pid


def _forked(
    command: Sequence[str], imports: Sequence[str], variables: Mapping[str, str], out: int
) -> int | None:
    server = _server(imports, variables)
    if server is None or command[0] != sys.executable or not server.is_ready():
        return None
    program = Program(tuple(command[1:]), dict(variables), str(Path.cwd()), detached=True)
    try:
        pid = server.fork(program, out, out)
    except (ConnectionError, TimeoutError):
        return None  # it starts by itself
    found = ProcessId.of(pid)
    if found is not None:
        with _lock:
            _forks.append(found)
    return pid


def run(
    command: Sequence[str],
    seconds: float,
    *,
    environment: Mapping[str, str | None] | None = None,
    imports: Sequence[str] = (),
) -> Ended:
    """Run a program to its end, which it comes to by force after so many seconds: TimeoutError.

    environment: as in `start`. imports: of a Python program, modules that it may find imported: it
    is a fork of a server, the first one of which waits until they are. OSError if it cannot be
    started.
    """
    variables = _changed(environment or {})
    if imports and command[0] == sys.executable:
        prepare(imports, environment)
        server = _server(imports, variables)
        if server is not None and server.is_ready(seconds):
            program = Program(tuple(command[1:]), variables, str(Path.cwd()), detached=False)
            ended = _run_forked(server, program, seconds)
            if ended is not None:
                return ended
    try:
        done = subprocess.run(
            command,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError from None
    return Ended(done.returncode, done.stderr.decode(errors="replace"))


def _run_forked(server: ForkServer, program: Program, seconds: float) -> Ended | None:
    """None if the server did not live to tell how it ended."""
    reading, writing = os.pipe()
    pid = None
    try:
        with open(os.devnull, "wb") as out, tempfile.TemporaryFile() as errors:
            try:
                pid = server.fork(program, out.fileno(), errors.fileno(), writing)
            except (ConnectionError, TimeoutError):
                return None
            finally:
                os.close(writing)
            code = how_it_ended(reading, seconds)
            if code is None:
                return None
            pid = None
            errors.seek(0)
            return Ended(code, errors.read().decode(errors="replace"))
    finally:
        os.close(reading)
        if pid is not None and (found := ProcessId.of(pid)) is not None:
            found.kill()


def prepare(imports: Sequence[str], environment: Mapping[str, str | None] | None = None) -> None:
    """Have a server import these modules, so that programs which name them begin at once.

    environment: as in `start`; only programs with the same libraries' variables are its forks.
    Cheap if there is one. Nothing where processes cannot be forked safely, or no more be started.
    """
    variables = _changed(environment or {})
    if not POSSIBLE or _server(imports, variables) is not None:
        return
    with _lock, suppress(OSError):
        _servers[_key(imports, variables)] = ForkServer(imports, variables)
        while len(_servers) > _MOST_SERVERS:
            _servers.pop(next(iter(_servers))).close()


def _server(imports: Sequence[str], variables: Mapping[str, str]) -> ForkServer | None:
    """The server that was begun for these modules, unless it has ended."""
    key = _key(imports, variables)
    with _lock:
        server = _servers.get(key)
        if server is not None and not server.alive:
            _servers.pop(key).close()
            return None
        return server


def _key(imports: Sequence[str], variables: Mapping[str, str]) -> tuple[object, ...]:
    """What tells servers apart; a fork of this process has none."""
    read = sorted((name, text) for name, text in variables.items() if name.startswith(_AT_LOADING))
    return os.getpid(), tuple(imports), tuple(read)


def quiet() -> dict[str, str | None]:
    """Variables for threads that do not spin while they wait, which takes most of the time of a
    busy machine away. Small layers take half as long again: times are taken without it.
    """
    return {WAITING: os.environ.get(WAITING, "PASSIVE")}


def _changed(environment: Mapping[str, str | None]) -> dict[str, str]:
    """This process's variables with some changed, or, where None, taken away."""
    kept = {name: value for name, value in os.environ.items() if name not in environment}
    return kept | {name: value for name, value in environment.items() if value is not None}


def reap() -> None:
    """Wait for those that this process has started and that have ended."""
    with _lock:
        _started[:] = [process for process in _started if process.poll() is None]
        _forks[:] = [found for found in _forks if found.alive]


def started() -> list[ProcessId]:
    """Those that this process has started with `start`, and that still run."""
    reap()
    with _lock:
        found = [ProcessId.of(process.pid) for process in _started]
        return [one for one in found if one is not None] + _forks


def close_servers() -> None:
    """End the servers that `prepare` has begun; whoever was started goes on."""
    with _lock:
        for key in [key for key in _servers if key[0] == os.getpid()]:
            _servers.pop(key).close()


atexit.register(close_servers)


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

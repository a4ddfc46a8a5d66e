"""A server that has imported libraries, and forks the processes that would each import them again.

    python -P fork_server.py SOCKET OWNER MODULE…

Importing torch takes seconds, a fork of a process that has done so hundredths of one. The server
only imports and never computes: torch has no threads in it, which would not survive a fork, and its
forks have seen no more than any process that has just begun. It ends when its owner ends, and takes
along whom that one waits for; whoever was to outlive the owner goes on.

Run as a file, not as a module: it has imported what it was told to, and nothing of this program.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

POSSIBLE = sys.platform == "linux" and hasattr(os, "pidfd_open")
_READY = b"R"
_LENGTH, _NUMBER = struct.Struct("!Q"), struct.Struct("!i")
_ANSWER_SECONDS = 10.0  # a fork takes hundredths


@dataclass(frozen=True)
class Program:
    """What a fork becomes: words, all that follows `python` on a command line (`[-P] FILE …` or
    `-m MODULE …`); its environment variables and working folder; whether it outlives the owner.
    """

    words: tuple[str, ...]
    environment: dict[str, str]
    folder: str
    detached: bool


class ForkServer:
    """A server as its owner sees it; begun here, it gets ready by itself."""

    def __init__(self, imports: Sequence[str], environment: Mapping[str, str]) -> None:
        """imports: modules, by their full names. OSError if no process can be started."""
        ours, theirs = socket.socketpair()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__, str(theirs.fileno()), str(os.getpid()), *imports],
                env=dict(environment),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # what ends the owner's terminal does not end it
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self._connection, self._lock, self._ready = ours, threading.Lock(), False

    def is_ready(self, seconds: float = 0.0) -> bool:
        """Whether it has imported everything, or has so within some seconds."""
        with self._lock:
            if not self._ready:
                self._connection.settimeout(seconds)
                with suppress(OSError):
                    self._ready = self._connection.recv(len(_READY)) == _READY
            return self._ready

    @property
    def alive(self) -> bool:
        """Whether the server still runs."""
        return self._process.poll() is None

    def fork(self, program: Program, out: int, errors: int, ending: int | None = None) -> int:
        """The pid of a fork that becomes the program; out, errors: open files for what it says.

        ending: a file where the server writes how it ends. OSError if there can be no fork.
        """
        content = json.dumps(asdict(program)).encode()
        files = [out, errors, *([] if ending is None else [ending])]
        with self._lock:
            self._connection.settimeout(_ANSWER_SECONDS)
            socket.send_fds(self._connection, [_LENGTH.pack(len(content))], files)
            self._connection.sendall(content)
            (pid,) = _NUMBER.unpack(_exactly(self._connection, _NUMBER.size))
        if pid < 0:
            raise OSError(-pid, os.strerror(-pid))
        return int(pid)

    def close(self) -> None:
        """End it; quickly, if it is not even ready."""
        self._connection.close()
        if not self._ready:
            self._process.kill()
        try:
            self._process.wait(_ANSWER_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def how_it_ended(ending: int, seconds: float) -> int | None:
    """The exit code that a server writes for a fork, as subprocess tells it; None if the server is
    gone. TimeoutError after some seconds.
    """
    with selectors.DefaultSelector() as selector:
        selector.register(ending, selectors.EVENT_READ)
        if not selector.select(seconds):
            raise TimeoutError
    content = os.read(ending, _NUMBER.size)
    return int(_NUMBER.unpack(content)[0]) if content else None


@dataclass(frozen=True)
class _Child:
    pid: int
    detached: bool
    ending: int | None


@dataclass(frozen=True)
class _Request:
    program: Program
    files: list[int]  # out, errors, and perhaps the ending


def _serve(connection: socket.socket, owner: int) -> _Request | None:
    """Fork for every request: returns it in the fork, and None in the server, at the owner's end.

    A fork so leaves all that is the server's, and begins and ends as other processes do.
    """
    children: dict[int, _Child] = {}  # by a file that tells of their end
    own = os.pidfd_open(owner)
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ)
        selector.register(own, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd in children:
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    _ended(children.pop(key.fd))
                    continue
                request = _received(connection) if key.fileobj is connection else None
                if request is None:
                    for child in children.values():
                        if not child.detached:
                            os.kill(child.pid, signal.SIGKILL)
                    return None
                pid = _forked()
                if pid == 0:
                    endings = [child.ending for child in children.values()]
                    for file in (*children, *endings, own, *request.files[2:]):
                        if file is not None:
                            os.close(file)
                    connection.close()
                    return request
                for file in request.files[:2]:
                    os.close(file)
                ending = request.files[2] if len(request.files) > 2 else None
                child = _Child(pid, request.program.detached, ending)
                if pid > 0:
                    watched = os.pidfd_open(pid)
                    children[watched] = child
                    selector.register(watched, selectors.EVENT_READ)
                elif ending is not None:
                    os.close(ending)
                connection.sendall(_NUMBER.pack(pid))


def _forked() -> int:
    """As os.fork, but an error as a negative number."""
    try:
        return os.fork()
    except OSError as error:
        return -(error.errno or 1)


def _ended(child: _Child) -> None:
    """Wait for a child that has ended, and tell whoever waits for that."""
    code = os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1])
    if child.ending is not None:
        with suppress(OSError):  # nobody reads it any more
            os.write(child.ending, _NUMBER.pack(code))
        os.close(child.ending)


def _received(connection: socket.socket) -> _Request | None:
    """What is asked for; None if there is nobody to ask any more."""
    try:
        head, files, _, _ = socket.recv_fds(connection, _LENGTH.size, 3)
        if len(head) < _LENGTH.size:
            return None
        content = json.loads(_exactly(connection, _LENGTH.unpack(head)[0]))
    except OSError:
        return None
    content["words"] = tuple(content["words"])
    return _Request(Program(**content), files)


def _exactly(connection: socket.socket, size: int) -> bytes:
    content = b""
    while len(content) < size:
        part = connection.recv(size - len(content))
        if not part:
            raise ConnectionError("the fork server is gone")
        content += part
    return content


def _become(request: _Request) -> None:
    """Run the program in this fork, as python would."""
    program = request.program
    if program.detached:
        os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    for file, place in zip((nothing, *request.files[:2]), range(3), strict=True):
        os.dup2(file, place)
    for file in {nothing, *request.files[:2]}:
        os.close(file)
    os.environ.clear()
    os.environ.update(program.environment)
    os.chdir(program.folder)
    gc.enable()
    words = list(program.words)
    safe = words[0] == "-P"
    if safe:
        del words[0]
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        return
    sys.argv = words
    if not safe:
        sys.path.insert(0, str(Path(words[0]).parent))
    runpy.run_path(words[0], run_name="__main__")


def main(descriptor: str, owner: str, *imports: str) -> None:
    gc.disable()
    for name in imports:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # else the first collection in a fork would copy all that it looks at
    connection = socket.socket(fileno=int(descriptor))
    connection.sendall(_READY)
    request = _serve(connection, int(owner))
    if request is not None:
        _become(request)


if __name__ == "__main__":
    main(*sys.argv[1:])

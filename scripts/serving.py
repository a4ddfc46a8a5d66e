"""A server of the app for as long as tests, benchmarks or the README's pictures look at it."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
START_SECONDS = 120.0


def free_port() -> int:
    """A port of this machine that nobody listens to."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(*options: str, port: int | None = None) -> Iterator[str]:
    """The address of the app, served as by `make run` but without a browser, as long as the block.

    options: of `streamlit run`. port: by default a free one. Errors as `serving`.
    """
    port = port or free_port()
    command = [sys.executable, "-m", "rsdtr.ui.server", *options]
    command += ["--server.port", str(port), "--server.headless", "true"]
    with serving(command, f"http://127.0.0.1:{port}", "/_stcore/health") as root:
        yield root


@contextmanager
def serving(command: Sequence[str], root: str, health: str) -> Iterator[str]:
    """A server that answers at `root`, and at `root` + `health` once it is ready.

    RuntimeError, with what it has said, if it ends before that, or takes two minutes.
    """
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            deadline = time.monotonic() + START_SECONDS
            while not _answers(root + health):
                if server.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    raise RuntimeError(f"no server at {root}: {log.read().decode()}")
                time.sleep(0.25)
            yield root
        finally:
            server.terminate()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:  # of a page that lasts
                server.kill()
                server.wait()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5):
            return True
    except OSError:
        return False

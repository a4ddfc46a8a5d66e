"""The processes that a test has started, and not those that a whole session of tests shares."""

import psutil

from rsdtr.system import processes

_SHARED = "rsdtr.ui.server"  # of the browser's tests, where one session has them and others


def children() -> list[psutil.Process]:
    """Of this process, but for the explorer's server of the browser's tests."""
    return [child for child in psutil.Process().children() if _SHARED not in child.cmdline()]


def workers() -> list[psutil.Process]:
    """The same, but for the servers of forks that it may have had before."""
    servers = {server._process.pid for server in processes._servers.values()}
    return [child for child in children() if child.pid not in servers]

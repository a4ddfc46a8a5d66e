"""Forks of a server that has imported: as fresh as other processes, and gone with their owner."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from rsdtr.jobs import job_queue, job_worker
from rsdtr.system import fork_server, processes
from rsdtr.system.processes import ProcessId
from tests.support.checkout import ROOT
from tests.support.family import children
from tests.support.waiting import until

pytestmark = pytest.mark.skipif(not fork_server.POSSIBLE, reason="forks are safe on Linux")
IMPORTS = ("zipfile", "calendar")  # quickly done, and nothing that Python has loaded anyway
SAYS = """
import json, os, sys
sys.stderr.write(json.dumps({
    "parent": os.getppid(), "argv": sys.argv, "path": sys.path[0], "folder": os.getcwd(),
    "loaded": "calendar" in sys.modules, "rsdtr": "rsdtr" in sys.modules, "name": __name__,
    "variables": [os.environ.get("GIVEN"), os.environ.get("TAKEN")],
    "session": os.getsid(0) == os.getpid(),
    "files": sorted(os.listdir("/proc/self/fd")),
}))
sys.exit(7)
"""


@pytest.fixture(autouse=True)
def _no_server():
    processes.close_servers()
    yield
    processes.close_servers()


@pytest.fixture
def ready():
    """The server of IMPORTS, once it has imported them."""
    processes.prepare(IMPORTS)
    server = processes._server(IMPORTS, dict(os.environ))
    assert server.is_ready(20)
    return server


def script(folder: Path, text: str) -> Path:
    path = folder / "program.py"
    path.write_text(text)
    return path


def said(text: str) -> dict[str, object]:
    return json.loads(text)


def test_a_fork_is_what_a_process_would_be(tmp_path, monkeypatch, ready):
    """But for the modules that it finds imported, and its parent."""
    monkeypatch.setenv("GIVEN", "ε_p")
    monkeypatch.delenv("TAKEN", raising=False)
    monkeypatch.chdir(tmp_path)
    command = [sys.executable, str(script(tmp_path, SAYS)), "a b", "c"]
    fork = processes.run(command, 20, imports=IMPORTS)
    plain = processes.run(command, 20)
    assert fork.code == plain.code == 7
    here, there = said(fork.said), said(plain.said)
    assert (here.pop("parent"), there.pop("parent")) == (ready._process.pid, os.getpid())
    assert (here.pop("loaded"), there.pop("loaded")) == (True, False)
    assert not here["rsdtr"]
    assert here == there
    assert here["argv"] == [str(tmp_path / "program.py"), "a b", "c"]
    assert here["variables"] == ["ε_p", None]
    safe = processes.run([command[0], "-P", *command[1:]], 20, imports=IMPORTS)
    assert said(safe.said)["path"] != str(tmp_path)


def test_a_module_is_run_as_one(tmp_path, monkeypatch):
    script(tmp_path, SAYS).rename(tmp_path / "it.py")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    ended = processes.run([sys.executable, "-m", "it", "x"], 20, imports=IMPORTS)
    found = said(ended.said)
    assert (ended.code, found["name"], found["loaded"]) == (7, "__main__", True)
    assert found["argv"] == [str(tmp_path / "it.py"), "x"]


LATE = """
import sys, threading, time
threading.Thread(target=lambda: (time.sleep(0.2), sys.stderr.write("late"))).start()
"""


def test_how_it_ended_is_told(tmp_path):
    for text, code, last in (
        ("import atexit, sys; atexit.register(lambda: sys.stderr.write('bye'))", 0, "bye"),
        ("raise ValueError('seven')", 1, "ValueError: seven"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -9, ""),
        (LATE, 0, "late"),
    ):
        command = [sys.executable, str(script(tmp_path, text))]
        for imports in (IMPORTS, ()):
            ended = processes.run(command, 20, imports=imports)
            assert ended.code == code
            assert (ended.said.splitlines() or [""])[-1] == last
        assert processes._servers


def test_who_takes_too_long_is_ended(tmp_path, ready):
    command = [sys.executable, str(script(tmp_path, "import time; time.sleep(100)"))]
    with pytest.raises(TimeoutError):
        processes.run(command, 0.5, imports=IMPORTS)
    assert psutil.Process(ready._process.pid).children() == []
    with pytest.raises(TimeoutError):
        processes.run(command, 0.5)


def started(tmp_path: Path, text: str, **more: object) -> ProcessId:
    command = [sys.executable, str(script(tmp_path, text))]
    return processes.start(command, tmp_path / "log", {}, imports=IMPORTS, **more)


def test_started_it_outlives_and_is_ended_as_any_other(tmp_path, ready):
    text = "import subprocess, sys; print(__name__, flush=True); subprocess.run(['sleep', '100'])"
    found = started(tmp_path, text, nice=7)
    me = psutil.Process(found.pid)
    assert me.ppid() == ready._process.pid
    assert me.nice() == 7
    until(lambda: os.getsid(found.pid) == found.pid)
    until(lambda: (tmp_path / "log").read_text() == "__main__\n")
    until(me.children)
    family = [me, *me.children()]
    assert processes.started() == [found]
    found.kill()
    assert not found.alive
    assert processes.started() == []
    until(lambda: not any(member.is_running() for member in family[:1]))
    until(lambda: not family[1].is_running() or family[1].status() == psutil.STATUS_ZOMBIE)


def test_nobody_waits_for_a_server_that_is_not_ready(tmp_path, monkeypatch):
    monkeypatch.setattr(fork_server.ForkServer, "is_ready", lambda *_: False)
    processes.prepare(IMPORTS)
    found = started(tmp_path, "import time; time.sleep(100)")
    assert psutil.Process(found.pid).ppid() == os.getpid()
    assert processes.started() == [found]
    found.kill()


def test_without_a_server_there_is_no_fork(tmp_path, monkeypatch):
    found = started(tmp_path, "import time; time.sleep(100)")
    assert psutil.Process(found.pid).ppid() == os.getpid()
    found.kill()
    monkeypatch.setattr(processes, "POSSIBLE", False)
    ended = processes.run(
        [sys.executable, str(script(tmp_path, SAYS))], 20, imports=IMPORTS
    )  # fmt: skip
    assert said(ended.said)["parent"] == os.getpid()
    assert not processes._servers


@pytest.mark.usefixtures("ready")
def test_variables_that_libraries_read_as_they_load_are_no_forks(tmp_path, monkeypatch):
    quiet = {"OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, str(script(tmp_path, "import time; time.sleep(100)"))]
    other = processes.start(command, tmp_path / "log", quiet, imports=IMPORTS)
    assert psutil.Process(other.pid).ppid() == os.getpid()
    processes.prepare(IMPORTS, quiet)
    assert len(processes._servers) == 2
    processes.prepare(IMPORTS, {"RSDTR_CACHE": "elsewhere"})
    assert len(processes._servers) == 2
    for number in range(5):
        processes.prepare(IMPORTS, {"OMP_NUM_THREADS": str(number)})
    assert len(processes._servers) == processes._MOST_SERVERS
    until(lambda: len(children()) == processes._MOST_SERVERS + 1)
    other.kill()


def test_a_server_that_was_killed_is_begun_anew(tmp_path, ready):
    command = [sys.executable, str(script(tmp_path, SAYS))]
    ready._process.kill()
    ready._process.wait()
    again = processes.run(command, 20, imports=IMPORTS)
    assert again.code == 7
    assert said(again.said)["loaded"]
    server = processes._server(IMPORTS, dict(os.environ))
    slow = script(tmp_path, "import time; time.sleep(1); raise SystemExit(5)")
    threading.Timer(0.3, server._process.kill).start()
    assert processes.run([sys.executable, str(slow)], 20, imports=IMPORTS).code == 5


def test_modules_that_cannot_be_imported_make_no_server(tmp_path):
    command = [sys.executable, str(script(tmp_path, SAYS))]
    ended = processes.run(command, 20, imports=("there_is_no_such_module",))
    assert (ended.code, said(ended.said)["parent"]) == (7, os.getpid())


def test_many_at_once(tmp_path, ready):
    program = script(tmp_path, "import sys; sys.exit(int(sys.argv[1]))")
    codes = {}

    def run(number: int) -> None:
        command = [sys.executable, str(program), str(number)]
        codes[number] = processes.run(command, 60, imports=IMPORTS).code

    threads = [threading.Thread(target=run, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == {number: number for number in range(20)}
    assert psutil.Process(ready._process.pid).children() == []


OWNER = """
import os, sys, threading, time
from pathlib import Path
from rsdtr.system import processes
imports, folder = ("zipfile",), Path(sys.argv[1])
processes.prepare(imports)
assert processes._server(imports, dict(os.environ)).is_ready(20)
sleeper = [sys.executable, str(folder / "program.py")]
lasting = processes.start(sleeper, folder / "log", {}, imports=imports)
waiter = threading.Thread(target=processes.run, args=(sleeper, 100), kwargs={"imports": imports})
waiter.daemon = True
waiter.start()
server = next(iter(processes._servers.values()))._process.pid
time.sleep(0.5)
print(server, lasting.pid, flush=True)
exec(sys.argv[2])
"""


@pytest.mark.parametrize("end", ["sys.exit()", "os.kill(os.getpid(), 9)", "os._exit(3)"])
def test_it_ends_with_its_owner_and_takes_along_whom_that_one_waits_for(tmp_path, end):
    script(tmp_path, "import time; time.sleep(100)")
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path), end],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True,
    ) as owner:  # fmt: skip
        server, lasting = (psutil.Process(int(pid)) for pid in owner.stdout.readline().split())
        waited_for = [child for child in psutil.Process(server.pid).children() if child != lasting]
        owner.communicate(timeout=30)
    ended = [server, *waited_for]
    until(lambda: not any(_runs(one) for one in ended))
    assert _runs(lasting)
    lasting.kill()


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


THREADS = """
import os, sys
sys.stderr.write(str(len(os.listdir("/proc/self/task"))))
"""
GRADIENT = """
import sys, torch
torch.set_num_threads(2)
x = torch.ones(64, 3, 32, 32, requires_grad=True)
torch.nn.Conv2d(3, 8, 3)(x).square().sum().backward()
sys.stderr.write(str(float(x.grad.abs().sum()) > 0))
"""


@pytest.mark.parametrize("imports", [processes.TORCH, job_queue.IMPORTS])
def test_importing_starts_no_threads_of_torch_and_forks_can(tmp_path, monkeypatch, imports):
    """Threads do not survive a fork: a server that had computed would leave its forks hanging."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    processes.prepare(imports)
    server = processes._server(imports, dict(os.environ))
    assert server.is_ready(120)
    only = [sys.executable, "-c", "import numpy, os\n" + THREADS]
    numpy = processes.run(only, 60).said
    assert str(psutil.Process(server._process.pid).num_threads()) == numpy
    command = [sys.executable, str(script(tmp_path, THREADS))]
    assert processes.run(command, 60, imports=imports).said == "1"
    command = [sys.executable, str(script(tmp_path, GRADIENT))]
    assert processes.run(command, 60, imports=imports).said == "True"


def test_a_worker_finds_every_kind_imported():
    loaded = """
import sys
for name in {}: __import__(name)
print(*sorted(name for name in {} if name not in sys.modules))
"""
    kinds = sorted({place.partition(":")[0] for place in job_worker.KINDS.values()})
    done = subprocess.run(
        [sys.executable, "-c", loaded.format(job_queue.IMPORTS, kinds)],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    # ONNX Runtime starts threads, which no server of forks may have.
    assert done.stdout.strip() == "rsdtr.jobs.kinds.onnx_file"


def test_a_start_is_quick_once_the_server_is_ready(tmp_path, ready):
    """What takes a fork longer is a mistake: an import that the server had not done."""
    command = [sys.executable, str(script(tmp_path, "pass"))]
    spent = []
    for _ in range(5):
        began = time.perf_counter()
        assert processes.run(command, 20, imports=IMPORTS).code == 0
        spent.append(time.perf_counter() - began)
    assert min(spent) < 0.25

"""Where a stranger's ONNX file is read first: a process of its own, with limits.

    python -m rsdtr.onnx_files.onnx_reader FILE

ONNX's checker, its shape inference and ONNX Runtime are written in C++: a file that is made to
break one of them ends this process and no other. Exit code 0: the file can be read. Else the last
line of standard error says why not: 3, in words that follow the file's name, 4, in a sentence.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from rsdtr.errors import PlanError, RsdtrError, WeightsError
from rsdtr.models.pth_reader import REFUSED
from rsdtr.onnx_files.onnx_network import read_onnx
from rsdtr.system.processes import ROOT

SENTENCE = 4
CPU_SECONDS, SECONDS = 120, 300
_SPARE_BYTES = 4 << 30  # beside eight times the file: read, inferred, run on one blank input
BROKEN = "ends whoever reads it: export the network again, with a later version of its exporter"


def check_readable(path: Path) -> None:
    """Errors as those of `read_onnx`, unless a process of its own can read the file."""
    command = [sys.executable, "-m", __name__, str(path.resolve())]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8",
            errors="replace", timeout=SECONDS, check=False, cwd=ROOT,
            env=os.environ | {"PYTHONUTF8": "1"},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise WeightsError(
            f"could not be read within {SECONDS} s: give a smaller network", path
        ) from None
    last = (done.stderr.strip().splitlines() or [""])[-1]
    if done.returncode == SENTENCE:
        raise PlanError(last)
    if done.returncode != 0:
        raise WeightsError(last if done.returncode == REFUSED else BROKEN, path)


def _limit(file_bytes: int) -> None:
    """Bound this process's memory and processor time, where the system can."""
    try:
        import resource
    except ImportError:  # Windows
        return
    bounds = {resource.RLIMIT_CPU: CPU_SECONDS, resource.RLIMIT_CORE: 0}
    if (statm := Path("/proc/self/statm")).exists():
        used = int(statm.read_text(encoding="ascii").split()[0]) * resource.getpagesize()
        bounds[resource.RLIMIT_AS] = used + 8 * file_bytes + _SPARE_BYTES
    for what, most in bounds.items():
        hard = resource.getrlimit(what)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, hard))


def main(file: str) -> int:
    """Read the file; the exit code."""
    path = Path(file)
    _limit(sum(one.stat().st_size for one in path.parent.glob(f"{path.name}*")))
    try:
        read_onnx(path)
    except WeightsError as error:
        sys.stderr.write(error.reason)
        return REFUSED
    except MemoryError:
        sys.stderr.write("takes more memory than may be used: give a smaller network")
        return REFUSED
    except RsdtrError as error:
        sys.stderr.write(str(error.args[0]))
        return SENTENCE
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

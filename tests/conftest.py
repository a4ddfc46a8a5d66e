"""Fixtures shared by all tests: where the real weights, data and golden results lie."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from tests.support.checkout import ROOT

# The gate tries the same examples everywhere; `make soak` looks for new ones.
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test asks the hub
settings.register_profile("same everywhere", derandomize=True, deadline=None)
settings.register_profile("soak", max_examples=1000, deadline=None)
settings.load_profile(os.environ.get("RSDTR_HYPOTHESIS", "same everywhere"))

SHARED = Path(os.environ.get("RSDTR_SHARED", ROOT.parent / "shared"))


DURATIONS = ROOT / "tests" / "durations.json"  # of each file, in seconds: `make durations`
_seconds: dict[str, float] = {}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What a test's place says of it; and files that take long come first, so that no process of
    several is left alone with one at the end."""
    known = json.loads(DURATIONS.read_text(encoding="utf-8"))
    items.sort(key=lambda item: -known.get(_file(item.nodeid), 0.0))
    for item in items:
        if item.path.suffix == ".ipynb":
            item.add_marker(pytest.mark.notebook)
        elif item.path.parent.name == "browser":
            item.add_marker(pytest.mark.browser)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    file = _file(report.nodeid)
    _seconds[file] = _seconds.get(file, 0.0) + report.duration


def pytest_sessionfinish(session: pytest.Session) -> None:
    if "RSDTR_DURATIONS" in os.environ and not hasattr(session.config, "workerinput"):
        found = {file: round(_seconds[file], 1) for file in sorted(_seconds)}
        DURATIONS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _file(nodeid: str) -> str:
    return nodeid.partition("::")[0]


@pytest.fixture(autouse=True)
def _threads_and_seed() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or writes the user's own cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RSDTR_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module", autouse=True)
def _no_process_outlives_its_file() -> Iterator[None]:
    """But for servers of forks, each of which has taken seconds to import what all files need."""
    yield
    processes = sys.modules.get("rsdtr.system.processes")  # where no test has loaded it: none
    if processes is not None:
        for child in processes.started():
            child.kill()


@pytest.fixture
def own_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A table of jobs of its own with one slot; who still works at the end is stopped."""
    from tests.support.job_kinds import stop_all  # the queue is not what most tests are about

    monkeypatch.setenv("RSDTR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RSDTR_JOBS", "1")
    yield tmp_path / "cache"
    stop_all()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real weights, CIFAR-10 and golden results that the project does not ship."""
    if not SHARED.is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"{SHARED} is missing: in CI the real weights and data must be there")
        pytest.skip(f"{SHARED} is not here: set RSDTR_SHARED to run the tests on real weights")
    return SHARED


@pytest.fixture
def offline(shared: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The environment of a user who has the published weights and CIFAR-10 on disk."""
    monkeypatch.setenv("RSDTR_WEIGHTS", str(shared / "data" / "weights"))
    monkeypatch.setenv("RSDTR_DATA", str(shared / "data"))
    return shared

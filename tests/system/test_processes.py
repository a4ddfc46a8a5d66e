"""Processes: who is alive, whatever the clock says, and who is left when they are ended."""

import os
import subprocess
import sys

import psutil
import pytest

from rsdtr.system import processes
from rsdtr.system.processes import ProcessId
from tests.support.waiting import until

posix = pytest.mark.skipif(os.name == "nt", reason="processes of POSIX")
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ticks of Linux")


def test_this_process_is_alive_and_another_with_its_pid_is_not():
    me = ProcessId.own()
    assert me.alive
    assert ProcessId.of(os.getpid()) == me
    assert not ProcessId(me.pid, "another time").alive
    assert not ProcessId(2**30, me.born).alive


@posix
def test_killing_takes_the_children_too_and_leaves_no_zombie(tmp_path):
    found = processes.start(["sh", "-c", "sleep 60 & wait"], tmp_path / "log", {})
    children = []
    until(lambda: children.extend(psutil.Process(found.pid).children()) or children)
    ProcessId(found.pid, "another time").kill()
    assert found.alive
    found.kill()
    assert not found.alive
    assert processes.started() == []
    until(lambda: not psutil.pid_exists(children[0].pid)
          or children[0].status() == psutil.STATUS_ZOMBIE)  # fmt: skip
    found.kill()  # gone already: nothing happens


@posix
def test_a_zombie_is_not_alive(tmp_path):
    found = processes.start(["sh", "-c", "sleep 0.3"], tmp_path / "log", {})
    assert found.alive
    until(lambda: not found.alive)
    processes.reap()
    assert not psutil.pid_exists(found.pid)


@posix
def test_it_has_its_environment_steps_back_and_writes_to_its_log(tmp_path, monkeypatch):
    monkeypatch.setenv("TAKEN", "away")
    script = 'echo "$GIVEN $TAKEN."; sleep 30'
    changes = {"GIVEN": "x", "TAKEN": None}
    found = processes.start(["sh", "-c", script], tmp_path / "log", changes, nice=7)
    until(lambda: (tmp_path / "log").read_text() == "x .\n")
    assert psutil.Process(found.pid).nice() == 7
    assert os.getsid(found.pid) == found.pid  # what ends this process's terminal leaves it alone
    found.kill()


@linux
def test_setting_the_clock_changes_nobody(monkeypatch):
    """psutil tells the start in seconds since 1970, from a boot time that moves with the clock."""
    with subprocess.Popen(["sleep", "60"]) as child:
        before = ProcessId.of(child.pid)
        for step in (-86_400.0, 3_600.0):
            told = psutil.Process(child.pid).create_time() + step
            monkeypatch.setattr(psutil.Process, "create_time", lambda _, told=told: told)
            assert before.alive
        child.kill()

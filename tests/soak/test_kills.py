"""Killed before each of its changes to the file system, work leaves the old files or the new ones.

`make soak` kills at random instants instead, 200 times, proves again what an export left, and kills
fine-tunings too: forks of this process, which has computed gradients, could compute none.
"""

import importlib
import os
import signal
from itertools import count

import pytest

from rsdtr.compressed.manifest import Proof
from rsdtr.errors import ExportError
from rsdtr.exports import formats
from rsdtr.models.zoo import model_spec
from tests.soak import kills

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="children of POSIX"),
]
FINE = Proof(max_difference=0.0, mean_difference=0.0, argmax_agreement=1.0, n=64)


@pytest.fixture(scope="module")
def graph():
    """What torch.export makes of the network that is exported here, always the same."""
    return formats.program(kills.ring()[0].eval(), model_spec(kills.NAME))


@pytest.fixture(autouse=True)
def _quick(tmp_path, monkeypatch, graph):
    """Graphs and proofs are not what is tried here, and would take all of the time."""
    module = importlib.import_module("rsdtr.exports.export")
    monkeypatch.setattr(formats, "program", lambda *_, **__: graph)
    monkeypatch.setenv("RSDTR_CACHE", str(tmp_path))
    monkeypatch.setattr(module, "write_cases", lambda *_: 1.0)
    monkeypatch.setattr(module, "proved", lambda *_, **__: FINE)
    monkeypatch.setattr(kills, "verify", lambda _: None)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("name", [name for name in kills.ACTIONS if name != "fine-tune"])
def test_it_is_all_old_or_all_new(name, tmp_path):
    outcomes = []
    for change in count():
        (tmp_path / str(change)).mkdir()
        outcomes.append(kills.tried(name, tmp_path / str(change), change=change))
        if outcomes[-1] == "done":
            break
    assert outcomes[0] == "old"
    assert outcomes == sorted(outcomes, key=["old", "new", "done"].index)
    assert len(outcomes) > 2


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_an_end_that_nobody_asked_for_is_no_kill(tmp_path):
    """Crashes of torch's own in a fork counted as kills; found by 190 of them."""
    ended = kills.Action(kills.void, lambda _: os.kill(os.getpid(), signal.SIGTERM), bool)
    with pytest.raises(AssertionError, match="crashed by itself"):
        kills.killed(ended, tmp_path)


def test_a_file_that_is_neither_is_noticed(tmp_path):
    """A checkpoint that is half there: the check is one."""
    action = kills.ACTIONS["compress"]()
    action.ready(tmp_path)
    weights = tmp_path / "saved" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ExportError, match=r"model\.safetensors"):
        action.check(tmp_path)

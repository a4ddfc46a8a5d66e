"""Training by several processes, against one process that computes its batches in parts."""

import json
import os
import socket
import subprocess
import sys

import pytest
import torch

from rsdtr.errors import RsdtrError
from rsdtr.recovery.distributed import World, joined, sum_gradients, world
from rsdtr.recovery.finetune import finetune
from rsdtr.recovery.options import FinetuneOptions
from tests.support.checkout import ROOT
from tests.support.lights import lights, tiny

OPTIONS = {"epochs": 2, "lr": 0.02, "batch_size": 15}
# Saves what each of the processes ends with.
SCRIPT = """
import json, sys
import torch
from rsdtr.recovery.distributed import joined
from rsdtr.recovery.finetune import finetune
from rsdtr.recovery.options import FinetuneOptions
from tests.support.lights import lights, tiny
out, options = sys.argv[1], json.loads(sys.argv[2])
torch.set_num_threads(1)
with joined() as here:
    torch.manual_seed(0)
    model = tiny()
    model[4] = torch.nn.Identity()
    results = list(finetune(model, lights(), FinetuneOptions(**options)))
    losses = [result.train_loss for result in results]
    torch.save({"state": model.state_dict(), "losses": losses}, f"{out}/{here.rank}.pt")
"""


def torchrun(processes: int, *command: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    done = subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}",
            "--master-addr=127.0.0.1", f"--master-port={port}", *command,
        ],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    folder = tmp_path_factory.mktemp("group")
    (folder / "train.py").write_text(SCRIPT)
    torchrun(2, str(folder / "train.py"), str(folder), json.dumps(OPTIONS))
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


def test_both_processes_end_with_the_same_network(ended):
    first, second = ended
    assert first["losses"] == second["losses"]
    for name, value in first["state"].items():
        assert torch.equal(value, second["state"][name]), name


def test_two_processes_learn_what_one_learns_in_two_parts(ended):
    torch.manual_seed(0)
    model = tiny()
    model[4] = torch.nn.Identity()  # Dropout draws for half a batch here and for a whole one there
    results = list(finetune(model, lights(), FinetuneOptions(**OPTIONS, accumulate=2)))
    for mine, theirs in zip(results, ended[0]["losses"], strict=True):
        assert mine.train_loss == pytest.approx(theirs, rel=1e-4)
    # Running statistics follow two halves after each other here, and their mean there.
    for name, value in model.named_parameters():
        assert torch.allclose(value, ended[0]["state"][name], atol=1e-4), name


def test_one_process_is_a_world_of_its_own(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined() as here:
        assert here == world() == World(0, 1)
        assert here.is_first
    assert not World(1, 2).is_first
    weight = torch.nn.Parameter(torch.ones(2))
    assert sum_gradients([weight], 3.5) == 3.5
    assert weight.grad is None


def test_a_group_that_is_not_there_is_one_sentence(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with (
        pytest.raises(RsdtrError, match=r"the other processes were not found .*torchrun"),
        joined(),
    ):
        pass

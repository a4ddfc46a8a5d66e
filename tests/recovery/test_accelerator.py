"""Training by several processes, against one process that computes its batches in parts."""

import json
import os
import socket
import subprocess
import sys

import pytest
import torch

from rsdtr.errors import RsdtrError
from rsdtr.recovery.accelerator import accelerator_on, average_buffers, processes
from rsdtr.recovery.finetune import finetune
from rsdtr.recovery.options import FinetuneOptions
from tests.support.checkout import ROOT
from tests.support.lights import lights, tiny

pytestmark = pytest.mark.process

CPU = torch.device("cpu")
OPTIONS = {"epochs": 2, "lr": 0.02, "batch_size": 15}
# Saves what each of the processes ends with, and which pictures it has decoded.
SCRIPT = """
import json, os, sys
import torch
from rsdtr.data.image_sources import ArrayPictures
from rsdtr.recovery.accelerator import processes
from rsdtr.recovery.finetune import finetune
from rsdtr.recovery.options import FinetuneOptions
from tests.support.lights import lights, tiny
out, options = sys.argv[1], json.loads(sys.argv[2])
torch.set_num_threads(1)
data, seen = lights(), []
decode = data.train._pictures.pixels
data.train._pictures.pixels = lambda indices: (seen.append(len(indices)), decode(indices))[1]
with processes(torch.device("cpu")):
    torch.manual_seed(0)
    model = tiny()
    model[4] = torch.nn.Identity()
    results = list(finetune(model, data, FinetuneOptions(**options)))
    losses = [result.train_loss for result in results]
    ended = {"state": model.state_dict(), "losses": losses, "decoded": sum(seen)}
    torch.save(ended, f"{out}/{os.environ['RANK']}.pt")
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


def test_each_process_decodes_its_own_part(ended):
    counts = [process["decoded"] for process in ended]
    one = 2 * 64  # two epochs, and two pictures that the network is laid out by
    assert sum(counts) == pytest.approx(one, abs=6)
    assert max(counts) < 0.6 * one


def test_one_process_is_alone(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with processes(CPU) as is_first:
        assert is_first
    model = tiny()
    before = model[1].running_mean.clone()
    average_buffers(accelerator_on(CPU, "float32"), model)
    assert torch.equal(model[1].running_mean, before)


def test_one_training_after_another_has_its_own_precision():
    assert accelerator_on(CPU, "bfloat16").mixed_precision == "bf16"
    assert accelerator_on(CPU, "float32").mixed_precision == "no"
    with pytest.raises(RsdtrError, match="float16 is for GPUs: give bfloat16, or float32"):
        accelerator_on(CPU, "float16")


def test_a_group_that_is_not_there_is_one_sentence(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with (
        pytest.raises(RsdtrError, match=r"the other processes were not found .*torchrun"),
        processes(CPU),
    ):
        pass

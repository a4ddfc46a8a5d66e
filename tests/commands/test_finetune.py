"""rsdtr finetune: what cannot be had together is one sentence before anything is read."""

import torch
from click.testing import CliRunner

from rsdtr.commands import options
from rsdtr.commands.cli import cli


def test_a_job_on_a_gpu_is_refused_and_not_trained_on_the_cpu_in_silence(monkeypatch):
    monkeypatch.setattr(options, "chosen_device", lambda word: torch.device("cuda", 1))
    words = ["finetune", "nowhere", "--data", "digits", "--epochs", "1", "--job"]
    asked = CliRunner().invoke(cli, [*words, "--device", "cuda:1"])
    assert asked.exit_code == 2
    assert "--job trains on the CPU, and --device is cuda:1: leave one of them out" in asked.stderr
    assert "--device" not in CliRunner().invoke(cli, words).stderr

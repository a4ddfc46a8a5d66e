"""Kept trials: what is written comes back, what is damaged counts as none, and old ones go."""

import os

import pytest
import torch
from torch import nn

from rsdtr.autopilot import trials_on_disk
from rsdtr.autopilot.trials_on_disk import KeptTrials, Record
from rsdtr.measuring.paired import Drop


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RSDTR_CACHE", str(tmp_path))
    return tmp_path


def record(points):
    return Record(drop=Drop(points, (points - 1, points + 1), 180), seconds=3.5)


def test_a_trial_comes_back_as_it_was():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    kept = KeptTrials.of("weights, images")
    assert kept.read("PCR 4") is None
    kept.write("PCR 4", record(0.5), model)
    found, state = KeptTrials.of("weights, images").read("PCR 4")
    assert found == record(0.5)
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert KeptTrials.of("other weights").read("PCR 4") is None
    assert kept.read("PCR 5") is None


@pytest.mark.parametrize("damage", [b"", b"no safetensors", None])
def test_a_damaged_one_counts_as_none_and_is_written_anew(cache, caplog, damage):
    kept = KeptTrials.of("weights")
    kept.write("PCR 4", record(0.5), nn.Linear(2, 2))
    (path,) = cache.glob("trials/*/*.safetensors")
    path.write_bytes(path.read_bytes()[:-3] if damage is None else damage)
    assert kept.read("PCR 4") is None
    assert "is no trial" in caplog.text
    kept.write("PCR 4", record(0.5), nn.Linear(2, 2))
    assert kept.read("PCR 4") is not None


def test_the_oldest_go_where_all_take_too_much_but_the_newest_stays(cache, monkeypatch):
    kept = KeptTrials.of("weights")
    for age, name in ((30, "PCR 2"), (20, "PCR 3")):
        before = set(cache.glob("trials/*/*"))
        kept.write(name, record(0.5), nn.Linear(50, 50))
        (new,) = set(cache.glob("trials/*/*")) - before
        os.utime(new, (1e9 - age, 1e9 - age))
    monkeypatch.setattr(trials_on_disk, "MOST_BYTES", 2 * new.stat().st_size)
    KeptTrials.of("others").write("PCR 4", record(0.5), nn.Linear(50, 50))
    assert kept.read("PCR 2") is None
    assert kept.read("PCR 3") is not None
    monkeypatch.setattr(trials_on_disk, "MOST_BYTES", 1)
    kept.write("PCR 5", record(0.5), nn.Linear(50, 50))
    assert len(list(cache.glob("trials/*/*"))) == 1
    assert kept.read("PCR 5") is not None


def test_a_disk_that_takes_nothing_is_a_line_in_the_log(cache, caplog):
    (cache / "trials").write_text("in the way")
    KeptTrials.of("weights").write("PCR 4", record(0.5), nn.Linear(2, 2))
    assert "cannot be written" in caplog.text

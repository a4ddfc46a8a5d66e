"""Weights that are unpickled: what comes back, what is refused, and within which limits."""

import os
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from rsdtr.errors import WeightsError
from rsdtr.models import pth_reader, weights
from rsdtr.models.weights import read_state_dict
from rsdtr.system.safetensors_format import DTYPES
from tests.support.hostile import Malicious


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("RSDTR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "converted"


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.uint16])
def test_types_that_no_network_has_are_refused_by_the_files_own_name(tmp_path, cache, dtype):
    torch.save({"w": torch.ones(3).to(dtype)}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"a\.pth holds tensors of a type that no network here"):
        read_state_dict(tmp_path / "a.pth")
    assert set(DTYPES.values()) == pth_reader.READ


def test_what_only_the_header_refuses_is_said_of_the_file_that_was_given(tmp_path, cache):
    torch.save({"w": torch.ones((1,) * 9)}, tmp_path / "a.pth")
    with pytest.raises(
        WeightsError, match=r"/a\.pth cannot be read: .* shape .* is none"
    ) as caught:
        read_state_dict(tmp_path / "a.pth")
    assert caught.value.source == tmp_path / "a.pth"
    assert str(caught.value) == f"{caught.value.source} {caught.value.reason}"


def test_a_file_is_converted_once_and_kept_private(tmp_path, cache, monkeypatch):
    state = OrderedDict({"module.w": torch.arange(6.0).view(2, 3), "module.n": torch.tensor(3)})
    state["module.tied"] = state["module.w"].t()
    torch.save({"state_dict": state}, tmp_path / "a.pth")
    found = read_state_dict(tmp_path / "a.pth")
    assert {name: value.tolist() for name, value in found.items()} == {
        "module.w": [[0, 1, 2], [3, 4, 5]], "module.n": 3,
        "module.tied": [[0, 3], [1, 4], [2, 5]],
    }  # fmt: skip
    assert [file.suffix for file in cache.iterdir()] == [".safetensors"]
    assert os.name == "nt" or cache.stat().st_mode & 0o777 == 0o700
    monkeypatch.setattr(weights, "run", None)  # a second process would fail
    assert read_state_dict(tmp_path / "a.pth").keys() == found.keys()


def test_the_versions_of_modules_survive(tmp_path, cache):
    torch.save(torch.nn.BatchNorm2d(3).state_dict(), tmp_path / "a.pth")
    assert read_state_dict(tmp_path / "a.pth")._metadata == {"": {"version": 2}}


def test_no_code_is_run(tmp_path, cache):
    torch.save({"w": torch.zeros(2), "x": Malicious(tmp_path / "ran")}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"a\.pth cannot be read: give a \.safetensors"):
        read_state_dict(tmp_path / "a.pth")
    assert not (tmp_path / "ran").exists()
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize(
    ("member", "message"),
    [
        ("archive/constants.pkl", "is a TorchScript archive, which carries code: give"),
        ("archive/code/__torch__.py", "is a TorchScript archive"),
        ("archive/archive_format", "is a torch.export archive, which carries a program"),
        ("archive/models/model.json", "is a torch.export archive"),
    ],
)
def test_archives_with_programs_are_refused(tmp_path, cache, member, message):
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr(member, "x")
    with pytest.raises(WeightsError, match=message):
        read_state_dict(tmp_path / "a.pt")


def test_an_archive_that_unpacks_to_more_is_refused(tmp_path, cache):
    with zipfile.ZipFile(tmp_path / "a.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 20))
    with pytest.raises(WeightsError, match="unpacks to more bytes than it has"):
        read_state_dict(tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1], "holds no state_dict"),
        ({"w": torch.zeros(1).expand(1 << 30)}, "views of more bytes than it has"),
        ({"w": torch.zeros(2, dtype=torch.complex64)}, "holds sparse, quantised or complex"),
    ],
)
def test_contents_that_are_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(pth_reader.Refused, match=message):
        pth_reader.tensors(tmp_path / "a.pth")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system has no such limits")
def test_memory_is_bounded():
    """A process that is limited for a file of one byte cannot take two gigabytes."""
    script = (
        f"import sys, torch; sys.path.insert(0, {str(Path(pth_reader.__file__).parent)!r})\n"
        "import pth_reader; pth_reader.limit(1)\n"
        "torch.zeros(1 << 26)\n"
        "print('256 MB', flush=True)\n"
        "torch.zeros(1 << 29)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "256 MB\n"
    assert done.returncode != 0
    assert "allocate" in done.stderr


def test_a_reading_that_never_ends(tmp_path, cache, monkeypatch):
    def forever(command: list[str], seconds: float, **options: object) -> None:
        assert seconds == 300
        raise TimeoutError

    torch.save({"w": torch.zeros(1)}, tmp_path / "a.pth")
    monkeypatch.setattr(weights, "run", forever)
    with pytest.raises(WeightsError, match="could not be read within 300 s"):
        read_state_dict(tmp_path / "a.pth")
    assert list(cache.iterdir()) == []


def test_only_a_few_converted_files_stay(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(weights, "_MOST_CONVERTED", 1)
    for number in range(2):
        torch.save({"w": torch.full((2,), float(number))}, tmp_path / "a.pth")
        assert read_state_dict(tmp_path / "a.pth")["w"][0] == number
    assert len(list(cache.iterdir())) == 1

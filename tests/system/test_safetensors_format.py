"""The header of a safetensors file: what is read, and every way in which it can be refused."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file

from rsdtr.errors import WeightsError
from rsdtr.system.safetensors_format import MOST_HEADER_BYTES, not_finite, read_header

F32 = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}


def written(folder: Path, content: object, data: bytes = bytes(24)) -> Path:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    path = folder / "own.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def test_a_file_that_the_library_wrote_is_read(tmp_path):
    tensors = {
        "b": torch.zeros(2, 3), "a": torch.ones(4, dtype=torch.bfloat16),
        "empty": torch.zeros(0, 5), "count": torch.tensor(7),
    }  # fmt: skip
    save_file(tensors, tmp_path / "own.safetensors", {"versions": "{}"})
    header = read_header(tmp_path / "own.safetensors")
    assert {name: list(entry.shape) for name, entry in header.entries.items()} == {
        "b": [2, 3], "a": [4], "empty": [0, 5], "count": [],
    }  # fmt: skip
    assert header.metadata == {"versions": "{}"}
    assert not_finite(tmp_path / "own.safetensors", header) == []


@pytest.mark.parametrize(
    ("content", "data", "message"),
    [
        (b"{", bytes(24), "header cannot be 1 bytes long"),
        (b"[1]", bytes(24), "the whole text: Input should be an object"),
        (b"[" * 9000, bytes(24), "the whole text: Invalid JSON: recursion limit"),
        (b'{"w": \xff\xff}', bytes(24), "the whole text: Invalid JSON"),
        ({"w": F32 | {"dtype": "C64"}}, bytes(24), "w: .*dtype 'C64' is not one of BOOL, U8"),
        ({"w": F32 | {"shape": [2, -3]}}, bytes(24), r"w: .*shape \(2, -3\) is none"),
        ({"w": F32 | {"shape": [1 << 40]}}, bytes(24), "w: .*is none"),
        ({"w": F32 | {"shape": [2.5]}}, bytes(24), "w.shape.0: Input should be a valid integer"),
        ({"w": F32 | {"shape": [1] * 9}}, bytes(24), "w.shape: .*at most 8 items"),
        ({"w": F32 | {"shape": [2, 2]}}, bytes(24), r"24 bytes do not hold F32 \(2, 2\)"),
        ({"w": F32 | {"code": "rm"}}, bytes(24), "w.code: Extra inputs"),
        ({"w": F32, "v": F32}, bytes(24), "v begins at byte 0, not 24"),
        ({"w": F32 | {"data_offsets": [8, 32]}}, bytes(32), "w begins at byte 8, not 0"),
        ({"w": F32}, bytes(23), "it has 96 bytes where its header says 97"),
        ({"w": F32}, bytes(25), "it has 98 bytes where its header says 97"),
        ({"w": F32, "__metadata__": {"a": 1}}, bytes(24), "a: Input should be a valid string"),
    ],
)  # fmt: skip
def test_headers_that_are_refused(tmp_path, content, data, message):
    with pytest.raises(WeightsError, match=rf"own\.safetensors cannot be read.*{message}"):
        read_header(written(tmp_path, content, data))


def test_a_long_header_is_refused_unread(tmp_path):
    path = tmp_path / "own.safetensors"
    path.write_bytes((MOST_HEADER_BYTES + 1).to_bytes(8, "little"))
    with path.open("ab") as file:
        file.truncate(MOST_HEADER_BYTES + 100)
    with pytest.raises(WeightsError, match="cannot be 16,777,217 bytes long"):
        read_header(path)
    path.write_bytes(b"short")
    with pytest.raises(WeightsError, match="its header cannot be"):
        read_header(path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_values_that_are_no_numbers_are_found_in_the_file(tmp_path, dtype, value, monkeypatch):
    monkeypatch.setattr("rsdtr.system.safetensors_format._BLOCK", 4)
    tensors = {name: torch.zeros(3, 5, dtype=dtype) for name in ("fine", "bad", "also")}
    tensors["bad"][2, 4] = value
    path = tmp_path / "own.safetensors"
    path.write_bytes(save(tensors | {"steps": torch.tensor(3)}))
    assert not_finite(path, read_header(path)) == ["bad"]

"""The header of a safetensors file: what is read, and every way in which it can be refused."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file

from rsdtr.errors import WeightsError
from rsdtr.system.safetensors_format import (
    MOST_HEADER_BYTES,
    MOST_TENSORS,
    not_finite,
    read_header,
)

F32 = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
EMPTY = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}


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
    assert not_finite(tmp_path / "own.safetensors") == []


@pytest.mark.parametrize(
    ("content", "data", "message"),
    [
        (b"{", bytes(24), "invalid JSON in header: EOF"),
        (b"[1]", bytes(24), "invalid JSON in header: invalid type: sequence"),
        (b"[" * 9000, bytes(24), "invalid JSON in header"),
        (b'{"w": \xff\xff}', bytes(24), "invalid UTF-8 in header"),
        ({"w": F32 | {"dtype": "C64"}}, bytes(24), "invalid shape, data type, or offset"),
        ({"w": F32 | {"dtype": "U16", "shape": [12]}}, bytes(24), "w: dtype U16 is not one"),
        ({"w": F32 | {"shape": [2, -3]}}, bytes(24), "invalid value: integer `-3`"),
        ({"w": F32 | {"shape": [1 << 40]}}, bytes(24), "invalid shape, data type, or offset"),
        ({"w": EMPTY | {"shape": [0, 1 << 40]}}, b"", r"w: shape \(0, 1099511627776\) is none"),
        ({"w": EMPTY | {"shape": [1 << 63, 2, 0]}}, b"", "overflow computing buffer size"),
        ({"w": F32 | {"shape": [2.5]}}, bytes(24), "invalid type: floating point `2.5`"),
        ({"w": EMPTY | {"shape": [0] * 9}}, b"", r"w: shape \(0, 0, .* is none"),
        ({"w": F32 | {"shape": [2, 2]}}, bytes(24), "invalid shape, data type, or offset"),
        ({"w": F32, "v": F32}, bytes(24), "invalid offset for tensor `[vw]`"),
        ({"w": F32 | {"data_offsets": [8, 32]}}, bytes(32), "invalid offset for tensor `w`"),
        ({"w": F32}, bytes(23), "incomplete metadata, file not fully covered"),
        ({"w": F32}, bytes(25), "incomplete metadata, file not fully covered"),
        ({"w": F32, "__metadata__": {"a": 1}}, bytes(24), "invalid type: integer `1`"),
        ({f"n{k}": EMPTY for k in range(MOST_TENSORS + 1)}, b"", "it holds 100,001 tensors"),
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
    assert not_finite(path) == ["bad"]

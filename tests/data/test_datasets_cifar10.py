"""CIFAR-10: as it is published, and files of it that are missing or broken."""

import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torchvision
from PIL import Image

from rsdtr.data.datasets import load_data
from rsdtr.errors import DataError
from rsdtr.models.zoo import CIFAR10_CLASSES, model_spec
from tests.support.data_on_disk import bomb, parts

CIFAR10 = model_spec("cifar10_resnet20")


def test_cifar10_from_parquet_is_the_official_one(offline: Path) -> None:
    splits = load_data(None, CIFAR10)
    assert [len(part) for part in parts(splits)] == [45_000, 5_000, 10_000]
    assert splits.test.labels[:8].tolist() == [3, 8, 8, 0, 6, 6, 1, 6]  # cat, ship, ship, plane…
    assert splits.test.labels.bincount().tolist() == [1000] * 10
    train = torch.cat([splits.train._indices, splits.validation._indices])
    assert torch.equal(train.sort().values, torch.arange(50_000))
    first = splits.test.pixels([0])
    assert first.shape == (1, 3, 32, 32)
    assert first[0, :, 0, 0].tolist() == [158, 112, 49]  # the published first test picture
    assert torch.equal(splits.test.subset(50).pixels([3]), splits.test.subset(50).pixels([3]))


def _write_parquet(folder: Path, split: str, pictures: list[bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    img = [{"bytes": content, "path": None} for content in pictures]
    labels = [number % 10 for number in range(len(pictures))]
    pq.write_table(
        pa.table({"img": img, "label": labels}), folder / f"{split}-00000-of-00001.parquet"
    )


def _png(colour: tuple[int, int, int]) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (32, 32), colour).save(file, "PNG")
    return file.getvalue()


def test_parquet_rows_are_decoded_once_and_broken_ones_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RSDTR_DATA", str(tmp_path))
    _write_parquet(tmp_path / "cifar10", "train", [_png((n, 2, 3)) for n in range(20)])
    _write_parquet(tmp_path / "cifar10", "test", [_png((7, 8, 9)), b"broken"])
    splits = load_data("cifar10", CIFAR10)
    assert [len(part) for part in parts(splits)] == [18, 2, 2]
    assert splits.test.pixels([0])[0, :, 5, 5].tolist() == [7, 8, 9]
    assert splits.train.pixels([3, 3])[:, 0, 0, 0].tolist() == [int(splits.train._indices[3])] * 2
    with pytest.raises(DataError, match=r"picture 1 of .*cifar10 cannot be read .*download"):
        splits.test.pixels([0, 1])
    with pytest.raises(DataError, match="picture 1 of"):
        list(splits.test.batches(2))


def test_parquet_files_that_are_missing_or_unreadable_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RSDTR_DATA", str(tmp_path))
    _write_parquet(tmp_path / "cifar10", "train", [_png((1, 2, 3))] * 10)
    with pytest.raises(DataError, match=r"cifar10 has no test-\*\.parquet: put CIFAR-10's"):
        load_data("cifar10", CIFAR10)
    (tmp_path / "cifar10" / "test-00000-of-00001.parquet").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"test-00000-of-00001\.parquet cannot be read .*again"):
        load_data("cifar10", CIFAR10)


def test_without_parquet_cifar10_is_torchvisions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, bool]] = []

    def stand_in(root: str, train: bool, download: bool) -> SimpleNamespace:
        asked.append((root, train))
        count = 50 if train else 10
        data = np.zeros((count, 32, 32, 3), np.uint8)
        data[:, 1, 2] = (7, 8, 9)
        return SimpleNamespace(data=data, targets=[n % 10 for n in range(count)])

    monkeypatch.delenv("RSDTR_DATA", raising=False)
    monkeypatch.setenv("RSDTR_CACHE", str(tmp_path))
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", stand_in)
    splits = load_data("cifar10", CIFAR10)
    assert asked == [(str(tmp_path / "data"), True), (str(tmp_path / "data"), False)]
    assert [len(part) for part in parts(splits)] == [45, 5, 10]
    assert splits.test.pixels([4])[0, :, 1, 2].tolist() == [7, 8, 9]
    assert splits.test.classes == CIFAR10_CLASSES


def test_no_network_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RSDTR_DATA", raising=False)
    monkeypatch.setenv("RSDTR_CACHE", str(tmp_path))
    unreachable = "http://127.0.0.1:9/cifar-10-python.tar.gz"
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", unreachable)
    with pytest.raises(
        DataError, match=r"not be downloaded \(.*refused.*: put .*RSDTR_DATA"
    ) as caught:
        load_data("cifar10", CIFAR10)
    assert "\n" not in str(caught.value)


def parquet(folder: Path, **columns: object) -> None:
    (folder / "cifar10").mkdir(exist_ok=True)
    table = pa.table({"img": [{"bytes": b"no", "path": ""}] * 3, "label": [0, 1, 2]} | columns)
    for split in ("train", "test"):
        pq.write_table(table, folder / "cifar10" / f"{split}-0.parquet")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": [0, 1, None]}, "1 pictures have no label"),
        ({"label": [0, 1, 10]}, "labels are 0 to 10, expected 0 to 9"),
        ({"label": [0, 1, -1]}, "labels are -1 to 1, expected 0 to 9"),
        ({"label": ["a", "b", "c"]}, r"cannot be read \("),
    ],
)
def test_parquet_labels_that_are_none(tmp_path: Path, monkeypatch, columns, message) -> None:
    monkeypatch.setenv("RSDTR_DATA", str(tmp_path))
    parquet(tmp_path, **columns)
    with pytest.raises(DataError, match=message):
        load_data("cifar10", CIFAR10)


def test_parquet_pictures_that_are_none(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("RSDTR_DATA", str(tmp_path))
    bomb(tmp_path / "bomb.png")
    one = io.BytesIO()
    Image.new("RGB", (1, 1)).save(one, "PNG")
    for content in (b"no", (tmp_path / "bomb.png").read_bytes(), None, one.getvalue()):
        parquet(tmp_path, img=[{"bytes": content, "path": ""}] * 3)
        with pytest.raises(DataError, match=r"picture 0 of .* cannot be read"):
            load_data("cifar10", CIFAR10).test.pixels([0])
    parquet(tmp_path, img=["no struct"] * 3)
    with pytest.raises(DataError, match=r"picture 0 of .* cannot be read"):
        load_data("cifar10", CIFAR10).test.pixels([0])
    monkeypatch.setattr("rsdtr.data.image_sources._KEEP_BYTES", 5000)
    with pytest.raises(DataError, match="says that it holds 3 pictures in"):
        load_data("cifar10", CIFAR10)

"""Pictures and folders of them, for the tests of what a model gets to see."""

import io
import struct
import zlib
from pathlib import Path

from PIL import Image

from rsdtr.data.datasets import DataSplits, LabelledImages


def picture(
    path: Path, colour: int | tuple[int, int, int], size: tuple[int, int] = (32, 32)
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = "L" if isinstance(colour, int) else "RGB"
    Image.new(mode, size, colour).save(path)


def class_folders(root: Path, classes: list[str], each: int) -> Path:
    """`each` one-coloured pictures per class; the colour is (class, picture, 0)."""
    for label, name in enumerate(classes):
        for number in range(each):
            picture(root / name / f"{number}.png", (label, number, 0))
    return root


def parts(splits: DataSplits) -> list[LabelledImages]:
    return [splits.train, splits.validation, splits.test]


def bomb(path: Path) -> None:
    """A PNG of 70 bytes that says it has 100,000 × 100,000 pixels."""
    whole = io.BytesIO()
    Image.new("L", (1, 1)).save(whole, "PNG")
    content = bytearray(whole.getvalue())
    content[16:24] = struct.pack(">II", 100_000, 100_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)

"""Seeded mutations of what the parsers read, and the parsers: what they may answer with.

    python -m tests.soak.mutations N      N mutations of each, as `make soak` does

A parser may return or raise an RsdtrError. Anything else, or more than a second, is a finding.
"""

from __future__ import annotations

import io
import logging
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.torch
import torch
from PIL import Image

from rsdtr.compressed.manifest import MANIFEST, WEIGHTS, new_manifest, read_manifest
from rsdtr.data.datasets import _cifar10_parquet
from rsdtr.data.image_sources import FilePictures, obstacle
from rsdtr.errors import RsdtrError
from rsdtr.measuring.layer_times import DeviceProfile, FormTime, LayerCase, LayerTimes
from rsdtr.models.model_loading import load_model
from rsdtr.models.weights import read_state_dict
from rsdtr.models.zoo import model_spec
from rsdtr.planning.model_profile import profile
from rsdtr.planning.plan import CompressionPlan, plan
from rsdtr.ring.forms import FORMS
from rsdtr.ui.plan import layer_overrides
from rsdtr.ui.shared import address

MOST_SECONDS = 1.0
BATCH = 10_000  # mutations between two lines of a long run
Parser = Callable[[bytes], object]
_SPEC = model_spec("digits_resnet20")
_NASTY = (
    b"\x00", b"\xff" * 8, b"-1", b"1e400", b"NaN", b"[" * 2000, b'{"a":' * 500, b"null", b'"',
    b"9" * 30, b"\xed\xa0\x80", b"../", b"true", b"0.5", "ε".encode(), b"%00", b"\r\n",
)  # fmt: skip


def mutated(content: bytes, generator: random.Random) -> bytes:
    """Up to four changes: a bit, a cut, a copy, a swap, or something nasty in a random place."""
    found = bytearray(content)
    for _ in range(generator.randint(1, 4)):
        place = generator.randrange(len(found) + 1)
        end = min(len(found), place + generator.randint(1, 40))
        kind = generator.randrange(5)
        if kind == 0 and place < len(found):
            found[place] ^= 1 << generator.randrange(8)
        elif kind == 1:
            del found[place:end]
        elif kind == 2:
            found[place:place] = found[place:end] * generator.randint(1, 3)
        elif kind == 3:
            other = generator.randrange(len(found) + 1)
            found[place:end], found[other:other] = b"", bytes(found[place:end])
        else:
            found[place : generator.choice((place, end))] = generator.choice(_NASTY)
    return bytes(found)


def parsers(folder: Path) -> dict[str, tuple[list[bytes], Parser]]:
    """By name: valid contents, and what reads a mutated one. All files are written to `folder`."""
    dense = load_model(_SPEC.name)
    decided = plan(profile(dense, _SPEC), 0.7, layers=["layer3.2.*"])
    (folder / WEIGHTS).write_bytes(safetensors.torch.save({"w": torch.ones(3, 2)}))
    sealed = new_manifest(folder, [WEIGHTS], decided, {"accuracy": 97.5})
    case = LayerCase(
        shape=(8, 8, 3, 3), ranks=(1, 2, 3, 2), stride=(1, 1), padding=(1, 1), input_size=(8, 8),
        batch=1, threads=1,
    )  # fmt: skip
    forms = tuple(FormTime(form=form, median_ms=1.5, iqr_ms=0.1, best_ms=1.0) for form in FORMS)
    device = DeviceProfile(machine="m", layers=(LayerTimes(case=case, forms=forms),))
    pictures = []
    for kind, mode in (("PNG", "RGB"), ("JPEG", "L"), ("GIF", "P"), ("BMP", "RGB"), ("TIFF", "L")):
        file = io.BytesIO()
        Image.new(mode, (19, 17), 77).save(file, kind)
        pictures.append(file.getvalue())
    parquet = io.BytesIO()
    square = io.BytesIO()
    Image.new("RGB", (32, 32), 77).save(square, "PNG")
    images = [{"bytes": square.getvalue(), "path": "a.png"}] * 3
    pq.write_table(pa.table({"img": images, "label": [0, 1, 2]}), parquet)

    def at(name: str, read: Callable[[Path], object]) -> Parser:
        def parse(content: bytes) -> object:
            (folder / name).write_bytes(content)
            return read(folder / name)

        return parse

    def picture(path: Path) -> object:
        if obstacle(path, folder) is None:
            return FilePictures([path], _SPEC).pixels(torch.tensor([0]))
        return None

    def query(content: bytes) -> object:
        text = content.decode("utf-8", "replace")
        return (
            address.number(0.02, 0.95, 2)(text),
            address.one_of([_SPEC.name])(text),
            layer_overrides.parse(text, ["layer1.0.conv1", "conv1"]),
        )

    return {
        "safetensors": (
            [safetensors.torch.save({"w": torch.ones(3, 2), "n": torch.tensor(3)}, {"a": "b"})],
            at("own.safetensors", read_state_dict),
        ),
        "manifest": ([sealed.text], at(MANIFEST, lambda path: read_manifest(path.parent))),
        "plan": ([decided.model_dump_json().encode()], CompressionPlan.from_json),
        "device profile": (
            [device.model_dump_json().encode()],
            at("device.json", DeviceProfile.load),
        ),
        "url": ([b"0.6", b"layer1.0.conv1:0.4,conv1:dense", b"digits_resnet20"], query),
        "parquet": (
            [parquet.getvalue()],
            at(
                "train-0.parquet",
                lambda path: _cifar10_parquet(path.parent, "train", _SPEC).pixels(slice(None)),
            ),
        ),
        "picture": (pictures, at("a.png", picture)),
    }


def findings(name: str, known: tuple[list[bytes], Parser], count: int, seed: int = 0) -> list[str]:
    """What `count` mutations made the parser do that it may not."""
    contents, parse = known
    generator = random.Random(f"{name} {seed}")
    found = []
    for number in range(count):
        content = mutated(generator.choice(contents), generator)
        started = time.process_time()  # a busy machine is no finding
        try:
            parse(content)
        except RsdtrError:
            pass
        except Exception as error:
            found.append(f"{name} {number}: {type(error).__name__}: {error} on {content[:200]!r}")
        if (seconds := time.process_time() - started) > MOST_SECONDS:
            found.append(f"{name} {number}: {seconds:.1f} s on {content[:200]!r}")
    return found


def main(count: int, *names: str) -> None:
    logging.disable()
    worst = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, known in parsers(Path(folder)).items():
            if names and name not in names:
                continue
            for first in range(0, count, BATCH):
                started = time.perf_counter()
                found = findings(name, known, min(BATCH, count - first), seed=first)
                worst += len(found)
                most = psutil.Process().memory_info().rss >> 20
                done, seconds = min(first + BATCH, count), time.perf_counter() - started
                print(f"{name}: {done:,}, {seconds:.0f} s, {len(found)} findings, {most} MB now")
                print(*found[:5], sep="\n", end="\n" if found else "", flush=True)
    sys.exit(bool(worst))


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])

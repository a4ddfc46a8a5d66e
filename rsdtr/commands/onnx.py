"""What plan, compress and verify do with an ONNX file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from rsdtr.commands.console import emit, emit_json, plan_table, progress, table
from rsdtr.commands.inputs import decide
from rsdtr.onnx_files.network_inputs import network_inputs
from rsdtr.onnx_files.onnx_file import SUFFIX
from rsdtr.onnx_files.onnx_network import OnnxNetwork, read_onnx
from rsdtr.onnx_files.smaller_onnx import smaller_onnx
from rsdtr.onnx_files.value_shapes import leaves_open
from rsdtr.onnx_files.verify_onnx import verify_onnx
from rsdtr.planning.choices import Choices
from rsdtr.planning.plan import CompressionPlan
from rsdtr.planning.winners_on_disk import load_winners, save_winners
from rsdtr.ring.cost import Size

JUDGED = 100  # inputs that fidelity is measured on, where no refit holds some out
RANDOM = 16  # where there are only random ones


def check_without_images(calibrate: int | None, data: str | None) -> None:
    """A usage error for what an ONNX file is not planned with."""
    if calibrate is not None or data is not None:
        raise click.UsageError(
            "--calibrate measures damage in torch, and plan reads no --data without it: leave both "
            "for an ONNX file"
        )


def check_no_size(size: Size | None, pictures: Mapping[str, Any] | None = None) -> None:
    """A usage error where an option is given that only ONNX files have."""
    if size is not None or any((pictures or {}).values()):
        raise click.UsageError(
            "--input-size, --mean, --std and --bgr are for ONNX files: other models have their own"
        )


def plan_onnx(path: str, choices: Choices, size: Size | None, as_json: bool) -> None:
    """Print the plan of an ONNX file."""
    _, decided = _planned(path, choices, size)
    if as_json:
        emit_json(decided.model_dump_json(indent=1))
    else:
        click.echo(plan_table(decided))


def compress_onnx_file(
    path: str, choices: Choices, size: Size | None, out: str | None, images: int | None,
    batch: int | None, data: str | None, pictures: dict[str, Any], as_json: bool,
) -> None:  # fmt: skip
    """Write an ONNX file whose layers are rings, refit on so many images if any, and proved."""
    place = _place(path, out)
    network, decided = _planned(path, choices, size)
    wanted = images or (JUDGED if data is not None else RANDOM)
    with progress("reading the inputs" if data is not None else "making random inputs"):
        inputs = network_inputs(network, data, wanted, **pictures)
    small = smaller_onnx(network, decided, inputs, progress, refit=images is not None, batch=batch)
    for warning in small.warnings:
        click.echo(f"warning: {warning}", err=True)
    size_now = small.save(place)
    if as_json:
        sizes = {"original": network.bytes, "compressed": size_now}
        emit(small.record() | {"out": str(place), "bytes": sizes})
        return
    plan, judged = small.compressed.plan, small.judged
    refitted = "" if small.before is None else f" (before the refit: {small.before})"
    times = ", ".join(
        f"{one.original_ms:.3g} → {one.compressed_ms:.3g} ms ({one.ratio:.2f}) at batch {one.batch}"
        for one in small.latency
    )
    click.echo(
        f"{place}: {plan.model} at {plan.label}, {network.bytes:,} → {size_now:,} bytes "
        f"({network.bytes / size_now:.2f} times smaller), PCR {plan.pcr:.3f}, as it runs "
        f"FCR {plan.fcr_run:.3f}\n"
        f"against {network.name} on {len(judged)} {judged.source}: {small.fidelity}{refitted}\n"
        f"in ONNX Runtime on one thread: {times}"
    )


def verify_onnx_file(
    place: str, against: str | None, data: str | None, size: Size | None,
    pictures: dict[str, Any], as_json: bool,
) -> None:  # fmt: skip
    """Check a compressed ONNX file, and compare its answers with the original's."""
    if against is None:
        raise click.UsageError(f"give --against with the {SUFFIX} file that {place} was made from")
    with progress(f"reading {against}"):
        original = read_onnx(against, size)
    inputs = network_inputs(original, data, JUDGED if data is not None else RANDOM, **pictures)
    with progress(f"verifying {place}"):
        said, alike = verify_onnx(place, original, inputs)
    if as_json:
        told = asdict(alike) | {"data": inputs.source}
        emit({"place": place, "against": against, "manifest": said, "fidelity": told})
        return
    rings = said["rings"]
    assert isinstance(rings, dict)
    rows = [(name, *map(str, ring)) for name, ring in rings.items()]
    click.echo(table(("layer", "shift", "ranks", "form"), rows))
    click.echo(
        f"{place}: no tensor was changed, and it has the inputs, outputs, opset and metadata of "
        f"{against}\non {len(inputs)} {inputs.source}: {alike}"
    )


def _planned(path: str, choices: Choices, size: Size | None) -> tuple[OnnxNetwork, CompressionPlan]:
    if choices.objective == "latency":
        raise click.UsageError(
            "--objective latency times layers in torch: for an ONNX file give compress --fast BATCH"
        )
    with progress(f"reading {path}"):
        network = read_onnx(path, size)
    if size is None and leaves_open(network.model):
        told = ", ".join("×".join(map(str, shape)) for shape in network.shapes.values())
        click.echo(
            f"{network.name} takes inputs of any size: costs are for {told} (--input-size)",
            err=True,
        )
    load_winners(network.profile)
    decided = decide(network.profile, choices)
    save_winners(network.profile)
    return network, decided


def _place(path: str, out: str | None) -> Path:
    if out is None:
        raise click.UsageError(f"give --out FILE{SUFFIX} for the compressed network")
    place = Path(out).expanduser()
    if place.suffix.lower() != SUFFIX:
        raise click.UsageError(f"--out is {out!r}: give a file that ends in {SUFFIX}")
    if not place.parent.is_dir():
        raise click.UsageError(f"--out: there is no folder {place.parent}: make it first")
    if place.exists() and place.samefile(Path(path).expanduser()):
        raise click.UsageError("--out is the given file itself: give another place")
    return place

"""What plan, compress and verify do with an ONNX file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from rsdtr.commands.console import emit, emit_json, plan_table, progress, table
from rsdtr.commands.inputs import decide
from rsdtr.measuring.fidelity import Fidelity
from rsdtr.onnx_files.answers import Answers, fidelity_of
from rsdtr.onnx_files.compress_onnx import CompressedOnnx, compress_onnx
from rsdtr.onnx_files.network_inputs import ENOUGH, NetworkInputs, network_inputs
from rsdtr.onnx_files.onnx_file import SUFFIX, write_model
from rsdtr.onnx_files.onnx_network import OnnxNetwork, read_onnx
from rsdtr.onnx_files.refit_onnx import refit_onnx
from rsdtr.onnx_files.value_shapes import leaves_open
from rsdtr.onnx_files.verify_onnx import prove, verify_onnx
from rsdtr.planning.choices import Choices
from rsdtr.planning.plan import CompressionPlan
from rsdtr.planning.winners_on_disk import load_winners, save_winners
from rsdtr.recovery.refit import refit_record
from rsdtr.ring.cost import Size

JUDGED = 100  # inputs that fidelity is measured on, where no refit holds some out
_RANDOM = 16  # where there are only random ones


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
    wanted = images or (JUDGED if data is not None else _RANDOM)
    with progress("reading the inputs" if data is not None else "making random inputs"):
        inputs = network_inputs(network, data, wanted, **pictures)
    with progress("computing the rings", "layers timed") as show:
        small = compress_onnx(network, decided, batch=batch, progress=show)
    judged, told = inputs, {}
    if images is not None:
        _warn(inputs)
        with progress(f"refitting on {inputs.source}", "layers") as show:
            refitted = refit_onnx(small, inputs, progress=show)
        small, judged = refitted.compressed, refitted.held_out
        told["refit"] = refit_record(inputs.source, len(inputs), refitted.steps)
        if not refitted.steps[-1].kept:
            click.echo(
                "the refit brought the graph's answers no closer to the original's on the inputs "
                "held out: nothing of it was kept",
                err=True,
            )
    small, alike = _with_fidelity(small, judged, bool(images))
    model = small.model()
    with progress("proving the graph"):
        proof = prove(small, model, judged)
    size_now = write_model(model, place)
    if as_json:
        content = small.plan.model_dump(mode="json")
        emit(
            content
            | {
                "out": str(place),
                "bytes": {"original": network.bytes, "compressed": size_now},
                "fidelity": _told_fidelity(alike, judged),
                "proof": asdict(proof),
            }
            | told
        )
        return
    click.echo(
        f"{place}: {decided.model} at {decided.label}, {network.bytes:,} → {size_now:,} bytes "
        f"({network.bytes / size_now:.2f} times smaller), PCR {decided.pcr:.3f}, as it runs "
        f"FCR {small.plan.fcr_run:.3f}\n"
        f"against {network.name} on {len(judged)} {judged.source}: {alike}"
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
    inputs = network_inputs(original, data, JUDGED if data is not None else _RANDOM, **pictures)
    with progress(f"verifying {place}"):
        said, alike = verify_onnx(place, original, inputs)
    if as_json:
        told = _told_fidelity(alike, inputs)
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


def _warn(inputs: NetworkInputs) -> None:
    if inputs.random:
        click.echo(
            "warning: refitting on random numbers, which no network was trained for: give --data "
            "with a folder of pictures, an .npz or an .npy file",
            err=True,
        )
    if len(inputs) < ENOUGH:
        click.echo(
            f"warning: refitting on {len(inputs)} inputs: with fewer than {ENOUGH} it may harm the "
            "network where it helps each layer",
            err=True,
        )


def _with_fidelity(
    small: CompressedOnnx, judged: NetworkInputs, refit: bool
) -> tuple[CompressedOnnx, Fidelity]:
    """The network, which tells how well it answers as the original does, and that."""
    with progress(f"comparing with {small.network.name}"):
        expected = Answers.of(small.network.model, judged)
        alike = fidelity_of(Answers.of(small.model(), judged), expected)
    if judged.random:
        click.echo(
            "warning: the answers are compared on random numbers, which tell little of real "
            "inputs: give --data",
            err=True,
        )
    return small.with_told(fidelity=_told_fidelity(alike, judged), refit=refit), alike


def _told_fidelity(alike: Fidelity, judged: NetworkInputs) -> dict[str, object]:
    return asdict(alike) | {"data": judged.source}

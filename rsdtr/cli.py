"""python -m rsdtr …: the library's words on the command line.

Results go to stdout, progress and warnings to stderr. Exit codes: see console.Commands.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import torch
from torch import nn

from rsdtr import options
from rsdtr.bench import ENGINES, checked_engines, layer_rows, network_rows, network_variants
from rsdtr.compress import compress as compressed
from rsdtr.console import Commands, emit, plan_table, progress, table
from rsdtr.damage import measure_damage
from rsdtr.data import load_data
from rsdtr.errors import UnknownName
from rsdtr.evaluate import accuracy, saved_bytes
from rsdtr.export import FORMATS
from rsdtr.export import export as exported
from rsdtr.fast import measured_forms, running_in
from rsdtr.plan import CompressionPlan
from rsdtr.profile import ModelProfile, profile
from rsdtr.profile_command import profile as profile_command
from rsdtr.recover import FinetuneOptions, recalibrate
from rsdtr.recover import finetune as finetuned
from rsdtr.saved import Saved, is_saved, load, save, writable_folder
from rsdtr.store import load_winners
from rsdtr.targets import Choices, Damage
from rsdtr.timing import Timing, machine
from rsdtr.zoo import ModelSpec, load_model, model_names, model_spec


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Tensor-ring compression of pretrained CNNs: plan, compress, recover, evaluate, export."""


@cli.command()
@options.json
def models(as_json: bool) -> None:
    """List the models of the zoo."""
    specs = [model_spec(name) for name in model_names()]
    if as_json:
        emit({"models": [_model_row(spec) for spec in specs]})
        return
    rows = [
        (spec.name, "×".join(map(str, spec.input_shape)), str(spec.classes), _weights_of(spec))
        for spec in specs
    ]
    click.echo(table(("model", "input", "classes", "weights"), rows))


def _model_row(spec: ModelSpec) -> dict[str, object]:
    return {
        "name": spec.name,
        "family": spec.family,
        "input_shape": list(spec.input_shape),
        "classes": spec.classes,
        "data": spec.data,
        "weights": _weights_of(spec),
        "source": spec.source,
    }


def _weights_of(spec: ModelSpec) -> str:
    if spec.bundled:
        return "bundled"
    return "download" if spec.weights_url else "own file"


@cli.command()
@click.argument("model")
@options.choices
@options.calibrate
@options.weights
@options.data
@options.json
def plan(
    model: str, choices: Choices, calibrate: int | None, weights: str | None,
    data: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Decide which ring every convolution of MODEL becomes; nothing is changed."""
    _data_is_read(data, calibrate)
    _, _, decided = _planned(model, choices, weights, calibrate, data)
    click.echo(decided.model_dump_json(indent=1) if as_json else plan_table(decided))


def _data_is_read(data: str | None, *readers: object) -> None:
    if data is not None and not any(readers):
        raise click.UsageError(
            "--data is what --calibrate and --recalibrate read: give one of them as well"
        )


def _planned(
    model: str,
    choices: Choices,
    weights: str | None,
    calibrate: int | None = None,
    data: str | None = None,
) -> tuple[nn.Module, ModelSpec, CompressionPlan]:
    if calibrate is not None and choices.target is None:
        raise click.UsageError("--calibrate measures damage for a target: give one, or leave it")
    spec = model_spec(model)
    network = _network(model, weights)
    costs = profile(network, spec)
    load_winners(costs)
    damage = None
    if calibrate is not None:
        train = load_data(data, spec).train
        with progress(f"measuring damage on {train.name}", "runs") as show:
            damage = measure_damage(
                network, costs, train, calibrate,
                rule=choices.rule, objective=choices.solved_objective, layers=choices.layers,
                progress=show,
            )  # fmt: skip
    return network, spec, _decided(costs, choices, damage)


def _network(model: str, weights: str | None) -> nn.Module:
    with progress(f"reading the weights of {model}", "bytes") as show:
        return load_model(model, weights, progress=show)


def _decided(
    costs: ModelProfile, choices: Choices, damage: Damage | None = None
) -> CompressionPlan:
    with progress(f"planning {costs.model}", "layers") as show:
        return choices.decide(costs, damage, show)


@cli.command()
@click.argument("model")
@options.choices
@options.calibrate
@options.weights
@options.data
@click.option("--out", required=True, metavar="DIR", help="Folder for the compressed model.")
@click.option(
    "--recalibrate",
    "images",
    type=click.IntRange(min=2),
    help="Re-estimate BatchNorm statistics from so many training images, without labels.",
)
@click.option(
    "--fast",
    "batch",
    type=click.IntRange(min=1),
    metavar="BATCH",
    help="Let each ring run in the form that is fastest on this machine for so many images, with "
    "two threads; what was not measured before is.",
)
def compress(
    model: str, choices: Choices, calibrate: int | None, weights: str | None,
    data: str | None, out: str, images: int | None, batch: int | None,
) -> None:  # fmt: skip
    """Compress MODEL and save it in a folder."""
    _data_is_read(data, calibrate, images)
    folder = writable_folder(out)
    dense, spec, decided = _planned(model, choices, weights, calibrate, data)
    if batch is not None:
        with progress(f"measuring forms at batch {batch}", "layers") as show:
            decided = measured_forms(decided, profile(dense, spec), batch=batch, progress=show)
    with progress("computing the rings"):
        network = compressed(dense, decided)
    metrics: dict[str, Any] = {}
    if images is not None:
        train = load_data(data, spec).train
        with progress(f"recalibrating on {train.name}", "images") as show:
            network = recalibrate(network, train, images, reference=dense, progress=show)
        metrics["recalibrated"] = {"data": train.name, "images": min(images, len(train))}
    save(network, decided, folder, metrics=metrics)
    click.echo(
        f"{folder}: {decided.model} at {decided.label}, "
        f"PCR {decided.pcr:.3f}, FCR {decided.fcr:.3f}"
        + (f" (as it runs: {decided.fcr_run:.3f})" if decided.fcr_run is not None else "")
    )


@cli.command()
@click.argument("model_or_dir")
@options.weights
@options.data
@click.option("--limit", type=click.IntRange(min=1), help="Look at so many test images only.")
@options.json
def evaluate(
    model_or_dir: str, weights: str | None, data: str | None, limit: int | None, as_json: bool
) -> None:
    """Top-1 accuracy on the test images, parameters, MACs and bytes of a model or saved folder."""
    network, spec, decided = _found(model_or_dir, weights)
    if decided is None:
        costs = profile(network, spec)
        params, macs = costs.params, costs.macs
    else:
        params, macs = decided.params.compressed, decided.macs.compressed
    test = load_data(data, spec).test
    test = test if limit is None else test.subset(limit)
    with progress(f"evaluating {spec.name} on {test.name}", "images") as show:
        reached = accuracy(network, test, progress=show)
    size = saved_bytes(network)
    if as_json:
        emit(
            {
                "model": spec.name,
                "data": test.name,
                "accuracy": reached.percent,
                "interval": list(reached.interval),
                "n": reached.n,
                "params": params,
                "macs": macs,
                "bytes": size,
            }
        )
        return
    low, high = reached.interval
    click.echo(
        f"{spec.name} on {test.name}: {reached.percent:.2f} % of {reached.n:,} images "
        f"(95 % interval {low:.2f} to {high:.2f}), {params:,} parameters, "
        f"{macs:,} MACs, {size:,} bytes"
    )


def _found(
    model_or_dir: str, weights: str | None
) -> tuple[nn.Module, ModelSpec, CompressionPlan | None]:
    """What a saved folder holds, with its plan, or else the model of that name."""
    path = Path(model_or_dir).expanduser()
    named = model_or_dir in model_names() or not (path.exists() or len(path.parts) > 1)
    if named and not is_saved(path):
        return _network(model_or_dir, weights), model_spec(model_or_dir), None
    if weights is not None:
        raise click.UsageError("--weights is for a model of the zoo: a saved folder has its own")
    saved = load(path)
    return saved.model, saved.spec, saved.plan


@cli.command()
@click.argument("folder", metavar="DIR")
@click.option(
    "--data",
    required=True,
    metavar="NAME_OR_DIR",
    help="digits, cifar10, or a folder of class folders.",
)
@click.option("--epochs", type=click.IntRange(min=1), required=True, help="How many.")
@click.option("--lr", default=FinetuneOptions.lr, show_default=True, help="Highest learning rate.")
@click.option("--seed", default=FinetuneOptions.seed, show_default=True, help="Of the shuffling.")
@click.option("--out", metavar="DIR", help="Folder for the result.  [default: DIR itself]")
@click.option(
    "--fast",
    is_flag=True,
    help="Train each ring in the form whose steps are fastest on this machine; what was not "
    "measured before is. The result may differ in the last digits.",
)
def finetune(
    folder: str, data: str, epochs: int, lr: float, seed: int, out: str | None, fast: bool
) -> None:
    """Train the compressed model in DIR further and save its best epoch (on validation images)."""
    options = FinetuneOptions(epochs=epochs, lr=lr, seed=seed)
    saved = load(folder)
    target = writable_folder(out or folder)
    splits = load_data(data, saved.spec)
    results = []
    with (
        _training_forms(saved, options.batch_size) if fast else nullcontext(),
        progress(f"fine-tuning {saved.spec.name} on {splits.train.name}", "steps") as show,
    ):
        for result in finetuned(
            saved.model, splits, options, on_step=lambda step, steps, _: show(step, steps)
        ):
            results.append(result)
            click.echo(
                f"epoch {result.epoch} of {result.epochs}: loss {result.train_loss:.4f}, "
                f"validation {result.validation.percent:.2f} %, {result.seconds:.1f} s",
                err=True,
            )
    metrics = saved.metrics | {
        "finetuned": {
            "data": splits.train.name,
            "options": asdict(options),
            "epochs": [asdict(result) for result in results],
        }
    }
    save(saved.model, saved.plan, target, metrics=metrics)
    best = max(result.validation.percent for result in results)
    click.echo(f"{target}: best validation accuracy {best:.2f} %")


@contextmanager
def _training_forms(saved: Saved, batch: int) -> Iterator[None]:
    found = profile(saved.spec.build(), saved.spec)
    with progress(f"measuring training steps at batch {batch}", "layers") as show:
        chosen = measured_forms(
            saved.plan, found, batch=batch, threads=torch.get_num_threads(), training=True,
            progress=show,
        )  # fmt: skip
    with running_in(saved.model, chosen):
        yield


@cli.command()
@click.argument("folder", metavar="DIR")
@click.option(
    "--format",
    "formats",
    type=click.Choice(FORMATS),
    multiple=True,
    required=True,
    help="May be repeated.",
)
@click.option("--out", required=True, metavar="DIR", help="Folder for the files.")
@options.data
@options.json
def export(folder: str, formats: Sequence[str], out: str, data: str | None, as_json: bool) -> None:
    """Write the model in DIR as files that a fresh process has read back and found equal."""
    saved = load(folder)
    images = load_data(data, saved.spec).test
    with progress(f"exporting {saved.spec.name}", "steps") as show:
        artefacts = exported(
            saved.model, saved.plan, images, formats, out, metrics=saved.metrics, progress=show
        )
    if as_json:
        emit(
            {
                "model": saved.spec.name,
                "artefacts": [asdict(item) | {"path": str(item.path)} for item in artefacts],
            }
        )
        return
    rows = [
        (
            str(item.path),
            f"{item.bytes:,}",
            "" if item.dense_bytes is None else f"{item.dense_bytes:,}",
            f"{item.max_difference:.1e}",
            f"{100 * item.argmax_agreement:.0f} % of {item.n}",
        )
        for item in artefacts
    ]
    header = ("file", "bytes", "dense model's", "largest difference of logits", "same class")
    click.echo(table(header, rows))


@cli.command()
@click.argument("model_or_dir")
@options.choices
@options.weights
@click.option("--batch", default="1", show_default=True, help="Batch sizes, as in 1,16.")
@click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True)
@click.option("--runs", type=click.IntRange(min=2), default=30, show_default=True)
@click.option(
    "--engine",
    "engines",
    multiple=True,
    default=("eager", "onnxruntime"),
    metavar="|".join(ENGINES),
    help="What runs the network; may be repeated.  [default: eager, onnxruntime]",
)
@click.option(
    "--scope",
    type=click.Choice(["network", "layers", "all"]),
    default="all",
    show_default=True,
    help="The whole network, each of its rings, or both.",
)
@options.json
def bench(
    model_or_dir: str, choices: Choices, weights: str | None, batch: str, threads: int,
    runs: int, engines: Sequence[str], scope: str, as_json: bool,
) -> None:  # fmt: skip
    """Time the dense network, the paper's pipeline, every form and the fastest, side by side.

    The forms of `auto` are chosen from this machine's device profile, which is measured first
    where it lacks a layer. Layers are timed eagerly.
    """
    try:
        batches = [int(text) for text in batch.split(",")]
    except ValueError:
        raise click.UsageError(f"--batch is {batch!r}: give whole numbers, as in 1,16") from None
    if min(batches) < 1:
        raise click.UsageError(f"--batch is {batch!r}: give batches of at least 1")
    engines = checked_engines(engines)
    dense, spec, decided = _found(model_or_dir, weights)
    if decided is None:
        costs = profile(dense, spec)
        load_winners(costs)
        decided = _decided(costs, choices)
        with progress("computing the rings"):
            ring = compressed(dense, decided)
    else:
        if choices != Choices():
            raise click.UsageError(
                "what decides a plan (--eps, --layers and so on) is for a model: a saved folder "
                "has a plan"
            )
        # How long a network takes does not depend on the values of its weights.
        ring, dense = dense, spec.build()
    found = profile(dense, spec)
    rows: list[Timing] = []
    for size in batches:
        with progress(f"measuring forms at batch {size}", "layers") as show:
            fast = measured_forms(decided, found, batch=size, threads=threads, progress=show)
        variants = network_variants(dense.eval(), ring.eval(), fast, found)
        if scope != "layers":
            for engine in engines:
                with progress(f"timing {spec.name} at batch {size} in {engine}"):
                    rows += network_rows(
                        variants, spec, engine, batch=size, runs=runs, threads=threads
                    )
        if scope != "network":
            with progress(f"timing its rings at batch {size}", "layers") as show:
                rows += layer_rows(
                    variants, found, batch=size, runs=runs, threads=threads, progress=show
                )
    if as_json:
        emit({"machine": machine(), "threads": threads, "rows": [asdict(row) for row in rows]})
        return
    click.echo(f"{spec.name} on {machine()}, {threads} threads, {runs} runs")
    dense_ms = {
        (row.scope, row.engine, row.batch): row.median_ms for row in rows if row.variant == "dense"
    }
    cells = [
        (
            row.scope,
            row.engine,
            str(row.batch),
            row.variant,
            f"{row.median_ms:.2f}",
            f"{row.iqr_ms:.2f}",
            f"{row.median_ms / dense_ms[row.scope, row.engine, row.batch]:.2f}",
        )
        for row in rows
    ]
    header = ("scope", "engine", "batch", "variant", "median ms", "IQR ms", "of dense")
    click.echo(table(header, cells))


cli.add_command(profile_command)


@cli.command()
def app() -> int:
    """Start the explorer in the browser."""
    root = Path(__file__).parents[1]
    script = root / "app.py"
    if not script.is_file():
        raise UnknownName(f"{script} is not there: start the app from a copy of the repository")
    command = [sys.executable, "-m", "streamlit", "run", str(script)]
    return subprocess.run(command, cwd=root, check=False).returncode

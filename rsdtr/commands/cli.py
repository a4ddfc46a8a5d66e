"""python -m rsdtr …: the library's words on the command line.

Results go to stdout, progress and warnings to stderr. Exit codes: see console.Commands.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import click

from rsdtr.commands import options
from rsdtr.commands.auto import auto
from rsdtr.commands.bench import bench
from rsdtr.commands.compare import compare
from rsdtr.commands.compress import compress
from rsdtr.commands.console import Commands, emit, emit_json, plan_table, table
from rsdtr.commands.curve import curve
from rsdtr.commands.evaluate import evaluate
from rsdtr.commands.export import export
from rsdtr.commands.finetune import finetune
from rsdtr.commands.inputs import check_data_is_read, plan_of
from rsdtr.commands.jobs import jobs
from rsdtr.commands.onnx import check_without_images, plan_onnx
from rsdtr.commands.profile import profile as profile_command
from rsdtr.commands.ratio import ratio
from rsdtr.commands.report import report
from rsdtr.commands.study import study
from rsdtr.commands.verify import verify
from rsdtr.models.weights_source import WeightsSource
from rsdtr.models.zoo import ModelSpec, model_names, model_spec
from rsdtr.onnx_files.onnx_file import is_onnx
from rsdtr.planning.choices import Choices
from rsdtr.ring.cost import Size
from rsdtr.system.app_folder import APP_FOLDER


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
        (
            spec.name,
            spec.task,
            "×".join(map(str, spec.input_shape)),
            str(spec.classes),
            _weights_of(spec),
        )
        for spec in specs
    ]
    click.echo(table(("model", "task", "input", "classes", "weights"), rows))


def _model_row(spec: ModelSpec) -> dict[str, object]:
    return {
        "name": spec.name,
        "family": spec.family,
        "task": spec.task,
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
    model: str, choices: Choices, calibrate: int | None, weights: WeightsSource,
    data: str | None, size: Size | None, as_json: bool,
) -> None:  # fmt: skip
    """Decide which ring every layer of MODEL, or of a FILE.onnx, becomes; nothing changes."""
    if is_onnx(model):
        check_without_images(calibrate, data)
        plan_onnx(model, choices, size, as_json)
        return
    check_data_is_read(data, calibrate)
    _, _, decided = plan_of(model, choices, weights, calibrate, data)
    if as_json:
        emit_json(decided.model_dump_json(indent=1))
    else:
        click.echo(plan_table(decided))


for command in (
    auto,
    bench,
    compare,
    compress,
    curve,
    evaluate,
    export,
    finetune,
    jobs,
    profile_command,
    ratio,
    report,
    study,
    verify,
):
    cli.add_command(command)


@cli.command()
def app() -> int:
    """Start the explorer in the browser."""
    if importlib.util.find_spec("streamlit") is None:
        raise ModuleNotFoundError("no streamlit", name="streamlit")
    command = [sys.executable, "-m", "rsdtr.ui.server"]
    return subprocess.run(command, cwd=APP_FOLDER, check=False).returncode


def main(name: str = "rsdtr") -> None:
    """The program, called by the name that its messages are to bear."""
    cli(prog_name=name)

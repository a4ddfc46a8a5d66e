"""python -m rsdtr finetune: train a compressed model further, from its factors."""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import click
import torch
from click.core import ParameterSource

from rsdtr.commands import options as shared
from rsdtr.commands.console import progress
from rsdtr.commands.inputs import read_saved
from rsdtr.compressed.saved import Saved, save, writable_folder
from rsdtr.data.datasets import load_data
from rsdtr.errors import RsdtrError
from rsdtr.jobs.kinds.finetune import queue_finetuning
from rsdtr.models import hub
from rsdtr.models.model_loading import load_model
from rsdtr.models.weights_source import WeightsSource
from rsdtr.recovery.accelerator import processes
from rsdtr.recovery.checkpoint import EpochResult, kept_epoch, training_record
from rsdtr.recovery.finetune import finetune as finetuned
from rsdtr.recovery.options import (
    AUGMENTS,
    OPTIMIZERS,
    PRECISIONS,
    USUAL_LR,
    FinetuneOptions,
)
from rsdtr.recovery.training_estimate import estimate

Command = TypeVar("Command", bound=Callable[..., Any])
USUAL_DISTILL, USUAL_EMA = 0.5, 0.999


def recipe(command: Command) -> Command:
    """The options of a training; the command gets them as one `recipe.FinetuneOptions`."""

    @functools.wraps(command)
    def with_recipe(*args: Any, lr: float | None, optimizer: str, **given: Any) -> Any:
        fields = {name: given.pop(name) for name in _FIELDS}
        rate = USUAL_LR[optimizer] if lr is None else lr
        chosen = FinetuneOptions(lr=rate, optimizer=optimizer, **fields)
        return command(*args, recipe=chosen, **given)

    for option in reversed(_RECIPE):
        with_recipe = option(with_recipe)
    return with_recipe  # type: ignore[return-value]  # click's decorators keep the type loose


def _number(name: str, help: str) -> Callable[[Any], Any]:
    usual = getattr(FinetuneOptions, name.replace("-", "_"))
    return click.option(f"--{name}", default=usual, show_default=True, help=help)


_RECIPE = (
    click.option("--epochs", type=click.IntRange(min=1), required=True, help="How many."),
    click.option(
        "--optimizer",
        type=click.Choice(OPTIMIZERS),
        default="sgd",
        show_default=True,
        help="SGD with momentum, or AdamW.",
    ),
    click.option(
        "--lr",
        type=float,
        help="Highest learning rate.  [default: "
        + ", ".join(f"{rate:g} for {name}" for name, rate in USUAL_LR.items())
        + "]",
    ),
    _number("batch-size", "Images in a step."),
    _number("accumulate", "Parts that a step is computed in, to save memory."),
    click.option(
        "--distill",
        type=float,
        is_flag=False,
        flag_value=USUAL_DISTILL,
        default=0.0,
        metavar="[WEIGHT]",
        help="Learn from the original network's answers as well, with this weight beside the "
        f"labels' loss.  [without a number: {USUAL_DISTILL}]",
    ),
    _number("temperature", "Of those answers."),
    _number("label-smoothing", "Share of each label that is spread over all classes."),
    click.option(
        "--augment",
        type=click.Choice(AUGMENTS),
        default="crop",
        show_default=True,
        help="Shift pictures, or shift and mirror them.",
    ),
    click.option(
        "--ema",
        type=float,
        is_flag=False,
        flag_value=USUAL_EMA,
        default=0.0,
        metavar="[DECAY]",
        help=f"Average the weights over the steps.  [without a number: {USUAL_EMA}]",
    ),
    click.option("--freeze-bn", is_flag=True, help="Keep the BatchNorm statistics."),
    click.option("--freeze-dense", is_flag=True, help="Train the rings and BatchNorm only."),
    _number("patience", "Stop after so many epochs in a row without a gain; 0: never."),
    _number("weight-decay", "Of the optimizer."),
    click.option(
        "--precision",
        type=click.Choice(PRECISIONS),
        default="float32",
        show_default=True,
        help="bfloat16: mixed precision, faster where the processor has it.",
    ),
    _number("seed", "Of the shuffling."),
)
_FIELDS = (
    "epochs", "batch_size", "accumulate", "distill", "temperature", "label_smoothing", "augment",
    "ema", "freeze_bn", "freeze_dense", "patience", "weight_decay", "precision", "seed",
)  # fmt: skip


@click.command()
@click.argument("folder", metavar="DIR")
@click.option(
    "--data",
    required=True,
    metavar="NAME_OR_DIR",
    help="digits, cifar10, or a folder of class folders.",
)
@recipe
@shared.weights
@shared.factory
@shared.device
@click.option("--out", metavar="DIR", help="Folder for the result.  [default: DIR itself]")
@click.option(
    "--resume", is_flag=True, help="Go on after the last epoch of this training, interrupted."
)
@click.option(
    "--job",
    is_flag=True,
    help="Queue it, and return at once: `jobs show` tells how far it is and where the result lies.",
)
def finetune(
    folder: str, data: str, recipe: FinetuneOptions, weights: WeightsSource, factory: str | None,
    device: torch.device, out: str | None, resume: bool, job: bool,
) -> None:  # fmt: skip
    """Train the compressed model in DIR further and save its best epoch (on validation images).

    While it trains, its state lies beside the result, in OUT.checkpoint.safetensors: --resume goes
    on from there. --weights is for the original network that --distill learns from. Processes that
    torchrun has started share every batch.
    """
    if job:
        if out or resume:
            raise click.UsageError(
                "--job keeps its result and its state itself: leave out --out and --resume"
            )
        if _was_named("device") and device.type != "cpu":
            raise click.UsageError(
                f"--job trains on the CPU, and --device is {device}: leave one of them out"
            )
        _queue(read_saved(folder, factory), data, recipe, weights)
        return
    with processes(device) as is_first:
        _train(folder, data, recipe, weights, factory, device, out, resume, is_first)


def _was_named(option: str) -> bool:
    source = click.get_current_context().get_parameter_source(option)
    return source is not ParameterSource.DEFAULT


def _train(
    folder: str, data: str, recipe: FinetuneOptions, weights: WeightsSource, factory: str | None,
    device: torch.device, out: str | None, resume: bool, is_first: bool,
) -> None:  # fmt: skip
    if out is None and folder.startswith(hub.PREFIX):
        raise click.UsageError(f"{folder} is a repository: give --out DIR for what is trained")
    saved = read_saved(folder, factory)
    target = writable_folder(out or folder)
    checkpoint = target.with_name(f"{target.name}.checkpoint.safetensors")
    if resume and not checkpoint.is_file():
        raise RsdtrError(f"{checkpoint} is not there: nothing was interrupted, leave --resume out")
    splits = load_data(data, saved.spec)
    teacher = load_model(saved.spec.name, weights).to(device) if recipe.distill else None
    saved.model.to(device)
    if not resume and is_first:
        checkpoint.unlink(missing_ok=True)
    say = partial(click.echo, err=True) if is_first else lambda _: None
    expected = estimate(saved.model, splits, recipe, teacher)
    say(
        f"about {expected.epoch_seconds:.0f} s an epoch, {expected.seconds:.0f} s in all, "
        f"{expected.memory_bytes / 1e9:.2f} GB"
    )
    with progress(f"fine-tuning {saved.spec.name} on {splits.train.name}", "steps") as show:
        results = []
        for result in finetuned(
            saved.model, splits, recipe, teacher=teacher, checkpoint=checkpoint,
            on_step=lambda step: show(step.number, step.total),
        ):  # fmt: skip
            results.append(result)
            say(_line(result))
    if not is_first:
        return
    metrics = saved.metrics | {
        "finetuned": training_record(splits.train.name, recipe, results, device)
    }
    save(saved.model.cpu(), saved.plan, target, metrics=metrics)
    checkpoint.unlink(missing_ok=True)
    if kept := kept_epoch(results):
        reached = results[kept - 1].validation
        assumed = f" ({reached.assumed})" if reached.assumed else ""
        click.echo(f"{target}: best validation accuracy {reached.percent:.2f} %{assumed}")
    else:
        click.echo(f"{target}: the network as it was, for no epoch was as good: try a lower --lr")


def _queue(saved: Saved, data: str, recipe: FinetuneOptions, weights: WeightsSource) -> None:
    queued = queue_finetuning(
        saved.model, saved.plan, load_data(data, saved.spec), recipe,
        data=data, dense=load_model(saved.spec.name, weights), weights=weights,
    )  # fmt: skip
    click.echo(f"{queued.id}: {queued.state}, {queued.title}")


def _line(result: EpochResult) -> str:
    return (
        f"epoch {result.epoch} of {result.epochs}: loss {result.train_loss:.4f}, "
        f"validation {result.validation.percent:.2f} %, {result.seconds:.1f} s"
    )

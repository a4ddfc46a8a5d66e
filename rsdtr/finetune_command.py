"""python -m rsdtr finetune: train a compressed model further, from its factors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict

import click
import torch

from rsdtr.console import progress
from rsdtr.data import load_data
from rsdtr.fast import measured_forms, running_in
from rsdtr.profile import profile
from rsdtr.recover import FinetuneOptions
from rsdtr.recover import finetune as finetuned
from rsdtr.saved import Saved, load, save, writable_folder


@click.command()
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

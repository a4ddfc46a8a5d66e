"""python -m rsdtr study: questions that take several trainings to answer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from rsdtr.commands import options
from rsdtr.commands.console import progress, table
from rsdtr.commands.finetune import recipe
from rsdtr.commands.inputs import plan_of
from rsdtr.compressed.saved import writable_folder
from rsdtr.data.datasets import load_data
from rsdtr.errors import RsdtrError
from rsdtr.jobs.kinds.study import FIGURE, FILE, queue_study, write_study
from rsdtr.models.weights_source import WeightsSource
from rsdtr.planning.choices import Choices
from rsdtr.recovery.finetune import Step
from rsdtr.recovery.options import FinetuneOptions
from rsdtr.recovery.study import STARTS, Study
from rsdtr.recovery.study import factors_vs_scratch as made_runs


@click.group()
def study() -> None:
    """Questions that take several trainings to answer."""


@study.command("factors-vs-scratch")
@click.argument("model")
@options.choices
@options.weights
@options.data
@recipe
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True, help="How many.")
@click.option("--out", metavar="DIR", help="Folder for the numbers and the figure.")
@click.option(
    "--job",
    is_flag=True,
    help="Queue it, and return at once: `jobs show` tells how far it is and where the result lies.",
)
def factors_vs_scratch(
    model: str, choices: Choices, weights: WeightsSource, data: str | None, recipe: FinetuneOptions,
    seeds: int, out: str | None, job: bool,
) -> None:  # fmt: skip
    """Train the same rings from their factors and from random weights, several times each.

    Every finished run is kept in DIR/study.json: asked again, only what is missing is trained.
    """
    if job == (out is not None):
        raise click.UsageError("give either --out, or --job, whose result `jobs show` names")
    if out is not None and not (Path(out) / FILE).exists():
        writable_folder(out)
    dense, spec, decided = plan_of(model, choices, weights)
    splits = load_data(data, spec)
    if out is None:
        queued = queue_study(dense, decided, splits, recipe, seeds, data=data, weights=weights)
        click.echo(f"{queued.id}: {queued.state}, {queued.title}")
        return
    folder = Path(out)
    begun = Study(decided, splits.train.name, recipe)
    if (folder / FILE).exists():
        begun = _continued(begun, Study.load(folder / FILE), folder / FILE)
    runs = seeds * len(STARTS)
    with progress(f"training {model} {runs} times", "steps") as show:

        def note(done: int, step: Step) -> None:
            show(done * step.total + step.number, runs * step.total)

        latest = begun
        for latest in made_runs(dense, begun, splits, range(seeds), on_step=note):
            latest.save(folder / FILE)
    write_study(latest, dense, splits, folder)
    click.echo(table(("start", "seeds", "test accuracy", "lowest", "highest"), _rows(latest)))
    click.echo(f"{folder / FILE}, {folder / FIGURE}")


def _continued(asked: Study, found: Study, path: Path) -> Study:
    same = (found.data, found.options) == (asked.data, asked.options)
    rings = [[(layer.name, layer.ranks) for layer in each.plan.layers] for each in (asked, found)]
    if not same or rings[0] != rings[1]:
        raise RsdtrError(
            f"{path} holds another study ({found.plan.model} at {found.plan.label}, "
            f"{found.options.epochs} epochs on {found.data}): give another folder"
        )
    return replace(asked, plan=found.plan, runs=found.runs)


def _rows(found: Study) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for start in STARTS:
        runs, (mean, deviation) = found.of(start), found.spread(start)
        reached = [run.test.percent for run in runs]
        rows.append(
            (start, str(len(runs)), f"{mean:.2f} ± {deviation:.2f} %",
             f"{min(reached):.2f}", f"{max(reached):.2f}")
        )  # fmt: skip
    return rows

"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from rsdtr.winners import OBJECTIVES, RULES

Command = TypeVar("Command", bound=Callable[..., Any])


def choices(command: Command) -> Command:
    """The options that decide a plan."""
    for option in (
        click.option(
            "--layers",
            default=("paper",),
            multiple=True,
            metavar="paper|all|GLOB",
            help="Which convolutions: paper (every k×k one but the first), all, or globs over "
            "their names; may be repeated.  [default: paper]",
        ),
        click.option(
            "--objective",
            type=click.Choice(OBJECTIVES),
            default="storage",
            show_default=True,
            help="What the choice among rings makes small.",
        ),
        click.option(
            "--rule",
            type=click.Choice(RULES),
            default="paper",
            show_default=True,
            help="How ranks are chosen: as published, or storing less at the same ε_p.",
        ),
        click.option(
            "--eps", default=0.6, show_default=True, help="ε_p, the relative error of each kernel."
        ),
    ):
        command = option(command)
    return command


json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
weights = click.option(
    "--weights",
    metavar="FILE|none",
    help="Own .safetensors or .pth file; none: seeded weights with a decaying spectrum.",
)
data = click.option(
    "--data",
    metavar="NAME_OR_DIR",
    help="digits, cifar10, or a folder of class folders.  [default: the model's own]",
)

"""The recoveries without labels that `compress` was asked for, one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import click
from torch import nn

from rsdtr.commands.console import progress
from rsdtr.data.datasets import DataSplits, LabelledImages
from rsdtr.jobs.job import Job
from rsdtr.jobs.kinds.distillation import queue_distillation
from rsdtr.jobs.kinds.refit import queue_refit
from rsdtr.models.weights_source import WeightsSource
from rsdtr.planning.plan import CompressionPlan
from rsdtr.recovery.distill import distill, distill_record
from rsdtr.recovery.recalibrate import recalibrate
from rsdtr.recovery.refit import refit, refit_record


@dataclass(frozen=True)
class Recoveries:
    """How many training images each recovery looks at; None where it was not asked for."""

    recalibrate: int | None = None
    refit: int | None = None
    distill: int | None = None

    @property
    def are_asked(self) -> bool:
        """Whether there is one at all."""
        return bool(self.recalibrate or self.refit or self.distill)

    @property
    def but_the_last(self) -> Recoveries:
        """Those that come before the one that a job does."""
        if self.distill is not None:
            return replace(self, distill=None)
        return replace(self, refit=None)

    def of(
        self, network: nn.Module, dense: nn.Module, train: LabelledImages, metrics: dict[str, Any]
    ) -> nn.Module:
        """The network after all of them; metrics: gets what a saved model tells about them."""
        if self.recalibrate is not None:
            with progress(f"recalibrating on {train.name}", "images") as show:
                network = recalibrate(
                    network, train, self.recalibrate, reference=dense, progress=show
                )
            images = min(self.recalibrate, len(train))
            metrics["recalibrated"] = {"data": train.name, "images": images}
        if self.refit is not None:
            with progress(f"refitting on {train.name}", "layers") as show:
                refitted = refit(network, dense, train, self.refit, progress=show)
            network, images = refitted.model, min(self.refit, len(train))
            metrics["refitted"] = refit_record(train.name, images, refitted.steps)
        if self.distill is not None:
            with progress(f"distilling on {train.name}, without labels", "steps") as show:
                distilled = distill(
                    network, dense, train, self.distill,
                    on_step=lambda step: show(step.number, step.total),
                )  # fmt: skip
            network, images = distilled.model, min(self.distill, len(train))
            metrics["distilled"] = distill_record(train.name, images, distilled)
            click.echo(distilled.told, err=True)
        return network

    def queued(
        self,
        network: nn.Module,
        plan: CompressionPlan,
        splits: DataSplits,
        data: str | None,
        dense: nn.Module,
        weights: WeightsSource,
        metrics: Mapping[str, object],
    ) -> Job:
        """The job that does the last of them to this network; arguments as in `queue_refit`."""
        queue, images = (
            (queue_refit, self.refit)
            if self.distill is None
            else (queue_distillation, self.distill)
        )
        assert images is not None
        return queue(
            network, plan, splits, images,
            data=data, dense=dense, weights=weights, metrics=metrics,
        )  # fmt: skip

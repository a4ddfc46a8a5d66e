"""A compressed network that carries its plan, saved and loaded as models from a hub are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from rsdtr.compressed.saved import load, save
from rsdtr.models.zoo import ModelSpec, spec_of
from rsdtr.planning.plan import CompressionPlan


class RingNetwork(nn.Module):
    """A network compressed by `plan`: images (B, C, H, W) to logits (B, classes).

    model: what `compress` made, trained further or not; metrics: numbers worth keeping with it.
    """

    def __init__(
        self,
        model: nn.Module,
        plan: CompressionPlan,
        metrics: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.plan = plan
        self.metrics = dict(metrics or {})

    @property
    def spec(self) -> ModelSpec:
        """How images are prepared for it, and its classes."""
        return spec_of(self.model, self.plan.model)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images)
        return logits

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write model.safetensors and manifest.json, as `rsdtr.save` does; ExportError as there."""
        return save(self.model, self.plan, folder, metrics=self.metrics)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> RingNetwork:
        """Read such a folder, in eval mode on the CPU; errors as those of `rsdtr.load`.

        A folder, and no name of a hub: nothing is ever downloaded.
        """
        saved = load(folder)
        return cls(saved.model, saved.plan, saved.metrics).eval()

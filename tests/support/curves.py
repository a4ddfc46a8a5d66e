"""Trade-off curves of numbers that a test makes up."""

from __future__ import annotations

from torch import nn

from rsdtr.data.datasets import DataSplits, data_identity, load_data
from rsdtr.measuring.accuracy import Accuracy
from rsdtr.models.model_loading import load_model
from rsdtr.models.zoo import model_spec
from rsdtr.planning.choices import Choices
from rsdtr.planning.model_profile import ModelProfile, profile
from rsdtr.planning.winners_on_disk import load_winners
from rsdtr.recovery.tradeoff_curve import Accuracies, CurveKey, CurvePoint, TradeoffCurve

KEY = CurveKey(
    weights_sha256="0" * 64, data="digits", images=100, rule="paper", objective="storage",
    layers="paper",
)  # fmt: skip


def digits() -> tuple[nn.Module, ModelProfile, DataSplits]:
    """The bundled network, its profile with the rings that come with it, and its images."""
    spec = model_spec("digits_resnet20")
    dense = load_model(spec.name)
    costs = profile(dense, spec)
    load_winners(costs)
    return dense, costs, load_data(None, spec)


def digits_key(**asked: object) -> CurveKey:
    """The curve of the bundled network that the explorer asks for first, or another one."""
    spec = model_spec("digits_resnet20")
    costs = profile(load_model(spec.name), spec)
    return CurveKey.of(costs, Choices(**asked), data_identity(None, spec), 2000)


def percent(value: float) -> Accuracy:
    """An accuracy with an interval of two points on each side."""
    return Accuracy(value, (value - 2, min(value + 2, 100.0)), 100)


def point(eps: float, pcr: float, recalibrated: float, refit: float | None = None) -> CurvePoint:
    """A point whose compressed and recalibrated network answer alike."""
    found = percent(recalibrated)
    return CurvePoint(
        eps=eps, target=None, pcr=pcr, fcr=pcr / 2, bytes=round(1e6 / pcr),
        accuracy=Accuracies(
            compressed=found, recalibrated=found, refit=None if refit is None else percent(refit)
        ),
    )  # fmt: skip


def made_up_curve(*points: CurvePoint, dense: float = 99.0) -> TradeoffCurve:
    """A curve of these points."""
    return TradeoffCurve(
        model="digits_resnet20", data="digits", key=KEY, dense=percent(dense), points=points
    )

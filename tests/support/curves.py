"""Trade-off curves of numbers that a test makes up."""

from __future__ import annotations

from rsdtr.measuring.accuracy import Accuracy
from rsdtr.recovery.tradeoff_curve import Accuracies, CurveKey, CurvePoint, TradeoffCurve

KEY = CurveKey(
    weights_sha256="0" * 64, data="digits", images=100, rule="paper", objective="storage",
    layers="paper",
)  # fmt: skip


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

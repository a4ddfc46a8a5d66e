"""Accuracy won back: recalibration, least squares, fine-tuning; and what is left, as a curve."""

from rsdtr.recovery.curves_on_disk import load_curve
from rsdtr.recovery.distill import distill
from rsdtr.recovery.finetune import finetune
from rsdtr.recovery.options import DistillOptions, FinetuneOptions, RefitOptions
from rsdtr.recovery.recalibrate import recalibrate
from rsdtr.recovery.refit import refit
from rsdtr.recovery.tradeoff_curve import (
    CurveKey,
    CurvePoint,
    TradeoffCurve,
    dense_curve,
    measure_curve,
)

__all__ = [
    "CurveKey",
    "CurvePoint",
    "DistillOptions",
    "FinetuneOptions",
    "RefitOptions",
    "TradeoffCurve",
    "dense_curve",
    "distill",
    "finetune",
    "load_curve",
    "measure_curve",
    "recalibrate",
    "refit",
]

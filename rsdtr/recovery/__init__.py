"""Accuracy won back: recalibration, least squares, fine-tuning."""

from rsdtr.recovery.finetune import finetune
from rsdtr.recovery.options import FinetuneOptions, RefitOptions
from rsdtr.recovery.recalibrate import recalibrate
from rsdtr.recovery.refit import refit

__all__ = ["FinetuneOptions", "RefitOptions", "finetune", "recalibrate", "refit"]

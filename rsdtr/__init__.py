"""RSDTR Explorer: convolutional networks made smaller with reduced-storage tensor rings."""

from rsdtr.autopilot.auto import auto
from rsdtr.compressed.compress import compress
from rsdtr.compressed.tr_conv2d import TRConv2d
from rsdtr.data.datasets import load_data
from rsdtr.errors import RsdtrError
from rsdtr.exports.export import export, load, save
from rsdtr.measuring.accuracy import accuracy
from rsdtr.models.model_loading import load_model
from rsdtr.models.zoo import model_spec
from rsdtr.planning.model_profile import profile
from rsdtr.planning.plan import plan
from rsdtr.recovery.finetune import finetune
from rsdtr.recovery.recalibrate import recalibrate
from rsdtr.recovery.shrink import shrink

__all__ = [
    "RsdtrError", "TRConv2d", "accuracy", "auto", "compress", "export", "finetune", "load",
    "load_data", "load_model", "model_spec", "plan", "profile", "recalibrate", "save",
    "shrink",
]  # fmt: skip

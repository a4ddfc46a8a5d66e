"""RSDTR Explorer: convolutional networks made smaller with reduced-storage tensor rings."""

from rsdtr.compress import compress
from rsdtr.data.datasets import load_data
from rsdtr.errors import RsdtrError
from rsdtr.evaluate import accuracy
from rsdtr.export import export, load, save
from rsdtr.finetune import finetune
from rsdtr.layers import TRConv2d
from rsdtr.models.zoo import load_model, model_spec
from rsdtr.plan import plan
from rsdtr.profile import profile
from rsdtr.recover import recalibrate
from rsdtr.ring.tensor_ring import TensorRing

__all__ = [
    "RsdtrError", "TRConv2d", "TensorRing", "accuracy", "compress", "export", "finetune", "load",
    "load_data", "load_model", "model_spec", "plan", "profile", "recalibrate", "save",
]  # fmt: skip

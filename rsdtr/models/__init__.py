"""Networks: where they come from, architectures, weights, what they answer."""

from rsdtr.models.model_loading import load_model
from rsdtr.models.weights import weights_sha256
from rsdtr.models.weights_source import WeightsSource
from rsdtr.models.zoo import ModelSpec, model_names, model_spec, own_model

__all__ = [
    "ModelSpec",
    "WeightsSource",
    "load_model",
    "model_names",
    "model_spec",
    "own_model",
    "weights_sha256",
]

"""From a model and a question (ε_p or target) to a plan without tensors."""

from rsdtr.planning.model_profile import ModelProfile, profile
from rsdtr.planning.plan import CompressionPlan, Target, plan
from rsdtr.planning.target_solver import layer_damages, solve, total_damage, uniform_front

__all__ = [
    "CompressionPlan",
    "ModelProfile",
    "Target",
    "layer_damages",
    "plan",
    "profile",
    "solve",
    "total_damage",
    "uniform_front",
]

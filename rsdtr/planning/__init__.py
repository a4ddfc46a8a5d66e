"""From a model and a question (ε_p or target) to a plan without tensors."""

from rsdtr.planning.choices import Choices
from rsdtr.planning.damage import measure_damage
from rsdtr.planning.model_profile import ModelProfile, profile
from rsdtr.planning.plan import CompressionPlan, Target, plan
from rsdtr.planning.target_solver import layer_damages, solve, total_damage, uniform_front

__all__ = [
    "Choices",
    "CompressionPlan",
    "ModelProfile",
    "Target",
    "layer_damages",
    "measure_damage",
    "plan",
    "profile",
    "solve",
    "total_damage",
    "uniform_front",
]

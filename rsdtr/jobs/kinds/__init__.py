"""The kinds of jobs, one module each: how it is queued, run and looked at."""

from rsdtr.jobs.kinds.autopilot import queue_autopilot
from rsdtr.jobs.kinds.comparison import queue_comparison
from rsdtr.jobs.kinds.distillation import distilled_model, queue_distillation
from rsdtr.jobs.kinds.export import queue_export
from rsdtr.jobs.kinds.fastest_rings import fastest_plan, queue_fastest
from rsdtr.jobs.kinds.finetune import best_model, curve, queue_finetuning
from rsdtr.jobs.kinds.grid_search import queue_search
from rsdtr.jobs.kinds.layer_times import queue_layer_times
from rsdtr.jobs.kinds.refit import queue_refit, refit_model
from rsdtr.jobs.kinds.study import queue_study
from rsdtr.jobs.kinds.tradeoff_curve import queue_curve

__all__ = [
    "best_model",
    "curve",
    "distilled_model",
    "fastest_plan",
    "queue_autopilot",
    "queue_comparison",
    "queue_curve",
    "queue_distillation",
    "queue_export",
    "queue_fastest",
    "queue_finetuning",
    "queue_layer_times",
    "queue_refit",
    "queue_search",
    "queue_study",
    "refit_model",
]

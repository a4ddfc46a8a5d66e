"""What a network reaches and takes: accuracy, fidelity, latency, the fastest form and ring."""

from rsdtr.measuring.accuracy import accuracy
from rsdtr.measuring.fastest_forms import in_one_form, measured_forms, use_forms
from rsdtr.measuring.fastest_rings import fastest_rings
from rsdtr.measuring.fidelity import fidelity
from rsdtr.measuring.latency import network_cases, network_latency
from rsdtr.measuring.layer_times import measured_profile
from rsdtr.measuring.stopwatch import eager, timings

__all__ = [
    "accuracy",
    "eager",
    "fastest_rings",
    "fidelity",
    "in_one_form",
    "measured_forms",
    "measured_profile",
    "network_cases",
    "network_latency",
    "timings",
    "use_forms",
]

"""What a network reaches and takes: accuracy, fidelity, latency, the fastest form and ring."""

from rsdtr.measuring.accuracy import accuracy, latency
from rsdtr.measuring.fastest_forms import in_one_form, use_forms
from rsdtr.measuring.fastest_rings import fastest_rings
from rsdtr.measuring.fidelity import fidelity
from rsdtr.measuring.latency import network_cases, network_latency
from rsdtr.measuring.layer_times import measured_profile

__all__ = [
    "accuracy",
    "fastest_rings",
    "fidelity",
    "in_one_form",
    "latency",
    "measured_profile",
    "network_cases",
    "network_latency",
    "use_forms",
]

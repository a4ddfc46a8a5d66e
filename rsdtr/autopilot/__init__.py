"""Autopilot: from what may be lost to the smallest, or fastest, network that loses no more."""

from rsdtr.autopilot.auto import auto
from rsdtr.autopilot.budget import Budget
from rsdtr.autopilot.search import Found, Trial, smallest_within

__all__ = ["Budget", "Found", "Trial", "auto", "smallest_within"]

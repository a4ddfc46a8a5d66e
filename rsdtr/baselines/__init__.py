"""The methods RSDTR is compared with, and the comparison."""

from rsdtr.baselines.catalogue import METHODS
from rsdtr.baselines.comparison import Cell, Comparison

__all__ = ["METHODS", "Cell", "Comparison"]

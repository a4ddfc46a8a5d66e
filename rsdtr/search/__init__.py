"""Which ring for one kernel: circular shifts × divisors at a prescribed error."""

from rsdtr.search.candidate import COARSE, GRID, Candidate
from rsdtr.search.paper_rule import KernelSpectra, candidates, smallest
from rsdtr.search.ring_svd import ring_svd
from rsdtr.search.tight_rule import best_tight

__all__ = [
    "COARSE",
    "GRID",
    "Candidate",
    "KernelSpectra",
    "best_tight",
    "candidates",
    "ring_svd",
    "smallest",
]

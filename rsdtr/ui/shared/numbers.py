"""The row of figures on the Explore page, and how numbers are written."""

from __future__ import annotations

import math
import re

from rsdtr.planning.plan import CompressionPlan


def duration(seconds: float) -> str:
    """Seconds in words, as exact as an estimate is."""
    if seconds < 90:
        return f"about {max(math.ceil(seconds / 5) * 5, 1)} s"
    if seconds < 5400:
        return f"about {math.ceil(seconds / 60)} min"
    return f"about {seconds / 3600:.1f} h"


def size(number: int) -> str:
    """Bytes in decimal units with three digits: 950 B, 1.09 MB."""
    for factor, unit in ((1e9, " GB"), (1e6, " MB"), (1e3, " kB")):
        if number >= factor:
            return f"{number / factor:.3g}{unit}"
    return f"{number} B"


def file_stem(plan: CompressionPlan) -> str:
    """A name for files made from a plan: the model and what was asked, such as `vgg16-pcr-4`."""
    asked = re.sub(r"[^a-z0-9.]+", "-", plan.label.lower().replace("ε_p", "eps"))
    return f"{plan.model}-{asked}".rstrip("-")


def count(number: int) -> str:
    """A count in about three digits: 950, 12.4 k, 2.36 M."""
    for factor, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= factor:
            return f"{number / factor:.3g}{unit}"
    return str(number)

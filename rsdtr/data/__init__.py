"""Images with or without labels, as one model takes them."""

from rsdtr.data.datasets import load_data
from rsdtr.data.image_sets import DataSplits, LabelledImages

__all__ = ["DataSplits", "LabelledImages", "load_data"]

"""Images with or without labels, as one model takes them."""

from rsdtr.data.datasets import load_data
from rsdtr.data.image_sets import DataSplits, LabelledImages
from rsdtr.data.tensor_images import images_of

__all__ = ["DataSplits", "LabelledImages", "images_of", "load_data"]

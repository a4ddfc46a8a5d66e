"""The lesson as data: numbers, texts, quiz, figures."""

from rsdtr.learn.figures import (
    cores_figure,
    cut_figure,
    damages_figure,
    forms_figure,
    maps_figure,
    rebuilt_figure,
    slices_figure,
    splits_figure,
)
from rsdtr.learn.numbers import cut, forms_macs, ordered_bond, reaches, rebuilt, stages, turns

__all__ = [
    "cores_figure",
    "cut",
    "cut_figure",
    "damages_figure",
    "forms_figure",
    "forms_macs",
    "maps_figure",
    "ordered_bond",
    "reaches",
    "rebuilt",
    "rebuilt_figure",
    "slices_figure",
    "splits_figure",
    "stages",
    "turns",
]

"""Folders of pictures: which of them are splits, which classes, and what is left out."""

from __future__ import annotations

import functools
import logging
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch

from rsdtr.data.class_labels import LabelMeaning, label_meaning
from rsdtr.data.image_sets import DataSplits, LabelledImages, carved, stratified
from rsdtr.data.image_sources import FILE_SUFFIXES, OTHER_SUFFIXES, FilePictures, obstacle
from rsdtr.errors import DataError
from rsdtr.models.zoo import ModelSpec

Split = Literal["train", "validation", "test"]
# The words that data sets of the field name their splits by.
SPLITS: dict[str, Split] = {
    "train": "train", "training": "train",
    "val": "validation", "valid": "validation", "validation": "validation", "dev": "validation",
    "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
}  # fmt: skip
# Beside them in the name of a folder, as in "test_set", "seg_train" or "val2017".
_WITH_SPLITS = {
    "", "set", "data", "dataset", "images", "image", "imgs", "img", "split", "folder", "seg",
}  # fmt: skip
# What systems and programs leave behind, beside what begins with a dot.
_JUNK = {
    "__macosx", "@eadir", "$recycle.bin", "system volume information", "__pycache__", "lost+found",
}  # fmt: skip
_log = logging.getLogger(__name__)


def load_folder(name: str, root: Path, spec: ModelSpec) -> DataSplits:
    """The splits of a folder for one model; nothing is decoded yet.

    root: holds class folders, or splits by their usual names, in any case, that hold such folders.
    What is left out, drawn or assumed is logged. DataError for a folder whose names can mean two
    things, or that holds no readable pictures.
    """
    root = _without_wrappers(root)
    splits = _splits(root, spec)
    if not splits:
        return carved(name, _sets(name, [root], spec)[0], (10, 9))
    sets = dict(zip(splits, _sets(name, list(splits.values()), spec), strict=True))
    if len(sets) == 1:
        ((only, whole),) = sets.items()
        _say_once(f"{root} has {splits[only].name} alone: all three splits are drawn from it")
        return carved(name, whole, (10, 9))
    if len(sets) == 3:
        return DataSplits(**sets)
    first: Split = "train" if "train" in sets else "validation"
    held_out = sets["test"] if "test" in sets else sets["validation"]
    # The only held-out folder is for the report; what is chosen is chosen on a part of the other.
    kept, validation = stratified(sets[first].labels, 10)
    if len(kept) == 0:
        raise DataError(
            f"{splits[first]} has only {len(sets[first])} readable picture: give at least 2"
        )
    return DataSplits(sets[first].select(kept), sets[first].select(validation), held_out)


def split_of(name: str) -> Split | None:
    """Which split a folder of this name is by custom; None for any other name."""
    words = [word.strip("0123456789") for word in re.split(r"[\W_]+", name.casefold())]
    found = {SPLITS.get(word.removesuffix("set")) or SPLITS.get(word) for word in words} - {None}
    rest = [w for w in words if not (SPLITS.get(w) or SPLITS.get(w.removesuffix("set")))]
    return found.pop() if len(found) == 1 and _WITH_SPLITS.issuperset(rest) else None


def _without_wrappers(root: Path) -> Path:
    """The first folder on the way down that holds more than one folder, or pictures."""
    while (folders := _folders(root)) and len(folders) == 1 and not _has_pictures(root):
        (only,) = folders
        if split_of(only.name) and split_of(root.name) != split_of(only.name):
            break
        if not _folders(only) or _has_pictures(only):
            break
        root = only
    return root


def _splits(root: Path, spec: ModelSpec) -> dict[Split, Path]:
    """The splits among the folders of a folder, in the order train, validation, test."""
    named: dict[Split, list[Path]] = {"train": [], "validation": [], "test": []}
    others = []
    for folder in _folders(root):
        split = split_of(folder.name)
        named[split].append(folder) if split else others.append(folder)
    given = [folder for folders in named.values() for folder in folders]
    if spec.task != "classification":
        return _one_each(root, named) if len(given) > 1 or not others else {}
    whole = [folder for folder in given if _folders(folder) and not _has_pictures(folder)]
    if not whole:
        if given and not others:
            raise DataError(
                f"{root} holds {_listed(given)} and no class folders in there: give each split one "
                "folder of pictures per class"
            )
        return {}  # folders of pictures, one of which happens to be called train
    rival = [folder for folder in others if _has_pictures_below(folder)]
    if rival and len(whole) == 1:
        raise DataError(
            f"{root} holds {whole[0].name}, which may be a split or a class, beside "
            f"{_listed(rival)}: give a folder of class folders, or of splits, and nothing else"
        )
    left = [*others, *(folder for folder in given if folder not in whole)]
    if left := [folder for folder in left if _has_pictures_below(folder)]:
        _say_once(
            f"of {root} no pictures in {_listed(left)} are taken: no class folders of a split"
        )
    chosen = {split: [f for f in folders if f in whole] for split, folders in named.items()}
    return {split: _without_wrappers(folder) for split, folder in _one_each(root, chosen).items()}


def _one_each(root: Path, named: dict[Split, list[Path]]) -> dict[Split, Path]:
    for split, folders in named.items():
        if len(folders) > 1:
            raise DataError(
                f"{root} holds {_listed(folders)}, which both say {split}: leave one of them there"
            )
    return {split: folders[0] for split, folders in named.items() if folders}


def _sets(name: str, roots: Sequence[Path], spec: ModelSpec) -> list[LabelledImages]:
    """The images of each root, with the same classes."""
    folders: dict[str, list[list[Path]]] = {}  # by name without case, for each root
    if spec.task != "classification":
        folders["."] = [[root] for root in roots]  # whatever lies in it
        meaning = LabelMeaning((0,), (".",))
    else:
        for place, root in enumerate(roots):
            for folder in _folders(root):
                each = folders.setdefault(folder.name.casefold(), [[] for _ in roots])
                each[place].append(folder)
        folders = _with_classes_only(folders, roots)
        names = [next(f.name for part in each for f in part) for each in folders.values()]
        order = sorted(range(len(names)), key=names.__getitem__)
        folders = {names[k]: list(folders.values())[k] for k in order}
        meaning = label_meaning(list(folders), spec)
        _tell(name, meaning)
    return [
        _set(name, root, {label: each[place] for label, each in folders.items()}, meaning, spec)
        for place, root in enumerate(roots)
    ]


def _tell(name: str, meaning: LabelMeaning) -> None:
    if meaning.unknown:
        _say_once(f"{name}: {meaning.unknown}: there is no accuracy by these labels")
    if meaning.assumed:
        _say_once(f"{name}: {meaning.assumed}")


def _with_classes_only(
    folders: dict[str, list[list[Path]]], roots: Sequence[Path]
) -> dict[str, list[list[Path]]]:
    """Without the folders that hold files of other kinds, and no pictures, such as labels/."""
    other = {
        key
        for key, each in folders.items()
        for holds in [[_holds(folder) for part in each for folder in part]]
        if "pictures" not in holds and "files" in holds
    }
    if other:
        named = _listed([f for key in sorted(other) for part in folders[key] for f in part[:1]])
        _say_once(f"{named} under {roots[0]} holds no pictures, and is no class")
    return {key: each for key, each in folders.items() if key not in other}


def _set(
    name: str,
    root: Path,
    folders: dict[str, list[Path]],
    meaning: LabelMeaning,
    spec: ModelSpec,
) -> LabelledImages:
    paths: list[Path] = []
    labels: list[int] = []
    skipped: list[Path] = []
    empty: list[str] = []
    reasons: Counter[str] = Counter()
    for output, (label, found) in zip(meaning.outputs, folders.items(), strict=True):
        before = len(paths)
        for path in sorted(path for folder in found for path in _pictures(folder)):
            if reason := obstacle(path, root):
                skipped.append(path)
                reasons[reason] += 1
            else:
                paths.append(path)
                labels.append(output)
        if len(paths) == before and label != ".":
            empty.append(label)
    if len(empty) == 1:
        _log.warning("class %s under %s is empty: no readable picture in it", empty[0], root)
    elif empty:
        _log.warning(
            "%d of %d classes under %s are empty (%s%s): no readable picture in them",
            len(empty), len(folders), root, ", ".join(empty[:3]), ", …" if len(empty) > 3 else "",
        )  # fmt: skip
    if skipped:
        told = ", ".join(f"{n} {reason}" for reason, n in sorted(reasons.items()))
        _log.warning("%d pictures under %s were skipped: %s", len(skipped), root, told)
    if not paths:
        raise DataError(f"{root} holds no readable pictures: give {_wanted(spec)}")
    return LabelledImages(
        name,
        meaning.classes,
        torch.tensor(labels, dtype=torch.int64),
        FilePictures(paths, spec),
        spec,
        skipped=skipped,
        assumed=meaning.assumed,
        unknown=meaning.unknown,
    )


def _folders(root: Path) -> list[Path]:
    """The folders in a folder that somebody put there, by name."""
    return sorted(
        folder for folder in root.iterdir() if folder.is_dir() and not is_junk(folder.name)
    )


def is_junk(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or left behind by a system or a program."""
    return name.startswith((".", "~$")) or name.casefold() in _JUNK


def _has_pictures(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(_is_picture(Path(e.name)) and e.is_file() for e in entries)


def _has_pictures_below(folder: Path) -> bool:
    return next(iter(_pictures(folder)), None) is not None


def _holds(folder: Path) -> Literal["pictures", "files", "nothing"]:
    if _has_pictures_below(folder):
        return "pictures"
    return "files" if any(path.is_file() for path in folder.rglob("*")) else "nothing"


def _pictures(folder: Path) -> list[Path]:
    """All that is called as pictures are, wherever in the folder, readable or not."""
    return [
        path
        for path in folder.rglob("*")
        if _is_picture(path) and not any(is_junk(p) for p in path.relative_to(folder).parts)
    ]


def _is_picture(path: Path) -> bool:
    suffix = path.suffix.lower()
    return (suffix in FILE_SUFFIXES or suffix in OTHER_SUFFIXES) and not is_junk(path.name)


def _listed(folders: Sequence[Path]) -> str:
    names = ", ".join(f"{folder.name}/" for folder in folders[:4])
    return names + (f" and {len(folders) - 4} more" if len(folders) > 4 else "")


def _wanted(spec: ModelSpec) -> str:
    if spec.task != "classification":
        return "a folder of pictures"
    return "a folder with one folder of pictures per class"


@functools.lru_cache(maxsize=256)
def _say_once(text: str) -> None:
    _log.warning("%s", text)

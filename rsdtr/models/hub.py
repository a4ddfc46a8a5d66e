"""Networks of a Hugging Face repository, or of a folder that `save_pretrained` wrote.

Only config.json and safetensors files are ever read of them; nothing of them is run. A
repository's files lie in the hub's own cache folder, and the blobs there are named by their
SHA-256, which is checked.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rsdtr.errors import RsdtrError, WeightsError, first_line
from rsdtr.models import timm_networks, torchvision_networks
from rsdtr.models.spec import ModelSpec
from rsdtr.system.download import file_sha256
from rsdtr.system.extras import missing_extra

PREFIX = "hf:"
CONFIG, WEIGHTS, MANIFEST = "config.json", "model.safetensors", "manifest.json"
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
_MOST_CONFIG_BYTES = 16 << 20


def is_pretrained(folder: Path) -> bool:
    """Whether a folder holds what `save_pretrained` writes of a network that is not compressed."""
    return (folder / CONFIG).is_file() and not (folder / MANIFEST).exists()


def is_repository(name: str) -> bool:
    """Whether a text has the form owner/name, or owner/name@revision."""
    return _REPOSITORY.fullmatch(name) is not None


@functools.lru_cache(maxsize=64)
def spec(word: str) -> ModelSpec:
    """The spec of hf:owner/name, hf:owner/name@revision, or a folder.

    RsdtrError for a config of another kind; WeightsError where it is not to be had.
    """
    if not word.startswith(PREFIX):
        folder = Path(word)
        return _spec(word, "", _config(folder / CONFIG), f"the folder {folder.name}")
    repository = word.removeprefix(PREFIX)
    if is_compressed(word):
        raise RsdtrError(
            f"{word} is compressed already: evaluate, bench, export and finetune take it; plan and "
            "compress the network that it was made from"
        )
    path = file(repository, CONFIG)
    name, _, _ = repository.partition("@")
    commit = commit_of(path)
    pinned = f"{name}@{commit}" if commit else repository
    return _spec(word, pinned, _config(path), f"Hugging Face, {pinned}")


def is_compressed(word: str) -> bool:
    """Whether hf:owner/name holds a network with rings, as `RingNetwork.push_to_hub` leaves it; as
    far as can be said of what cannot be looked up.
    """
    repository = word.removeprefix(PREFIX)
    if not word.startswith(PREFIX) or not is_repository(repository):
        return False
    try:
        file(repository, CONFIG)
    except WeightsError:
        try:
            file(repository, MANIFEST)
        except WeightsError:
            return False
        return True
    return False


def compressed_folder(repository: str) -> Path:
    """The folder, in the hub's cache, of a repository that holds a network with rings: its manifest
    and its cores, of one commit. repository: owner/name, or owner/name@revision. WeightsError as
    `file`.
    """
    manifest = file(repository, MANIFEST)
    name, _, revision = repository.partition("@")
    file(f"{name}@{commit_of(manifest) or revision}", WEIGHTS)
    return manifest.parent


def weights(of: ModelSpec) -> Path:
    """The safetensors file of a network of a repository or folder; WeightsError if there is none.

    Looks into $RSDTR_WEIGHTS (NAME.safetensors, NAME the repository's without its owner), then the
    hub's cache folder, and downloads it only then.
    """
    if not of.hub:
        path = Path(of.name) / WEIGHTS
        if not path.is_file():
            raise WeightsError(
                f"{of.name} holds no {WEIGHTS}: save the network with safetensors, or give a file "
                "of weights by --weights"
            )
        return path
    name, _, _ = of.hub.partition("@")
    own = os.environ.get("RSDTR_WEIGHTS")
    given = Path(own) / f"{name.partition('/')[2]}.safetensors" if own else None
    return given if given is not None and given.is_file() else file(of.hub, WEIGHTS)


def file(repository: str, name: str) -> Path:
    """A file of a repository, from the hub's cache folder or downloaded.

    repository: owner/name, or owner/name@revision. WeightsError, in a sentence that says which
    file goes where, if there is no network, no such repository or file, or if its SHA-256 is wrong.
    """
    if not is_repository(repository):
        raise WeightsError(f"{repository!r} is no repository: give hf:owner/name")
    try:
        from huggingface_hub import constants, hf_hub_download
        from huggingface_hub.errors import (
            EntryNotFoundError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
        )
    except ModuleNotFoundError as error:
        raise missing_extra(error) or error from None
    owner_name, _, revision = repository.partition("@")
    endpoint = os.environ.get("HF_ENDPOINT", constants.ENDPOINT)
    address = f"{endpoint}/{owner_name}"
    try:
        path = Path(hf_hub_download(owner_name, name, revision=revision or None, endpoint=endpoint))
    except LocalEntryNotFoundError:
        raise WeightsError(_offline(owner_name, name, address)) from None
    except RepositoryNotFoundError:
        raise WeightsError(
            f"there is no repository {address}, or it asks for a log-in (`hf auth login`)"
        ) from None
    except EntryNotFoundError:
        raise WeightsError(
            f"{address} holds no {name}: only JSON and safetensors files are read of a repository"
        ) from None
    except (OSError, ValueError, RuntimeError) as error:
        first = first_line(error)
        raise WeightsError(f"{_offline(owner_name, name, address)} ({first[:120]})") from error
    _check(path, address)
    return path


def _offline(repository: str, name: str, address: str) -> str:
    said = f"{name} of {address} is not in the hub's cache folder and cannot be downloaded: "
    if name != WEIGHTS:
        return said + (
            f"download its {WEIGHTS} and its {CONFIG}, of a compressed network its {MANIFEST}, "
            "into a folder and give that"
        )
    return said + (
        f"download {address}/resolve/main/{WEIGHTS} and give it by --weights, or put it into "
        f"$RSDTR_WEIGHTS as {repository.partition('/')[2]}.safetensors"
    )


def _check(path: Path, address: str) -> None:
    """WeightsError unless a large file has the SHA-256 that the hub's cache has named it by."""
    told = path.resolve().name
    if re.fullmatch("[0-9a-f]{64}", told) and (found := file_sha256(path)) != told:
        raise WeightsError(
            f"has SHA-256 {found[:8]}…, expected {told[:8]}…: remove it, and get it from {address} "
            "again",
            path,
        )


def commit_of(path: Path) -> str:
    """The commit of a file in the hub's cache folder, …/snapshots/COMMIT/NAME."""
    return path.parent.name if path.parent.parent.name == "snapshots" else ""


def _config(path: Path) -> Mapping[str, Any]:
    try:
        if path.stat().st_size > _MOST_CONFIG_BYTES:
            raise ValueError("too long")
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise RsdtrError(f"{path} is not JSON ({error}): give one that timm wrote") from None
    if not isinstance(content, dict):
        raise RsdtrError(f"{path} holds a {type(content).__name__}: give one that timm wrote")
    return content


def _spec(word: str, repository: str, config: Mapping[str, Any], source: str) -> ModelSpec:
    """The spec of a timm- or torchvision-style config."""
    architecture = config.get("architecture")
    if not isinstance(architecture, str):
        kind = config.get("model_type") or config.get("library_name")
        of = f" of {kind}" if isinstance(kind, str) else ""
        raise RsdtrError(
            f"{word} is a network{of} whose {CONFIG} names no `architecture`: only networks of "
            "timm and torchvision are read; give others from Python, with rsdtr.shrink"
        )
    told = config.get("pretrained_cfg")
    legacy = not isinstance(told, dict)
    cfg: dict[str, Any] = dict(told if isinstance(told, dict) else config)
    for key in ("num_classes", "label_names"):
        if config.get(key) is not None:
            cfg[key] = config[key]
    if "labels" in cfg:
        cfg.setdefault("label_names", cfg["labels"])
    of_torchvision = config.get("library_name") == "torchvision" or (
        legacy and "input_size" not in cfg
    )
    if of_torchvision and architecture in torchvision_networks.names():
        return _torchvision_spec(word, repository, architecture, cfg, source)
    if not timm_networks.known(architecture):
        raise RsdtrError(f"{word} is a {architecture}, which neither timm nor torchvision has")
    arguments = timm_networks.arguments_of(config.get("model_args") or {})
    channels = dict(arguments).get("in_chans")
    if isinstance(channels, int) and isinstance(size := cfg.get("input_size"), list | tuple):
        cfg["input_size"] = [channels, *size[1:]]
    found = replace(timm_networks.facts(architecture, cfg), hub=repository)
    imagenet = repository.startswith("timm/") and found.classes == timm_networks.IMAGENET_CLASSES
    return replace(spec_from(word, found, source, imagenet=imagenet), arguments=arguments)


def spec_from(
    word: str, told: timm_networks.TimmFacts, source: str, *, imagenet: bool
) -> ModelSpec:
    """The spec of a network of timm; imagenet: whether its classes are those of ImageNet-1k."""
    vouched = word.startswith(timm_networks.PREFIX) or told.hub.startswith("timm/")
    ids = vouched and not imagenet and bool(timm_networks.wordnet_ids(told.classes))
    return ModelSpec(
        name=word,
        family="imagenet" if imagenet else timm_networks.OTHER_IMAGENET if ids else "timm",
        input_shape=told.input_shape,
        classes=told.classes,
        mean=told.mean,
        std=told.std,
        resize=told.resize,
        data=None,
        weights_file=WEIGHTS,
        weights_url=f"https://huggingface.co/{told.hub.partition('@')[0]}" if told.hub else None,
        sha256=None,
        bundled=False,
        source=source,
        interpolation=told.interpolation,
        class_names=told.class_names,
        crop="squash" if told.squash else "center",
        architecture=f"timm:{told.architecture}",
        hub=told.hub,
    )


def _torchvision_spec(
    word: str, repository: str, architecture: str, cfg: Mapping[str, Any], source: str
) -> ModelSpec:
    published = torchvision_networks.published(architecture)
    classes = cfg.get("num_classes", len(published.classes))
    names = cfg.get("label_names") or ()
    if not isinstance(classes, int) or classes < 1 or not isinstance(names, list | tuple):
        raise RsdtrError(f"{word} is said to tell {classes!r} classes apart: give a whole number")
    return ModelSpec(
        name=word,
        family="timm" if published.family == "imagenet" else published.family,
        input_shape=(3, published.side, published.side),
        classes=classes,
        mean=published.mean,
        std=published.std,
        resize=published.resize,
        data=None if published.family == "imagenet" else torchvision_networks.DATA,
        weights_file=WEIGHTS,
        weights_url=f"https://huggingface.co/{repository}" if repository else None,
        sha256=None,
        bundled=False,
        source=source,
        interpolation=published.interpolation,
        class_names=tuple(map(str, names)) if len(names) == classes else (),
        architecture=f"torchvision:{architecture}",
        hub=repository,
    )

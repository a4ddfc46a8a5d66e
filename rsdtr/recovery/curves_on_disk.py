"""Trade-off curves on disk: what one session has measured, every other one finds.

One JSON file per curve in the cache folder's curves/, named by the SHA-256 of what it belongs to,
so that a file never tells of other weights, images or choices. Writers add their points to those of
others. A file that is damaged counts as none and is written anew; a disk that is full or read-only
is a warning in the log. Curves of the bundled network come with the program
(scripts/measure_bundled.py).
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

from pydantic import ValidationError

from rsdtr.planning.choices import Choices
from rsdtr.planning.model_profile import ModelProfile
from rsdtr.recovery.tradeoff_curve import TEST_IMAGES, CurveKey, TradeoffCurve
from rsdtr.search.candidate import RULES
from rsdtr.system.atomic_files import locked, replace_file
from rsdtr.system.cache_folder import cache_folder, private_folder

VERSION = 1  # of what is measured, and how
BUNDLED = Path(__file__).resolve().parent.parent / "assets" / "curves"
_log = logging.getLogger("rsdtr.recovery.curves_on_disk")


def file_name(key: CurveKey) -> str:
    """What the file of a curve is called."""
    said = key.model_dump_json(exclude_defaults=True)  # accuracy is not said
    digest = hashlib.sha256(said.encode()).hexdigest()
    return f"{digest[:40]}-v{VERSION}.json"


def curve_path(key: CurveKey) -> Path:
    """The file that holds a curve, whether it is there or not."""
    return cache_folder() / "curves" / file_name(key)


def load_curve(key: CurveKey) -> TradeoffCurve | None:
    """What was measured of a curve, here or for the program; None where nothing was."""
    found = [
        curve
        for folder in (BUNDLED, curve_path(key).parent)
        if (curve := _read(folder / file_name(key), key)) is not None
    ]
    return found[0].merged(found[-1]) if found else None


def known_smallest(
    costs: ModelProfile, data: str, drop: float, layers: str | tuple[str, ...] | None = None
) -> float | None:
    """The highest PCR within `drop` points on what is known of a network's curves; None if nothing.

    data: the identity of the images, see `datasets.data_identity`.
    """
    keys = (CurveKey.of(costs, Choices(rule=rule, layers=layers), data, TEST_IMAGES)
            for rule in RULES)  # fmt: skip
    curves = [curve for key in keys if (curve := load_curve(key)) is not None]
    points = [point for curve in curves if (point := curve.smallest(drop)) is not None]
    return max((point.pcr for point in points), default=None)


def save_curve(curve: TradeoffCurve) -> bool:
    """Add a curve's points to those that are stored; whether it worked."""
    path = curve_path(curve.key)
    try:
        private_folder(path.parent)
        with locked():
            before = _read(path, curve.key)
            merged = curve if before is None else curve.merged(before)
            replace_file(path, merged.model_dump_json(indent=1).encode())
    except OSError as error:
        _log.warning("%s cannot be written (%s): the curve is lost when this process ends",
                     path, error.strerror or error)  # fmt: skip
        return False
    return True


def _read(path: Path, key: CurveKey) -> TradeoffCurve | None:
    try:
        curve = TradeoffCurve.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        _log.warning("%s is no trade-off curve (%s): it is measured anew", path, error)
        return None
    return curve if curve.key == key else None

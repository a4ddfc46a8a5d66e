"""Where app.py, pages/, .streamlit/ and benchmarks/ lie: in a checkout, or inside the package."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
_IN_WHEEL = _PACKAGE / "explorer"  # as pyproject.toml lays it out; a checkout has no such folder

INSTALLED = _IN_WHEEL.is_dir()
APP_FOLDER = _IN_WHEEL if INSTALLED else _PACKAGE.parent

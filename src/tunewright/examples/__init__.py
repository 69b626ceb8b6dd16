"""The demo's documents: twenty-four open-access abstracts (CC BY 4.0), each attributed in ATTRIBUTION.md."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path


def abstracts_folder() -> Path:
    """Return the installed folder of the demo's documents; it is always a real folder, never inside a zip file."""
    return Path(str(files(__name__))) / "abstracts"

"""Twenty-four open-access abstracts (CC BY 4.0) that the demo learns from; ATTRIBUTION.md names each."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path


def abstracts_folder() -> Path:
    """Return the folder of the demo's documents, as installed (packages are never run from a zip file)."""
    return Path(str(files(__name__))) / "abstracts"

"""Programs outside the package, such as the generator of documentation, as modules."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from support import ROOT


def module_at(path: Path):
    """Return a file as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def generator():
    """Return the generator of documentation."""
    return module_at(ROOT / "docs" / "generate.py")

"""The generator of documentation as a module."""

from __future__ import annotations

import importlib.util

from support import ROOT


def generator():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

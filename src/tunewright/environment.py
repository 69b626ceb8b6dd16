"""What a result was computed with: the versions of the libraries, and the kind of machine."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version

_LIBRARIES = ("tunewright", "torch", "transformers", "peft", "bitsandbytes", "safetensors", "numpy")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that numbers depend on."""
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def machine() -> dict[str, str]:
    """Return the kind of hardware, as torch uses it where it is loaded; nothing that names this one machine."""
    found = {"architecture": platform.machine(), "device": "cpu", "threads": "", "instructions": ""}
    torch = sys.modules.get("torch")
    if torch is not None:
        found["threads"] = str(torch.get_num_threads())
        found["instructions"] = str(torch.backends.cpu.get_cpu_capability())
        if torch.cuda.is_available():
            found["device"] = str(torch.cuda.get_device_name())
    return found

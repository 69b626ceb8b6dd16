"""The versions of tunewright and of its libraries, and the kind of machine."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version

__version__ = "0.2.0"
_LIBRARIES = ("tunewright", "torch", "transformers", "peft", "bitsandbytes", "safetensors", "numpy")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that numbers depend on."""
    result = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            result[name] = version(name)
        except PackageNotFoundError:
            result[name] = "absent"
    return result


def machine() -> dict[str, str]:
    """Return the kind of hardware, in torch's terms once torch is loaded; nothing identifies this very machine."""
    result = {"architecture": platform.machine(), "device": "cpu", "threads": "", "instructions": ""}
    torch = sys.modules.get("torch")
    if torch is not None:
        result["threads"] = str(torch.get_num_threads())
        result["instructions"] = str(torch.backends.cpu.get_cpu_capability())
        if torch.cuda.is_available():
            result["device"] = str(torch.cuda.get_device_name())
    return result

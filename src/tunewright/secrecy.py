"""Keys out of what is printed: a server or a library may repeat the key that it was sent."""

from __future__ import annotations

import os
import re

_NAMED = re.compile(r"(^|_)(API)?(KEY|TOKEN|SECRET|PASSWORD|PASSPHRASE|PAT)(_|$)")
_SHORTEST = 8  # characters; what is shorter would be found in harmless text


def without_secrets(text: str) -> str:
    """Return the text with the value of each environment variable named as a key replaced by its name."""
    named = {value.strip(): name for name, value in os.environ.items() if _NAMED.search(name.upper())}
    for value in sorted(named, key=len, reverse=True):
        if len(value) >= _SHORTEST and not value.startswith("/"):  # a path is where a key lies, no key
            text = text.replace(value, f"[{named[value]}]")
    return text

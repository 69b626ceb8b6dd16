"""Corrupted user files through every reader: each is read, or refused by an error that names it.

    PYTHONPATH=tests python benchmarks/corrupted_inputs.py [--corruptions 2000] [--reader exam] [--seed 0]

The corruptions are those of tests/support/user_files.py: number N of a reader is always the same, and a fault is recorded
with its N.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import io
import json
import platform
import shutil
import signal
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from support.user_files import READERS, Reader, corrupted, fault, written

SLOWEST_S = 60  # for one corruption


def play(reader: Reader, numbers: range, folder: Path) -> dict[str, Any]:
    """Read the corruptions of these numbers; return their kinds and the faults."""
    good = written(reader, folder / "good")
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        problem = fault(reader, shutil.copytree(good, folder / "whole"))
    if problem:
        raise SystemExit(f"{reader.name}: its good files are not read: {problem}")
    kinds: Counter[str] = Counter()
    faults, slowest = [], 0.0
    for number in numbers:
        copy = folder / f"corrupted-{number}"
        what = corrupted(reader, good, copy, number)
        kinds[what.rpartition(" ")[0]] += 1
        began = time.monotonic()
        signal.alarm(SLOWEST_S)
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            problem = fault(reader, copy)
        signal.alarm(0)
        slowest = max(slowest, time.monotonic() - began)
        if problem:
            faults.append({"number": number, "what": what, "fault": problem})
        shutil.rmtree(copy)
    return {
        "corruptions": len(numbers),
        "kinds": dict(sorted(kinds.items())),
        "slowest_s": round(slowest, 1),
        "faults": faults,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corruptions", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reader", default="")
    options = parser.parse_args()
    faulthandler.enable()
    signal.signal(signal.SIGALRM, signal.default_int_handler)  # a reading that hangs is a fault: KeyboardInterrupt
    readers = [reader for reader in READERS if options.reader in ("", reader.name)]
    each = -(-options.corruptions // len(readers))
    results = {}
    for reader in readers:
        with TemporaryDirectory() as folder:
            start = options.seed * each
            results[reader.name] = play(reader, range(start, start + each), Path(folder))
        found = results[reader.name]["faults"]
        print(f"{reader.name}: {each} corruptions, {len(found)} faults")
        for problem in found[:40]:
            print(f"  {problem['number']} {problem['what']}: {problem['fault'][:220]}")
    record = {
        "corruptions": sum(result["corruptions"] for result in results.values()),
        "faults": sum(len(result["faults"]) for result in results.values()),
        "machine": platform.platform(terse=True),
        "readers": results,
    }
    if not options.reader:
        path = Path(__file__).parent / "results" / "corrupted_inputs.json"
        path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    raise SystemExit(bool(record["faults"]))


if __name__ == "__main__":
    main()

"""Seconds and peak memory of large files: one text, one table of documents, one table of chats.

    python benchmarks/large_files.py [MEGABYTES ...] [--kinds text documents chats] [--out FILE]

A text and JSON lines of documents go through the capped child process that reads documents; a child process of this
script reads JSON lines of chats. Each is made here, of the words of the example abstracts, in a child of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from curation import vocabulary

CHILD = """
import json, resource, sys, time
from pathlib import Path
kind, path = sys.argv[1], Path(sys.argv[2])
start, note = time.perf_counter(), {}
if kind == "chats":
    from tunewright.text.rows import file_rows
    note["rows"] = sum(1 for row in file_rows(path))
else:
    from tunewright.documents.sandbox import read_files
    (_, reading), = read_files([path], timeout_s=1800)  # the limit of a run is 60 s; here, other work takes the processor
    note["documents"] = len(reading.documents)
    note["failures"] = [f"{failure.reason}: {failure.detail}" for failure in reading.failures]
used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
print(json.dumps({
    "wall_s": round(time.perf_counter() - start, 2),
    "cpu_s": round(sum(usage.ru_utime + usage.ru_stime for usage in used), 2),
    "peak_mib": round(max(usage.ru_maxrss for usage in used) / 1024),
    **note,
}))
"""


def lines(kind: str) -> Iterator[str]:
    """Yield the lines of a file of this kind, for ever."""
    draw, words = random.Random(0), vocabulary()
    for number in range(10**9):
        sentence = f"{' '.join(draw.choices(words, k=20)).capitalize()} {number}."
        if kind == "text":
            yield sentence + "\n"
        elif kind == "documents":
            yield json.dumps({"text": f"{sentence} {sentence}"}) + "\n"
        else:
            yield json.dumps({"prompt": f"What is known of {number}?", "completion": sentence}) + "\n"


def measured(kind: str, megabytes: int) -> dict[str, object]:
    """Return what reading a file of this kind and size takes."""
    with tempfile.TemporaryDirectory() as work:
        path = Path(work) / ("a.txt" if kind == "text" else "a.jsonl")
        size, block = 0, "".join(line for line, _ in zip(lines(kind), range(20_000), strict=False)).encode()
        with path.open("wb") as file:
            while size < megabytes * 2**20:
                size += file.write(block)
        command = [sys.executable, "-c", CHILD, kind, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {"megabytes": megabytes, **json.loads(done.stdout)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("megabytes", type=int, nargs="*", default=[20, 50, 200])
    parser.add_argument("--kinds", nargs="*", default=["text", "documents", "chats"])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/large_files.json")
    arguments = parser.parse_args()
    results = json.loads(arguments.out.read_text(encoding="utf-8")) if arguments.out.exists() else {}
    results["machine"] = f"{platform.machine()}, {os.cpu_count()} cores, shared with other work"
    for kind in arguments.kinds:
        results[kind] = [measured(kind, megabytes) for megabytes in arguments.megabytes]
        print(kind, json.dumps(results[kind]), flush=True)
        arguments.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

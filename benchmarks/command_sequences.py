"""Sequences of commands with crashes, drawn at random: each ends with the files of an undisturbed run.

    TMPDIR=/dev/shm PYTHONPATH=tests python benchmarks/command_sequences.py [--sequences 5000] [--jobs 1] [--batch 25]

The commands, faults and checks are those of tests/support/crash_machine.py: each command is a process, and a kill is
SIGKILL. A kill loses nothing that was written, so the files may be in memory; a disk that loses what was not flushed is
the subject of tests/test_lost_writes.py. Adds to the recorded result, batch by batch, so that a long run can be split,
and several processes share it. A batch draws from its own seed; one that fails is recorded by it, and Hypothesis prints
the sequence in its shortest form.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from support.crash_machine import Folder, machine
from support.faulty_server import fake_teacher
from support.tiny import make_model
from support.whole_path import asks
from tunewright.operating_system import lock

STEPS = 8  # at most, in a sequence
EMPTY = {"sequences": 0, "commands": 0, "faults": {}, "failed_seeds": [], "seconds": 0.0, "next_seed": 1}


@contextmanager
def locked(out: Path) -> Iterator[dict[str, Any]]:
    """Give the record to change, which no other process changes meanwhile."""
    with (Path(tempfile.gettempdir()) / f"{out.name}.lock").open("w") as file:
        lock(file)
        record = json.loads(out.read_text(encoding="utf-8")) if out.exists() else dict(EMPTY)
        yield record
        out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def batch(own: type[Folder], number: int, limits: settings, out: Path) -> None:
    """Run a batch from its seed, and add it to the record."""
    start = time.perf_counter()
    own.counts.clear()
    try:
        run_state_machine_as_test(seed(number)(own), settings=limits)
    except BaseException:
        with locked(out) as record:
            record["failed_seeds"].append(number)
        raise
    with locked(out) as record:
        for name in ("sequences", "commands"):
            record[name] += own.counts.pop(name)
        record["faults"] = dict(sorted((Counter(record["faults"]) + own.counts).items()))
        record["seconds"] = round(record["seconds"] + time.perf_counter() - start, 1)
        record["machine"] = f"{platform.machine()}, {os.cpu_count()} cores, shared with other work"
        print(json.dumps(record), flush=True)


def run(options: argparse.Namespace) -> None:
    """Run batches until the record has as many sequences."""
    limits = settings(
        max_examples=options.batch,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    with (
        tempfile.TemporaryDirectory() as work,
        fake_teacher(asks) as teacher,
        machine(make_model(Path(work) / "model"), teacher.url) as own,
    ):
        while True:
            with locked(options.out) as record:
                if record["sequences"] >= options.goal:
                    return
                number = record["next_seed"]
                record["next_seed"] += 1
            batch(own, number, limits, options.out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sequences", type=int, default=5000, help="so many more")
    parser.add_argument("--jobs", type=int, default=1, help="processes at once")
    parser.add_argument("--batch", type=int, default=25)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/command_sequences.json")
    options = parser.parse_args()
    with locked(options.out) as record:
        options.goal = record["sequences"] + options.sequences
    jobs = [multiprocessing.get_context("spawn").Process(target=run, args=(options,)) for _ in range(options.jobs)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    raise SystemExit(max(job.exitcode or 0 for job in jobs))


if __name__ == "__main__":
    main()

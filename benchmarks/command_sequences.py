"""Sequences of commands with crashes, drawn at random: each ends with the files of an undisturbed run.

    PYTHONPATH=tests python benchmarks/command_sequences.py [--sequences 5000] [--batch 25] [--out FILE]

The commands, faults and checks are those of tests/support/crash_machine.py. Adds to the recorded result, batch by
batch, so that a long run can be split; a sequence that fails is printed by Hypothesis in its shortest form.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from support.crash_machine import machine
from support.faulty_server import fake_teacher
from support.tiny import make_model
from support.whole_path import asks

STEPS = 8  # at most, in a sequence


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sequences", type=int, default=5000)
    parser.add_argument("--batch", type=int, default=25)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/command_sequences.json")
    arguments = parser.parse_args()
    record = {"sequences": 0, "commands": 0, "faults": 0, "failures": 0, "seconds": 0.0}
    if arguments.out.exists():
        record |= json.loads(arguments.out.read_text(encoding="utf-8"))
    limits = settings(
        max_examples=arguments.batch,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    with tempfile.TemporaryDirectory() as work, fake_teacher(asks) as teacher:
        own, goal = machine(make_model(Path(work) / "model"), teacher), record["sequences"] + arguments.sequences
        while record["sequences"] < goal:
            start = time.perf_counter()
            own.num_sequences = own.num_commands = own.num_faults = 0
            run_state_machine_as_test(own, settings=limits)  # raises where a sequence fails, and nothing is recorded
            record["sequences"] += own.num_sequences
            record["commands"] += own.num_commands
            record["faults"] += own.num_faults
            record["seconds"] = round(record["seconds"] + time.perf_counter() - start, 1)
            record |= {"machine": f"{platform.machine()}, {os.cpu_count()} cores, shared with other work"}
            arguments.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
            print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()

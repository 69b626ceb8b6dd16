"""Flip single bits in every file of a run; report, exam and export have to name the file and the line.

    python benchmarks/bit_flips.py [--flips 40] [--through 12] [--seed 0] [--out benchmarks/results/bit_flips.json]

A whole run on a tiny model, with a placebo, a judge, a marking page, a benchmark and an export. In each file, bits are
flipped one at a time, and the list of changes is searched for the file, and for the line where the file has lines. Then
one flip in each of some files goes through each of the three commands, on a copy of the run. Also recorded: what the links of a
journal cost.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import random
import shutil
import sys
import tempfile
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.faulty_server import fake_teacher  # noqa: E402
from support.flipped import COMMANDS, files_of, flip, line_of, make_run, shown_changes  # noqa: E402
from support.tuned_run import make_speaking_model  # noqa: E402
from tunewright.cli import main as tunewright  # noqa: E402
from tunewright.run_folder import Journal  # noqa: E402

LINES = 6000


def through_commands(run: Path, name: str, position: int, bit: int) -> dict[str, str]:
    """Return what is wrong with each command's output on a run with this bit flipped; "" where the file is named."""
    faults = {}
    for command, more in COMMANDS.items():
        with tempfile.TemporaryDirectory() as work:
            copy = Path(work) / "run"
            shutil.copytree(run, copy)
            flip(copy / name, position, bit)
            shown, code = io.StringIO(), 0
            with redirect_stderr(shown), redirect_stdout(shown):
                try:
                    tunewright([command, str(copy), *more])
                except SystemExit as end:
                    code = int(end.code or 0)
            text = shown.getvalue()
            named = name in text and "Traceback" not in text and "defect" not in text
            faults[command] = "" if named else f"exit {code}: {text[-300:]}"
    return faults


def journal_cost(folder: Path) -> dict[str, float]:
    """Return the seconds that a journal of 6,000 replies takes to write, line by line, and to open."""
    reply = {"key": "k" * 64, "stage": "synth", "model": "m", "text": "x" * 400, "finish": "stop", "num_tokens": 30}
    journal = Journal(folder / "journal.jsonl")
    start = time.perf_counter()
    for number in range(LINES):
        journal.append({**reply, "number": number})
    written = time.perf_counter()
    Journal(folder / "journal.jsonl")
    opened = time.perf_counter()
    return {"lines": LINES, "append_s": round(written - start, 2), "open_s": round(opened - written, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flips", type=int, default=40, help="of each file")
    parser.add_argument("--through", type=int, default=12, help="files whose flip goes through the commands")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/bit_flips.json"))
    options = parser.parse_args()
    dice = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as work, fake_teacher() as teacher:
        student = make_speaking_model(Path(work) / "llama")
        run = make_run(Path(work), student, teacher)
        missed, wrong_line, num_flips, by_command = [], [], 0, {command: 0 for command in COMMANDS}
        faults = []
        names = files_of(run)
        through = set(dice.sample(names, min(options.through, len(names))))
        for name in names:
            content = (run / name).read_bytes()
            for _ in range(min(options.flips, 8 * len(content))):
                position, bit = dice.randrange(len(content)), dice.randrange(8)
                flip(run / name, position, bit)
                shown = shown_changes(run)
                (run / name).write_bytes(content)
                num_flips += 1
                if name not in shown:
                    missed.append([name, position, bit])
                elif f"{name} line " in shown and f"{name} line {line_of(content, position)}" not in shown:
                    wrong_line.append([name, position, bit, shown])
            one = (dice.randrange(len(content)), dice.randrange(8))
            for command, fault in (through_commands(run, name, *one) if name in through else {}).items():
                by_command[command] += not fault
                faults += [f"{command} {name}: {fault}"] if fault else []
            print(name, len(missed), len(wrong_line), len(faults), file=sys.stderr, flush=True)
        result = {
            "date": time.strftime("%Y-%m-%d"),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "seed": options.seed,
            "files": len(names),
            "flips": num_flips,
            "named": num_flips - len(missed),
            "missed": missed,
            "wrong_line": wrong_line,
            "files_through_commands": sorted(through),
            "files_named_by_command": by_command,
            "faults_of_commands": faults,
            "journal": journal_cost(Path(work)),
        }
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    if missed or faults:
        raise SystemExit("a flipped bit was not named")


if __name__ == "__main__":
    main()

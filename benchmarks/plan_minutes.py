"""Does `plan` know how long a stage takes? Plans recipes, runs them, and holds the processor time against the plan.

    python benchmarks/plan_minutes.py RECIPE [RECIPE ...] [--set KEY=VALUE] [--stages train] [--work DIR] [-o FILE]

A busy machine has no minutes of its own, so both are processor time: `plan` is told that nothing else runs, and its seconds
are multiplied by the threads. On a machine at rest, divided by them, it is the time that passes.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

from tunewright import environment, pipeline
from tunewright.commands.plan import plan_document
from tunewright.models.loading import quiet_libraries
from tunewright.recipe import Recipe, load_recipe

RESULTS = Path(__file__).parent / "results" / "plan_minutes.json"
BEFORE = {"train": "curate", "evaluate": "train"}  # the stage that a measured one follows
BOUND = 0.25


def planned_and_measured(recipe: Recipe, folder: Path, stage: str) -> dict[str, Any]:
    """Return the processor seconds of a stage, as planned before anything ran and as measured, and how far it was off."""
    import torch

    threads = torch.get_num_threads()
    with mock.patch.object(os, "getloadavg", return_value=(0.0, 0.0, 0.0)):
        planned = next(row for row in plan_document(recipe, folder).stages if row.stage == stage)
    pipeline.run(recipe, folder, until=BEFORE[stage])
    began = time.process_time()
    pipeline.run(recipe, folder, until=stage)
    took, expected = time.process_time() - began, (planned.seconds or 0.0) * threads
    return {
        "work": planned.work,
        "threads": threads,
        "planned_processor_s": round(expected, 1),
        "measured_processor_s": round(took, 1),
        "off": round(took / expected - 1, 3),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="+", type=Path, metavar="RECIPE")
    parser.add_argument("--stages", nargs="+", choices=list(BEFORE), default=["train"])
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--work", type=Path, default=Path("build/plan-minutes"), help="folder of the runs")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    quiet_libraries()
    record = json.loads(options.output.read_text(encoding="utf-8")) if options.output.is_file() else {}
    wrong = 0
    for path in options.recipes:
        for stage in options.stages:
            result = planned_and_measured(load_recipe(path, options.settings), options.work / path.stem, stage)
            print(path.name, stage, json.dumps(result), flush=True)
            result |= {"set": options.settings} if options.settings else {}
            record.setdefault("recipes", {}).setdefault(path.name, {})[stage] = result
            wrong += abs(result["off"]) > BOUND
            record |= {"command": "python benchmarks/plan_minutes.py RECIPE ...", "versions": environment.versions(),
                       "machine": environment.machine()}  # fmt: skip
            options.output.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())

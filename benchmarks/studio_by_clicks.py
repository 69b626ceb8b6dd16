"""From an empty folder to a verdict on the triage demo by clicks alone: headless Chromium, the embedded model.

    python benchmarks/studio_by_clicks.py [--pictures build/clicks] [--out benchmarks/results/studio_by_clicks.json]

The chats, the exam and the settings are those of ``tunewright demo``; the clicks are those of
tests/studio/test_clicks_alone.py. One sample is rejected and the answer of another is edited before the training. The
server is killed (kill -9) while the recipe, the plan and the data are made, and in each stage of the run; in the
training, the browser is closed too. A machine that others use makes it slower, and nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.studio_person import Person, Way, from_an_empty_folder_to_a_verdict, person
from tunewright.commands.init import triage_demo
from tunewright.examples import FOLDER

WAIT_S = 3600


def with_a_shorter_time(answer: str) -> str:
    """Return a label whose start is its first word, as a person would correct "02:00 UTC"."""
    label = json.loads(answer)
    return json.dumps({**label, "started_at": label["started_at"].split()[0]}, ensure_ascii=False)


def way_of_the_demo() -> Way:
    """Return the demo's files and the settings of its recipe that the form has."""
    recipe = triage_demo()
    settings = {
        "exam-retention_items": recipe.exam.retention_items,
        "training-epochs": recipe.training.epochs,
        "training-batch_size": recipe.training.batch_size,
        "training-learning_rate": recipe.training.learning_rate,
        "training-max_tokens": recipe.training.max_tokens,
        "evaluation-max_new_tokens": recipe.evaluation.max_new_tokens,
    }
    return Way(
        "triage",
        FOLDER / "triage.train.jsonl",
        {name: str(value) for name, value in settings.items()},
        with_a_shorter_time,
        exam=FOLDER / "triage.exam.jsonl",
        wait_s=WAIT_S,
    )


def outcome(someone: Person) -> dict[str, Any]:
    """Return what the run's records and its report say."""
    verdict = someone.run.read_json("verdict.json")
    curate = someone.run.read_json("stages/curate.json")["summary"]
    report = someone.run.file("data.html").read_text(encoding="utf-8")
    return {
        "why": verdict["why"],
        "scores": {
            arm["arm"]: {key: round(arm["primary"][key], 3) for key in ("mean", "low", "high")}
            for arm in verdict["results"]["arms"]
        },
        "funnel": {key: curate[key] for key in ("num_in", "num_out", "rejected")},
        "by_hand": {key: value for key, value in curate["figures"].items() if key.endswith("by hand")},
        "report_names_the_rejected": "rejected by hand" in report,
        "stage_seconds": {
            path.stem: round(json.loads(path.read_text(encoding="utf-8"))["duration_s"], 1)
            for path in sorted(someone.run.file("stages").iterdir())
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=Path, default=Path("build/clicks"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/studio_by_clicks.json"))
    options = parser.parse_args()
    options.pictures.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with TemporaryDirectory() as folder, person(Path(folder), way_of_the_demo(), options.pictures) as someone:
        name = from_an_empty_folder_to_a_verdict(someone)
        result = {
            "date": time.strftime("%Y-%m-%d"),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, shared",
            "load_average": round(os.getloadavg()[0], 1),
            "browser": f"Chromium {someone.browser.version}",
            "seconds": round(time.monotonic() - began),
            "verdict": name,
            **outcome(someone),
            "kills": [asdict(kill) for kill in someone.kills],
            "faults_in_the_browser": someone.faults,
            "pictures": sorted(path.stem for path in options.pictures.glob("*.png")),
        }
    options.out.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2, ensure_ascii=False))
    if someone.faults or not result["report_names_the_rejected"]:
        raise SystemExit("the browser or the report has a fault")


if __name__ == "__main__":
    main()

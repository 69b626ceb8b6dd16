"""Is the verdict right where the truth is known? Runs the scenarios through the real pipeline, and records what came.

    python benchmarks/verdicts/run.py [NAME ...] [--only-preview] [--work DIR] [-o FILE]

Each NAME is a recipe of this folder; without any, all run, one after the other: about 25 minutes on two CPU cores. A run
continues where it was stopped, and what is unchanged is not run again. Beside each verdict stands what `tunewright preview`
said before the training: whether the gain over the best rival, whatever it became, is within what it called left to gain.
Exit code 1: a verdict was not the right one, or a gain was beyond that bound.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results" / "verdicts.json"
sys.path.insert(0, str(HERE.parent))

from verdicts.scenarios import SCENARIOS, STOPPED, Scenario  # noqa: E402

from tunewright import console, environment, pipeline  # noqa: E402
from tunewright.commands.preview import preview  # noqa: E402
from tunewright.errors import TrainingError, UserError  # noqa: E402
from tunewright.evaluation.rule import CHEAP  # noqa: E402
from tunewright.evaluation.verdict import Verdict  # noqa: E402
from tunewright.models.loading import quiet_libraries  # noqa: E402
from tunewright.recipe import load_recipe  # noqa: E402
from tunewright.run_folder import RunFolder  # noqa: E402
from tunewright.settings import Arm  # noqa: E402


def prepare(name: str, scenario: Scenario, work: Path) -> Path:
    """Write the scenario's data and its recipe into a folder of its own; return the recipe's path."""
    folder = work / (scenario.same_training or name)
    for path, text in scenario.files().items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    recipe = folder / f"{name}.toml"
    recipe.write_text((HERE / f"{scenario.same_training or name}.toml").read_text(encoding="utf-8"), encoding="utf-8")
    return recipe


def outcome_of(name: str, scenario: Scenario, work: Path) -> dict[str, Any]:
    """Run a scenario up to its verdict; return the verdict, whether it is right, and the evidence."""
    path = prepare(name, scenario, work)
    folder = path.parent / "run"
    outcome = {"expected": " or ".join(scenario.expected), "because": scenario.reason}
    if scenario.words:
        outcome["words"] = scenario.words
    try:
        run = pipeline.run(load_recipe(path, scenario.settings), folder, until="evaluate")
    except TrainingError as error:
        got = {"verdict": STOPPED, "why": [error.headline, error.cause]}
    else:
        got = _evidence(run, Verdict.model_validate(run.read_json("verdict.json")))
    got |= preview_of(path, scenario, got)
    right = got["verdict"] in scenario.expected and scenario.words in " ".join(got["why"])
    return {"right": right, **outcome, **got}


def preview_of(path: Path, scenario: Scenario, got: dict[str, Any]) -> dict[str, Any]:
    """Return what the preview of a scenario calls left to gain, and whether the gain that came is within it."""
    before = preview(load_recipe(path, scenario.settings), path.parent / "run")
    rivals = {arm: score[0] for arm, score in got.get("scores", {}).items() if arm in CHEAP or arm == Arm.BASE}
    gain = round(got["scores"]["tuned"][0] - max(rivals.values()), 3) if rivals else None
    return {
        "preview": {
            "best": before.best,
            "questions": before.num_questions,
            "left_to_gain": [round(value, 3) for value in (before.left.mean, before.left.low, before.left.high)],
            "gain_over_best_rival": gain,
            "bound_holds": gain is None or gain <= before.left.high,
        }
    }


def _evidence(run: RunFolder, verdict: Verdict) -> dict[str, Any]:
    """Return what the verdict rests on, rounded, and the seconds that its stages took."""
    seconds = sum(float(run.stage_record(stage).get("duration_s", 0)) for stage in pipeline.STAGE_NAMES)
    return {
        "verdict": verdict.name,
        "why": list(verdict.why),
        "scores": {
            arm.arm: [round(value, 3) for value in (arm.primary.mean, arm.primary.low, arm.primary.high)]
            for arm in verdict.results.arms
        },
        "tuned_minus": {
            difference.second: [
                round(value, 3)
                for value in (difference.interval.mean, difference.interval.low, difference.interval.high)
            ]
            for difference in verdict.results.differences
            if difference.first == "tuned"
        },
        "rule_version": verdict.rule["version"],
        "seconds": round(seconds),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[*SCENARIOS, []])
    parser.add_argument("--only-preview", action="store_true", help="add the preview to the recorded verdicts")
    parser.add_argument("--work", type=Path, default=Path("build/verdicts"), help="folder of the runs")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    quiet_libraries()
    record = json.loads(options.output.read_text(encoding="utf-8")) if options.output.is_file() else {}
    outcomes = record.get("scenarios", {})
    wrong = 0
    for name in options.names or SCENARIOS:
        console.heading(f"scenario {name}")
        try:
            if options.only_preview:
                path = prepare(name, SCENARIOS[name], options.work)
                outcomes[name] |= preview_of(path, SCENARIOS[name], outcomes[name])
            else:
                outcomes[name] = outcome_of(name, SCENARIOS[name], options.work)
        except UserError as error:
            console.error(error)
            return 1
        outcomes[name]["command"] = f"python benchmarks/verdicts/run.py {name}"
        record = {
            "what": "verdicts of scenarios whose right verdict follows from how they are made",
            "command": "python benchmarks/verdicts/run.py",
            **(record if options.only_preview else {}),
            ("versions_of_previews" if options.only_preview else "versions"): environment.versions(),
            **({} if options.only_preview else {"machine": environment.machine()}),
            "scenarios": {key: outcomes[key] for key in SCENARIOS if key in outcomes},
        }
        options.output.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        wrong += not (outcomes[name]["right"] and outcomes[name]["preview"]["bound_holds"])
        console.line(f"{name}: {outcomes[name]['verdict']}, {'right' if outcomes[name]['right'] else 'WRONG'}")
        console.line(f"  preview: {outcomes[name]['preview']}")
    console.line(f"{wrong} of {len(options.names or SCENARIOS)} verdicts, or their previews, are wrong")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())

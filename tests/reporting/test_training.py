import json
import re
from pathlib import Path
from typing import Any

import pytest

from support import finished_run
from tunewright.errors import RunFolderError
from tunewright.html import figures
from tunewright.records import StageSummary
from tunewright.reporting.stage import read_metrics_rows, read_plans, report
from tunewright.reporting.training import advice, training_phases
from tunewright.run_folder import RunFolder


def logged(path: Path, rows: list[dict[str, Any]]) -> RunFolder:
    run = RunFolder.create(path)
    run.write("metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    return run


def section(run: RunFolder) -> str:
    """Return the report's training section without tags, and with single spaces."""
    report(run, finished_run.RECIPE)
    page = run.file("report.html").read_text(encoding="utf-8")
    match = re.search(r'<section aria-labelledby="training">.*?</section>', page, re.DOTALL)
    return " ".join(re.sub(r"<[^>]*>", " ", match[0]).split()) if match else ""


def test_each_phase_has_its_losses_in_one_figure_and_dpo_its_rewards(tmp_path: Path) -> None:
    phases = training_phases(read_metrics_rows(logged(tmp_path / "run", finished_run.metrics())))
    assert phases is not None
    sft, dpo = phases
    assert (sft["phase"], sft["num_steps"], dpo["phase"], dpo["num_steps"]) == ("sft", 66, "dpo", 24)
    assert sft["rewards"] is None
    for phase in phases:
        assert re.findall(r'class="name ?\w*"[^>]*>([^<]+)<', phase["figure"]) in (
            ["training", "held-out"],
            ["held-out", "training"],
        )
        assert phase["figure"].count("<polyline") == 2
        assert phase["figure"].count("<circle") == len(phase["held_out"]) == 4
    assert dpo["rewards"]["figure"].count("<polyline") == 2
    assert {"chosen", "rejected"} == set(re.findall(r">(chosen|rejected)<", dpo["rewards"]["figure"]))
    last = finished_run.metrics()[-1]
    assert (dpo["rewards"]["margin"], dpo["rewards"]["accuracy"]) == (last["margin"], last["accuracy"])


def test_the_page_shows_the_figures_of_each_phase(tmp_path: Path) -> None:
    run, _ = finished_run.write(tmp_path / "run")
    text = section(run)
    assert "Supervised fine-tuning 66 steps; loss" in text
    assert "Preferences (DPO) 24 steps; loss" in text
    assert "nats per supervised token. Dashed" in text
    assert "mean per pair. Dashed" in text
    assert re.search(r"3\.48 at first and 1\.\d\d at last; lowest 1\.\d\d after step \d+", text)
    assert re.search(r"Margin at the last step: \+2\.\d\d\. Accuracy at the last step: 100% of its pairs", text)
    assert "memory 10.00 GiB 10.50 GiB +5%" in text
    assert "time 6 min 00 s 5 min 42 s −5%" in text
    assert "time 2 min 00 s 2 min 30 s +25%" in text
    assert text.count("GiB") == 2  # DPO ran without a GPU's memory: no row of zeros
    assert "activation checkpointing off; a full copy of the base is kept; the fast path; memory never ran out." in text
    assert (
        "checkpointing on; the plain path; memory ran out twice; the copy of the base was dropped, the micro-batch was halved"
        in text
    )


def test_a_log_without_phases_or_held_out_data_is_one_plain_line(tmp_path: Path) -> None:
    run = logged(tmp_path / "run", [{"step": step, "loss": 3.0 / step} for step in (1, 2, 3)])
    phases = training_phases(read_metrics_rows(run))
    assert phases is not None
    (phase,) = phases
    assert (phase["phase"], phase["num_steps"], phase["held_out"]) == ("sft", 3, [])
    assert phase["figure"].count("<polyline") == 1
    assert 'class="name' not in phase["figure"]


@pytest.mark.parametrize("rows", [[], [{"phase": "sft", "step": 0, "held_out_loss": 2.0}]])
def test_no_step_taken_is_no_training(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    assert training_phases(read_metrics_rows(logged(tmp_path / "run", rows))) is None


@pytest.mark.parametrize(
    "line", ["[1]", '{"step": 1}', '{"step": 1, "loss": null}', '{"phase": "sft", "loss": 1}', "{"]
)
def test_a_line_that_is_no_step_is_named(tmp_path: Path, line: str) -> None:
    run = RunFolder.create(tmp_path / "run")
    run.write("metrics.jsonl", line + "\n")
    with pytest.raises(RunFolderError, match="no training step"):
        read_metrics_rows(run)


@pytest.mark.parametrize(("halvings", "text"), [(0, "never ran out"), (1, "ran out once"), (3, "ran out 3 times")])
def test_how_often_memory_ran_out_is_written_in_words(tmp_path: Path, halvings: int, text: str) -> None:
    run = RunFolder.create(tmp_path / "run")
    run.write_json("plan.json", {"sft": {**finished_run.PLANS["sft"], "halvings": halvings}})
    plans = read_plans(run)
    assert plans is not None
    assert f"memory {text}" in plans["sft"]["note"]


def test_a_run_without_a_plan_has_none_and_a_broken_one_is_named(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run")
    assert read_plans(run) is None
    run.write_json("plan.json", {"sft": {"halvings": 1}})
    with pytest.raises(RunFolderError, match="does not hold the plan"):
        read_plans(run)


def test_advice_is_shown_as_sentences_in_its_order_and_nowhere_else(tmp_path: Path) -> None:
    run, _ = finished_run.write(tmp_path / "run")
    entry = run.read_json("stages/train.json")
    entry["summary"]["figures"] = {
        "steps": 90,
        "advice_10": "Tenth & last.",
        "advice_2": "Second.",
        "advice_1": "First.",
    }
    run.write_json("stages/train.json", entry)
    assert section(run).startswith("Training First. Second. Tenth &amp; last. Supervised fine-tuning")
    page = run.file("report.html").read_text(encoding="utf-8")
    assert "advice_" not in page
    assert page.count("Second.") == 1
    run.file("metrics.jsonl").unlink()
    assert section(run) == "Training First. Second. Tenth &amp; last."


def test_without_a_train_stage_there_is_no_advice() -> None:
    assert advice(None) == []
    assert advice(StageSummary(num_in=1, num_out=1, figures={"steps": 3, "advice_x": "no"})) == []


def test_names_of_lines_that_end_together_do_not_cover_each_other() -> None:
    lines = [figures.Line(name, [(0.0, 2.0), (9.0, 1.0)]) for name in ("training", "held-out <b>", "third")]
    svg = figures.curve(lines, "losses", "step")
    heights = sorted(float(y) for y in re.findall(r'class="name[^>]* y="([\d.]+)"', svg))
    assert len(heights) == 3
    assert min(b - a for a, b in zip(heights, heights[1:], strict=False)) >= 16
    assert heights[-1] <= 220  # above the axis's own labels
    assert "held-out &lt;b&gt;" in svg


def test_every_line_is_thinned_and_not_a_number_left_out() -> None:
    long = [(float(n), float(n % 2)) for n in range(10_000)]
    svg = figures.curve([figures.Line("a", long), figures.Line("b", [*long, (10_000.0, float("inf"))])], "x", "step")
    assert all(len(points.split()) <= 400 for points in re.findall(r'points="([^"]*)"', svg))
    assert "inf" not in svg

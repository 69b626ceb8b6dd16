"""What an answer costs, and when the training is repaid."""

import json

import pytest

from support import finished_run
from tunewright.reporting.stage import report
from tunewright.reporting.training import break_even
from tunewright.run_folder import RunFolder


def with_seconds(run_and_verdict: tuple[RunFolder, object], **seconds: float):
    results = run_and_verdict[1].results
    arms = tuple(
        arm.model_copy(update={"duration_s": seconds[arm.arm.replace("+", "_")]})
        for arm in results.arms
        if arm.arm.replace("+", "_") in seconds
    )
    return results.model_copy(update={"arms": arms})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return finished_run.write(tmp_path_factory.mktemp("costs") / "run")


def test_the_training_is_repaid_once_the_answers_saved_as_much(finished):
    results = with_seconds(finished, base=0.4, rag=1.0, tuned=0.75)
    even = break_even(results, {"train": 100.0, "exam": 10.0, "synth": 20.0, "evaluate": 500.0})
    assert even.saved_s == 0.25 and even.answers == 400 and even.with_data == 520
    assert even.prompt_tokens == 430 - 62
    resumed = break_even(results, {"train": 100.0}, steps_s=250.0)  # the last attempt did a part of the steps
    assert (resumed.spent_s, resumed.answers) == (250.0, 1000)


def test_what_saves_nothing_is_never_repaid_and_an_unknown_time_gives_none(finished):
    slower = break_even(with_seconds(finished, rag=0.5, tuned=0.5), {"train": 100.0})
    assert slower.answers is None and slower.with_data is None
    assert break_even(with_seconds(finished, tuned=0.5), {"train": 100.0}) is None
    assert break_even(with_seconds(finished, rag=1.0, tuned=0.5), {}) is None


def test_the_report_shows_costs_and_types(tmp_path):
    run, verdict = finished_run.write(tmp_path / "run")
    report(run, finished_run.RECIPE)
    page = run.file("report.html").read_text()
    section = page.split('id="costs"')[1].split("</section>")[0]
    assert all(f'<th scope="row">{arm.arm}</th>' in section for arm in verdict.results.arms)
    rows = [json.loads(line) for line in run.file("metrics.jsonl").read_text().splitlines()]
    steps_s = sum(row["num_tokens"] / row["tokens_per_s"] for row in rows if row.get("tokens_per_s"))
    even = break_even(verdict.results, {"train": 96.3, "exam": 41.8, "synth": 78.0, "curate": 1.1}, steps_s)
    label = f"{even.answers:,} answers" if even.answers is not None else "does not repay"
    assert label in section
    types = page.split("Score by type of question")[1].split("</table>")[0]
    assert "unseen, passage shown" in types and "unseen, not answerable" in types and "learned" in types

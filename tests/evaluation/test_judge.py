"""The exam's judge: a real local server judges a finished run, and is put on trial against people's marks."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from support import finished_run
from support.faulty_server import Answer as ServerAnswer
from support.faulty_server import Seen, completion, fake_teacher
from tunewright.annotation.plan import pairs
from tunewright.commands.mark import read_marks
from tunewright.errors import RecipeError
from tunewright.evaluation.judge import (
    JudgeSummary,
    Judgment,
    check_independent,
    family_of_name,
    judge_differences,
    summarize,
)
from tunewright.evaluation.results import Results
from tunewright.evaluation.stage import judge_exam
from tunewright.evaluation.verdict import Verdict
from tunewright.recipe import Recipe
from tunewright.records import Answer, Mark, Question
from tunewright.reporting.opinions import disagreement, judge_trial
from tunewright.reporting.stage import read_opinions, report
from tunewright.run_folder import RunFolder
from tunewright.settings import JudgeSettings, ModelSettings, TeacherSettings
from tunewright.stages import stages_of
from tunewright.statistics.intervals import paired

Respond = Callable[[Seen], ServerAnswer]


def by_length(longest: bool) -> Respond:
    """A judge that finds every claim supported, and prefers the longer (or the shorter) answer."""

    def respond(seen: Seen) -> ServerAnswer:
        prompt = seen.body["messages"][-1]["content"]
        if "Answer A: " not in prompt:
            return ServerAnswer(body=completion(json.dumps({"claims": [{"claim": "c", "verdict": "supported"}]})))
        first = prompt.split("Answer A: ")[1].split("\n\nAnswer B: ")[0]
        second = prompt.split("\n\nAnswer B: ")[1].split("\n\nWhich answer is better?")[0]
        better = "tie" if len(first) == len(second) else "A" if (len(first) > len(second)) == longest else "B"
        return ServerAnswer(body=completion(json.dumps({"better": better})))

    return respond


def judging(url: str, **more: object) -> Recipe:
    judge = JudgeSettings.model_validate({"url": url, "model": "arbiter", **more})
    return finished_run.RECIPE.model_copy(update={"judge": judge})


def results_of(run: RunFolder) -> Results:
    return Verdict.model_validate(run.read_json("verdict.json")).results


def judged_run(path: Path, respond: Respond) -> tuple[RunFolder, Recipe, int]:
    run, _ = finished_run.write(path)
    with fake_teacher(respond) as server:
        recipe = judging(server.url)
        judge_exam(run, recipe)
        before = len(server.seen)
        judge_exam(run, recipe)
        assert len(server.seen) == before  # journalled: a rerun costs nothing
    return run, recipe, before


def test_every_arm_is_read_and_tuned_is_compared_with_each_rival(tmp_path):
    run, _, num_calls = judged_run(tmp_path / "run", by_length(longest=True))
    summary = JudgeSummary.model_validate(run.read_json("judge.json"))
    judgments = run.read_records("judgments.jsonl", Judgment)
    exam, answers = run.read_records("exam.jsonl", Question), run.read_records("answers.jsonl", Answer)
    assert [f.arm for f in summary.faithfulness] == list(finished_run.QUALITY)
    assert all(f.supported and f.supported.mean == 1 for f in summary.faithfulness)
    assert [(p.first, p.second) for p in summary.preferences] == [
        ("tuned", arm) for arm in ("base", "few-shot", "similar-shot", "rag")
    ]
    assert all(p.wins + p.losses + p.ties == len(exam) for p in summary.preferences)
    assert summary.longer_won.num == summary.longer_won.of > 0 and summary.flipped.num == 0
    assert 2 * summary.first_shown.num == summary.first_shown.of  # each order once
    answerable = {q.id for q in exam if q.answerable}
    single = [j for j in judgments if len(j.arms) == 1]
    assert {j.question for j in single} <= answerable
    empty = sum(a.question in answerable and not a.text.strip() for a in answers)
    assert sum(f.declined for f in summary.faithfulness) + len(single) + empty == len(answerable) * len(
        finished_run.QUALITY
    )
    texts = {(a.question, a.arm): a.text.strip() for a in answers}
    different = [j for j in judgments if len(j.arms) == 2 and len({texts[j.question, arm] for arm in j.arms}) == 2]
    judged = {(j.question, texts[j.question, j.arms[0]]) for j in single}
    pairs = {(j.question, *(texts[j.question, arm] for arm in j.arms)) for j in different}
    assert num_calls == len(judged) + 2 * len(pairs)


def test_a_judge_that_is_not_independent_is_refused_unless_forced_and_then_the_report_says_so(tmp_path):
    own = finished_run.RECIPE.model_copy(
        update={
            "teacher": TeacherSettings(url="http://x/v1", model="Big-70B"),
            "model": ModelSettings(base="HuggingFaceH4/zephyr-7b-beta"),
        }
    )
    for model, reason in (("big-70b", "wrote the training data"), ("mistral-large", "student's family (Mistral)")):
        refused = own.model_copy(update={"judge": JudgeSettings(url="http://y/v1", model=model)})
        with pytest.raises(RecipeError) as caught:
            check_independent(refused)
        assert reason in str(caught.value.cause)
        forced = own.model_copy(update={"judge": JudgeSettings(url="http://y/v1", model=model, forced=True)})
        assert reason in check_independent(forced)[0]
    allowed = own.model_copy(update={"judge": JudgeSettings(url="http://y/v1", model="Qwen3-32B")})
    assert check_independent(allowed) == ()
    run, _ = finished_run.write(tmp_path / "run")
    with fake_teacher(by_length(longest=True)) as server:
        recipe = judging(server.url, model="SmolLM3-3B", forced=True)
        judge_exam(run, recipe)
    report(run, recipe)
    assert "SmolLM3-3B is of the student" in run.file("report.html").read_text()


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", "Llama"),
        ("Qwen/Qwen2.5-7B", "Qwen"),
        ("HuggingFaceH4/zephyr-7b-beta", "Mistral"),
        ("embedded", "SmolLM"),
        ("gpt-5", "GPT"),
        ("/models/llama-models/mymodel", ""),
        ("delphi-7b", ""),
        ("phi-4", "Phi"),
    ],
)
def test_families_are_known_by_the_last_part_of_a_name(name, family):
    assert family_of_name(name) == family


def marked_by_length(run: RunFolder, path: Path, longest: bool) -> Path:
    """Fill in the comparison table: whoever marks prefers the longer (or the shorter) of base and tuned."""
    import csv
    import io

    rows = list(csv.DictReader(io.StringIO(run.file("comparison.csv").read_text(encoding="utf-8-sig"))))
    for row in rows:
        one, other = len(row["base"]), len(row["tuned"])
        row["winner"] = "tie" if one == other else "base" if (one > other) == longest else "tuned"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_a_judge_no_better_than_a_ruler_is_shown_but_not_counted(tmp_path):
    run, recipe, _ = judged_run(tmp_path / "run", by_length(longest=True))
    report(run, recipe)
    assert "People have not marked answers" in run.file("report.html").read_text()
    read_marks(run, [marked_by_length(run, tmp_path / "ann.csv", longest=True)], ("base", "tuned"))
    outcome = read_opinions(run, results_of(run)).judged["trial"]
    assert outcome["judge"].share == outcome["longest"].share == 1 and not outcome["counted"]
    report(run, recipe)
    page = run.file("report.html").read_text()
    assert "no better" in page and "Marks by people" in page
    left_out = page.split('id="unmeasured"')[1].split("</section>")[0]
    assert "judge" not in left_out and "human marks" not in left_out


def test_a_judge_that_beats_the_ruler_is_counted(tmp_path):
    run, recipe, _ = judged_run(tmp_path / "run", by_length(longest=False))
    read_marks(run, [marked_by_length(run, tmp_path / "ann.csv", longest=False)], ("base", "tuned"))
    outcome = read_opinions(run, results_of(run)).judged["trial"]
    assert outcome["judge"].share == 1 and outcome["longest"].share == 0 and outcome["counted"]
    report(run, recipe)
    assert "counts as evidence beside the verdict" in run.file("report.html").read_text()


def test_no_verdict_is_distinct_from_a_tie_and_a_position_is_seen(tmp_path):
    answers = {("q", "tuned"): "aa", ("q", "base"): "b", ("r", "tuned"): "a", ("r", "base"): "bb"}
    judgments = [
        Judgment(
            question="q", document="d", arms=("tuned", "base"), outcome="tie", flipped=True, choices=2, first_shown=2
        ),
        Judgment(question="r", document="e", arms=("tuned", "base"), outcome=None),
        Judgment(question="q", document="d", arms=("tuned",), outcome="contradicted"),
        Judgment(question="r", document="e", arms=("tuned",), outcome=None),
    ]
    summary = summarize(judgments, answers, {"tuned": 3}, "m")
    assert summary.preferences[0].ties == 1 and summary.flipped.num == summary.flipped.of == 1
    assert (summary.first_shown.num, summary.first_shown.of) == (2, 2) and summary.longer_won.of == 0
    assert summary.faithfulness[0].findings == {"contradicted": 1, "no verdict": 1}
    assert summary.faithfulness[0].supported and summary.faithfulness[0].supported.num == 1
    assert judge_differences(judgments, ("base", "tuned")) == {"q": 0.0}


def test_the_stage_exists_only_with_a_judge():
    assert "judge" not in [stage.name for stage in stages_of(Recipe())]
    assert "judge" in [stage.name for stage in stages_of(judging("http://x/v1"))]


def test_people_and_score_that_disagree_beyond_chance_are_reported_on_top(tmp_path):
    run, verdict = finished_run.write(tmp_path / "run", quality={"base": 0.1, "tuned": 0.9})
    assert verdict.results.difference("tuned", "base").interval.low > 0
    marking = read_marks(run, [marked_by_length(run, tmp_path / "ann.csv", longest=True)], ("base", "tuned"))
    prefers = [paired([sign * 1.0] * 29 + [0.0], [str(n) for n in range(30)]) for sign in (-1, 1)]
    base, tuned = (marking.model_copy(update={"preference": preference}) for preference in prefers)
    assert "people prefer base, the score tuned" in disagreement(base, verdict.results)
    assert disagreement(tuned, verdict.results) == disagreement(None, verdict.results) == ""
    run.write("marking.json", base.model_dump_json())
    report(run, finished_run.RECIPE)
    assert "Treat this verdict as NOT PROVEN" in run.file("report.html").read_text().split("<main>")[0]


def test_opinions_of_earlier_answers_are_left_out(tmp_path):
    run, recipe, _ = judged_run(tmp_path / "run", by_length(longest=False))
    read_marks(run, [marked_by_length(run, tmp_path / "ann.csv", longest=False)], ("base", "tuned"))
    assert read_opinions(run, results_of(run)).marked and read_opinions(run, results_of(run)).judged
    answers = run.file("answers.jsonl").read_text()
    run.write("answers.jsonl", answers.replace("genre", "sort").replace("general", "common"))
    opinions = read_opinions(run, results_of(run))
    assert opinions.marked is opinions.judged is None and opinions.disagreement == ""


def test_the_disagreement_is_reported_whichever_arm_is_named_first(tmp_path):
    run, verdict = finished_run.write(tmp_path / "run", quality={"base": 0.1, "tuned": 0.9})
    marking = read_marks(run, [marked_by_length(run, tmp_path / "ann.csv", longest=True)], ("tuned", "base"))
    prefers_base = paired([1.0] * 29 + [0.0], [str(n) for n in range(30)])
    turned = marking.model_copy(update={"preference": prefers_base})
    assert "people prefer base, the score tuned" in disagreement(turned, verdict.results)


def test_a_judge_that_agrees_no_better_than_a_coin_is_not_counted(tmp_path):
    run, _, _ = judged_run(tmp_path / "run", by_length(longest=True))
    marking = read_marks(run, [marked_by_length(run, tmp_path / "ann.csv", longest=False)], ("base", "tuned"))
    worse = marking.model_copy(update={"longest": marking.longest.model_copy(update={"share": 0.0})})
    questions, answers = run.read_records("exam.jsonl", Question), run.read_records("answers.jsonl", Answer)
    marks, judgments = run.read_records("marks.jsonl", Mark), run.read_records("judgments.jsonl", Judgment)
    outcome = judge_trial(worse, pairs(questions, answers, worse.arms), marks, judgments)
    assert outcome["judge"].share == 0 and not outcome["counted"]

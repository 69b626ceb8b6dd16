"""Where evaluation.primary is "marks": people and a judge decide the verdict, from records alone."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from support import finished_run
from support.marked_run import downloaded, filled, prefers
from tunewright.annotation.decision import Ballot, ballot, look, marked_difference, marks_plan
from tunewright.annotation.plan import pairs
from tunewright.commands.mark import read_marks, write_page
from tunewright.commands.status import broken
from tunewright.errors import StageError
from tunewright.evaluation.judge import Judgment, summarize
from tunewright.evaluation.rule import note_rule, rule, rule_digest
from tunewright.evaluation.verdict import Verdict, decide
from tunewright.pipeline import run as run_stages
from tunewright.recipe import Recipe, dump_recipe
from tunewright.records import Answer, Mark, Question, RetentionAnswer, Score
from tunewright.run_folder import RunFile, RunFolder
from tunewright.stages import STAGES, stages_of
from tunewright.statistics.agreement import exact_share
from tunewright.statistics.prediction_powered import prediction_powered
from tunewright.storage import file_digest

QUALITY = {**finished_run.QUALITY, "few-shot": 0.1, "similar-shot": 0.1, "rag": 0.4, "tuned": 0.95, "tuned+rag": 0.95}
RIVAL = ("rag", "tuned")  # rag has the highest score of the rivals


def by_marks() -> Recipe:
    recipe = finished_run.RECIPE
    return recipe.model_copy(update={"evaluation": recipe.evaluation.model_copy(update={"primary": "marks"})})


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run as its evaluate stage leaves it where marks decide."""
    opened, _ = finished_run.write(tmp_path / "run", quality=QUALITY)
    recipe = by_marks()
    written = rule(recipe.evaluation.margin, list(QUALITY), recipe.evaluation.forgetting_margin, primary="marks")
    note_rule(opened.journal(RunFile.RULE_HISTORY), written, answered=False)
    opened.write_json(RunFile.RULE, written)
    verdict = decide(
        opened.read_records(RunFile.SCORES, Score),
        opened.read_records(RunFile.ANSWERS, Answer),
        written,
        0,
        opened.read_records(RunFile.RETENTION_ANSWERS, RetentionAnswer),
    )
    opened.write(RunFile.VERDICT, verdict.model_dump_json())
    opened.write(RunFile.RECIPE, dump_recipe(recipe))
    record = opened.read_json("stages/evaluate.json")
    record["outputs"] = {name: file_digest(opened.file(name)) for name in ("answers.jsonl", "scores.jsonl")}
    opened.write_json("stages/evaluate.json", record)
    return opened


def verdict_of(run: RunFolder) -> Verdict:
    return run.read_record(RunFile.VERDICT, Verdict)


def judge(run: RunFolder, arms: tuple[str, str] = RIVAL, wrong: float = 0.1) -> None:
    """Let a judge prefer the answer with the higher score, but for some questions the other."""
    draw = random.Random(1)
    score = {(s.question, s.arm): s.primary for s in run.read_records(RunFile.SCORES, Score)}
    judgments = []
    for question in run.read_records(RunFile.EXAM, Question):
        order = arms if draw.random() > wrong else arms[::-1]
        low, high = (score[question.id, arm] for arm in order)
        outcome = "tie" if low == high else arms[1] if low < high else arms[0]
        judgments.append(Judgment(question=question.id, document=question.document, arms=arms[::-1], outcome=outcome))
    texts = {(a.question, a.arm): a.text for a in run.read_records(RunFile.ANSWERS, Answer)}
    summary = summarize(judgments, texts, {}, "arbiter").model_copy(
        update={"answers": file_digest(run.file(RunFile.ANSWERS))}
    )
    run.write_records(RunFile.JUDGMENTS, judgments)
    run.write(RunFile.JUDGE, summary.model_dump_json())


def test_without_marks_nothing_is_proven_and_the_command_is_named(run: RunFolder) -> None:
    judge(run)  # the judge alone decides nothing
    run_stages(by_marks(), run.path, only=("verdict",))
    verdict = verdict_of(run)
    assert verdict.name == "NOT PROVEN" and not verdict.results.marked
    [why] = [line for line in verdict.why if "Marks by people decide" in line]
    assert "30 blind marks are needed, 0 are there, 30 are missing" in why
    assert "tunewright mark DIR --arms rag tuned" in why


def test_the_score_would_have_shipped(run: RunFolder) -> None:
    plain = {key: value for key, value in run.read_json(RunFile.RULE).items() if key != "marks"}
    scores, answers = run.read_records(RunFile.SCORES, Score), run.read_records(RunFile.ANSWERS, Answer)
    kept = run.read_records(RunFile.RETENTION_ANSWERS, RetentionAnswer)
    assert decide(scores, answers, plain, 0, kept).name == "SHIP"


@pytest.mark.parametrize(("winner", "name"), [("tuned", "SHIP"), ("rag", "USE RAG")])
def test_reading_marks_gives_the_verdict_again(
    run: RunFolder, tmp_path: Path, winner: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    judge(run)
    write_page(run, RIVAL)
    assert "the plan needs" in capsys.readouterr().err
    file = downloaded(run, tmp_path / "few.json", prefers(run, winner), num=12)
    read_marks(run, [file], RIVAL)
    verdict = verdict_of(run)
    against = verdict.results.marks_against("rag")
    assert against and against.num_missing == 30 - against.num_marks > 0 and verdict.name == "NOT PROVEN"
    file = downloaded(run, tmp_path / "more.json", prefers(run, winner), num=40)
    read_marks(run, [file], RIVAL)
    verdict = verdict_of(run)
    against = verdict.results.marks_against("rag")
    assert verdict.name == name and against and against.num_marks >= 30
    assert f"verdict: {name}" in capsys.readouterr().err
    assert verdict.results.retrieval is None and not broken(run)
    page = run.file(RunFile.REPORT).read_text(encoding="utf-8")
    assert "People and the judge" in page and "judge agrees" in page and f"<td>{against.num_marks} of " in page
    before = run.file(RunFile.VERDICT).read_bytes()
    read_marks(run, [file], RIVAL)
    assert run.file(RunFile.VERDICT).read_bytes() == before


def test_a_verdict_edited_by_hand_breaks_the_seal(run: RunFolder, tmp_path: Path) -> None:
    write_page(run, RIVAL)
    read_marks(run, [downloaded(run, tmp_path / "a.json", prefers(run, "rag"))], RIVAL)
    run.write(RunFile.VERDICT, run.file(RunFile.VERDICT).read_text().replace("USE RAG", "SHIP"))
    assert any("verdict.json was changed" in fault for fault in broken(run))


def test_marks_in_a_table_are_not_blind_and_do_not_decide(run: RunFolder, tmp_path: Path) -> None:
    read_marks(run, [filled(run, tmp_path / "Ann.csv", ["tuned"] * 60)], RIVAL)
    assert verdict_of(run).name == "NOT PROVEN" and not verdict_of(run).results.marked


def test_marks_of_two_pairs_are_kept_side_by_side(run: RunFolder, tmp_path: Path) -> None:
    write_page(run, ("base", "tuned"))
    read_marks(run, [downloaded(run, tmp_path / "a.json", prefers(run, "tuned"))], ("base", "tuned"))
    assert verdict_of(run).name == "NOT PROVEN"  # the strongest rival is not marked yet
    write_page(run, RIVAL)
    page = "marking-rag-tuned.html"
    read_marks(run, [downloaded(run, tmp_path / "b.json", _left, page=page)], RIVAL)
    assert {marked.second for marked in verdict_of(run).results.marked} == {"base", "rag"}


def _left(item: dict) -> str:
    return item["sides"][0]["name"]


def test_a_rule_fixed_on_the_score_is_not_decided_by_marks(run: RunFolder) -> None:
    plain = rule(0.1, list(QUALITY), 0.05)
    assert "marks" not in plain and rule_digest(plain) != rule_digest(run.read_json(RunFile.RULE))
    run.write_json(RunFile.RULE, plain)
    with pytest.raises(StageError, match="marks do not decide"):
        run_stages(by_marks(), run.path, only=("verdict",))


def test_the_stage_exists_where_marks_decide_alone() -> None:
    names = {stage.name: stage for stage in stages_of(by_marks())}
    assert RunFile.VERDICT in names["verdict"].writes and RunFile.VERDICT not in names["evaluate"].writes
    plain = {stage.name: stage for stage in stages_of(Recipe())}
    assert "verdict" not in plain and RunFile.VERDICT in plain["evaluate"].writes
    order = [stage.name for stage in STAGES]
    assert order.index("judge") < order.index("verdict") < order.index("report")


def test_a_ballot_counts_ties_and_cannot_tell_and_leaves_out_who_saw_the_arms(run: RunFolder) -> None:
    answer_pairs = pairs(run.read_records(RunFile.EXAM, Question), run.read_records(RunFile.ANSWERS, Answer), RIVAL)
    shown = [pair.question for pair in answer_pairs if len(set(pair.texts.values())) > 1]

    def mark(at: int, choice: str, winner: str | None = None, left: str | None = "rag") -> Mark:
        question = shown[at]
        return Mark.model_validate(
            {"question": question.id, "document": question.document, "marker": "A", "choice": choice}
            | {"winner": winner, "left": left}
        )

    marks = [mark(0, "better", "tuned"), mark(1, "cannot tell"), mark(2, "better", "rag"), mark(3, "tie")]
    votes = ballot("rag", answer_pairs, [*marks, mark(4, "better", "tuned", left=None)], {shown[0].id: 1.0})
    assert votes.people[:5] == [1.0, 0.0, -1.0, 0.0, None]
    assert votes.order == [0, 1, 2, 3] and votes.judge[:2] == [1.0, 0.0] and votes.agreed.of == 1
    assert len(votes.people) + votes.num_same == len(answer_pairs)


def made(num: int, marked: int, wrong: float, same: int = 0, tuned: float = 0.6) -> Ballot:
    draw = random.Random(3)
    people = [1.0 if draw.random() < tuned else -1.0 for _ in range(num)]
    f = [-value if draw.random() < wrong else value for value in people]
    agreed = exact_share(sum(a == b for a, b in zip(people[:marked], f, strict=False)), marked)
    documents = [f"d{n % 20}" for n in range(num)]
    seen = [v if n < marked else None for n, v in enumerate(people)]
    return Ballot(seen, list(range(marked)), f, documents, agreed, same)


def test_questions_with_the_same_answer_are_ties() -> None:
    votes = made(100, 40, 0.1, same=100)
    result = marked_difference("rag", votes, 30, 0.05)
    first = [v if n < 30 else None for n, v in enumerate(votes.people)]  # the marks of the first look
    powered = prediction_powered(first, votes.judge, votes.documents, 0.975)
    assert result and result.num_questions == 200 and result.num_marks == 30 and result.next_look == 60
    assert result.interval.mean == pytest.approx(powered.interval.mean / 2)
    assert (result.interval.low > 0) == (powered.interval.low > 0)


def test_marks_count_at_looks_that_share_the_error() -> None:
    assert look(12, 300, 30, 0.05) == (12, 0.025, 30)
    assert look(30, 300, 30, 0.05) == (30, 0.025, 60)
    assert look(59, 300, 30, 0.05) == (30, 0.025, 60)
    assert look(130, 300, 30, 0.05) == (120, 0.00625, 240)
    assert look(40, 40, 30, 0.05) == (40, 0.025, None)
    assert look(20, 20, 30, 0.05) == (20, 0.05, None)
    for num in (20, 31, 60, 61, 500):
        looks = {look(marks, num, 30, 0.05)[:2] for marks in range(min(30, num), num + 1)}
        assert sum(spent for _, spent in looks) == pytest.approx(0.05)


def test_fewer_different_answers_than_marks_asked_for_are_enough() -> None:
    result = marked_difference("rag", made(20, 20, 0.1), 30, 0.05)
    assert result and result.num_missing == 0
    short = marked_difference("rag", made(20, 19, 0.1), 30, 0.05)
    assert short and short.num_missing == 1


def test_the_plan_asks_for_more_marks_the_smaller_the_preference_and_the_worse_the_judge() -> None:
    def needed(votes: Ballot) -> int:
        text = marks_plan(votes, 30)
        assert "80% power" in text
        return int(text.split("needs ")[1].split()[0].replace("all", "0")) if "needs all" not in text else 10_000

    assert needed(made(300, 0, 0.05, tuned=0.9)) == 30
    assert 30 < needed(made(300, 0, 0.05, tuned=0.65)) <= 10_000
    assert "all 100" in marks_plan(made(100, 0, 0.1, tuned=0.52), 30)
    assert "judge agrees with" in marks_plan(made(100, 20, 0.1), 30) and "guessed" in marks_plan(made(100, 5, 0.1), 30)
    no_judge = made(100, 0, 0.0)._replace(judge=[0.0] * 100)
    assert "the plan needs at least 30 marks" in marks_plan(no_judge, 30)
    one_document = made(100, 0, 0.0)._replace(documents=["d"] * 100)
    assert "nothing about others" in marks_plan(one_document, 30)

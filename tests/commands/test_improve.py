"""improve: rounds of new samples from the last adapter; the sealed exam is answered once, at the end."""

from __future__ import annotations

import json
import shutil

import pytest

from support.faulty_server import fake_teacher
from support.whole_path import asks, write_recipe
from tunewright import pipeline
from tunewright.commands import improve as command
from tunewright.curation.decontamination import Leaks, remaining_leaks
from tunewright.errors import RunFolderError
from tunewright.evaluation import answering
from tunewright.examples import abstracts_folder
from tunewright.recipe import load_recipe
from tunewright.records import Question, Sample, Span
from tunewright.run_folder import RunFolder
from tunewright.synthesis.context import Focus


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_model):
    """A finished run whose samples reach one sentence of each document."""
    folder = tmp_path_factory.mktemp("improve")
    abstracts = folder / "abstracts"
    abstracts.mkdir()
    for path in sorted(abstracts_folder().glob("*.md"))[:8]:
        shutil.copy(path, abstracts)
    with fake_teacher(asks) as server:
        path = write_recipe(
            folder,
            tiny_model,
            server.url,
            abstracts,
            exam={"learned_per_document": 2, "unseen_per_document": 1, "retention_items": 0, "kinds": ["short"]},
            synthesis={"samples_per_document": 1, "tasks": ["answer-first"]},
            training={"epochs": 1, "batch_size": 16},
            evaluation={"arms": ["base", "oracle", "tuned"]},
        )
        run = pipeline.run(load_recipe(path), folder / "run")
        answered: list[tuple[str, set[str]]] = []
        original = answering.all_answers

        def watched(journal, recipe, questions, *rest):
            answered.append((journal.path.name, {question.id for question in questions}))
            return original(journal, recipe, questions, *rest)

        patch = pytest.MonkeyPatch()
        patch.setattr(command, "all_answers", watched)
        patch.setattr("tunewright.evaluation.stage.all_answers", watched)
        command.improve(run.path)
        patch.undo()
        yield run, answered
        before = run.file("rounds.json").read_bytes()
        command.improve(run.path)  # all is fresh: nothing is asked, trained or answered again
        assert run.file("rounds.json").read_bytes() == before


def rounds_of(run: RunFolder) -> list[dict]:
    return run.read_json("rounds.json")["rounds"]


@pytest.mark.slow
def test_rounds_reach_the_sentences_that_no_sample_reached(finished):
    rounds = rounds_of(finished[0])
    assert len(rounds) >= 2
    assert rounds[0]["num_reached"] < 0.5 * rounds[0]["num_sentences"]
    # What is still unreached was asked about, and its samples shared words with the sealed exam.
    last = RunFolder(finished[0].path / rounds[-1]["folder"])
    dropped = [row for row in map(json.loads, last.file("rejected.jsonl").read_text().splitlines()) if row["stage"]]
    assert {row["reason"] for row in dropped} <= {"shares 13 words in a row with an exam question"}
    assert rounds[-1]["num_sentences"] - rounds[-1]["num_reached"] == len(dropped)
    assert rounds[-1]["num_reached"] > 5 * rounds[0]["num_reached"]
    assert len({entry["adapter"] for entry in rounds}) == len(rounds)


@pytest.mark.slow
def test_no_round_answers_the_exam_and_the_end_answers_it_once(finished):
    run, answered = finished
    exam = {question.id for question in run.read_records("exam.jsonl", Question)}
    development = {question.id for question in run.read_records("development.jsonl", Question)}
    *in_rounds, last = answered
    assert len(in_rounds) == len(rounds_of(run))
    assert all(name == "development-journal.jsonl" and ids == development for name, ids in in_rounds)
    assert last == ("answers-journal.jsonl", exam)
    assert not exam & development
    folders = [run.path / entry["folder"] for entry in rounds_of(run)[1:]]
    evaluated = [folder for folder in folders if (folder / "answers.jsonl").exists()]
    assert len(evaluated) == 1
    assert all((folder / "exam.jsonl").read_bytes() == run.file("exam.jsonl").read_bytes() for folder in folders)


@pytest.mark.slow
def test_development_questions_are_about_other_sentences_than_the_exams(finished):
    run = finished[0]
    apart = [q.evidence for q in run.read_records("exam.jsonl", Question) if q.evidence]
    asked = run.read_records("development.jsonl", Question)
    assert asked
    for question in asked:
        spans = [span for span in apart if span.document == question.document]
        assert all(question.evidence.end <= span.start or span.end <= question.evidence.start for span in spans)


@pytest.mark.slow
def test_no_sample_of_a_round_leaks_the_exam_or_a_development_question(finished):
    run = finished[0]
    exam = run.read_records("exam.jsonl", Question)
    development = {question.question for question in run.read_records("development.jsonl", Question)}
    for entry in rounds_of(run)[1:]:
        samples = RunFolder(run.path / entry["folder"]).read_records("train.jsonl", Sample)
        assert samples
        assert not [sample for sample in samples if Leaks(exam, 8).find(sample)]
        assert not remaining_leaks(samples, exam, 8)[0]
        assert not development & {sample.question for sample in samples}


@pytest.mark.slow
def test_a_round_goes_on_from_the_adapter_before_it(finished):
    run = finished[0]
    for entry, before in zip(rounds_of(run)[1:], rounds_of(run), strict=False):
        recipe = load_recipe(run.path / entry["folder"] / "recipe.toml")
        assert recipe.training.start == str((run.path / before["folder"] / "adapter").absolute())
        record = json.loads((run.path / entry["folder"] / "stages/train.json").read_text())
        assert record["ingredients"]["start adapter"] == before["adapter"]


@pytest.mark.slow
def test_a_changed_run_is_refused(finished, tmp_path):
    copied = RunFolder(shutil.copytree(finished[0].path, tmp_path / "run"))
    copied.file("train.jsonl").write_bytes(copied.file("train.jsonl").read_bytes()[:-2])
    with pytest.raises(RunFolderError):
        command.improve(copied.path)


def test_focus_is_what_is_wrong_and_what_nothing_reaches():
    def question(start, identity):
        span = Span(document="d", start=start, end=start + 9, quote="x")
        return Question(
            id=identity, ring="learned", document="d", question=f"{identity}?", gold="1", answerable=True, evidence=span
        )

    sentences = {("d", 0): 1, ("d", 10): 0, ("d", 20): 2}
    focus = command._focus({"a"}, sentences, [question(0, "a"), question(20, "b")], 2)
    assert focus == [Focus(document="d", start=0, view=1, avoid="a?"), Focus(document="d", start=10, view=1)]


def test_a_plateau_is_a_round_that_raises_neither_score_nor_reach():
    interval = {"mean": 0.5, "low": 0.4, "high": 0.6, "p": 0.0, "num": 9, "num_clusters": 9}
    first = command.Round(
        number=0, folder=".", adapter="", score=interval, num_wrong=4, num_samples=1, num_sentences=100, num_reached=50
    )

    def then(mean, reached):
        score = first.score.model_copy(update={"mean": mean})
        return [first, first.model_copy(update={"score": score, "num_reached": reached})]

    assert command._is_plateau(then(0.505, 50))
    assert command._is_plateau(then(0.4, 50))
    assert not command._is_plateau(then(0.52, 50))
    assert not command._is_plateau(then(0.4, 52))

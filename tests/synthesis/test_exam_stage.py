from __future__ import annotations

import json

import pytest

from support.faulty_server import Answer, completion, fake_teacher
from support.synthesis_run import make_run, prompt_sentence, question_writer, recipe_for
from tunewright.errors import RecipeError, StageError, UserError
from tunewright.records import Chunk, Document, Question, Rejection
from tunewright.settings import ExamSettings
from tunewright.statistics.power import detectable_on
from tunewright.storage import file_digest
from tunewright.synthesis.stage import exam


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run")


def written(run):
    return run.read_records("exam.jsonl", Question)


def test_both_rings_are_written_and_sealed(run):
    with fake_teacher(question_writer) as server:
        recipe = recipe_for(server.url)
        summary = exam(run, recipe)
    questions = written(run)
    assert summary.num_out == len(questions) == 4 * 1 + 2 * 2 * 2
    assert summary.num_in == summary.num_out + sum(summary.rejected.values())
    seal = run.read_json("seal.json")
    digests = {name: file_digest(run.file(f"{name}.jsonl")) for name in ("exam", "kept")}
    assert seal == {**digests, "num_questions": 12, "learned": 4, "unseen": 8, "num_kept": 400}
    documents = {document.id: document for document in run.read_records("documents.jsonl", Document)}
    texts = {chunk.text for chunk in run.read_records("chunks.jsonl", Chunk)}
    assert len({question.id for question in questions}) == 12
    for question in questions:
        span = question.evidence
        assert documents[span.document].text[span.start : span.end] == span.quote
        assert question.answerable == (question.gold != recipe.refusal)
        if question.answerable:
            assert question.gold == " ".join(span.quote.split())
        if question.ring == "unseen":
            assert question.answerable == (question.passage is not None)
        if question.passage:
            assert any(question.passage.endswith(text) for text in texts)


def test_the_detectable_difference_is_printed_before_training(run, capsys):
    with fake_teacher(question_writer) as server:
        summary = exam(run, recipe_for(server.url))
    assert summary.figures["mde"] == round(detectable_on([1, 1, 1, 1, 4, 4]), 3)
    assert "12 question(s) on 6 document(s) can prove a difference of" in " ".join(capsys.readouterr().err.split())


def test_an_unseen_question_is_written_without_and_with_its_passage(run):
    with fake_teacher(question_writer) as server:
        exam(run, recipe_for(server.url))
    unseen = [question for question in written(run) if question.ring == "unseen"]
    for bare, shown in zip(unseen[::2], unseen[1::2], strict=True):
        assert bare.question == shown.question
        assert (bare.passage, bare.answerable) == (None, False)
        assert shown.passage is not None


def test_bad_questions_are_counted_and_the_next_sentence_is_used(run):
    def respond(seen):
        if "Experts" in prompt_sentence(seen):
            return Answer(body=completion("What does the passage say about growth in valleys?"))
        if "Warm" in prompt_sentence(seen):
            return Answer(body=completion("What is known about the weight of", "length"))
        return question_writer(seen)

    with fake_teacher(respond) as server:
        settings = ExamSettings(learned_per_document=4, unseen_per_document=4)
        summary = exam(run, recipe_for(server.url, exam=settings))
    assert (summary.figures["learned"], summary.figures["unseen"]) == (4 * 4, 2 * 4 * 2)  # all four fit sentences
    assert set(summary.rejected) == {"question refers to the text", "teacher reply cut"}
    reasons = {r.reason for r in run.read_records("rejected.jsonl", Rejection) if r.stage == "exam"}
    assert reasons == set(summary.rejected)


def test_calls_per_document_are_bounded(run):
    with fake_teacher(lambda seen: Answer(body=completion("Nothing."))) as server:
        with pytest.raises(StageError, match="no usable exam question") as caught:
            exam(run, recipe_for(server.url, exam=ExamSettings(learned_per_document=1, unseen_per_document=0)))
        assert len(server.seen) == 4 * 3
    assert "12" in caught.value.cause
    assert not run.file("exam.jsonl").exists()


def test_the_same_question_is_kept_once(run):
    with fake_teacher(lambda seen: Answer(body=completion("What is known of barley growth, water and law?"))) as server:
        summary = exam(run, recipe_for(server.url))
    assert summary.rejected["duplicate question"] > 0
    assert len({(question.question, question.passage is None) for question in written(run)}) == summary.num_out


def test_a_second_run_makes_no_call_and_the_same_exam(run):
    with fake_teacher(question_writer) as server:
        first, content = exam(run, recipe_for(server.url)), run.file("exam.jsonl").read_bytes()
        url = server.url
    second = exam(run, recipe_for(url))
    assert second.figures["teacher_calls"] == 0
    assert second.figures["from_journal"] == first.figures["teacher_calls"]
    assert run.file("exam.jsonl").read_bytes() == content


def test_a_recipe_that_requests_no_questions_is_an_error(run):
    with pytest.raises(RecipeError, match="requests no exam question"):
        exam(run, recipe_for("http://x/v1", exam=ExamSettings(learned_per_document=0, unseen_per_document=0)))


def own(run, tmp_path, name, content):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    return exam(run, recipe_for("http://127.0.0.1:9/v1", exam=ExamSettings(file=str(path))))


def test_a_users_own_exam_in_jsonl(run, tmp_path):
    rows = [
        {"question": "How old are they?", "answer": "Ten years.", "source": "barley.md"},
        {
            "question": "Who counted?",
            "gold": "Volunteers.",
            "document": "Volcanoes of the north",
            "passage": "They did.",
        },
        {"question": "Why?", "answerable": False, "ring": "unseen"},
    ]
    summary = own(run, tmp_path, "mine.jsonl", "\n\n".join(map(json.dumps, rows)))
    assert (summary.num_in, summary.num_out, summary.rejected) == (3, 3, {})
    known, other, unknown = written(run)
    documents = {document.source: document.id for document in run.read_records("documents.jsonl", Document)}
    assert (known.ring, known.document, known.gold) == ("learned", documents["barley.md"], "Ten years.")
    assert (other.ring, other.document, other.passage) == ("unseen", documents["volcanoes.md"], "They did.")
    assert (unknown.answerable, unknown.document) == (False, unknown.id)
    assert unknown.gold.startswith("The documents do not")


def test_a_users_own_exam_in_csv_without_documents(tmp_path):
    from tunewright.run_folder import RunFolder

    bare = RunFolder.create(tmp_path / "bare")
    content = '\ufeffQuestion,Answer,answerable,remark\n"Which\nline?",Two.,yes,x\nNone?,,no,\n'
    assert own(bare, tmp_path, "mine.csv", content).num_out == 2
    first, second = written(bare)
    assert (first.question, first.gold, first.ring) == ("Which\nline?", "Two.", "learned")
    assert not second.answerable


@pytest.mark.parametrize(
    ("name", "content", "pattern"),
    [
        ("a.jsonl", '{"question": "Why?", "answer": "So."}\n\n{"question": "Why?"}', "line 3.*\n.*answer"),
        ("a.jsonl", '{"question": ', "line 1.*\n.*not JSON"),
        ("a.jsonl", "[1]", "item 1.*\n.*not a JSON object"),
        ("a.jsonl", '{"question": ["Why?"], "answer": "So."}', "line 1.*\n.*not text"),
        ("a.csv", "question,answer\nWhy?,So.\n,So.\n", "row 3.*\n.*question is missing"),
        ("a.csv", "question,answer,answerable\nWhy?,So.,maybe\n", "row 2.*\n.*maybe"),
        ("a.csv", "question,answer,ring\nWhy?,So.,third\n", "row 2.*\n.*third"),
        ("a.jsonl", "\n", "is empty"),
        ("a.xlsx", "PK\x03\x04", "Excel workbook"),
    ],
)
def test_a_wrong_row_is_named(run, tmp_path, name, content, pattern):
    with pytest.raises(UserError) as caught:
        own(run, tmp_path, name, content)
    import re

    assert re.search(pattern, str(caught.value))
    assert caught.value.hint


def test_a_missing_exam_file_is_an_error(run):
    with pytest.raises(UserError, match="cannot read the exam"):
        exam(run, recipe_for("http://x/v1", exam=ExamSettings(file="/nowhere/exam.jsonl")))


def test_without_free_questions_no_teacher_is_asked_and_what_rules_cannot_write_is_an_error_with_its_cause(run):
    requests = []
    with fake_teacher(lambda seen: requests.append(seen)) as server:
        recipe = recipe_for(server.url)
        kinds = recipe.exam.model_copy(update={"kinds": ("short", "choice")})
        with pytest.raises(StageError) as error:  # the documents differ in nothing but their subject
            exam(run, recipe.model_copy(update={"exam": kinds}))
    assert not requests
    assert "no value that rules can ask for" in error.value.cause and "exam.kinds" in error.value.hint

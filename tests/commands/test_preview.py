"""The preview: its sentence follows from what the arms reach, and its questions are no part of the exam."""

import jsonschema
import pytest

from support.faulty_server import fake_teacher
from support.finished_training import own_recipe
from support.json_output import SCHEMAS
from support.whole_path import asks, write_recipe
from tunewright.commands.init import papers_demo
from tunewright.commands.json_documents import content
from tunewright.commands.preview import Preview, _of_documents, preview, preview_document, summarize
from tunewright.evaluation import answering
from tunewright.models.generation import Output
from tunewright.recipe import load_recipe, parse_recipe
from tunewright.records import Answer, Question, Score
from tunewright.run_folder import RunFolder
from tunewright.settings import ModelSettings


def scores(num=30, documents=10, **by_arm):
    """Scores by arm: the share of questions that it has right, the first ones."""
    rows, answers = [], []
    for arm, share in by_arm.items():
        for n in range(num):
            value = float(n % 10 < 10 * share)
            rows.append(Score(question=f"q{n}", arm=arm, ring="learned", document=f"d{n % documents}",
                              primary=value, metrics={}))  # fmt: skip
            answers.append(Answer(question=f"q{n}", arm=arm, text="", finish="stop", num_prompt_tokens=9, num_tokens=1,
                                  duration_s=0.5, gold_nll=1))  # fmt: skip
    return rows, answers


@pytest.mark.parametrize(
    ("by_arm", "size", "expected"),
    [
        ({"base": 0.1, "rag": 0.3, "oracle": 0.9}, {}, "Worth trying"),
        ({"base": 0.1, "rag": 0.8, "oracle": 0.8}, {"num": 300, "documents": 100}, "Retrieval already does it"),
        ({"base": 0.1, "similar-shot": 1.0}, {"num": 300, "documents": 100}, "A prompt already does it"),
        ({"base": 1.0, "few-shot": 0.2}, {"num": 300, "documents": 100}, "The base already does it"),
        ({"base": 0.1, "rag": 0.8, "oracle": 0.8}, {"num": 10, "documents": 3}, "Too few documents"),
    ],
)
def test_the_sentence_follows_from_the_figures(by_arm, size, expected):
    result = summarize(*scores(**size, **by_arm), margin=0.10, base="embedded")
    assert result.advice.startswith(expected)
    best = max(value for arm, value in by_arm.items() if arm != "oracle")
    assert result.left.mean == pytest.approx(1 - best)
    assert 0 <= result.left.low <= result.left.mean <= result.left.high <= 1
    assert (result.gap is None) == ("oracle" not in by_arm)


def test_documents_are_previewed_apart_from_the_exam_and_resumed(tmp_path, tiny_model, abstracts, monkeypatch):
    asked, answer = [], answering.answer_or_halve

    def counting(model, jobs, *rest):
        asked.append(len(jobs))
        return answer(model, jobs, *rest)

    monkeypatch.setattr(answering, "answer_or_halve", counting)
    with fake_teacher(asks) as teacher:
        recipe = load_recipe(write_recipe(tmp_path, tiny_model, teacher.url, abstracts))
        result = preview(recipe, tmp_path / "run")
        assert {arm.arm for arm in result.arms} == {"base", "few-shot", "similar-shot", "rag", "oracle"}
        run, first = RunFolder.open(tmp_path / "run"), sum(asked)
        assert 0 < first <= 5 * result.num_questions
        exam = {q.evidence.quote for q in run.read_records("exam.jsonl", Question) if q.evidence}
        before = run.file("exam.jsonl").read_bytes()
        again = content(preview_document(recipe, tmp_path / "run"))
        jsonschema.validate(again, SCHEMAS["tunewright/preview/1"])
        assert again["preview"]["left"]["mean"] == result.left.mean
        assert sum(asked) == first and run.file("exam.jsonl").read_bytes() == before
    entries = run.journal("preview-journal.jsonl").entries
    assert entries and not run.file("adapter").exists() and exam
    assert Preview.model_validate(run.read_json("preview.json")) == result


def test_chats_are_previewed_with_the_others_as_examples(tmp_path, tiny_model):
    result = preview(own_recipe(tmp_path, tiny_model), tmp_path / "run")
    assert {arm.arm for arm in result.arms} == {"base", "few-shot"}  # the arms of this recipe
    assert result.num_questions == 4 and result.gap is None


def test_documents_of_another_language_are_asked_in_it(tmp_path, tiny_model):
    folder = tmp_path / "papers"
    folder.mkdir()
    places = ("Ярославле", "Казани", "Самаре", "Рязани", "Туле", "Твери", "Пскове", "Вологде", "Калуге", "Орле")
    months = ("январе", "феврале", "марте", "апреле", "мае", "июне", "июле", "августе", "сентябре", "октябре")
    for n, (place, month) in enumerate(zip(places, months, strict=True)):
        text = f"Опрос жителей проводился в городе {place} в {month} и охватил {120 + 37 * n} семей из разных районов."
        more = f"Все участники этого опроса в {place} работали {3 + n} месяцев на одном и том же предприятии города."
        (folder / f"{n}.md").write_text(f"# Опрос номер {n}\n\n{text} {more}\n", encoding="utf-8")
    recipe = parse_recipe(
        {
            "documents": {"paths": [str(folder)]},
            "exam": {"learned_per_document": 1, "unseen_per_document": 1, "retention_items": 0},
            "model": {"base": str(tiny_model), "quantization": "none", "compute": "fp32"},
            "retrieval": {"model": ""},
            "evaluation": {"max_new_tokens": 4, "few_shot": 1},
        },
        tmp_path,
    )
    preview(recipe, tmp_path / "run")
    asked = _of_documents(RunFolder.open(tmp_path / "run"), recipe)[0]
    assert asked and all(q.question.startswith("Что пропущено") and "Which" not in q.question for q in asked)


def test_where_sentences_state_few_values_words_are_asked_after_them(tmp_path, tiny_model, monkeypatch):
    """Of the demo's abstracts, values alone gave nine questions beside its exam: too few for any advice."""
    monkeypatch.setattr(answering, "answer_or_halve", lambda model, jobs, *rest: [Output([1], "stop", 1.0, 0.1, None,
                        tuple(1.0 for _ in job.option_ids)) for job in jobs])  # fmt: skip
    model = {"base": str(tiny_model), "quantization": "none", "compute": "fp32"}
    recipe = papers_demo().model_copy(update={"model": ModelSettings(**model)})
    recipe = recipe.model_copy(update={"retrieval": recipe.retrieval.model_copy(update={"model": ""})})
    result = preview(recipe, tmp_path / "run")
    assert result.num_questions == 40 and "Too few" not in result.advice
    asked, samples = _of_documents(RunFolder.open(tmp_path / "run"), recipe)
    of_word = ["Which word" in question.question for question in asked]
    assert of_word == sorted(of_word) and 0 < sum(of_word) < 40  # values come first
    assert {question.kind for question in asked} == {"short", "choice"} and len(samples) >= 40

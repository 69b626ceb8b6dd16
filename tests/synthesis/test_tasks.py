from __future__ import annotations

import json
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.scripted import FACTS, SUBJECTS, Scripted, ask, assert_spans_exact, run_tasks, spans_of, work_on
from support.synthesis_run import document
from tunewright.errors import RecipeError
from tunewright.recipe import Recipe
from tunewright.records import Chunk
from tunewright.settings import SynthesisSettings, TeacherSettings
from tunewright.synthesis.context import TaskContext
from tunewright.synthesis.tasks import TASKS, tasks_of
from tunewright.synthesis.taxonomy import Quota, allocate, kind_of, read_quotas
from tunewright.text.perturbation import false_versions, other_number


@given(st.integers(0, 50_000), st.integers(0, 2), st.integers(0, 99))
def test_another_number_has_the_same_form_and_stands_nowhere(value, num_decimals, seed):
    text = f"{value}.{'37'[:num_decimals]}" if num_decimals else str(value)
    source = f"It was {text} in all, and {value + 1} later."
    new = other_number(text, lambda made: re.search(rf"(?<!\d){re.escape(made)}(?!\d)", source) is not None, seed)
    if new is not None:
        assert new != text and not re.search(rf"(?<!\d){re.escape(new)}(?!\d)", source)
        assert len(new.partition(".")[2]) == len(text.partition(".")[2])
        assert value > 100 or float(new) <= 100 or value == 0


def test_false_versions_change_a_single_number_or_comparison():
    truth = "Yield rose by 12.5% and was higher than in 2019, with COVID-19 and PM2.5 counted."
    versions = list(false_versions(truth, truth, 0))
    assert len(versions) == 3
    for version in versions:
        assert version != truth and "COVID-19" in version and "PM2.5" in version
        changed = [pair for pair in zip(truth.split(), version.split(), strict=True) if pair[0] != pair[1]]
        assert len(changed) == 1
    assert any("lower than" in version for version in versions)
    assert list(false_versions("The sea is blue.", "The sea is blue.", 0)) == []


@pytest.mark.parametrize(
    ("sentence", "kind"),
    [
        ("The harbor was built by monks on the western shore.", "factual"),
        ("The harbor holds 240 boats in winter.", "numeric"),
        ("Costs were higher in the north than in the south.", "comparative"),
        ("We randomised 240 boats to two harbors using sealed envelopes.", "methodological"),
        ("A limitation is that 12 boats left early.", "limitation"),
    ],
)
def test_kinds_by_wording(sentence, kind):
    assert kind_of(sentence) == kind


@given(st.integers(1, 12), st.integers(0, 9), st.lists(st.floats(0.05, 1), min_size=1, max_size=5))
def test_every_document_gets_its_number_and_all_documents_the_shares(number, seed, weights):
    quotas = [Quota(str(index), "", weight) for index, weight in enumerate(weights)]
    chosen = [allocate(quotas, number, seed, f"{index}.md") for index in range(200)]
    assert all(len(of_document) == number for of_document in chosen)
    for quota in quotas:
        share = sum(of_document.count(quota) for of_document in chosen) / (200 * number)
        assert abs(share - quota.weight / sum(weights)) < 0.15


def test_quotas_choose_the_kinds_of_sentences():
    context = work_on(ask, quotas={"numeric": 1.0}, tasks=("answer-first",))
    context = TaskContext(
        context.recipe.model_copy(
            update={"synthesis": context.recipe.synthesis.model_copy(update={"samples_per_document": 1})}
        ),
        context.teacher,
        context.documents,
        context.chunks,
    )
    samples = TASKS["answer-first"](context, []).samples
    assert len(samples) == 4 and {sample.kind for sample in samples} == {"numeric"}


def test_quotas_are_checked():
    with pytest.raises(ValueError, match="no kind of question"):
        SynthesisSettings(quotas={"numerical": 1.0})
    with pytest.raises(ValueError, match="above 0"):
        SynthesisSettings(quotas={"numeric": 0.0})
    quotas = read_quotas(SynthesisSettings(quotas={"numeric @ Results": 0.5, "@ Methods": 0.5}))
    assert [(quota.kind, quota.section) for quota in quotas] == [("numeric", "Results"), ("", "Methods")]


def test_an_unanswerable_question_has_its_passage_without_the_evidence():
    context = work_on(ask)
    out = run_tasks(context, "answer-first", "unanswerable")
    answered = {sample.question: sample for sample in out["answer-first"].samples}
    assert 0 < len(out["unanswerable"].samples) <= 12
    for sample in out["unanswerable"].samples:
        passage, _, question = sample.question.rpartition("\n\nQuestion: ")
        evidence = answered[question].evidence
        assert evidence is not None and evidence.quote not in passage
        assert sample.answer == context.recipe.refusal
        own = context.chunk_by_id[answered[question].chunk]
        others = [sentence for sentence in re.split(r"(?<=\.)\s", own.text) if sentence not in evidence.quote]
        assert others and all(sentence in passage for sentence in others)


def test_a_passage_that_says_it_twice_is_not_unanswerable():
    twice = (
        "Boats of {0} carry 40 tons of grain to the harbor.",
        "To the harbor, boats of {0} carry 40 tons of grain.",
    )
    made, chunks = document("barley", twice)
    recipe = Recipe(synthesis=SynthesisSettings(samples_per_document=2, refusal_share=1.0))
    merged = Chunk(
        **{**chunks[0].model_dump(), "text": made.text[chunks[0].start : chunks[1].end], "end": chunks[1].end}
    )
    context = TaskContext(recipe, Scripted(ask), [made], {made.id: [merged]})
    out = run_tasks(context, "answer-first", "unanswerable")
    assert len(out["answer-first"].samples) == 2
    assert out["unanswerable"].samples == []
    assert {item.reason for item in out["unanswerable"].rejections} == {"passage may answer without its evidence"}


def test_false_claims_are_corrected_and_true_claims_confirmed():
    context = work_on(ask)
    out = run_tasks(context, "answer-first", "premise")
    samples = out["premise"].samples
    assert_spans_exact(context, samples)
    by_task = {task: [s for s in samples if s.task == task] for task in ("false-premise", "true-premise")}
    assert abs(len(by_task["false-premise"]) - len(by_task["true-premise"])) <= 1 and by_task["true-premise"]
    for sample in by_task["false-premise"]:
        assert sample.answer == f"No. {sample.evidence.quote}"
        assert sample.evidence.quote.rstrip(".") not in sample.question
    for sample in by_task["true-premise"]:
        assert sample.answer == f"Yes. {sample.evidence.quote}"
        assert sample.evidence.quote.rstrip(".") in sample.question


def test_a_dialogue_has_an_evidence_for_every_answer():
    context = work_on(ask)
    out = run_tasks(context, "answer-first", "dialogue")
    samples = out["dialogue"].samples
    assert_spans_exact(context, samples)
    assert samples and all(len(spans_of(sample)) >= 2 for sample in samples)
    doubts = 0
    for sample in samples:
        turns = [turn for turn in sample.messages if turn.role != "system"]
        assert [turn.role for turn in turns] == ["user", "assistant"] * (len(turns) // 2)
        answers = [turn.content.removeprefix("Yes. ") for turn in turns if turn.role == "assistant"]
        assert answers == [span.quote for span in spans_of(sample)]
        planned = [span.start for span in dict.fromkeys(spans_of(sample))]
        assert planned == sorted(planned)
        doubt = re.search(r'I have read: "(.*)" Which', turns[-2].content)
        doubts += doubt is not None
        if doubt:
            assert doubt[1] not in next(d.text for d in context.documents if d.id == sample.document)
    assert doubts


def test_a_follow_up_may_lean_on_the_turn_before_but_not_lose_its_subject():
    def rewording(good):
        def write(turn):
            if "Reword" not in turn:
                return ask(turn)
            question = turn.rpartition("Reword as a follow-up: ")[2]
            return question.replace("What is known about", "And what about") if good else "And what about them?"

        return write

    for good in (True, False):
        context = work_on(rewording(good))
        out = run_tasks(context, "answer-first", "dialogue")
        later = [s.messages[3].content for s in out["dialogue"].samples]
        assert all(text.startswith("And what about") == good for text in later)
        assert "And what about them?" not in later


def test_multi_hop_needs_a_quote_from_each_passage():
    def write(turn):
        first, second = re.findall(r"\[\d\] ([^\n.]*\.)", turn)[:2]
        good = {"question": "How do both go together here?", "answer": f"{first} {second}", "quotes": [first, second]}
        return json.dumps({"items": [good, {**good, "answer": first, "quotes": [first]}]})

    context = work_on(write, tasks=("free-qa",), quotas={"multi-hop": 1.0})
    result = TASKS["free-qa"](context, [])
    assert result.samples and all(s.kind == "multi-hop" and len(spans_of(s)) == 2 for s in result.samples)
    assert_spans_exact(context, result.samples)
    for sample in result.samples:
        chunks = {
            c.id
            for c in context.chunk_by_id.values()
            for s in spans_of(sample)
            if c.start <= s.start < c.end and c.document == s.document
        }
        assert len(chunks) == 2
    assert {item.reason for item in result.rejections} == {"multi-hop answer without a quote from each passage"}


def test_views_are_rewrites_of_every_chunk():
    context = work_on(lambda turn: None if "glaciers" in turn else "A rewrite of it.", views=2)
    result = TASKS["view"](context, [])
    assert len(result.samples) == 2 * 2 * 3 and len(result.rejections) == 4
    assert {item.reason for item in result.rejections} == {"teacher call failed"}
    assert tasks_of(context.recipe)[-1] == "view"


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 7), st.integers(0, 2))
def test_no_task_shows_or_teaches_anything_of_the_exam_side(seed, num_train, distractors):
    """Also with near duplicates: copies of an exam document stand in its group, and so on its side."""
    rng = random.Random(seed)
    subjects = rng.sample(SUBJECTS, len(SUBJECTS))
    train, exam = subjects[:num_train], subjects[num_train:]

    def write(turn):
        turn_rng = random.Random(f"{seed} {turn}")
        return None if turn_rng.random() < 0.2 else ask(turn)

    groups = {document(s, FACTS)[0].id: str(rng.randrange(3)) for s in train}
    context = work_on(write, tuple(train), groups, distractors=distractors)
    out = run_tasks(context, "answer-first", "refusal", "unanswerable", "premise", "dialogue")
    own = {doc.id for doc in context.documents}
    for result in out.values():
        for sample in result.samples:
            assert sample.document in own and all(span.document in own for span in spans_of(sample))
            text = " ".join(turn.content for turn in sample.messages)
            assert not any(subject in text for subject in exam)
            if sample.task == "refusal":  # nothing of its own group is shown to be refused from
                question = sample.question.rpartition("Question: ")[2]
                of = next(s for s in out["answer-first"].samples if s.question == question)
                assert groups[sample.document] != groups[of.document]


def test_general_samples_come_from_the_bare_header():
    queries = iter(
        ["How do I bake bread at home?", "Yes", "How do I bake bread at home?", "Name three rivers of Asia."]
    )
    context = work_on(lambda turn: next(queries) if turn.endswith("user\n") else "An answer.", general_samples=4)
    result = TASKS["general"](context, [])
    assert [s.messages[0].content for s in result.samples] == [
        "How do I bake bread at home?",
        "Name three rivers of Asia.",
    ]
    assert sorted(item.reason for item in result.rejections) == [
        "instruction is a fragment",
        "instruction written twice",
    ]
    raw_requests = [request for request in context.teacher.requests if request.raw]
    assert len({request.seed for request in raw_requests}) == 4 and {
        request.temperature for request in raw_requests
    } == {1.0}
    assert all(request.stop == ("<|im_end|>",) and not request.messages for request in raw_requests)


def test_another_teachers_header_follows_from_its_name():
    context = work_on(ask, general_samples=2)
    recipe = context.recipe.model_copy(update={"teacher": TeacherSettings(url="http://localhost:1/v1", model="m")})
    with pytest.raises(RecipeError, match="chat template is known"):
        TASKS["general"](TaskContext(recipe, context.teacher, context.documents, context.chunks), [])
    given = recipe.model_copy(
        update={"teacher": recipe.teacher.model_copy(update={"model": "mistralai/Mistral-7B-Instruct-v0.2"})}
    )
    TASKS["general"](TaskContext(given, context.teacher, context.documents, context.chunks), [])
    assert {(r.raw, r.stop) for r in context.teacher.requests if r.raw} == {("[INST]", ("[/INST]",))}


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_each_thing_tried_ends_as_a_sample_or_a_rejection(seed):
    """With a teacher that fails, babbles or repeats itself at random."""

    def write(turn):
        rng = random.Random(f"{seed} {turn}")
        kind = rng.randrange(6)
        if kind == 0:
            return None
        if kind == 1:
            return rng.choice(["", "babble", "{", '{"items": 3}', "What?", "[1, 2]"])
        if "JSON" not in turn:
            return ask(turn)
        sentence = turn.partition("Passage:\n")[2].partition(".")[0] + "."
        item = {"question": "What do we know of this here?", "answer": sentence, "quotes": [sentence]}
        return json.dumps({"items": [item, {**item, "quotes": ["never said at all"]}, item, 7][: rng.randrange(5)]})

    context = work_on(write, views=1, general_samples=3, distractors=seed % 3)
    out = run_tasks(context, *[name for name in TASKS if name != "extraction"])
    for result in out.values():
        assert result.num_tried == len(result.samples) + len(result.rejections)
        assert all(item.task == result.task and item.reason for item in result.rejections)
    assert sum(result.num_tried for result in out.values())


def test_half_a_character_and_an_answer_that_declines_are_no_samples():
    def write(turn):
        sentence = turn.partition("Passage:\n")[2].partition(".")[0] + "."
        item = {"question": "What do we know of this here?", "answer": sentence, "quotes": [sentence]}
        cut = {**item, "answer": sentence + " \ud83d", "question": "What do we \ud83d know of this?"}
        return json.dumps({"items": [cut, {**item, "answer": Recipe().refusal}]})

    result = TASKS["free-qa"](work_on(write, tasks=("free-qa",)), [])
    assert result.samples and all(sample.model_dump_json() for sample in result.samples)
    assert {item.reason for item in result.rejections} >= {"answer declines"}
    assert all(item.model_dump_json() for item in result.rejections)


def test_tasks_that_build_on_answers_need_some():
    with pytest.raises(ValueError, match="build on answered samples"):
        Recipe(synthesis=SynthesisSettings(tasks=("premise",)))


@pytest.mark.parametrize(
    "bound", ["More than 50 boats", "At least 50 boats", "Up to 50 boats", "p < 50", "50 or more boats"]
)
def test_a_bound_is_not_made_false_by_another_number(bound):
    assert not any(
        re.search(r"\d", version) and "50" not in version for version in false_versions(f"{bound} came.", "", 0)
    )


def test_raw_text_alone_pays_for_no_chats():
    recipe = work_on(ask, views=1).recipe
    assert tasks_of(recipe) == ["answer-first", "refusal", "view"]
    raw = recipe.model_copy(update={"training": recipe.training.model_copy(update={"text_share": 1.0})})
    assert tasks_of(raw) == ["view"]

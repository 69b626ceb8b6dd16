"""The pairs stage: what is made of the training set, that both directions balance, and that every drop is counted."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from support.tiny import make_reward_model
from tunewright.curation import preference_pairs, student_sampling
from tunewright.curation.preference_pairs import PAIRS_PER_SAMPLE, direction
from tunewright.curation.stage import curate_pairs
from tunewright.curation.student_sampling import StudentAnswer, best_and_worst, error_of, students_error
from tunewright.errors import RecipeError, StageError
from tunewright.models.chat_template import chat
from tunewright.recipe import Recipe, parse_recipe
from tunewright.records import Chunk, Document, PreferencePair, Question, Rejection, Sample, Span, digest
from tunewright.run_folder import RunFolder
from tunewright.settings import CurationSettings, ModelSettings, PreferenceSettings
from tunewright.stages import stages_of

ANIMALS = ("foxes", "wolves", "bears", "owls", "otters", "boars")
TOWNS = ("Keri", "Oti", "Lomé", "Accra", "Kumasi", "Tema")
FACTS = [f"In {1990 + n} the herd of {animal} near {TOWNS[n]} rose by {n + 3}.5%." for n, animal in enumerate(ANIMALS)]
TEXT = " ".join(FACTS)
DOCUMENT = Document(id="d", title="Animals", source="a.md", text=TEXT)
CHUNK = Chunk(id="c", document="d", title="Animals", section=(), start=0, end=len(TEXT), text=TEXT, num_tokens=99)
EXAM = [
    Question(id="e", ring="unseen", document="x", question="What eats the old moss here?", gold="It", answerable=True)
]
RECIPE = Recipe(preference=PreferenceSettings(make=("edits",)))


def question(number):
    return f"How much more {ANIMALS[number]} were there in the end?"


def answered(number, passage=""):
    start = TEXT.index(FACTS[number])
    span = Span(document="d", start=start, end=start + len(FACTS[number]), quote=FACTS[number])
    messages = chat("System.", question(number), (passage,) if passage else (), FACTS[number])
    identity = digest([m.model_dump() for m in messages])
    return Sample(id=identity, task="answer-first", messages=messages, document="d", chunk="c", evidence=span)


def refused(number, passage="Nobody counted them."):
    messages = chat("System.", question(number), (passage,), RECIPE.refusal)
    return Sample(id=digest([m.model_dump() for m in messages]), task="refusal", messages=messages, document="d")


def run_folder(path, samples):
    run = RunFolder.create(path)
    run.write_records("documents.jsonl", [DOCUMENT])
    run.write_records("chunks.jsonl", [CHUNK])
    run.write_records("exam.jsonl", EXAM)
    run.write_records("train.jsonl", samples)
    return run


def made(run):
    return run.read_records("pairs.jsonl", PreferencePair)


def rejections(run):
    return [r for r in run.read_records("rejected.jsonl", Rejection) if r.stage == "pairs"]


def test_edits_and_both_directions_of_refusing(tmp_path):
    samples = [answered(0), answered(1), answered(1, passage=FACTS[1]), refused(1), refused(4)]
    run = run_folder(tmp_path / "run", samples)
    summary = curate_pairs(run, RECIPE)
    pairs = made(run)
    by_sample = {sample.id: [p for p in pairs if p.sample == sample.id] for sample in samples}
    assert {pair.origin for pair in by_sample[samples[0].id]} == {"number", "name"}
    refuse, answer = by_sample[samples[3].id][0], by_sample[samples[2].id][0]
    assert (refuse.chosen, refuse.rejected) == (RECIPE.refusal, FACTS[1])
    assert (answer.chosen, answer.rejected) == (FACTS[1], RECIPE.refusal)  # the twin that shows a passage too
    assert summary.rejected["no answered sample asks what this one refuses"] == 1
    assert summary.rejected["sample has 2 pairs already"] == 1  # the twin had a refusal and an edit
    assert summary.figures["chosen_longer_by_words"] == 0.0
    assert summary.figures["from refusal"] == 2
    assert summary.figures["lengths_apart_by_words"] > 0
    assert summary.num_in == summary.num_out + sum(summary.rejected.values()) == len(pairs) + len(rejections(run))


def test_a_refusal_whose_passage_answers_after_all_makes_no_pair(tmp_path):
    run = run_folder(tmp_path / "run", [answered(1), refused(1, passage=f"So it was: {FACTS[1]}")])
    assert curate_pairs(run, RECIPE).rejected["the passage shown gives the answer"] == 1
    assert {pair.origin for pair in made(run)} == {"number", "name"}


def test_a_pair_that_leaks_an_exam_question_is_dropped(tmp_path):
    leaking = Question(id="e2", ring="learned", document="d", question=question(0), gold="It", answerable=True)
    run = run_folder(tmp_path / "run", [answered(0), answered(1)])
    run.write_records("exam.jsonl", [*EXAM, leaking])
    summary = curate_pairs(run, RECIPE)
    assert summary.rejected["leaks an exam question"] == 2
    assert {pair.sample for pair in made(run)} == {answered(1).id}


def test_nothing_to_make_pairs_of_is_an_error_with_the_reason(tmp_path):
    messages = chat("System.", "Why is that so?", (), "Because.")
    run = run_folder(tmp_path / "run", [Sample(id="s", task="own", messages=messages)])
    with pytest.raises(StageError, match="no preference pair") as caught:
        curate_pairs(run, RECIPE)
    assert "no evidence to hold an edit against (1)" in caught.value.cause


NUMBERS = st.integers(0, len(ANIMALS) - 1)
SAMPLES = st.lists(
    st.tuples(NUMBERS, st.sampled_from(["answered", "shown", "refused", "answers after all"])), min_size=1
)
# What a student may say: the truth, another truth, a refusal, an invention, nothing, or something too long.
SAYINGS = st.sampled_from([*FACTS[:3], RECIPE.refusal, "It rose by 99.9%.", "Nobody can know.", "", "word " * 99])


def build(kind, number):
    if kind in ("refused", "answers after all"):
        return refused(number, FACTS[number] if kind == "answers after all" else "Nobody counted them.")
    return answered(number, FACTS[number] if kind == "shown" else "")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=SAMPLES, data=st.data(), make=st.permutations(["edits", "student", "best-of-n"]), number=st.integers(1, 3))
def test_counts_add_up_and_every_pair_comes_from_a_training_sample(tmp_path_factory, drawn, data, make, number):
    samples = list({s.id: s for s in (build(kind, number) for number, kind in drawn)}.values())
    answers = [[StudentAnswer(data.draw(SAYINGS), data.draw(st.booleans())) for _ in range(3)] for _ in samples]
    recipe = Recipe(
        preference=PreferenceSettings(make=tuple(make[:number])), curation=CurationSettings(reward="some/model")
    )
    run = run_folder(tmp_path_factory.mktemp("pairs") / "run", samples)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preference_pairs, "student_answers", lambda *_: answers)
        patch.setattr(
            student_sampling, "rewards_of", lambda exchanges, _: [len(set(text)) * 1.0 for _, text in exchanges]
        )
        try:
            summary = curate_pairs(run, recipe)
        except StageError:
            assert not run.file("pairs.jsonl").exists()
            return
    pairs, by_id = made(run), {sample.id: sample for sample in samples}
    assert summary.num_in == summary.num_out + sum(summary.rejected.values())
    assert (summary.num_out, sum(summary.rejected.values())) == (len(pairs), len(rejections(run)))
    ways = [direction(pair, recipe.refusal) for pair in pairs]
    assert ways.count("refuse") == ways.count("answer")
    for pair in pairs:
        sample = by_id[pair.sample]
        assert pair.prompt == sample.messages[:-1]
        assert pair.origin == "best-of-n" or pair.chosen == sample.answer
        assert pair.chosen != pair.rejected
        assert sum(other.sample == pair.sample for other in pairs) <= PAIRS_PER_SAMPLE
    assert len({pair.id for pair in pairs}) == len(pairs)


@pytest.mark.parametrize(
    ("text", "sample", "error"),
    [
        (RECIPE.refusal, answered(0), "refused"),
        (FACTS[0], refused(0), "answered"),
        (RECIPE.refusal, refused(0), None),
        ("It rose by 4.5%.", answered(0), "other number"),
        ("3.5%", answered(0), None),  # short, and right
        ("Nobody has any idea about that at all.", answered(0), "other words"),
        (FACTS[0], answered(0), None),
    ],
)
def test_the_rules_for_a_wrong_answer(text, sample, error):
    assert error_of(text, sample, RECIPE) == error


def test_the_wrong_answer_nearest_in_length_is_rejected():
    short, near = "It rose by 77%.", "In the end it rose by some 88% or so, we think now."
    answers = [
        StudentAnswer(short, False),
        StudentAnswer(near, False),
        StudentAnswer("It rose by 66% in all of these many years there.", True),
    ]
    assert students_error(answered(0), answers, RECIPE).rejected == near
    assert students_error(answered(0), answers[:1], RECIPE).fault == "lengths too far apart"
    assert students_error(answered(0), [StudentAnswer(FACTS[0], False)], RECIPE).fault == "student makes no error"
    assert students_error(answered(0), answers[2:], RECIPE).fault == "student's answers are cut or empty"


def test_the_best_answer_must_hold_against_the_passage(monkeypatch):
    truth, invented, weak = "It rose by 3.5% in 1990.", "It rose by 77.7% in 1990.", "It rose a bit in 1990."
    scores = {truth: 1.0, invented: 5.0, weak: -1.0}
    monkeypatch.setattr(student_sampling, "rewards_of", lambda exchanges, _: [scores[text] for _, text in exchanges])
    answers = [
        [StudentAnswer(text, False) for text in scores],
        [StudentAnswer(invented, False), StudentAnswer("It rose 8%.", True)],
        [],
    ]
    (first, second, third) = best_and_worst([answered(0)] * 3, answers, RECIPE)
    assert second.fault == third.fault == "fewer than two different answers"
    assert (first.fault, first.chosen) == ("scores too close", None)  # 2 apart, where the scores spread by 2.49
    scores[truth] = 4.0
    (first,) = best_and_worst([answered(0)], answers[:1], RECIPE)
    assert (first.chosen, first.rejected) == (truth, weak)


def test_best_of_n_by_a_real_reward_model(tmp_path, monkeypatch):
    model = make_reward_model(tmp_path / "reward", "deberta")
    recipe = Recipe(preference=PreferenceSettings(make=("best-of-n",)), curation=CurationSettings(reward=str(model)))
    sayings = ["It was the study of patients.", "It was in three hospitals.", "Who treated the group?", "It was it."]
    answers = [
        [StudentAnswer(text, False) for text in sayings],
        [StudentAnswer("It rose by 77.7%.", False), StudentAnswer("By 88.8%.", False)],
    ]
    monkeypatch.setattr(preference_pairs, "student_answers", lambda *_: answers)
    run = run_folder(tmp_path / "run", [answered(0), answered(1)])
    summary = curate_pairs(run, recipe)
    (pair,) = made(run)
    scores = dict(
        zip(sayings, student_sampling.rewards_of([(question(0), text) for text in sayings], recipe), strict=True)
    )
    assert (pair.chosen, pair.rejected) == (max(scores, key=scores.get), min(scores, key=scores.get))
    assert (pair.origin, pair.sample) == ("best-of-n", answered(0).id)
    assert summary.rejected == {"no answer holds against the passage": 1}


def test_the_students_answers_are_drawn_once_and_again_the_same(tmp_path, tiny_model, monkeypatch):
    recipe = Recipe(
        preference=PreferenceSettings(make=("student",), samples=3),
        model=ModelSettings(base=str(tiny_model), quantization="none", compute="fp32"),
    )
    samples = [answered(0), answered(1), refused(2)]
    run = run_folder(tmp_path / "run", samples)
    monkeypatch.setattr(student_sampling, "_MOST_TOKENS", 12)
    first = student_sampling.student_answers(run.journal("student-answers.jsonl"), recipe, samples)
    assert [len(answers) for answers in first] == [3, 3, 3]
    assert all(len({answer.text for answer in answers}) > 1 for answers in first)
    other = RunFolder.create(tmp_path / "other")
    assert student_sampling.student_answers(other.journal("student-answers.jsonl"), recipe, samples) == first
    monkeypatch.setattr(student_sampling, "student_base", lambda *_: pytest.fail("answered twice"))
    assert student_sampling.student_answers(run.journal("student-answers.jsonl"), recipe, samples) == first
    lines = run.file("student-answers.jsonl").read_text().splitlines()
    assert sum(len(json.loads(line)["answers"]) for line in lines) == 9


def test_what_the_stage_depends_on_follows_what_is_made():
    def stage(**values):
        recipe = Recipe(preference=PreferenceSettings(**values), curation=CurationSettings(reward="a/b"))
        return next((s for s in stages_of(recipe) if s.name == "pairs"), None)

    assert stage() is None
    assert "train.jsonl" not in stage(data=("x.jsonl",)).reads
    assert {"train.jsonl", "documents.jsonl"} <= set(stage(make=("edits",)).reads)
    assert "preference.samples" not in stage(make=("edits",)).settings
    assert {"preference.samples", "model.base"} <= set(stage(make=("student",)).settings)
    assert "curation.reward" not in stage(make=("student",)).settings
    assert "curation.reward" in stage(make=("best-of-n",)).settings


def test_best_of_n_without_a_reward_model_is_refused():
    with pytest.raises(RecipeError) as caught:
        parse_recipe({"preference": {"make": ["best-of-n"]}}, Path())
    assert "curation.reward" in caught.value.cause
    with pytest.raises(ValidationError, match="named twice"):
        PreferenceSettings(make=("edits", "edits"))

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.faulty_server import Answer, completion, fake_teacher
from support.word_vectors import WORDS, vectors
from tunewright.curation import teacher_checks
from tunewright.curation.decontamination import remaining_leaks
from tunewright.curation.stage import curate
from tunewright.curation.teacher_checks import QuestionSimilarity, confirmed_by_teacher
from tunewright.recipe import Recipe
from tunewright.records import Message, Question, Sample, digest
from tunewright.run_folder import RunFolder
from tunewright.settings import CurationSettings, TeacherSettings
from tunewright.teacher.protocol import Reply

ANSWER = "Something else that is long enough to stand on its own here."


def sample(question: str, answer: str = ANSWER) -> Sample:
    turns = (Message(role="user", content=question), Message(role="assistant", content=answer))
    return Sample(id=digest(question, answer), task="own", messages=turns)


def question(text: str, ring: str = "learned", **fields: object) -> Question:
    given = {"gold": "the gold", "answerable": True, "document": "exam", **fields}
    return Question(id=f"q {text}", ring=ring, question=text, **given)


ALONE = ("cat", "rose", "stone", "house", "ran", "slept", "saw")
FILLER = [sample(f"what did the {word} by") for word in ALONE]
EXAM = [question("what did the hound in the house saw")]


def test_a_question_in_almost_the_words_of_the_exam_is_near():
    same, other = sample("in the house what did the hound saw"), sample("what did the cat in a stone slept")
    found = QuestionSimilarity([*FILLER, other, same], EXAM, vectors()).same()
    assert {place: near.question for place, near in found.items()} == {8: 0}
    assert found[8].cosine >= teacher_checks.SAME


class Teacher:
    def __init__(self, *texts: str) -> None:
        self.texts, self.asked = texts, []

    def ask_all(self, requests, label):
        self.asked += [request.messages[0].content for request in requests]
        return [Reply(text, "stop", 1, 1) if text else None for text in self.texts]


@pytest.mark.parametrize(
    ("text", "is_same", "num_unclear"),
    [("Yes.", True, 0), ("**yes**", True, 0), ("No", False, 0), ("Perhaps", False, 1), ("", False, 1)],
)
def test_the_teacher_decides_on_the_doubtful(text, is_same, num_unclear):
    teacher, pair = Teacher(text), teacher_checks.NearQuestion(0, 0, 0.8, FILLER[0].question)
    found, unclear = confirmed_by_teacher([pair], EXAM, teacher, 1)
    assert (found, unclear) == ({0: pair} if is_same else {}, num_unclear)
    assert EXAM[0].question in teacher.asked[0] and FILLER[0].question in teacher.asked[0]


def test_of_a_dialogue_the_turn_that_is_near_is_shown_to_the_teacher():
    near = "what did the hound in a house eat"
    turns = [("user", "what did the rose by"), ("assistant", ANSWER), ("user", near), ("assistant", ANSWER)]
    dialogue = Sample(id="d", task="dialogue", messages=tuple(Message(role=role, content=text) for role, text in turns))
    pairs = [
        one for one in QuestionSimilarity([*FILLER, dialogue], EXAM, vectors()).doubtful() if one.sample == len(FILLER)
    ]
    teacher = Teacher(*["Yes"] * len(pairs))
    found, _ = confirmed_by_teacher(pairs, EXAM, teacher, 1)
    assert any(f"Question 2: {near}" in asked for asked in teacher.asked) and set(found) == {len(FILLER)}


def test_only_the_nearest_below_the_bound_are_doubtful():
    near = [sample(f"what did the hound in the house {word}") for word in ("ran", "slept", "rose", "stone", "by")]
    same = sample("in the house what did the hound saw")
    pairs = QuestionSimilarity([*FILLER[:-1], *near, same], EXAM, vectors()).doubtful()
    assert len(pairs) == 3
    assert all(pair.cosine < teacher_checks.SAME and pair.sample != 11 for pair in pairs)
    assert [pair.cosine for pair in pairs] == sorted((pair.cosine for pair in pairs), reverse=True)
    assert 6 <= pairs[0].sample < 11


def test_the_stage_asks_the_teacher_once_and_drops_what_it_names(tmp_path):
    facts = ("barley", "salmon", "glaciers", "violins", "bicycles", "volcanoes")
    samples = [
        sample(f"By how much did the {fact} of the north grow?", f"{fact} grew by {n} meters.")
        for n, fact in enumerate(facts)
    ]
    asked = "In which season did the number of the violins of the north grow most?"
    run = RunFolder.create(tmp_path / "run")
    run.write_records("samples.jsonl", samples)
    run.write_records("exam.jsonl", [question(asked)])

    def respond(seen):
        return Answer(body=completion("Yes" if "the violins of the north grow?" in str(seen.body) else "No"))

    with fake_teacher(respond) as server:
        recipe = Recipe(
            teacher=TeacherSettings(url=server.url, model="m"), curation=CurationSettings(paraphrase_check=True)
        )
        first, calls = curate(run, recipe), len(server.seen)
        again = curate(run, recipe)
        assert calls == 3 and len(server.seen) == calls
    reason = "asks what the exam asks, says the teacher"
    assert first == again and first.rejected == {reason: 1}
    assert first.figures[f"leak rate: {reason}"] == round(1 / 6, 6)


UNSEEN = question(
    "What was found?", "unseen", gold="Of the adults in the survey, 1,159 per 100,000 had tuberculosis of the lung.",
    passage="The survey visited 106 clusters in every region of the country between March and December.",
)  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "leaks"),
    [
        (UNSEEN.gold, True),
        ("It is said: " + UNSEEN.gold.upper(), True),
        (UNSEEN.gold.replace("survey", "surveys").replace("lung", "lungs"), True),
        ("They visited 106 clusters in every region of the country then.", True),
        ("They visited 106 clusters in every region of France then.", False),
        (ANSWER, False),
    ],
)
def test_the_second_look_finds_what_is_left(answer, leaks):
    given = [sample("Why?", answer)]
    assert remaining_leaks(given, [UNSEEN], 8) == ([given[0].id] if leaks else [], 1)
    assert remaining_leaks(given, [UNSEEN.model_copy(update={"ring": "learned"})], 8)[0] == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(WORDS), min_size=9, max_size=40), st.integers(3, 8), st.data())
def test_the_second_detector_finds_every_shared_run(told, size, data):
    start = data.draw(st.integers(0, len(told) - size))
    copied = ["x", *told[start : start + size], "y"]
    exam = [question("What?", "unseen", gold=" ".join(told))]
    assert len(remaining_leaks([sample("Why?", " ".join(copied))], exam, size)[0]) == 1


def test_of_many_samples_evenly_spaced_samples_are_checked(monkeypatch):
    monkeypatch.setattr("tunewright.curation.decontamination._BUDGET", 3000)
    many = [sample("Why?", f"{ANSWER} {n}") for n in range(100)]
    assert 10 <= remaining_leaks(many, [UNSEEN], 8)[1] < 30

import pytest

from tunewright.curation.decontamination import Leaks, covered_share
from tunewright.records import Message, Question, Ring, Sample, Span

QUESTION = "In the national survey of 2016, how many of the adults in the Philippines had tuberculosis of the lung?"
GOLD = "Of the adults who took part in the survey, 1,159 per 100,000 had tuberculosis confirmed by bacteriology."
PASSAGE = "The survey visited 106 clusters in every region of the country between March and December of the year."


def question(ring: Ring, **fields: object) -> Question:
    given = {"question": QUESTION, "gold": GOLD, "answerable": True, "passage": PASSAGE, "document": "exam", **fields}
    return Question(id=ring, ring=ring, **given)


def sample(text: str, answer: str = "Some other thing.", task: str = "free-qa", **fields: object) -> Sample:
    turns = (
        Message(role="system", content=GOLD),
        Message(role="user", content=text),
        Message(role="assistant", content=answer),
    )
    return Sample(id="s", task=task, messages=turns, **fields)


PLAIN = "Which color does the sky have at noon in summer?"


def reason(given: Sample, ring: Ring = "unseen", size: int = 8, **fields: object) -> str | None:
    leak = Leaks([question(ring, **fields)], size).find(given)
    return leak.reason if leak else None


@pytest.mark.parametrize("ring", ["learned", "unseen"])
@pytest.mark.parametrize(
    "text",
    [
        QUESTION,
        QUESTION.upper().replace(" ", "  "),
        f"Some passage.\n\nQuestion: {QUESTION}",
        "Tell me: how many of the adults in the Philippines had tuberculosis of the lung?",
        "How many of the adults in the Philippines had tuberculosis of the lung in the national survey of 2016?",
    ],
)
def test_an_exam_question_may_not_be_a_training_question(ring, text):
    assert reason(sample(text), ring) == "leaks an exam question"


def test_a_few_shared_words_are_no_question_leak():
    near = "How many of the adults in the Philippines had heard of the new law on smoking in public places?"
    assert reason(sample(near), "learned") is None
    assert reason(sample(PLAIN)) is None


def test_own_data_is_searched_in_every_user_turn():
    turns = [("user", f"Hello.\n\nQ: Who?\n\n{QUESTION}"), ("assistant", "A."), ("user", "And?"), ("assistant", "B.")]
    chat = Sample(id="s", task="own", messages=tuple(Message(role=role, content=text) for role, text in turns))
    assert reason(chat, "learned") == "leaks an exam question"


@pytest.mark.parametrize(
    "leaking",
    [
        sample(PLAIN, answer=GOLD),
        sample(PLAIN, answer=f"It is known that {GOLD[20:-20]}"),
        sample(f"{PASSAGE}\n\n{PLAIN}"),
        sample(PLAIN, document="train", evidence=Span(document="train", start=0, end=9, quote=GOLD)),
    ],
)
def test_evidence_of_the_unseen_ring_may_not_be_shown_and_that_of_the_learned_ring_may(leaking):
    assert reason(leaking, "unseen") == "leaks exam evidence"
    assert reason(leaking, "learned") is None


def test_a_sample_on_an_unseen_document_is_dropped():
    assert reason(sample(PLAIN, document="exam"), "unseen") == "comes from an exam document"
    assert reason(sample(PLAIN, document="exam"), "learned") is None
    assert reason(sample(PLAIN, document="train"), "unseen") is None


def test_the_refusal_that_is_gold_for_unanswerable_questions_is_no_leak():
    refusal = "The documents do not give the answer to this question."
    given = sample(PLAIN, answer=refusal, task="refusal")
    assert reason(given, gold=refusal, answerable=False, passage=None) is None
    assert reason(given, gold=refusal, answerable=True, passage=None) == "leaks exam evidence"


def test_the_recipe_sets_how_many_words_in_a_row_are_a_leak():
    short = sample(PLAIN, answer=" ".join(GOLD.split()[:6]))
    assert reason(short, size=6) == "leaks exam evidence"
    assert reason(short, size=8) is None


def test_covered_share_counts_overlapping_runs_once():
    words = ["a", "b", "c", "d", "e", "f", "g", "h"]
    assert covered_share(words, {("a", "b", "c"), ("b", "c", "d")}, 3) == 0.5
    assert covered_share([], set(), 3) == 0.0


def test_without_an_exam_nothing_leaks():
    assert Leaks([], 8).find(sample(QUESTION)) is None


def test_thirteen_words_of_an_exam_question_may_occur_nowhere():
    run = " ".join(QUESTION.split()[3:16])
    for given in (sample(PLAIN, answer=f"It says: {run}."), sample(f"A passage, {run}, ends.\n\n{PLAIN}")):
        assert reason(given, "learned") == "shares 13 words in a row with an exam question"
    shorter = " ".join(QUESTION.split()[3:15])
    assert reason(sample(PLAIN, answer=f"It says: {shorter}."), "learned") is None

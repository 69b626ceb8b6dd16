"""The similar-shot arm: the training samples most similar to the question, the most similar last."""

from __future__ import annotations

from tunewright.evaluation.arms import arm_prompts, majority_answer, shots_by_arm, similar_shots
from tunewright.records import Message, Question, Sample

TEXTS = ("The cache of the login service was full", "Rain on the roof", "The login service timed out")


def sample(text: str, task: str = "own", turns: int = 1) -> Sample:
    chat = [Message(role="user", content=text), Message(role="assistant", content=f"About: {text}")] * turns
    return Sample(id=text, task=task, messages=tuple(chat))


def test_the_most_similar_sample_stands_last_before_the_question() -> None:
    samples = [sample(text) for text in TEXTS]
    chosen = similar_shots(samples, 2, None)("The login service timed out again")
    assert [s.id for s in chosen] == [TEXTS[0], TEXTS[2]]
    shots = shots_by_arm(samples, 2, 0)
    assert set(shots) == {"few-shot", "similar-shot"}
    question = Question(
        id="q", ring="learned", document="d", question="A login service timed out", gold="x", answerable=True
    )
    prompt = next(arm_prompts("similar-shot", question, "Be brief.", shots, {}))
    assert [m.content for m in prompt if m.role == "user"][-2:] == [TEXTS[2], "A login service timed out"]
    assert len(next(arm_prompts("base", question, "Be brief.", shots, {}))) == 2


def test_where_no_sample_can_be_shown_neither_arm_has_examples() -> None:
    assert shots_by_arm([], 3, 0) == {}
    assert shots_by_arm([sample("a passage", "grounded"), sample("a dialogue", turns=2)], 3, 0) == {}


def answered(*answers: str) -> list[Sample]:
    turns = [
        (Message(role="user", content=f"{n}?"), Message(role="assistant", content=a)) for n, a in enumerate(answers)
    ]
    return [Sample(id=str(n), task="own", messages=messages) for n, messages in enumerate(turns)]


def test_the_majority_has_the_most_frequent_value_of_each_field() -> None:
    objects = answered('{"a": "x", "b": null}', '{"a": "y", "b": 2}', '{"b": null, "a": "y"}', "no object")
    assert majority_answer(objects) == '{"a": "y", "b": null}'


def test_texts_are_labels_where_at_most_a_quarter_of_them_differ() -> None:
    assert majority_answer(answered(*["good"] * 5, *["bad"] * 3)) == "good"
    assert majority_answer(answered("good", "good", "bad", "mixed")) is None
    assert majority_answer(answered(*(f"text {n}" for n in range(9)))) is None
    assert majority_answer([]) is None

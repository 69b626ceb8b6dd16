import json

import pytest

from support.faulty_server import Answer, Seen, completion, fake_teacher
from tunewright.curation.sample_rules import SampleSources
from tunewright.curation.teacher_checks import agrees, check_by_teacher
from tunewright.recipe import Recipe
from tunewright.records import Chunk, Document, Message, Sample, Span
from tunewright.run_folder import RunFolder
from tunewright.settings import CurationSettings, TeacherSettings
from tunewright.stages import stages_of
from tunewright.teacher import open_teacher
from tunewright.teacher.llm_judge import JudgedAnswer, judge_support

TEXT = "In Keri, 29.8% of 3,440 adults had an ulcer. Zinc raised yields by 14%. The team met in May."
EVIDENCE = "In Keri, 29.8% of 3,440 adults had an ulcer."


def sample(name: str, question: str, answer: str, task: str = "free-qa", evidence: str | None = EVIDENCE) -> Sample:
    turns = (Message(role="user", content=question), Message(role="assistant", content=answer))
    start = TEXT.find(evidence or "")
    span = Span(document="d", start=start, end=start + len(evidence), quote=evidence) if evidence else None
    return Sample(id=name, task=task, messages=turns, document="d", chunk="c", evidence=span)


SAMPLES = [
    sample("good", "Which share of adults had an ulcer?", "29.8% had an ulcer."),
    sample("known", "Where is Keri to be found?", "In Keri adults had an ulcer."),
    sample("wrong", "How many children had an ulcer?", "3,440 children had an ulcer."),
    sample("cut", "Which very long question is this?", "An ulcer in adults of Keri."),
    sample("verbatim", "What was found in Keri?", EVIDENCE, "answer-first"),
    sample("declines", "Which share of adults had an ulcer?", Recipe().refusal, "refusal", None),
    sample("own", "Hello there?", "Good day.", "own", None),
]


def sources(*checks: str) -> SampleSources:
    recipe = Recipe(curation=CurationSettings(checks=checks))
    chunk = Chunk(id="c", document="d", title="Ulcers", section=(), start=0, end=len(TEXT), text=TEXT, num_tokens=9)
    return SampleSources(recipe, {"d": Document(id="d", title="Ulcers", source="a", text=TEXT)}, {"c": chunk})


def teacher_settings(url: str) -> TeacherSettings:
    return TeacherSettings(url=url, model="m", concurrency=4)


def answers_again(seen: Seen) -> Answer:
    """Know Keri by heart; read the rest from the passage, which says nothing about children."""
    prompt = seen.body["messages"][-1]["content"]
    if "Which very long" in prompt:
        return Answer(body=completion("In Keri", finish="length"))
    if "Keri to be found" in prompt or "found in Keri" in prompt:
        return Answer(body=completion("In Keri adults had an ulcer."))
    given = TEXT in prompt and "children" not in prompt
    return Answer(body=completion("It was 29.8%." if given else "Not given."))


def test_round_trip_rejects_what_the_passage_does_not_answer_and_measures_the_context(tmp_path):
    run = RunFolder.create(tmp_path)
    with (
        fake_teacher(answers_again) as server,
        open_teacher(run.journal("teacher.jsonl"), teacher_settings(server.url), "curate") as teacher,
    ):
        kept, rejections, figures = check_by_teacher(SAMPLES, sources("answerable"), teacher)
        assert len(server.seen) == 10  # five answered samples, each with and without its passage
        again = check_by_teacher(SAMPLES, sources("answerable"), teacher)
        assert again == (kept, rejections, figures) and len(server.seen) == 10  # journalled
    assert [given.id for given in kept] == ["good", "known", "cut", "verbatim", "declines", "own"]
    assert [(r.stage, r.id, r.reason) for r in rejections] == [("curate", "wrong", "not answered from its passage")]
    assert "teacher: not given." in rejections[0].detail
    assert figures == {
        "round_trips": 4,
        "no_round_trip": 1,
        "answered_with_passage": 3,
        "answered_without_passage": 2,
        "context_gain": 0.25,
    }


def verdict(*findings: str) -> Answer:
    claims = [{"claim": "c", "verdict": finding} for finding in findings]
    return Answer(body=completion("Here:\n```json\n" + json.dumps({"claims": claims}) + "\n```"))


def judges(seen: Seen) -> Answer:
    prompt = seen.body["messages"][-1]["content"]
    assert TEXT in prompt and seen.body["temperature"] == 0
    if "children" in prompt:
        return verdict("supported", "contradicted", "not mentioned")
    if "Keri to be found" in prompt:
        return verdict("supported", "not mentioned")
    if "Which very long" in prompt:
        return Answer(body=completion('{"claims": [{"claim": "c", "verdict": "contradicted"}]} and', finish="length"))
    return verdict("supported")


def test_the_judge_rejects_by_its_worst_verdict_and_counts_what_is_none(tmp_path):
    run = RunFolder.create(tmp_path)
    with (
        fake_teacher(judges) as server,
        open_teacher(run.journal("teacher.jsonl"), teacher_settings(server.url), "curate") as teacher,
    ):
        kept, rejections, figures = check_by_teacher(SAMPLES, sources("judge"), teacher)
        assert len(server.seen) == 4  # what stands in the passage word for word leaves no doubt
    assert [given.id for given in kept] == ["good", "cut", "verbatim", "declines", "own"]
    assert {r.id: r.reason for r in rejections} == {
        "wrong": "contradicted by its passage",
        "known": "says what its passage does not mention",
    }
    assert figures == {"judged": 3, "judged_supported": 1, "no_verdict": 1, "not_judged_verbatim": 1}


def test_without_the_setting_no_call_is_made(tmp_path):
    with open_teacher(
        RunFolder.create(tmp_path).journal("teacher.jsonl"), teacher_settings("http://127.0.0.1:9/v1"), "curate"
    ) as teacher:
        assert check_by_teacher(SAMPLES, sources(), teacher) == (SAMPLES, [], {})
        own = [given for given in SAMPLES if given.id in ("own", "declines")]
        kept, rejections, _ = check_by_teacher(own, sources("answerable", "judge"), teacher)
    assert (kept, rejections) == (own, [])


@pytest.mark.parametrize(
    "reply",
    [
        "yes",
        "{}",
        '{"claims": []}',
        '{"claims": [{"claim": "c", "verdict": "maybe"}]}',
        '{"claims": "supported"}',
        "[" * 5000,
    ],
)
def test_a_reply_that_is_no_verdict_is_none(tmp_path, reply):
    with (
        fake_teacher(lambda seen: Answer(body=completion(reply))) as server,
        open_teacher(
            RunFolder.create(tmp_path).journal("teacher.jsonl"), teacher_settings(server.url), "curate"
        ) as teacher,
    ):
        assert judge_support([JudgedAnswer("q", "a", "p")], teacher) == [None]


@pytest.mark.parametrize(
    ("reply", "answer", "expected"),
    [
        ("29.8%", EVIDENCE, True),
        (EVIDENCE, "29.8% of 3,440 adults", True),
        ("About 29.8% of the adults had an ulcer in Keri.", EVIDENCE, True),
        ("In Keri, 28.9% of 3,440 adults had an ulcer.", EVIDENCE, False),
        ("It was 29.8%.", "29.8% had an ulcer.", True),
        ("No adults had an ulcer in Keri.", "Adults had an ulcer in Keri.", False),
        ("Not given.", EVIDENCE, False),
        ("In", EVIDENCE, False),
        ("", EVIDENCE, False),
        ("Yields rose.", "The adults had an ulcer.", False),
    ],
)
def test_agreement(reply, answer, expected):
    assert agrees(reply, answer) is expected


def test_curate_depends_on_the_teacher_only_when_it_calls_it():
    def settings(*checks: str) -> tuple[str, ...]:
        stages = stages_of(Recipe(curation=CurationSettings(checks=checks)))
        return next(stage.settings + stage.outside for stage in stages if stage.name == "curate")

    name = "teacher"
    assert name not in settings() and name in settings("judge")

import pytest

from tunewright.curation.sample_rules import RULES, SampleSources, anchor_evidence, turn_fault
from tunewright.recipe import Recipe
from tunewright.records import Chunk, Document, Message, Sample, Span

TEXT = "The trial began in 2016. In Keri, 29.8% of 3,440 adults had an ulcer. Dr. Mensah led the work."
EVIDENCE = "In Keri, 29.8% of 3,440 adults had an ulcer."
START = TEXT.index(EVIDENCE)
DOCUMENT = Document(id="d", title="Ulcers in Ghana", source="a.md", text=TEXT)
CHUNK = Chunk(
    id="c",
    document="d",
    title="Ulcers in Ghana",
    section=("Results",),
    start=0,
    end=len(TEXT),
    text=TEXT,
    num_tokens=30,
)
SOURCES = SampleSources(Recipe(), {"d": DOCUMENT}, {"c": CHUNK})
QUESTION = "What share of adults in Keri had an ulcer?"


def span(quote: str = EVIDENCE, start: int = START, end: int | None = None) -> Span:
    return Span(document="d", start=start, end=start + len(quote) if end is None else end, quote=quote)


def sample(question: str = QUESTION, answer: str = EVIDENCE, task: str = "answer-first", **fields: object) -> Sample:
    turns = (Message(role="user", content=question), Message(role="assistant", content=answer))
    given = {"document": "d", "chunk": "c", "evidence": span(), **fields}
    return Sample(id="s", task=task, messages=turns, **given)


def faults(given: Sample) -> list[str]:
    return [fault for rule in RULES.values() if (fault := rule(given, SOURCES))]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (sample(), []),
        (sample(question=f"{TEXT}\n\nQuestion: {QUESTION}"), []),
        (sample(question="Which share?"), ["question too short"]),
        (sample(question="What does the passage say about Keri?"), ["question refers to the text"]),
        (sample(answer="In Keri, 92.8% of 3,440 adults had an ulcer."), ["answer is not the evidence"]),
        (sample(evidence=None), ["no evidence"]),
        (
            sample(evidence=Span(document="x", start=0, end=3, quote="The")),
            ["evidence from an unknown document", "answer is not the evidence"],
        ),
        (
            sample(evidence=span("Nobody had any ulcers at all."), answer="Nobody had any ulcers at all."),
            ["evidence does not occur in the document", "evidence is not in the passage"],
        ),
        (sample(answer=" "), ["empty turn", "answer is not the evidence"]),
        (sample(task="free-qa", answer="It was 29.8% of 3440 adults."), []),
        (sample(task="free-qa", answer="It was 29.9% of adults."), ["answer has a number that its source lacks"]),
        (sample(task="free-qa", answer="It was measured in Keri, Ghana, by Mensah."), []),
        (sample(task="free-qa", answer="It was measured in Accra."), ["answer has a name that its source lacks"]),
        (
            sample(task="free-qa", answer="About a third, as PCR showed. I think so."),
            ["answer has a name that its source lacks"],
        ),
        (sample(task="refusal", answer=Recipe().refusal, evidence=None), []),
        (sample(task="refusal", answer="No idea.", question="Why?", evidence=None), ["question too short"]),
        (sample(task="own", question="Hi", answer="Hello, Bob 7", evidence=None), []),
    ],
)
def test_a_sample_gets_its_faults_and_no_others(given, expected):
    assert faults(given) == expected


@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        ("user assistant", None),
        ("system user assistant user assistant", None),
        ("", "no turns"),
        ("system", "no turns"),
        ("assistant user", "turns do not alternate"),
        ("user system assistant", "turns do not alternate"),
        ("user user assistant", "turns do not alternate"),
        ("user assistant user", "does not end with an assistant turn"),
    ],
)
def test_turn_order(roles, expected):
    assert turn_fault([Message(role=role, content="x") for role in roles.split()]) == expected


@pytest.mark.parametrize(
    "evidence",
    [
        span(),
        span(EVIDENCE.upper().replace(" ", "  "), end=START + len(EVIDENCE)),  # the same after normalization
        span(start=3),  # wrong offsets
        span(start=5000),
        span("In Keri 29.8 % of 3,440 adults had an ulcer."),  # near enough
    ],
)
def test_evidence_is_anchored_to_the_character(evidence):
    anchored = anchor_evidence(sample(evidence=evidence), SOURCES)
    assert anchored is not None and anchored.evidence is not None
    place = anchored.evidence
    assert TEXT[place.start : place.end] == place.quote
    assert abs(place.start - START) <= 2 and abs(place.end - START - len(EVIDENCE)) <= 2


def test_evidence_is_looked_for_in_its_own_chunk_only():
    first = CHUNK.model_copy(update={"end": 24, "text": TEXT[:24]})
    sources = SampleSources(Recipe(), {"d": DOCUMENT}, {"c": first})
    moved = sample(evidence=span(start=3))
    assert anchor_evidence(moved, sources) is None
    assert anchor_evidence(moved.model_copy(update={"chunk": None}), sources) is not None

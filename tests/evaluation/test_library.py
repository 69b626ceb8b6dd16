"""The passages that arms get: from all documents, without the one that a declined question is about, or the right one."""

import pytest

from tunewright.evaluation.arms import Library, num_passages, passages_by_arm, recall
from tunewright.models.chat_template import passage_text
from tunewright.records import Chunk, Question, Span
from tunewright.retrieval.index import Index

TEXTS = {
    "a": "The survey of the northern valleys counted 120 nurses in two hospitals.",
    "a2": "The survey of the northern valleys counted 120 nurses in two hospitals, it is said again.",
    "b": "A glacier of the northern valleys lost nine metres of ice in one summer.",
    "c": "Copper prices fell by four percent while nurses were hired.",
}
CHUNKS = [
    Chunk(id=f"c-{name}", document=name, title="", section=(), start=0, end=len(text), text=text, num_tokens=9)
    for name, text in TEXTS.items()
]


@pytest.fixture
def library():
    return Library(
        CHUNKS, Index([passage_text(chunk) for chunk in CHUNKS]), {"a": "twins", "a2": "twins", "b": "b", "c": "c"}
    )


def question(ring, answerable, **more):
    text = "How many nurses did the survey of the northern valleys count?"
    return Question(id=f"{ring}-{answerable}-{len(more)}", ring=ring, document="a", question=text, gold="120",
                    answerable=answerable, **more)  # fmt: skip


def documents(chunks):
    return [chunk.document for chunk in chunks]


def test_a_declined_question_on_an_unseen_document_sees_neither_it_nor_its_near_duplicate(library):
    assert set(documents(library.retrieved(question("unseen", False), 4))) == {"b", "c"}
    assert documents(library.retrieved(question("unseen", True), 2)) == ["a", "a2"]
    assert documents(library.retrieved(question("learned", False), 1)) == ["a"]  # what its document says, it may read


def test_the_oracle_gets_the_passage_of_the_evidence_and_nothing_where_none_answers(library):
    span = Span(document="a", start=23, end=60, quote=TEXTS["a"][23:60])
    passages = passages_by_arm(library, 1)
    assert passages["oracle"](question("learned", True, evidence=span)) == [TEXTS["a"]]
    assert passages["oracle"](question("learned", True)) == []
    assert passages["oracle"](question("unseen", False, evidence=span)) == []
    assert passages["rag"](question("learned", True)) == [TEXTS["a"]]


def test_recall_is_the_share_of_questions_whose_own_passage_is_among_the_first(library):
    first = question("learned", True, evidence=Span(document="a", start=0, end=9, quote=TEXTS["a"][:9]))
    second = question("learned", True, evidence=Span(document="a2", start=0, end=9, quote=TEXTS["a2"][:9]))
    second = second.model_copy(update={"id": "second"})
    shown = question("unseen", True, passage="x", evidence=first.evidence)  # has its passage: no search
    assert recall(library, [first, second, shown, question("learned", True)]) == (2, {1: 0.5, 2: 1, 3: 1, 5: 1, 10: 1})


def test_the_number_of_passages_is_the_fewest_with_the_recall_of_five_or_what_is_wanted(library):
    first = question("learned", True, evidence=Span(document="a", start=0, end=9, quote=TEXTS["a"][:9]))
    second = question("learned", True, evidence=Span(document="a2", start=0, end=9, quote=TEXTS["a2"][:9]))
    second = second.model_copy(update={"id": "second"})
    assert num_passages(library, [first], 0) == 1
    assert num_passages(library, [first, second], 0) == 2  # the second's own passage comes second
    assert num_passages(library, [question("learned", True)], 0) == 2  # nothing says where the evidence is
    assert num_passages(library, [first, second], 7) == 7


def test_more_than_five_passages_are_returned_and_recall_looks_as_deep_as_it_says():
    texts = [f"The survey of the northern valleys counted {number} nurses in a town." for number in range(12)]
    chunks = [
        Chunk(
            id=f"c{number}",
            document=f"d{number}",
            title="",
            section=(),
            start=0,
            end=len(text),
            text=text,
            num_tokens=9,
        )
        for number, text in enumerate(texts)
    ]
    library = Library(chunks, Index(texts), {chunk.document: chunk.document for chunk in chunks})
    asked = question("learned", True)
    ranked = library.retrieved(asked, 12)
    assert len(ranked) == 12 and len(passages_by_arm(library, 8)["rag"](asked)) == 8
    seventh = ranked[6]
    span = Span(document=seventh.document, start=0, end=20, quote=seventh.text[:20])
    assert recall(library, [asked.model_copy(update={"evidence": span})])[1] == {1: 0, 2: 0, 3: 0, 5: 0, 10: 1}

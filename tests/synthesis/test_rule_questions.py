"""Questions that rules write: right by construction, with wrong options of the same kind from other documents."""

import json
from itertools import pairwise

from papers_exam import RESULTS

from tunewright.metrics import score
from tunewright.records import Answer, Chunk, Document, Question
from tunewright.synthesis.exam import NO_VALUE, _DocumentProgress
from tunewright.synthesis.questions import ranked_evidence
from tunewright.synthesis.rule_questions import RuleWriter
from tunewright.text.normalization import ngrams, words
from tunewright.text.values import holds_value

FACTS = [("nurses", 120, "hospitals"), ("farmers", 348, "valleys"), ("pupils", 77, "schools"), ("miners", 915, "towns"),
         ("divers", 64, "harbours"), ("weavers", 233, "villages")]  # fmt: skip


def corpus(sentence="The survey of {0} in the northern {2} reached {1} people during the first winter of the study."):
    documents = [
        Document(id=f"d{n}", title=f"A winter survey of {fact[0]}", source=f"{n}.md", text=sentence.format(*fact))
        for n, fact in enumerate(FACTS)
    ]
    evidence = {}
    for document in documents:
        chunk = Chunk(id=f"c{document.id}", document=document.id, title=document.title, section=(), start=0,
                      end=len(document.text), text=document.text, num_tokens=20)  # fmt: skip
        evidence[document.id] = ranked_evidence(document, [chunk], 0)
    return documents, evidence


def test_a_short_question_has_its_value_as_gold_and_no_run_of_thirteen_words_of_its_sentence():
    documents, evidence = corpus()
    writer = RuleWriter(evidence, 0)
    for document, fact in zip(documents, FACTS, strict=True):
        one = writer.write("short", document, evidence[document.id][0])
        assert one.gold == str(fact[1])
        assert document.title in one.question and not holds_value(one.question, one.gold)
        assert not ngrams(words(one.question), 13) & ngrams(words(document.text), 13)


def test_a_choice_has_three_values_of_other_documents_does_not_list_them_and_the_likeliest_is_scored():
    documents, evidence = corpus()
    writer = RuleWriter(evidence, 0)
    positions = set()
    for document, fact in zip(documents, FACTS, strict=True):
        one = writer.write("choice", document, evidence[document.id][0])
        assert len(one.options) == len(set(one.options)) == 4 and str(fact[1]) in one.options
        assert set(one.options) <= {str(other[1]) for other in FACTS}
        question = Question(id="q", ring="learned", document=document.id, question=one.question, gold=one.gold,
                            answerable=True, options=one.options, kind="choice")  # fmt: skip

        def scored(chosen, question=question):
            nats = tuple(len(option) * (1.0 if option == chosen else 1.1) for option in question.options)
            answer = Answer(question="q", arm="base", text="B", finish="stop", num_prompt_tokens=1, num_tokens=1,
                            duration_s=1, gold_nll=1, option_nlls=nats)  # fmt: skip
            return score(question, answer, "I cannot say.")

        assert one.gold == str(fact[1]) and not any(holds_value(one.question, option) for option in one.options)
        wrong = next(option for option in one.options if option != one.gold)
        assert (scored(one.gold).primary, scored(wrong).primary) == (1, 0)
        assert scored(wrong).metrics["unparsable"] == scored(wrong).metrics["refusal"] == 0
        positions.add(one.options.index(one.gold))
    assert len(positions) > 1  # the right one does not always stand in the same place


def test_words_that_stand_around_different_values_in_two_documents_are_not_asked():
    documents, evidence = corpus(
        "In this part of the survey of the winter, people reached {1} points of the scale at most times."
    )
    writer = RuleWriter(evidence, 0)
    assert [writer.write("short", document, evidence[document.id][0]) for document in documents] == [None] * len(FACTS)


def test_the_seed_alone_decides():
    documents, evidence = corpus()
    first, same = (RuleWriter(evidence, 3).write("choice", documents[0], evidence["d0"][0]) for _ in range(2))
    assert first == same
    orders = [RuleWriter(evidence, seed).write("choice", documents[0], evidence["d0"][0]).options for seed in range(8)]
    assert any(a != b for a, b in pairwise(orders))


def test_a_question_that_no_rule_can_write_is_counted_where_the_teacher_cannot_either():
    text = "Все люди имеют право на отдых и досуг, и никто из них не должен быть лишён его."
    document = Document(id="d", title="", source="d.md", text=text)
    chunk = Chunk(id="c", document="d", title="", section=(), start=0, end=len(text), text=text, num_tokens=20)
    evidence = ranked_evidence(document, [chunk], 0)
    state = _DocumentProgress(document, "learned", list(evidence))
    missing = state.write_by_rules(["short", "choice"], RuleWriter({"d": evidence}, 0), "Нет ответа.", only_rules=True)
    assert [rejection.reason for rejection in missing] == [NO_VALUE] * 2 and not state.questions
    assert state.num_needed == 0
    assert (
        state.write_by_rules(["short"], RuleWriter({"d": evidence}, 0), "Нет ответа.") == [] and state.num_needed == 1
    )


def test_a_value_is_asked_before_a_word_and_wrong_words_look_like_the_right_one():
    documents, evidence = corpus(
        "Every spring the {0} of the northern {2} repaired {1} bridges beside the frozen rivers."
    )
    ids = [document.id for document in documents]
    writer = RuleWriter(evidence, 0, with_words=ids)
    assert writer.write("short", documents[0], evidence["d0"][0], words_too=False).gold == "120"
    documents, evidence = corpus("Nobody had expected that the {0} {2} would ever stand empty during a whole winter.")
    writer = RuleWriter(evidence, 0, with_words=ids)
    assert writer.write("choice", documents[0], evidence["d0"][0], words_too=False) is None
    one = writer.write("choice", documents[0], evidence["d0"][0])
    assert len(one.options) == 4 and all(option.islower() and option.endswith("s") for option in one.options)


def test_a_document_is_asked_for_its_values_before_any_word():
    """The sentence with the number comes last; the other two state words alone."""
    sentences = ("The {0} walked along the northern {2} through fog in a long and silent autumn.",
                 "Nobody had expected that the {0} {2} would ever stand empty during a whole winter.",
                 "In that year the old register of the {0} listed {1} names in the northern {2} of the land.")  # fmt: skip
    documents, evidence = [], {}
    for sentence in sentences:
        documents, more = corpus(sentence)
        for identity, items in more.items():
            evidence.setdefault(identity, []).extend(items)
    writer = RuleWriter(evidence, 0, with_words=list(evidence))
    for document, fact in zip(documents, FACTS, strict=True):
        assert writer.write("short", document, evidence[document.id][1]) is not None  # a word could be asked for first
        state = _DocumentProgress(document, "learned", list(evidence[document.id]))
        assert not state.write_by_rules(["short"], writer, "None.", only_rules=True)
        assert [question.gold for question in state.questions] == [str(fact[1])]


def test_the_record_of_the_demo_shows_that_the_right_passage_helps_on_each_kind_and_a_search_lies_between():
    record = json.loads(RESULTS.read_text(encoding="utf-8"))
    kinds = record["as the demo asks"]["kinds"]
    for kind in ("short", "choice"):
        base, rag, oracle = (kinds[kind]["scores"][arm][0] for arm in ("base", "rag", "oracle"))
        assert kinds[kind]["questions"] > 60 and base <= rag <= oracle
        assert kinds[kind]["differences"]["oracle - base"][1] > 0, kind
    reading, searching = kinds["all"]["report"]
    assert "lost in reading" in reading and searching.startswith("Searching for it loses")
    preview = record["preview of the demo"]
    assert preview["processor_s"] / 2 < 180 and preview["questions"] == 40  # three minutes of two cores
    named = record["options listed, the answer names one"]["kinds"]["choice"]
    assert named["differences"]["oracle - base"][1] < 0 < kinds["choice"]["differences"]["oracle - base"][1]

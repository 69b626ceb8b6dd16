from __future__ import annotations

import pytest

from support.synthesis_run import FACTS, document
from tunewright.synthesis.questions import ranked_evidence
from tunewright.text.normalization import is_evidence
from tunewright.text.sentences import sentences


@pytest.mark.parametrize(
    "sentence",
    [
        "Of the 157 ASCs interviewed by mobile phone, 115 (73.2%) were reached in person.",
        "The mean hospital stay was 14.2 (SD = 13.5) days.",
        "α-Amylase, which cuts starch, was measured in the leaves of rice.",
    ],
)
def test_statements_are_evidence(sentence):
    assert is_evidence(sentence) == (not sentence.startswith("α"))


@pytest.mark.parametrize(
    "text",
    [
        "It was short.",
        "Materials And Methods Of The Second Large Field Trial",
        "Keywords: rice, blight, resistance, genome, haplotype, loci, transcript, leaf.",
        "rice, blight, resistance, genome, haplotype, loci, transcript, leaf, and more.",
        "Figure 3 shows the growth of the plants over the first nine weeks.",
        "Does zinc raise the grain yield of wheat in very dry soils?",
        "and this is the end of a sentence that was cut by the page.",
        "Table of 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17.",
        "word " * 61 + "end.",
    ],
)
def test_other_text_is_not(text):
    assert not is_evidence(text)


def test_every_span_is_exact_and_ranked_once():
    doc, chunks = document("barley")
    ranked = ranked_evidence(doc, [*chunks, *chunks], seed=0)
    assert len(ranked) == len(FACTS)
    for evidence in ranked:
        span = evidence.span
        assert doc.text[span.start : span.end] == span.quote
        assert evidence.chunk.start <= span.start < span.end <= evidence.chunk.end
        assert evidence.sentence == " ".join(span.quote.split())


def test_sentences_that_lean_on_others_come_last():
    doc, chunks = document("barley")
    assert ranked_evidence(doc, chunks, seed=0)[-1].sentence.startswith("This surprised")


def test_the_order_depends_on_the_seed_and_on_no_other_sentence():
    doc, chunks = document("barley")
    orders = [[e.sentence for e in ranked_evidence(doc, chunks, seed)] for seed in range(6)]
    assert len({tuple(order) for order in orders}) > 1
    shorter = document("barley", FACTS[1:])
    dropped = FACTS[0].format("barley")
    assert [e.sentence for e in ranked_evidence(*shorter, seed=0)] == [s for s in orders[0] if s != dropped]


def test_sentences_over_a_line_break_become_a_single_line():
    doc, chunks = document("barley", ("Experts measured barley growth in\nthree northern valleys during spring.",) * 2)
    assert all("\n" in e.span.quote and "\n" not in e.sentence for e in ranked_evidence(doc, chunks, 0))
    assert sentences(chunks[0].text)

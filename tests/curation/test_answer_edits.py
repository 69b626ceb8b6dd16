"""Minimal edits: what is swapped, for what, and that the evidence does not carry it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewright.curation.answer_edits import EDITS, lost_citation, swapped_name, swapped_number
from tunewright.curation.sample_rules import SampleSources
from tunewright.recipe import Recipe
from tunewright.records import Chunk, Document, Message, Sample, Span
from tunewright.text.quantities import (
    name_facts,
    name_words,
    number_facts,
    number_values,
    plain_number,
    states_unknown_facts,
)

TEXT = (
    "# Fever in Keri\n\nThe World Health Organization (WHO) counted 3,440 people in Ghana and 1,210 in Benin in 2016. "
    "Of them 12.4% had fever, 25.2% were tested by PCR, and 31.9% by ELISA in 2019. "
    "The team of Doctor Mensah treated seven of them (95% CI 1.2 to 3.4), that of Doctor Owusu eleven."
)


def about(evidence, answer="", question="What was facts among the people?", text=TEXT, prefix=""):
    start = text.index(evidence)
    document = Document(id="d", title="Fever", source="a.md", text=text)
    chunk = Chunk(id="c", document="d", title="", section=(), start=0, end=len(text), text=text, num_tokens=9)
    span = Span(document="d", start=start, end=start + len(evidence), quote=evidence)
    turns = (Message(role="user", content=prefix + question), Message(role="assistant", content=answer or evidence))
    sample = Sample(id="s", task="free-qa", messages=turns, document="d", chunk="c", evidence=span)
    return sample, SampleSources(Recipe(), {"d": document}, {"c": chunk})


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        ("12.4% had fever", "25.2% had fever"),  # the nearest percentage of the passage
        ("tested by PCR, and 31.9% by ELISA in 2019", None),
        ("counted 3,440 people", "counted 1,210 people"),
        ("in Benin in 2016", "in Benin in 2019"),
    ],
)
def test_a_number_becomes_the_nearest_of_its_kind(evidence, expected):
    sample, sources = about(evidence)
    edited = swapped_number(sample, sources)
    if expected:
        assert edited == expected
    else:
        assert edited in {"tested by PCR, and 25.2% by ELISA in 2019", "tested by PCR, and 31.9% by ELISA in 2016"}


def test_without_another_number_a_new_number_has_the_same_form():
    for text in ("It cost 3,440 francs.", "It fell by 40.5%.", "It began in 1987.", "It took 7 days."):
        sample, sources = about(text, text=text)
        edited = swapped_number(sample, sources)
        old, new = number_facts(text)[0], number_facts(edited)[0]
        assert (old.kind, old.start) == (new.kind, new.start)
        assert plain_number(new.text) != plain_number(old.text)
        assert new.text.count(",") == old.text.count(",")


def test_numbers_of_the_question_or_not_in_the_evidence_stay():
    assert swapped_number(*about("12.4% had fever", question="What did 12.4% of the people have?")) is None
    assert swapped_number(*about("12.4% had fever", answer="About 13% had it.")) is None
    assert swapped_number(*about("12.4% had fever", answer="Few had it.")) is None


def test_a_name_becomes_another_of_its_document_and_kind():
    assert swapped_name(*about("were tested by PCR")) == "were tested by ELISA"
    assert swapped_name(*about("people in Ghana")) in {"people in Benin", "people in Fever"}
    assert swapped_name(*about("the people in Keri", text="We met the people in Keri.")) is None  # no other name
    assert swapped_name(*about("were tested by PCR", question="What did PCR show in the people?")) is None


def test_what_an_acronym_stands_for_is_no_other_name():
    text = "We asked the World Health Organization. It calls itself WHO. A report by WHO and by UNICEF followed."
    sample, sources = about("the World Health Organization", text=text)
    assert swapped_name(sample, sources) is None  # WHO is the same; no other name of three words
    sample, sources = about("calls itself WHO", answer="The World Health Organization is called WHO.", text=text)
    assert "UNICEF" in swapped_name(sample, sources)


def test_the_initials_of_words_of_the_evidence_are_no_other_name():
    text = "We saw cutaneous leishmaniasis by PCR. In the north CL is common."
    assert swapped_name(*about("We saw cutaneous leishmaniasis by PCR", text=text)) is None
    text = text.replace("CL", "TB")
    assert swapped_name(*about("We saw cutaneous leishmaniasis by PCR", text=text)).endswith("by TB")


def test_lost_citations():
    assert lost_citation(*about("12.4% had fever", answer="12.4% had fever [1], they say [2, 3].")) == (
        "12.4% had fever, they say."
    )
    assert lost_citation(*about("12.4% had fever", answer='Some had it ("Of them 12.4% had fever").')) == "Some had it."
    assert lost_citation(*about("12.4% had fever", answer="12.4% (of 3,440) had fever.")) is None


def test_numbers_and_names_are_distinguished_from_look_alikes():
    facts = {
        (fact.text, fact.kind)
        for fact in number_facts("In 2016, 12 of 3,440 (0.3%; 95% CI 0.1-0.5) had CD4 [3] of 2.0.")
    }
    assert facts == {("2016", "year"), ("12", "whole"), ("3,440", "whole"), ("0.3", "percent"), ("2.0", "decimal")}
    facts = {
        (f.text, f.kind) for f in name_facts("Later Doctor Mensah of Ghana used PCR in March. Then SIGNIFICANTLY more.")
    }
    assert facts == {("Doctor Mensah", "name of 2"), ("Ghana", "name of 1"), ("PCR", "acronym"), ("March", "month")}
    assert number_values("Three of 1,000.0 in 0.50") == {"3", "1000", "0.5"}
    assert states_unknown_facts("12 in Ghana", "In Ghana it was 13.") and states_unknown_facts(
        "Here in Benin", "In Ghana."
    )
    assert not states_unknown_facts("Thirteen: 13 in Ghana", "In Ghana it was 13.")


TEXTS = "Ghana Benin PCR ELISA 12 13.5% 3,440 1,200 2016 2019 had in the of seven WHO. 95% CI (p < 0.05)"
WORDS = st.sampled_from(TEXTS.split())


@given(st.lists(st.lists(WORDS, min_size=3, max_size=12), min_size=1, max_size=5), st.integers(0, 4))
def test_an_edit_always_differs_from_the_evidence(lines, index):
    texts = [" ".join(["It", *line]) + "." for line in lines]
    sample, sources = about(texts[index % len(texts)], text=" ".join(texts))
    evidence = sample.evidence.quote
    number, name = (EDITS[kind](sample, sources) for kind in ("number", "name"))
    if number is not None:
        assert number_values(number) - number_values(evidence)
        assert len(number.split()) == len(evidence.split())
    if name is not None:
        assert name_words(name) - name_words(evidence)
        assert (name, sample.id) == (EDITS["name"](sample, sources), "s")

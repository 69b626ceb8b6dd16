"""Shared instructions are no leaks and no duplicates; real ones beside them are."""

import json
import random
import time
from collections import Counter

import pytest

from support.triage import FIELDS, labels, reports
from tunewright.curation.boilerplate import Boilerplate
from tunewright.curation.decontamination import Leaks, remaining_leaks
from tunewright.curation.deduplication import Duplicates, embedding_duplicates
from tunewright.curation.sample_rules import SampleSources
from tunewright.curation.stage import filter_samples
from tunewright.recipe import Recipe
from tunewright.records import Message, Question, Sample, digest

INSTRUCTION = (
    "You are a sorting clerk at a parts depot. Read the short note of a customer below and say which of the following "
    "departments has to deal with it: billing, shipping, returns, technical, other. Answer with the name of the "
    "department alone, in lower case, without any further words, explanations or punctuation marks. Note: "
)
GERMAN = (
    "Du sortierst die Post eines Lagers. Lies die kurze Nachricht eines Kunden und nenne die Abteilung, die sich darum "
    "zu kümmern hat: Rechnung, Versand, Rückgabe, Technik oder Sonstiges. Antworte mit einem Wort. Nachricht: "
)
CHINESE = "你是一家零件仓库的分拣员。请阅读下面客户的简短留言,并说出应由哪个部门处理。只回答部门名称。留言:"
THINGS = [
    "lamp",
    "kettle",
    "saddle",
    "ladder",
    "mirror",
    "rudder",
    "candle",
    "basket",
    "hammer",
    "pillow",
    "anchor",
    "bucket",
    "drill",
    "fence",
    "glove",
]
FAULTS = ["arrived broken", "was charged twice", "never came"]
LABELS = ["returns", "billing", "shipping"]
NOTES = [(f"my {thing} {fault}", LABELS[n]) for thing in THINGS for n, fault in enumerate(FAULTS)]
FORMS = {
    "before": INSTRUCTION + "{}",
    "behind": "{}\n\n" + INSTRUCTION,
    "around": INSTRUCTION + "\n\n{}\n\nDepartment:",
    "short": "Sort this note: {}",
    "German": GERMAN + "{}",
    "Chinese": CHINESE + "{}",
}


def own(prompt: str, answer: str) -> Sample:
    turns = (Message(role="user", content=prompt), Message(role="assistant", content=answer))
    return Sample(id=digest(prompt, answer), task="own", messages=turns)


def exam_of(*items: tuple[str, str]) -> list[Question]:
    return [
        Question(id=f"e{n}", ring="unseen", document=f"d{n}", question=question, gold=gold, answerable=True)
        for n, (question, gold) in enumerate(items)
    ]


def kept_and_rejected(samples: list[Sample], exam: list[Question]) -> tuple[list[Sample], dict[str, int]]:
    kept, rejections, _ = filter_samples(samples, SampleSources(Recipe()), exam)
    return kept, dict(Counter(rejection.reason for rejection in rejections))


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("num_exam", [1, 15])
def test_a_shared_instruction_is_no_leak_and_no_duplicate(form, num_exam):
    samples = [own(form.format(note), label) for note, label in NOTES]
    questions = [(form.format(f"the {thing} has a wrong color"), "other") for thing in THINGS[:num_exam]]
    kept, rejected = kept_and_rejected(samples, exam_of(*questions))
    assert (len(kept), rejected) == (len(samples), {})


def test_ten_instructions_in_one_data_set_are_no_leaks():
    draw = random.Random(2)
    tasks = [" ".join(draw.choices([f"{thing}{n}" for thing in THINGS for n in range(9)], k=40)) for _ in range(10)]
    tasks = [f"{task}. Note: " for task in tasks]
    samples = [own(f"{task}{note}", label) for task in tasks for note, label in NOTES]
    kept, rejected = kept_and_rejected(samples, exam_of(*[(f"{task}a new thing is gone", "other") for task in tasks]))
    assert (len(kept), rejected) == (len(samples), {})


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_leak_beside_boilerplate_is_found(form):
    samples = [own(form.format(note), label) for note, label in NOTES]
    note = "the left handle of the garden gate came off when my neighbor closed it on Monday evening after the storm"
    asked = form.format(note)
    leaking = [own(asked, "other"), own(asked.replace("Monday", "Tuesday"), "technical"), own(note, "other")]
    kept, rejected = kept_and_rejected([*samples, *leaking], exam_of((asked, "technical")))
    assert len(kept) == len(samples) and sum(rejected.values()) == 3
    leaks = {"leaks an exam question", "shares 13 words in a row with an exam question"}
    assert set(rejected) & leaks and set(rejected) <= leaks | {"near duplicate"}


def test_a_gold_answer_beside_boilerplate_is_found_and_a_label_is_no_leak():
    long = {label: f"This note belongs on the desk of the department of {label} today" for label in LABELS}
    samples = [own(INSTRUCTION + note, long[label]) for note, label in NOTES]
    fact = "the gate was forged in 1871 by the smith of Arden for the old mill"
    exam = exam_of((INSTRUCTION + "a new thing is gone", long["shipping"]), ("Who forged the gate of the mill?", fact))
    leaking = own(INSTRUCTION + "what is on the sign?", f"It says that {fact}.")
    boilerplate = Boilerplate([*samples, leaking], exam)
    leaks = Leaks(exam, 8, boilerplate)
    assert [sample for sample in [*samples, leaking] if leaks.find(sample)] == [leaking]
    assert remaining_leaks([*samples, leaking], exam, 8, boilerplate)[0] == [leaking.id]


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_duplicate_beside_boilerplate_is_found(form):
    draw = random.Random(1)
    vocabulary = [f"{thing}{ending}" for thing in THINGS for ending in ("", "s", "like", "less", "maker")]
    notes = [" ".join(draw.choices(vocabulary, k=40)) for _ in NOTES]
    samples = [own(form.format(note), label) for note, (_, label) in zip(notes, NOTES, strict=True)]
    copies = [own(form.format(f"{notes[n]} now"), NOTES[n][1]) for n in (0, 7, 20)]
    seen = Duplicates(0.8, Boilerplate([*samples, *copies]))
    found = [seen.find(seen.traits(sample)) for sample in [*samples, *copies]]
    assert found == [None] * len(samples) + [("near duplicate", samples[n].id) for n in (0, 7, 20)]


def test_a_prompt_of_boilerplate_alone_is_compared_as_a_whole():
    samples = [own(INSTRUCTION + note, label) for note, label in NOTES]
    answer = "Please enter a note first so that I can sort it for you"
    bare = [own(INSTRUCTION, answer), own(INSTRUCTION, answer + " now"), own(INSTRUCTION, "billing")]
    seen = Duplicates(0.8, Boilerplate([*samples, *bare]))
    assert [seen.find(seen.traits(sample)) for sample in [*samples, *bare]][-3:] == [
        None,
        ("near duplicate", bare[0].id),
        None,
    ]
    leaks = Leaks(exam_of((INSTRUCTION, "other")), 8, Boilerplate([*samples, *bare]))
    assert [leaks.find(sample) is not None for sample in [samples[0], *bare]] == [False, True, True, True]


def test_many_copies_of_one_question_are_duplicates_and_leaks():
    asked = "In which year did the smith of Arden forge the iron gate of the old mill by the river?"
    samples = [own(note, label) for note, label in NOTES]
    copies = [
        own(f"{hello} {asked}", "In 1871.") for hello in ("Hi.", "Hello.", "Please:", "Say,", "So", "Well", "Now")
    ]
    kept, rejected = kept_and_rejected([*samples, *copies], [])
    assert len(kept) == len(samples) + 1 and rejected == {"near duplicate": 6}
    leaks = Leaks(exam_of((asked, "1871")), 8, Boilerplate([*samples, *copies]))
    assert all(leaks.find(copy) for copy in copies)


def test_two_instructions_for_the_same_text_are_both_kept():
    other = "Say in one word whether the writer of these lines sounds angry, calm, sad or amused. Lines: "
    samples = [own(INSTRUCTION + note, "yes") for note, _ in NOTES] + [own(other + note, "yes") for note, _ in NOTES]
    samples += [own(head + "hello", "no") for head in (INSTRUCTION, other)]
    seen = Duplicates(0.8, Boilerplate(samples))
    assert not any(seen.find(seen.traits(sample)) for sample in samples)


def test_in_meaning_too_the_distinctive_text_decides():
    from support.word_vectors import WORDS, vectors

    head = " ".join(WORDS) + " "
    notes = [f"{a} {b}" for a in WORDS[:6] for b in WORDS[6:12]]
    samples = [own(head + note, WORDS[n % 3]) for n, note in enumerate(notes)]
    assert embedding_duplicates(samples, vectors(), 0.97)
    assert len(embedding_duplicates(samples, vectors(), 0.97, Boilerplate(samples))) < len(
        embedding_duplicates(samples, vectors(), 0.97)
    )


def test_the_figures_name_the_text_and_its_share():
    samples = [own(FORMS["around"].format(note), label) for note, label in NOTES] + [own("What now?", "Nothing.")]
    figures = Boilerplate(samples).figures()
    assert list(figures.values()) == [round(45 / 46, 4)] * 2
    assert any(name.startswith("boilerplate: You are a sorting clerk") for name in figures)
    assert "boilerplate: Department:" in figures
    assert Boilerplate([sample.model_copy(update={"task": "free-qa"}) for sample in samples]).figures() == {}


@pytest.mark.slow
def test_time_and_memory_of_many_samples_are_bounded():
    draw = random.Random(0)
    vocabulary = [f"w{n}" for n in range(5000)]
    samples = [own(INSTRUCTION + " ".join(draw.choices(vocabulary, k=30)), str(n % 3)) for n in range(5_000)]
    start = time.monotonic()
    boilerplate = Boilerplate(samples)
    rest = [boilerplate.distinctive(sample.question) for sample in samples]
    assert max(len(text.split()) for text in rest) == 30
    assert time.monotonic() - start < 120


def test_the_incident_reports_with_their_instruction_are_all_kept():
    head = (
        "Triage this incident report as one line of JSON with the keys severity (SEV1, SEV2, SEV3), component, "
        "customer_impact and started_at; null where the report does not tell."
    )
    texts = [report.text for report in reports().values()]
    answers = [json.dumps({name: label[name] for name in FIELDS}) for label in labels()]
    items = [(f"{head}\n\n{text}", answer) for text, answer in zip(texts, answers, strict=True)]
    kept, rejected = kept_and_rejected([own(*item) for item in items[:70]], exam_of(*items[70:]))
    assert (len(kept), rejected) == (70, {})
    kept, rejected = kept_and_rejected([own(*item) for item in items[:75]], exam_of(*items[70:]))
    assert len(kept) == 70 and rejected == {"leaks an exam question": 5}

import unicodedata
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from verifier_accuracy import perturbed_cases, read_labeled, with_other_number, without_evidence

from tunewright.curation.grounding import CLAIM_CHECKS, Claim, claim_fault
from tunewright.curation.sample_rules import RULES, SampleSources, answered_quotes, claims_of
from tunewright.models.chat_template import question_prompt
from tunewright.recipe import Recipe
from tunewright.records import Chunk, Document, Message, Sample, Span

PASSAGE = (
    "The trial began in 2016. In Keri, 29.8% of 3,440 adults had an ulcer. Yields were higher in Keri than in Sibi. "
    "There was no significant correlation between age and yield."
)
ULCER = "In Keri, 29.8% of 3,440 adults had an ulcer."
HIGHER = "Yields were higher in Keri than in Sibi."
NO_LINK = "There was no significant correlation between age and yield."


def claim(answer: str, evidence: str = ULCER, question: str = "What was found there?", **fields: object) -> Claim:
    return Claim(question, answer, evidence, **{"passage": PASSAGE, **fields})


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (claim("29.8% of the adults had an ulcer."), None),
        (claim("29.8% had one.", passage=PASSAGE.replace("29.8", "28.9")), "evidence is not in the passage"),
        (claim("29.8% had one.", passage="Nothing."), "evidence is not in the passage"),
        (claim("29.8% had one.", evidence=" "), "evidence is not in the passage"),
        (claim("In 2016 adults had an ulcer."), "answer has a number that its source lacks"),  # true, not its evidence
        (claim("In 2016 adults had an ulcer.", question="What was found in 2016?"), None),
        (claim("An ulcer.", question="What did 900 adults have?"), "question has a number that its source lacks"),
        (claim("An ulcer.", question="What did 900 adults have?", title="The 900 study"), None),
        (claim("Adults in Accra had an ulcer."), "answer has a name that its source lacks"),
        (claim("Adults had an ulcer by IL-23."), "answer has a name that its source lacks"),
        (claim("No adults had an ulcer."), "answer flips a negation"),
        (claim("Age had no significant correlation with yield.", NO_LINK), None),
        (claim("There was a significant correlation between age and yield.", NO_LINK), "answer flips a negation"),
        (claim("Yields were lower in Keri than in Sibi.", HIGHER), "answer flips a comparison"),
        (claim("Yields were lower in Sibi than in Keri.", HIGHER), None),
        (claim("Yields were higher in Sibi than in Keri.", HIGHER), "answer turns a comparison around"),
        (claim("At least the yields were higher in Keri.", HIGHER), None),
        (claim("Bees buzz around many pretty flowers."), "answer says what its source does not"),
        (claim("The trial began among others.", ULCER), "answer says what its evidence does not"),
        (claim("Adults had an ulcer.", copied=True), "answer is not the evidence"),
        (claim(ULCER, copied=True), None),
        (claim(f"Not 45%. {ULCER}", question="Why did 45% of adults have an ulcer?", corrects=True), None),
        (
            claim("It was so.", question="Why did 45% have an ulcer?", corrects=True),
            "answer does not correct its question",
        ),
        (
            claim("It was 44%.", question="Why did 45% have an ulcer?", corrects=True),
            "answer does not correct its question",
        ),
        (
            claim("No, 29.8% and 44% of adults.", question="Why did 45% have an ulcer?", corrects=True),
            "answer has a number that its source lacks",
        ),
        (
            claim("45% of the adults in Keri.", question="Why did 45% have an ulcer?", corrects=True),
            "answer does not correct its question",
        ),
        (claim("In Keri, adults had it.", question="Why did children have an ulcer?", corrects=True), None),
    ],
)
def test_a_claim_gets_the_first_reason_against_it(given, reason):
    assert claim_fault(given) == reason


def test_every_check_finds_something():
    found = {next((n for n, check in CLAIM_CHECKS.items() if check(item.claim)), None) for item in read_labeled()}
    assert found >= {None, "evidence", "premise", "numbers", "names", "negation", "comparison"}


@given(
    st.sampled_from(read_labeled()),
    st.sampled_from(["NFC", "NFD", "NFKC", "NFKD"]),
    st.text(" \n\t\u00a0\u2009", min_size=1, max_size=3),
)
def test_white_space_and_unicode_form_of_the_passage_change_no_verdict(item, form, space):
    rewritten = unicodedata.normalize(form, space.join(item.passage.split()))
    assert claim_fault(replace(item.claim, passage=f"{space}{rewritten}{space}")) == claim_fault(item.claim)


def test_deleted_evidence_and_changed_numbers_are_rejected_and_grounded_answers_pass():
    grounded = [(item.source, item.claim) for item in read_labeled() if item.supported]
    assert sum(claim_fault(claim) is not None for _, claim in grounded) <= 0.10 * len(grounded)
    cases = perturbed_cases(grounded)
    for kind in ("evidence deleted", "number changed"):
        verdicts = [claim_fault(case.claim) is not None for case in cases if case.kind == kind]
        assert len(verdicts) >= 90 and sum(verdicts) >= 0.95 * len(verdicts)
    changed = [claim_fault(case.claim) is not None for case in cases if case.kind.startswith("number changed")]
    assert sum(changed) >= 0.95 * len(changed)  # also where only the answer still tells the old number


def test_copies_are_what_they_say():
    without = without_evidence(claim("x"))
    assert without and ULCER not in without.passage and HIGHER in without.passage
    other = with_other_number(claim("x"))
    assert other and other.evidence == ULCER and ULCER not in other.passage and HIGHER in other.passage
    assert len(other.passage) == len(PASSAGE)
    followed = with_other_number(claim("3440 adults"), quote_follows=True)
    assert followed and followed.evidence in followed.passage and "29.8%" in followed.evidence
    assert "3,440" not in followed.evidence
    assert with_other_number(claim("x", HIGHER)) is None and without_evidence(claim("x", "Gone.")) is None
    assert without_evidence(claim("x", passage=ULCER)) is None


def sources(text: str = PASSAGE, answered: dict[str, tuple[str, ...]] | None = None) -> SampleSources:
    chunk = Chunk(id="c", document="d", title="Ulcers", section=(), start=0, end=len(text), text=text, num_tokens=9)
    document = Document(id="d", title="Ulcers", source="a.md", text=PASSAGE)
    return SampleSources(Recipe(), {"d": document}, {"c": chunk}, answered or {})


def sample(task: str, question: str, answer: str, evidence: str | None = ULCER) -> Sample:
    turns = (Message(role="user", content=question), Message(role="assistant", content=answer))
    start = PASSAGE.find(evidence or "")
    span = Span(document="d", start=start, end=start + len(evidence), quote=evidence) if evidence else None
    return Sample(id=task, task=task, messages=turns, document="d", chunk="c", evidence=span)


@pytest.mark.parametrize("task", ["answer-first", "grounded", "free-qa", "dialogue", "view", "false-premise"])
def test_the_chunk_counts_as_it_is_now(task):
    given = sample(task, "How many adults in Keri had an ulcer?", ULCER)
    assert RULES["support"](given, sources()) is None
    assert RULES["support"](given, sources(PASSAGE.replace("29.8", "28.9"))) == "evidence is not in the passage"
    assert RULES["support"](given, sources(PASSAGE.replace(ULCER, ""))) == "evidence is not in the passage"


def test_an_extraction_rests_on_the_text_that_it_shows():
    def shown(text: str) -> Sample:
        prompt = question_prompt("Extract these fields as JSON:\n- place: where", (text,))
        return sample("extraction", prompt, '{"place": "Keri"}')

    assert RULES["support"](shown(PASSAGE), sources()) is None
    assert RULES["support"](shown(PASSAGE.replace("29.8", "28.9")), sources()) == "evidence is not in the passage"


def dialogue(second: str, doubt: str = "", kept: str = "") -> Sample:
    texts = ["What share had an ulcer in Keri?", ULCER, "And where were yields higher?", second]
    texts += [doubt, kept] if doubt else []
    roles = ("user", "assistant") * (len(texts) // 2)
    turns = tuple(Message(role=role, content=text) for role, text in zip(roles, texts, strict=True))
    start = PASSAGE.find(HIGHER)
    later = Span(document="d", start=start, end=start + len(HIGHER), quote=HIGHER)
    first = sample("dialogue", "x", "y")
    return first.model_copy(update={"messages": turns, "further_evidence": (later, later)[: len(texts) // 2 - 1]})


def test_every_answer_of_a_dialogue_is_checked():
    support = RULES["support"]
    assert support(dialogue(HIGHER), sources()) is None
    assert support(dialogue("Yields were lower in Keri than in Sibi."), sources()) == "answer flips a comparison"
    doubt = 'Are you sure? I have read: "Yields were lower in Keri than in Sibi." Which is right?'
    assert support(dialogue(HIGHER, doubt, f"Yes. {HIGHER}"), sources()) is None
    assert support(dialogue(HIGHER, doubt, "Yes. They were lower in Keri."), sources()) is not None
    assert support(dialogue(HIGHER), sources(PASSAGE.replace(HIGHER, ""))) == "evidence is not in the passage"


def test_all_quotes_of_a_multi_hop_answer_must_stand_in_their_chunks():
    start = PASSAGE.find(HIGHER)
    both = sample(
        "free-qa", "How do ulcers and yields in Keri go together?", "29.8% had an ulcer where yields were higher."
    )
    both = both.model_copy(
        update={"further_evidence": (Span(document="d", start=start, end=start + len(HIGHER), quote=HIGHER),)}
    )
    assert RULES["support"](both, sources()) is None
    assert RULES["support"](both, sources(PASSAGE.replace(HIGHER, ""))) == "evidence is not in the passage"


def test_own_data_and_refusals_are_no_claims():
    assert claims_of(sample("own", "What is it?", "It."), sources()) == []
    assert claims_of(sample("unanswerable", "What is it?", "Nothing says so."), sources()) == []
    assert claims_of(sample("free-qa", "What is it?", Recipe().refusal), sources()) == []


def test_a_sample_that_declines_must_not_show_the_answer():
    question = "How many adults in Keri had an ulcer?"
    refused = sample("refusal", question, Recipe().refusal)
    answers = [sample("answer-first", question, ULCER), sample("answer-first", "Who asks this?", ULCER)]
    answered = answered_quotes([*answers, refused], Recipe().refusal)
    assert list(answered.values()) == [(ULCER,)]
    for task in ("refusal", "unanswerable"):
        shown = sample(
            task, question_prompt(question, [PASSAGE.replace("In Keri", "in  keri")]), Recipe().refusal, None
        )
        hidden = sample(task, question_prompt(question, [PASSAGE.replace(ULCER, "")]), Recipe().refusal, None)
        assert RULES["decline"](shown, sources(answered=answered)) == "declines although its passage answers"
        assert RULES["decline"](hidden, sources(answered=answered)) is None
        assert RULES["decline"](shown, sources()) is None
    assert RULES["decline"](sample("own", question, Recipe().refusal, None), sources(answered=answered)) is None
    assert answered_quotes([refused], Recipe().refusal) == {}

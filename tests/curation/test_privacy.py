import pytest

from support import ABSTRACTS, ROOT
from support.privacy_list import LABELED
from tunewright.curation.privacy import FINDERS, find, kinds, luhn, mask, masked
from tunewright.records import Message, Sample, Span

# One find each: the kind, and what must be masked. Numbers are the published examples of their standards, or made up.
PERSONAL = [
    ("EMAIL", "Write to {} for the data.", "jane.doe+lab@uni-example.ac.uk"),
    ("EMAIL", "Contact: <{}>", "x_y@mail.example.org"),
    ("PHONE", "Call the office, {}, before noon.", "+44 20 7946 0958"),
    ("PHONE", "Her number is {}.", "+1 650-253-0000"),
    ("PHONE", "Tel.: {} (mornings)", "030 901820"),
    ("PHONE", "He was reached at {} on Monday.", "(650) 253-0000"),
    ("PHONE", "or {} in the evening", "650-253-0000"),
    ("IBAN", "Pay to {} by Friday.", "DE89 3704 0044 0532 0130 00"),
    ("IBAN", "IBAN {}", "GB82WEST12345698765432"),
    ("CARD", "Card {} was charged.", "4111 1111 1111 1111"),
    ("CARD", "paid with {}", "5555555555554444"),
    ("CARD", "Amex {}.", "3782-822463-10005"),
    ("IP", "The request came from {}.", "81.2.69.142"),
    ("IP", "the server {} answered", "2001:4860:4860::8888"),
    ("NATIONAL_NUMBER", "SSN {}", "536-22-8726"),
    ("NATIONAL_NUMBER", "National insurance {}", "AB 12 34 56 C"),
    ("NATIONAL_NUMBER", "codice fiscale {}", "RSSMRA85T10A562S"),
    ("NATIONAL_NUMBER", "DNI {}", "12345678Z"),
    ("NATIONAL_NUMBER", "INSEE {}", "2 55 08 14 168 025 38"),
    ("SECRET", "key {} leaked", "AKIAIOSFODNN7EXAMPLE"),
    ("SECRET", "use {} to log in", "ghp_" + "a1B2" * 9),
    ("SECRET", "HF token {}", "hf_" + "aBcD1234" * 4 + "ab"),
    ("SECRET", "password: {}", "hunter2hunter2"),
    ("SECRET", "Here:\n{}", "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----"),
    ("SECRET", "token {}", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"),
    ("SECRET", "slack {}", "xoxb-123456789012-1234567890123-abcdefABCDEF123456789012"),
]
ORDINARY = [
    "The trial NCT01234567 and ISRCTN12345678 were registered (PROSPERO CRD42020123456; ACTRN12613000123456).",
    "https://doi.org/10.1371/journal.pone.0123456 and doi:10.1016/S0140-6736(20)30183-5",
    "ISBN 978-3-16-148410-0, ISSN 1234-5678, PMID 34082694, ORCID 0000-0002-1825-0097",
    "The mean was 12,345.67 (95% CI 11,000.00 to 13,691.34), p = 0.0001234567.",
    "Between 2010-01-15 and 2012-12-31, 123 456 789 people were counted.",
    "Enzymes EC 1.14.14.154 and EC 3.4.21.62 were measured; see section 2.3.1.4.",
    "GenBank AB123456.1, MN908947.3 and NM_000546.6; CAS 7732-18-5; chr17:7565097-7590856",
    "The primers were ACGTACGTACGTACGT and TTGACCAATGCCATGG; rs123456789 was typed.",
    "Coordinates 52.520008, 13.404954 at 10:20:30; version 4.18.0.305 of the kernel.",
    "The token rate was high; the secret of success is patience; a password is needed.",
    "Call 5 of 12 was answered after 3 minutes; cell 12345678 was damaged in the third mobile 2000-2010 survey.",
    "The grant 2017YFC1200200 and 81871234 of the NSFC; patent US 10,123,456 B2.",
    "A phone survey of 1200 adults gave 31.9 % (383 of 1200).",
    "Cronbach's alpha was .87 @ week 4; dose 5 mg/kg/day; 1.5 × 10-5 mol/L.",
    "Population 1 380 004 385; budget 4 500 000 000 dollars; 16-digit code 1234567890123456.",
    "std::vector and ratio 3:2:1 at 12:30:45.",
]


@pytest.mark.parametrize(("kind", "text", "value"), PERSONAL)
def test_each_kind_is_detected_at_its_offsets_and_masked(kind, text, value):
    whole = text.format(value)
    assert [(found.kind, whole[found.start : found.end]) for found in find(whole)] == [(kind, value)]
    assert mask(whole) == text.format(f"[{kind}]")


@pytest.mark.parametrize("text", ORDINARY)
def test_numbers_of_science_are_no_personal_data(text):
    assert find(text) == ()


def test_no_abstract_of_the_examples_holds_personal_data():
    texts = [path.read_text(encoding="utf-8") for path in ABSTRACTS.glob("*.md")]
    assert len(texts) == 24 and not any(find(text) for text in texts)


def test_recall_and_precision_on_the_labeled_list_are_those_of_the_guide():
    found = [({one.kind for one in find(text)}, kinds) for text, kinds in LABELED]
    right, wrong = (sum(len(got & held) for got, held in found), sum(len(got - held) for got, held in found))
    missed = sum(len(held - got) for got, held in found)
    guide = (ROOT / "docs" / "privacy.md").read_text(encoding="utf-8")
    assert f"**{right} of {right + missed}** are found, with **{wrong}** false match" in " ".join(guide.split())


def test_check_digits_decide():
    assert luhn("4111111111111111") and not luhn("4111111111111112")
    assert find("Card 4111 1111 1111 1112") == find("IBAN DE89 3704 0044 0532 0130 01") == find("DNI 12345678A") == ()


def test_every_kind_is_on_the_list():
    assert {kind for kind, _, _ in PERSONAL} == set(FINDERS)


def test_a_sample_is_masked_in_its_turns_and_keeps_its_evidence():
    quote = "Write to a.b@example.org."
    turns = (Message(role="system", content="s@example.org"), Message(role="user", content=f"{quote}\n\nWhom?"))
    evidence = Span(document="d", start=0, end=len(quote), quote=quote)
    answer = Message(role="assistant", content="+44 20 7946 0958")
    sample = Sample(id="s", task="free-qa", messages=(*turns, answer), evidence=evidence)
    hidden = masked(sample)
    assert [turn.content for turn in hidden.messages] == ["s@example.org", "Write to [EMAIL].\n\nWhom?", "[PHONE]"]
    assert hidden.evidence == evidence and kinds(sample) == ["EMAIL", "PHONE"]


@pytest.mark.parametrize(
    "text",
    [
        "AB 123456 C",
        "AB123456C",
        "JG 12 34 56 A",
        "call 555 1234",
        "tel. 12.34.5",
        "+2902158",
        "+49 1234",
        "+683 4002",
        "8.8.8.8",
        "212-555-0123",
        "078-05-1120",
        "4111111111111111",
        "2001:db8::1 2606:4700::1111",
        "GB82 WEST 1234 5698 7654 32",
        "RSSMRA85T10A562S",
        "12345678-Z",
        "2 89 07 75 116 005 86",
    ],
)
def test_the_first_look_at_digits_hides_nothing_from_the_finders(text: str) -> None:
    every = {kind for kind, finder in FINDERS.items() if list(finder(text))}
    assert {item.kind for item in find(f"{text} ")} <= every
    assert bool(every) == bool(find(f"{text} "))

"""Values to fill in: which a sentence offers, and which answers give them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewright.text.blanks import BLANK, blanks, gives_value, holds_value


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("The trial enrolled 120 nurses in two hospitals of the region.", [("count", "120")]),
        ("In the valley the mean yield of barley fell by 4.7 percent over ten years.", [("percentage", "4.7")]),
        ("The survey of the northern villages was repeated in 2016 with the same methods.", [("year", "2016")]),
        ("Mean costs per patient in the whole group were € 24,760 during the first two years.", [("count", "24,760")]),
        ("The samples were taken from households near Lake Tana Basin during the rainy season.", [("name", "Lake Tana Basin")]),
        # Figures beside a result, one of several in a row, bounds, and parts of names are no facts to ask for.
        ("The difference between both groups of nurses was clear (n = 120, p < 0.05).", []),
        ("Bone density was measured in all of the patients after 3, 6 and 12 months.", []),
        ("More than 50 of the farmers in the district had changed their crops.", []),
        ("We interviewed people with the Coronavirus Disease 2019 in the two largest hospitals.", []),
        ("Costs were collected with the Medical Consumption and Productivity Cost Questionnaire in all hospitals.", []),
        ("120 nurses of the two hospitals took part in the trial.", []),
    ],
)  # fmt: skip
def test_a_sentence_offers_its_facts(sentence, expected):
    found = blanks(sentence)
    assert [(blank.kind, blank.value) for blank in found] == expected
    for blank in found:
        assert blank.text.count(BLANK) == 1
        assert not holds_value(blank.text, blank.value)
        assert blank.text.replace(BLANK, blank.value).replace(" ", "") in sentence.replace(" ", "")


def test_a_value_that_the_rest_of_the_sentence_repeats_is_not_asked_for():
    assert blanks("Of 398 students in the sample all 398 students reported symptoms of some kind.") == []


RIGHT = [
    ("120", "120"),
    ("The trial enrolled 120 nurses.", "120"),
    ("3,440 people", "3440"),
    ("It was 3440.", "3,440"),
    ("4.70 %", "4.7"),
    ("The answer is 0.5.", "0.50"),
    ("In 2016 there were 58 hospitals", "58"),  # 2016 stands in the question
    ("The Lake Tana Basin", "Lake Tana Basin"),
    ("They were near lake tana basin, in Ethiopia", "Lake Tana Basin"),
    ("the name is Royal Darwin Hospital.", "Royal Darwin Hospital"),
]
WRONG = [
    ("1200", "120"),
    ("12", "120"),
    ("The trial enrolled 130 nurses, not 120.", "120"),
    ("344", "3,440"),
    ("47", "4.7"),
    ("0.05", "0.5"),
    ("2016", "58"),
    ("Lake Tana", "Lake Tana Basin"),
    ("", "120"),
    ("I do not know.", "Royal Darwin Hospital"),
]


@pytest.mark.parametrize(("answer", "gold"), RIGHT)
def test_right_answers(answer, gold):
    assert gives_value(answer, [gold], f"Which value belongs in the blank of a 2016 survey of {BLANK}?")


@pytest.mark.parametrize(("answer", "gold"), WRONG)
def test_wrong_answers(answer, gold):
    assert not gives_value(answer, [gold], f"Which value belongs in the blank of a 2016 survey of {BLANK}?")


def test_any_of_several_golds_counts():
    assert gives_value("the WHO", ["World Health Organization", "WHO"], "Who?")


@given(st.integers(3, 10**9), st.text(alphabet="abcdefgh ", max_size=30))
def test_a_number_is_given_however_it_is_grouped(number, around):
    assert gives_value(f"{around} {number:,} {around}", [str(number)], "How many?")
    assert not gives_value(f"{around} {number + 1} {around}", [str(number)], "How many?")

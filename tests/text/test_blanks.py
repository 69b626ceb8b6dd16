"""Values to fill in: which a sentence offers, and with how much of it around."""

import pytest

from tunewright.text.blanks import BLANK, blanks
from tunewright.text.values import holds_value


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

"""Values to fill in: which a sentence offers, and with how much of it around."""

import pytest

from tunewright.text.blanks import BLANK, blanks, word_blanks
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


@pytest.mark.parametrize(
    ("sentence", "asked"),
    [
        ("노르뵈 항구는 남쪽 해안의 주민들이 1868년에 세운 오래된 항구이다.", "____년에 세운"),
        ("위원회는 작년 봄에 북쪽 항구의 창고를 위하여 모두 4,750크로네를 지불하였다.", "모두 ____크로네를"),
        ("작년의 조사에서 북쪽 마을의 주민 가운데 모두 25.9%가 감염되었다고 한다.", "모두 ____%가"),
    ],
)
def test_korean_numbers_are_asked_for_before_their_unit(sentence, asked):
    (blank,) = blanks(sentence)
    assert asked in blank.text


def test_korean_nouns_are_asked_for_without_their_particle():
    blanks_of = word_blanks("모든 사람은 교육을 받을 권리를 가지며 민주주의 사회에서 이성으로 행동하여야 한다.")
    assert {blank.value for blank in blanks_of} == {"교육", "권리", "사회", "이성"}
    texts = " ".join(blank.text for blank in blanks_of)
    assert all(form in texts for form in ("____을(를) 받을", "____을(를) 가지며", "____에서", "____(으)로 행동"))


def test_vietnamese_syllables_are_asked_for():
    values = {blank.value for blank in word_blanks("Ai cũng có quyền có một quốc tịch và không ai bị tước đoạt nó.")}
    assert {"quyền", "quốc", "tịch"} <= values and "tịch và" not in values


def test_function_words_of_romanian_are_not_blanked_out_as_if_it_were_vietnamese() -> None:
    sentence = (
        "Reședința oficială după lege este clădirea veche fără acoperiș din piață, care adăpostește primăria orașului."
    )
    values = {blank.value for blank in word_blanks(sentence)}
    assert "clădirea" in values and not values & {"după", "este", "fără", "care"}

"""Which answers give the right value: pairs marked as a person would mark them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewright.text.values import gives_value

QUESTION = "Which value belongs in the blank of a 2016 survey of ____?"
RIGHT = [
    ("120", "120"),
    ("The trial enrolled 120 nurses.", "120"),
    ("120 nurses", "120 nurses"),
    ("one hundred and twenty", "120"),
    ("Twelve.", "12"),
    ("12", "twelve"),
    ("3,440 people", "3440"),
    ("It was 3440.", "3,440"),
    ("4.70 %", "4.7"),
    ("4.7 percent", "4.7%"),
    ("4.7", "4.7%"),
    ("The answer is 0.5.", "0.50"),
    ("In 2016 there were 58 hospitals", "58"),  # 2016 stands in the question
    ("It was 2016.", "2016"),
    ("1.2 million", "1,200,000"),
    ("5000 g", "5 kg"),
    ("5 kilograms", "5 kg"),
    ("about 90 minutes", "1.5 h"),
    ("-3.2", "-3.2"),
    ("March 5, 2021", "2021-03-05"),
    ("On 5 March 2021 it opened.", "March 5, 2021"),
    ("the 5th of March 2021", "5 March 2021"),
    ("5 Mar 2021", "March 5th, 2021"),
    ("5.3.2021", "2021-03-05"),
    ("in March 2021", "March 2021"),
    ("on 9 March 2021", "March 2021"),
    ("The Lake Tana Basin", "Lake Tana Basin"),
    ("They were near lake tana basin, in Ethiopia", "Lake Tana Basin"),
    ("the name is Royal Darwin Hospital.", "Royal Darwin Hospital"),
    ("Jane Smith", "Dr. Jane A. Smith"),
    ("Professor Jane Smith led it", "Jane Smith"),
    ("Jane A. Smith", "Jane Smith"),
    ("**Paris**", "Paris"),
    ("Vitamin C", "vitamin c"),
]
WRONG = [
    ("1200", "120"),
    ("12", "120"),
    ("The trial enrolled 130 nurses, not 120.", "120"),
    ("344", "3,440"),
    ("47", "4.7"),
    ("0.05", "0.5"),
    ("2016", "58"),
    ("3.2", "-3.2"),
    ("5 g", "5 kg"),
    ("5 mg", "5 kg"),
    ("120 minutes", "1.5 h"),
    ("thirteen", "12"),
    ("March 6, 2021", "2021-03-05"),
    ("March 5, 2020", "2021-03-05"),
    ("in March 2021", "5 March 2021"),
    ("April 2021", "March 2021"),
    ("Lake Tana", "Lake Tana Basin"),
    ("Jane Miller", "Dr. Jane A. Smith"),
    ("Smith Jane", "Jane Smith"),
    ("Parisian", "Paris"),
    ("", "120"),
    ("", "Paris"),
    ("I do not know.", "Royal Darwin Hospital"),
]


@pytest.mark.parametrize(("answer", "gold"), RIGHT)
def test_right_answers(answer, gold):
    assert gives_value(answer, [gold], QUESTION)


@pytest.mark.parametrize(("answer", "gold"), WRONG)
def test_wrong_answers(answer, gold):
    assert not gives_value(answer, [gold], QUESTION)


def test_any_of_several_golds_counts():
    assert gives_value("the WHO", ["World Health Organization", "WHO"], "Who?")


@given(st.integers(3, 10**9), st.text(alphabet="bcdefgh ", max_size=30))
def test_a_number_is_given_however_it_is_grouped(number, around):
    assert gives_value(f"{around} {number:,} .", [str(number)], "How many?")
    assert not gives_value(f"{around} {number + 1} .", [str(number)], "How many?")

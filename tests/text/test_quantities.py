import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewright.text.quantities import quantities, quantity_fault


def values(text: str) -> list[str]:
    return [quantity.value for quantity in quantities(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3,440 of 2 888 332 and 29.80", ["3440", "2888332", "29.8"]),
        ("in 2016 150 people", ["2016", "150"]),
        ("twelve, twenty-one, two hundred and fifty-six", ["12", "21", "256"]),
        ("five million and 3.5 million", ["3500000", "5000000"]),
        ("IL-23, p53, miR-16, COVID-19, H2228", []),
        ("one of them; one-third; twenty-thirds", []),
        ("a twofold rise (n=39)", ["39", "2"]),
        ("NRs.575.78, €24,760 and version 1.2.3", ["575.78", "24760", "1.2.3"]),
    ],
)
def test_numbers_are_read_in_digits_and_words(text, expected):
    assert values(text) == expected


@given(st.integers(0, 10**9))
def test_a_number_is_the_same_with_and_without_separators(number):
    forms = (f"{number}", f"{number:,}", f"{number:,}".replace(",", " "), f"{number}.0")
    assert {tuple(values(f"it was {form} there")) for form in forms} == {(str(number),)}


@pytest.mark.parametrize(
    ("claim", "source", "fault"),
    [
        ("It was 29.8%.", "29.8 % of adults", None),
        ("It was 29.8 percent.", "29.8% of adults", None),
        ("It was 29.9%.", "29.8% of adults", "number that its source lacks"),
        ("It was 4.7%.", "between 4.7 and 23.3%", None),
        ("76 patients", "Seventy-six percent of patients", "number in another unit than its source"),
        ("It took 5 mg.", "a dose of 5 g", "number in another unit than its source"),
        ("after 24 weeks", "at 24 months", "number in another unit than its source"),
        ("a 48-hour test", "after 48 h", None),
        ("It changed by 3.2 %.", "a change of -3.2 %", "number with another sign than its source"),
        ("It changed by -3.2 %.", "a change of 3.2 %", "number with another sign than its source"),
        ("It fell by 3.2 %.", "a change of −3.2 %", None),
        ("In 350-518 cases", "350 to 518 cases", None),
        ("more than 9%", "less than 9%", "number bounded on the other side than in its source"),
        ("p > 0.05", "p < 0.05", "number bounded on the other side than in its source"),
        ("twelve crops", "12 crops were grown", None),
        ("thirteen crops", "12 crops were grown", "number that its source lacks"),
        ("three crops", "wheat, rice and rye", None),  # it counts a list
        ("three crops", "four crops were grown", "number that its source lacks"),
        ("an eightfold rise", "a fourfold rise", "number that its source lacks"),
    ],
)
def test_quantities_are_held_against_their_source(claim, source, fault):
    assert quantity_fault(claim, source) == fault


@given(st.text())
def test_any_text_agrees_with_itself(text):
    assert quantity_fault(text, text) is None


@pytest.mark.parametrize(
    ("text", "values"),
    [("一百二十人", ["120"]), ("三千四百四十", ["3440"]), ("一万二千三百", ["12300"]), ("两亿", ["200000000"]), ("十二个", ["12"]),
     ("百二十人", ["120"]), ("万一", []), ("十分重要", []), ("统一性", []), ("三", [])],
)  # fmt: skip
def test_numbers_in_chinese_characters(text, values):
    assert [quantity.value for quantity in quantities(text)] == values

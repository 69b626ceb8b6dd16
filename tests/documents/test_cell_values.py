"""Cells of a workbook: units, signs and leading zeros of the number format, and every stored digit."""

from __future__ import annotations

import datetime

import pytest

from tunewright.documents.cell_values import shown_value

ACCOUNTING = r'_-* #,##0.00\ "€"_-;\-* #,##0.00\ "€"_-;_-* "-"??\ "€"_-;_-@_-'
SCALED = '[>=1000000]0.0,,"M";[>=1000]0.0,"K";0'


@pytest.mark.parametrize(
    ("value", "form", "shown"),
    [
        (0.256, "0.0%", "25.6%"),
        (0.07, "0%", "7%"),
        (5, '0" %"', "5 %"),
        (4750.2, '#,##0.00 "EUR"', "4750.20 EUR"),
        (12, '0" kg"', "12 kg"),
        (37.5, '0.0" °C"', "37.5 °C"),
        (1234, "00000", "01234"),
        (17, '"No. "000', "No. 017"),
        (5551234, "000-0000", "555-1234"),
        (-5, "0;(0)", "-5"),
        (-4750.2, ACCOUNTING, "-4750.20 €"),
        (0, ACCOUNTING, "0 €"),
        (4750.2, ACCOUNTING, "4750.20 €"),
        (1500, SCALED, "1.5K"),
        (2_340_000, SCALED, "2.34M"),
        (7, SCALED, "7"),
        (0, '0;-0;"none"', "none"),
        (7, ";;;", ""),
        (55, "[$€-407]#,##0.00", "€55.00"),
        (2.5, "#,##0.00 [$CHF]", "2.50 CHF"),
        (1 / 3, "0.00", "0.333333333333333"),
        (6.02e23, "0.00E+00", "6.02e+23"),
        (-2, "#,##0;[Red]-#,##0", "-2"),
        (-1.5, 'General" m"', "-1.5 m"),
        (0.5, "# ?/?", "0.5"),
        (datetime.timedelta(hours=25, minutes=30), "[h]:mm", "25:30"),
        (datetime.timedelta(minutes=-90), "[h]:mm", "-1:30"),
        (datetime.date(2024, 3, 12), "dd.mm.yyyy", "2024-03-12"),
        ("007", "@", "007"),
    ],
)
def test_a_value_has_the_unit_and_the_zeros_of_its_format(value: object, form: str, shown: str) -> None:
    assert shown_value(value, form) == shown

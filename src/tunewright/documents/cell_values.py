"""Values of a workbook's cells as they are shown: with the units, signs and leading zeros of their number format."""

from __future__ import annotations

import datetime
import operator
import re
from dataclasses import dataclass
from typing import Any

from tunewright.documents.markup import single_line

# ECMA-376, part 1, section 18.8.31. A literal in quotes or after a backslash, the space of a character, a fill, a
# bracket (currency, color, condition, elapsed time), an exponent, a placeholder, or a character that stands for itself.
_TOKEN = re.compile(
    r'"([^"]*)"|\\(.)|_.|\*.|\[([^\]]*)\]|(General)|(E[+-]0+)|([0#?]|[.,](?=[0#?,]|[^0-9]|$))|(.)', re.I
)
_CONDITION = re.compile(r"\[(<=|>=|<>|=|<|>)(-?[\d.]+)\]")
_COMPARE = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "=": operator.eq, "<>": operator.ne,
}  # fmt: skip
_SECTION = re.compile(r'(?:"[^"]*"|\\.|\[[^\]]*\]|[^;])*')
_MINUS = str.maketrans("", "", "-()−")


@dataclass
class _Form:
    """The part of a number format for one sign: what is before, inside of and after the digits."""

    before: str = ""
    digits: str = ""
    after: str = ""
    is_percent: bool = False


def shown_value(value: Any, number_format: str) -> str:
    """Return a cell's value as it is shown, with all digits that are stored: dates in ISO form, shares in percent."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, datetime.datetime):
        return value.date().isoformat() if value.time() == datetime.time() else value.isoformat(" ")
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return _elapsed(value)
    return _number(value, number_format) if isinstance(value, float | int) else single_line(str(value))


def _elapsed(value: datetime.timedelta) -> str:
    seconds = round(abs(value.total_seconds()))
    clock = f"{seconds // 3600}:{seconds // 60 % 60:02}" + (f":{seconds % 60:02}" if seconds % 60 else "")
    return f"-{clock}" if value < datetime.timedelta() else clock


def _number(value: float, number_format: str) -> str:
    section, is_own_sign = _section(value, number_format)
    if not section and ";" in number_format:
        return ""  # the format hides it
    form = _form(section)
    if not form.digits:
        return form.before if re.search(r"\w", form.before) else _digits(value, "")
    if is_own_sign:
        form.before, form.after = form.before.translate(_MINUS), form.after.translate(_MINUS)
    scale = re.search(r",+$", form.digits)
    value = value * 100 if form.is_percent else value / 1000 ** len(scale[0]) if scale else value
    sign = "-" if value < 0 else ""
    return single_line(f"{sign}{form.before}{_digits(abs(value), form.digits.rstrip(','))}{form.after}")


def _section(value: float, number_format: str) -> tuple[str, bool]:
    """Return the part of a format that is for a value, and whether a minus sign in it is a literal."""
    sections = _sections(number_format)
    conditions = [_CONDITION.search(section) for section in sections]
    if any(conditions):
        for section, condition in zip(sections, conditions, strict=True):
            if condition is None or _COMPARE[condition[1]](value, float(condition[2])):
                return section, False
        return sections[-1], False
    if value < 0 and len(sections) > 1:
        return sections[1], True
    return (sections[2], True) if value == 0 and len(sections) > 2 else (sections[0], False)


def _sections(number_format: str) -> list[str]:
    """Return the parts between semicolons that are no literals."""
    sections, at = [], 0
    while at <= len(number_format):
        match = _SECTION.match(number_format, at)
        assert match
        sections.append(match[0])
        at = match.end() + 1
    return sections


def _form(section: str) -> _Form:
    form = _Form()
    for match in _TOKEN.finditer(section):
        quoted, escaped, bracket, general, exponent, placeholder, other = match.groups()
        form.is_percent = form.is_percent or other == "%"
        literal = quoted or escaped or ""
        if bracket and bracket.startswith("$"):
            literal = bracket[1:].partition("-")[0]
        if general or exponent or placeholder:
            form.digits += form.after + (placeholder or ("0" if general else ""))
            form.after = ""
            continue
        literal = literal or ("" if bracket is not None or other == "@" else other or "")
        if form.digits:
            form.after += literal
        else:
            form.before += literal
    return form


def _digits(value: float, pattern: str) -> str:
    """Return a number with all its stored digits, and at least those of a pattern."""
    text = str(value) if isinstance(value, int) else f"{value:.15g}"  # of 0.07 * 100, only 15 digits are meant
    whole_pattern, _, decimals = pattern.partition(".")
    if not re.fullmatch(r"-?\d+(?:\.\d+)?", text):
        return text
    whole, _, fraction = text.partition(".")
    whole = whole.rjust(whole_pattern.count("0"), "0") if not whole.startswith("-") else whole
    if re.search(r"[^0#?,]", whole_pattern) and "/" not in pattern and not fraction:
        whole = _filled(whole, whole_pattern)
    fraction = fraction.ljust(decimals.count("0"), "0")
    return f"{whole}.{fraction}" if fraction else whole


def _filled(digits: str, pattern: str) -> str:
    """Return digits with the literals between them, as of a telephone number."""
    rest, pieces = list(digits), []
    for character in reversed(pattern):
        if character not in "0#?,":
            pieces.append(character if rest else "")
        elif character != "," and rest:
            pieces.append(rest.pop())
    return "".join(rest) + "".join(reversed(pieces))

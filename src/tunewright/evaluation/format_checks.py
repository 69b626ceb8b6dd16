"""Whether an answer keeps to the form that its prompt asks for: small checks that code decides, in one table.

A check is a mapping with its ``kind`` and that kind's parameters, such as ``{"kind": "words", "max": 10}``. Only the
form is judged, and by the same rule for every model; whether the answer is right is another question.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jsonschema

from tunewright.errors import UserError
from tunewright.metrics import read_object, unfenced
from tunewright.text import sentences

_NUMBERED = re.compile(r"(\d+)[.)]\s+\S")
_BULLET = re.compile(r"[-*•]\s+\S")
_SENTENCE_END = re.compile(r"[.!?…][\"'”’)\]*]*$")
_AROUND_A_CHOICE = " .!\"'`*"  # what may stand around an answer that is one of a few words


def passes(answer: str, checks: Sequence[Mapping[str, Any]]) -> bool:
    """Tell whether an answer passes all of its checks; an empty answer passes none.

    White space around the answer and at the ends of its lines does not count.

    Args:
        answer: the model's text.
        checks: at least one check, each with its ``kind`` from ``CHECKS`` and that kind's parameters.

    Raises:
        UserError: there is no check, or a kind is unknown.
    """
    if not checks:
        raise UserError("a format prompt has no check", hint='give "checks" at least one entry')
    text = "\n".join(line.rstrip() for line in answer.strip().splitlines())
    # All are run, so that a wrong check is told of whatever the answer.
    verdicts = [_check(check["kind"])(text, **{k: v for k, v in check.items() if k != "kind"}) for check in checks]
    return bool(text) and all(verdicts)


def _check(kind: str) -> Callable[..., bool]:
    if kind not in CHECKS:
        raise UserError(f'unknown format check "{kind}"', f"known checks: {', '.join(CHECKS)}", "correct the kind")
    return CHECKS[kind]


def is_json(text: str, schema: Mapping[str, Any]) -> bool:
    """Tell whether the text is a JSON object that follows the schema (2020-12), bare or as one code block."""
    found = read_object(unfenced(text))
    return found is not None and jsonschema.Draft202012Validator(schema).is_valid(found)


def matches(text: str, pattern: str) -> bool:
    """Tell whether the whole text matches the regular expression."""
    return re.fullmatch(pattern, text) is not None


def has_words(text: str, min: int = 1, max: int | None = None) -> bool:
    """Tell whether the number of words, parted by white space, lies within both bounds; bare marks are no words."""
    count = sum(any(map(str.isalnum, word)) for word in text.split())
    return min <= count and (max is None or count <= max)


def has_lines(text: str, count: int) -> bool:
    """Tell whether the text has so many lines, empty ones apart."""
    return len(_lines(text)) == count


def has_sentences(text: str, count: int) -> bool:
    """Tell whether the text has so many sentences, the last one ended too."""
    return _SENTENCE_END.search(text) is not None and len(sentences(text)) == count


def is_numbered_list(text: str, count: int) -> bool:
    """Tell whether every line is an item and the items are numbered from 1 to the count."""
    numbers = [found[1] if (found := _NUMBERED.match(line)) else "" for line in _lines(text)]
    return numbers == [str(number) for number in range(1, count + 1)]


def is_bullet_list(text: str, count: int) -> bool:
    """Tell whether every line is an item with a bullet, and there are as many as the count."""
    lines = _lines(text)
    return len(lines) == count and all(map(_BULLET.match, lines))


def contains_all(text: str, texts: Sequence[str]) -> bool:
    """Tell whether every one of the texts occurs, in upper or lower case."""
    return all(part.casefold() in text.casefold() for part in texts)


def contains_none(text: str, texts: Sequence[str]) -> bool:
    """Tell whether none of the texts occurs, in upper or lower case, inside of words too."""
    return not any(part.casefold() in text.casefold() for part in texts)


def is_one_of(text: str, texts: Sequence[str]) -> bool:
    """Tell whether the text is one of the given ones and nothing else; case, quotes and a full stop do not count."""
    return text.strip(_AROUND_A_CHOICE).casefold() in {choice.casefold() for choice in texts}


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


CHECKS: Mapping[str, Callable[..., bool]] = {
    "json": is_json,  # schema
    "regex": matches,  # pattern
    "words": has_words,  # min, max
    "lines": has_lines,  # count
    "sentences": has_sentences,  # count
    "numbered_list": is_numbered_list,  # count
    "bullet_list": is_bullet_list,  # count
    "starts_with": lambda answer, text: answer.startswith(text),
    "ends_with": lambda answer, text: answer.endswith(text),
    "contains_all": contains_all,  # texts
    "contains_none": contains_none,  # texts
    "one_of": is_one_of,  # texts
    "uppercase": str.isupper,
    "lowercase": str.islower,
}

"""What an answer says, told without a model: its words beside another's, and whether it declines."""

from __future__ import annotations

import re
from collections import Counter

from rapidfuzz import fuzz

from tunewright.text import normalize, sentences, words

_ARTICLES = frozenset({"a", "an", "the"})
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_APOLOGY = re.compile(
    r"(?:(?:i am|i'm|we are|we're)\s+(?:very\s+)?sorry|sorry|i apologi[sz]e|unfortunately)[^.!?]*[.!?]+"
)
_NEGATION = re.compile(r"\b(?:not|no|cannot|never|none|nothing|unable|without|unknown)\b|n't\b")
_REFUSAL_BOUND = 85.0  # of 100: room for a changed word or two in the recipe's own sentence

_SOURCE = (
    r"(?:documents?|texts?|passages?|contexts?|sources?|abstracts?|articles?|excerpts?|collection|paragraphs?"
    r"|(?:provided|given|available) (?:information|material|data))"
)
_DECLINES = re.compile(
    "|".join(
        (
            rf"\b{_SOURCE}(?: \w+)? (?:do not|does not|don't|doesn't|did not|didn't) (?:\w+ )?"
            r"(?:give|tell|mention|say|provide|contain|specify|state|include|answer|indicate|address|report)\b",
            r"\bi (?:do not|don't|did not|didn't) (?:really |actually )?(?:know"
            r"|have (?:the |any |enough |that |this )*(?:information|answer|knowledge|data|access))\b",
            r"\b(?:i|we) (?:cannot|can not|can't|could not|couldn't|am unable to|'m unable to|are unable to"
            r"|am not able to|'m not able to) (?:\w+ )?(?:answer|determine|find|provide|say|tell|know)\b",
            r"\b(?:can ?not|can't|could not) be (?:answered|determined|found in|known|inferred|derived)\b",
            r"\b(?:not|n't) (?:\w+ )?(?:provided|mentioned|given|stated|specified|found|included|contained"
            r"|available|described|discussed|present|answered) (?:in|by|within|from) "
            rf"(?:\w+ ){{0,2}}{_SOURCE}\b",
            rf"\b(?:no|not enough|insufficient) (?:information|mention|details?|answer|data) (?:\w+ ){{0,4}}"
            rf"{_SOURCE}\b",
            r"\bthere (?:is|was) (?:no|not enough|insufficient) (?:information|mention of|answer)\b",
            r"^(?:not enough|insufficient) information\b",
            r"^no mention of\b",
            r"\bthe answer (?:\w+ ){0,4}(?:is|was) not (?:known|given|stated|specified|provided|mentioned)\b",
            r"^(?:(?:it|this|that|the answer) (?:is|was) )?(?:not known|unknown|not (?:given|stated|specified"
            r"|provided|mentioned))\W*$",
        )
    )
)


def plain_text(text: str) -> str:
    """Return the normalized text with one kind of apostrophe."""
    return normalize(text).replace("’", "'")


def tokens(text: str) -> list[str]:
    """Return the words that SQuAD compares: no articles or punctuation; numbers keep points and lose commas."""
    return [word for word in words(_THOUSANDS.sub("", normalize(text))) if word not in _ARTICLES]


def token_f1(text: str, gold: str) -> float:
    """Return the F1 of the shared words (Rajpurkar et al. 2016, SQuAD), in [0, 1].

    Other than SQuAD's script, decimal points stay, so that 2.52 and 25.2 are different words.
    """
    told, wanted = Counter(tokens(text)), Counter(tokens(gold))
    if not told or not wanted:
        return float(told == wanted)
    shared = (told & wanted).total()
    return 2 * shared / (told.total() + wanted.total())


def is_refusal(text: str, refusal: str) -> bool:
    """Return whether a text declines to answer.

    Only its beginning counts: "12 patients. The text does not mention others." is an answer.
    It declines with the recipe's refusal sentence, up to a word or two, or with a common English phrase.
    """
    plain = _APOLOGY.sub("", plain_text(text), count=1).strip() or plain_text(text)
    if not plain:
        return False
    wanted = plain_text(refusal)
    start = plain[: len(wanted) + len(wanted) // 4]
    # A short text always fits somewhere in a long one, and "do" is one edit from "do not".
    comparable = len(plain) >= 0.6 * len(wanted)
    same_sense = bool(_NEGATION.search(start)) == bool(_NEGATION.search(wanted))
    if comparable and same_sense and fuzz.partial_ratio(wanted, start) >= _REFUSAL_BOUND:
        return True
    return _DECLINES.search(_first_sentence(plain)) is not None


def _first_sentence(plain: str) -> str:
    # Sentences are found by the capital that follows; normalized text has none, so cut at the marks alone.
    marked = re.sub(r"([.!?]\s+)(\w)", lambda match: match[1] + match[2].upper(), plain)
    start, end = sentences(marked)[0]
    return plain[start:end]

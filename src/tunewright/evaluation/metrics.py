"""The metrics of one answer: small pure functions in one table, and the primary score of the verdict."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

from rapidfuzz import fuzz

from tunewright.records import Answer, Question, Score
from tunewright.text import normalize, sentences, words

METRICS_VERSION = 1

_ARTICLES = frozenset({"a", "an", "the"})
_STOPWORDS = frozenset(
    words(
        """a about after all also although an and any are as at be because been before being between both but by
        can could did do does doing due during each for from had has have having he her here his how i if in
        into is it its itself may might more most must my no nor not of on only or other our out over s same
        she should so some such t than that the their them then there these they this those through to too
        under until up very was we were what when where which while who whom why will with would you your"""
    )
)
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


def _plain(text: str) -> str:
    return normalize(text).replace("’", "'")


def _tokens(text: str) -> list[str]:
    """The words that SQuAD compares: no articles or punctuation; numbers keep points and lose commas."""
    return [word for word in words(_THOUSANDS.sub("", normalize(text))) if word not in _ARTICLES]


def exact(text: str, gold: str) -> float:
    """Return 1 when both texts have the same words, articles and punctuation apart."""
    return float(_tokens(text) == _tokens(gold))


def token_f1(text: str, gold: str) -> float:
    """Return the F1 of the shared words (Rajpurkar et al. 2016, SQuAD), in [0, 1].

    Other than SQuAD's script, decimal points stay, so that 2.52 and 25.2 are different words.
    """
    told, wanted = Counter(_tokens(text)), Counter(_tokens(gold))
    if not told or not wanted:
        return float(told == wanted)
    shared = (told & wanted).total()
    return 2 * shared / (told.total() + wanted.total())


def fuzzy(text: str, gold: str) -> float:
    """Return the edit similarity of the sorted words (rapidfuzz token_sort_ratio), in [0, 1]."""
    return fuzz.token_sort_ratio(normalize(text), normalize(gold)) / 100


def evidence_support(text: str, source: str) -> float:
    """Return the share of the text's distinct numbers and content words that stand in the source."""
    told = {word for word in _tokens(text) if word not in _STOPWORDS}
    return len(told & set(_tokens(source))) / len(told) if told else 0.0


def is_refusal(text: str, refusal: str) -> bool:
    """Return whether a text declines to answer.

    Only its beginning counts: "12 patients. The text does not mention others." is an answer.
    It declines with the recipe's refusal sentence, up to a word or two, or with a common English phrase.
    """
    plain = _APOLOGY.sub("", _plain(text), count=1).strip() or _plain(text)
    if not plain:
        return False
    wanted = _plain(refusal)
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


def _source(question: Question) -> str:
    quote = question.evidence.quote if question.evidence else ""
    return f"{question.passage or ''}\n{quote}".strip()


Metric = Callable[[Question, Answer, str], float | None]

# None: the metric does not apply to this question. All are in [0, 1].
METRICS: dict[str, Metric] = {
    "exact": lambda q, a, _: exact(a.text, q.gold) if q.answerable else None,
    "token_f1": lambda q, a, _: token_f1(a.text, q.gold) if q.answerable else None,
    "fuzzy": lambda q, a, _: fuzzy(a.text, q.gold) if q.answerable else None,
    "evidence_support": lambda q, a, _: evidence_support(a.text, _source(q)) if q.answerable and _source(q) else None,
    "refusal": lambda q, a, refusal: float(is_refusal(a.text, refusal)),
    "refusal_right": lambda q, a, refusal: float(is_refusal(a.text, refusal) != q.answerable),
    "false_refusal": lambda q, a, refusal: float(is_refusal(a.text, refusal)) if q.answerable else None,
    "truncated": lambda q, a, _: float(a.finish == "length"),
    "empty": lambda q, a, _: float(not a.text.strip()),
    "cut_or_empty": lambda q, a, _: float(a.finish == "length" or not a.text.strip()),
    # Facts of the question, so that scores can be grouped without the exam at hand.
    "answerable": lambda q, a, _: float(q.answerable),
    "closed_book": lambda q, a, _: float(q.passage is None),
}


def primary(question: Question, text: str, refusal: str) -> float:
    """Return the primary score in [0, 1].

    Unanswerable: 1 when the text declines, else 0. Answerable: 0 when it declines or is empty, else token-F1.
    """
    declines = is_refusal(text, refusal)
    if not question.answerable:
        return float(declines)
    return 0.0 if declines or not text.strip() else token_f1(text, question.gold)


def score(question: Question, answer: Answer, refusal: str) -> Score:
    """Return the score of one answer: the primary one and every metric that applies.

    Args:
        question: the exam question.
        answer: one arm's answer to it.
        refusal: the recipe's refusal sentence.
    """
    values = {name: metric(question, answer, refusal) for name, metric in METRICS.items()}
    return Score(
        question=question.id,
        arm=answer.arm,
        ring=question.ring,
        document=question.document,
        primary=primary(question, answer.text, refusal),
        metrics={name: value for name, value in values.items() if value is not None},
    )

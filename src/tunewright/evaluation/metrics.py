"""The metrics of one answer: small pure functions in one table, and the primary score of the verdict."""

from __future__ import annotations

from collections.abc import Callable

from rapidfuzz import fuzz

from tunewright.answers import is_refusal, token_f1, tokens
from tunewright.records import Answer, Question, Score
from tunewright.text import normalize, words

METRICS_VERSION = 1

_STOPWORDS = frozenset(
    words(
        """a about after all also although an and any are as at be because been before being between both but by
        can could did do does doing due during each for from had has have having he her here his how i if in
        into is it its itself may might more most must my no nor not of on only or other our out over s same
        she should so some such t than that the their them then there these they this those through to too
        under until up very was we were what when where which while who whom why will with would you your"""
    )
)


def exact(text: str, gold: str) -> float:
    """Return 1 when both texts have the same words, articles and punctuation apart."""
    return float(tokens(text) == tokens(gold))


def fuzzy(text: str, gold: str) -> float:
    """Return the edit similarity of the sorted words (rapidfuzz token_sort_ratio), in [0, 1]."""
    return fuzz.token_sort_ratio(normalize(text), normalize(gold)) / 100


def evidence_support(text: str, source: str) -> float:
    """Return the share of the text's distinct numbers and content words that stand in the source."""
    told = {word for word in tokens(text) if word not in _STOPWORDS}
    return len(told & set(tokens(source))) / len(told) if told else 0.0


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

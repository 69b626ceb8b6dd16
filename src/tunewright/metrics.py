"""The metrics of one answer: small pure functions in one table, and the primary score of the verdict."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rapidfuzz import fuzz

from tunewright.records import Answer, Question, Score
from tunewright.text.choices import chosen_option, gold_of, likeliest_option, lists_options
from tunewright.text.languages import ENGLISH, LANGUAGES
from tunewright.text.normalization import normalize, words
from tunewright.text.reasoning import is_unfinished_reasoning, strip_reasoning, text_to_score
from tunewright.text.sentences import sentences
from tunewright.text.values import gives_value, holds_value

_ARTICLES = frozenset({"a", "an", "the"})
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_APOLOGY = re.compile(
    r"(?:(?:i am|i'm|we are|we're)\s+(?:very\s+)?sorry|sorry|i apologi[sz]e|unfortunately)[^.!?]*[.!?]+"
)
_NEGATION = re.compile(r"\b(?:not|no|cannot|never|none|nothing|unable|without|unknown)\b|n't\b")
_ITEM_BORDERS = re.compile(r"\n+|[;,](?!\d{3}\b)\s*(?:and\s+)?|\s+and\s+")
_BULLET = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+", re.M)
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


# In other languages: phrases of people, and each language's own refusal sentence.
_GAP = {" … ": r"(?: \S+){0,4} ", "…": r"[^。！？]{0,12}"}
_DECLINES_ELSEWHERE = re.compile(
    "|".join(
        _GAP[" … " if " … " in phrase else "…"].join(
            re.escape(normalize(part).replace("’", "'")) for part in re.split(r" … |…", phrase)
        )
        for language in LANGUAGES.values()
        if language is not ENGLISH
        for phrase in (language.refusal, *language.declines)
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

    Unlike SQuAD's script, it keeps decimal points, so that 2.52 and 25.2 are different words.
    """
    answered, expected = Counter(tokens(text)), Counter(tokens(gold))
    if not answered or not expected:
        return float(answered == expected)
    shared = (answered & expected).total()
    return 2 * shared / (answered.total() + expected.total())


def is_refusal(text: str, refusal: str) -> bool:
    """Return whether a text declines to answer.

    Only its beginning counts: "12 patients. The text does not mention others." is an answer.
    It declines with the recipe's refusal sentence, up to a word or two, or with a common English phrase.
    """
    plain = _APOLOGY.sub("", plain_text(text), count=1).strip() or plain_text(text)
    if not plain:
        return False
    sentence = plain_text(refusal)
    start = plain[: len(sentence) + len(sentence) // 4]
    # A short text always fits somewhere in a long one, and "do" is one edit from "do not".
    comparable = len(plain) >= 0.6 * len(sentence)
    same_sense = bool(_NEGATION.search(start)) == bool(_NEGATION.search(sentence))
    if comparable and same_sense and fuzz.partial_ratio(sentence, start) >= _REFUSAL_BOUND:
        return True
    first = _first_sentence(plain)
    return _DECLINES.search(first) is not None or _DECLINES_ELSEWHERE.search(first) is not None


def _first_sentence(plain: str) -> str:
    # The splitter looks for a capital after the mark; normalized text has none, so each mark ends a sentence.
    marked = re.sub(r"([.!?]\s+)(\w)", lambda match: match[1] + match[2].upper(), plain)
    start, end = sentences(marked)[0]
    return plain[start:end]


METRICS_VERSION = 5

FORMAT, LABEL_MATCH, UNPARSABLE = "format", "label_match", "unparsable"

_FENCED = re.compile(r"```(?:json)?\s*\n(.*)\n\s*```", re.DOTALL | re.IGNORECASE)

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
    """Return 1 when both texts have the same words, apart from articles and punctuation."""
    return float(tokens(text) == tokens(gold))


def fuzzy(text: str, gold: str) -> float:
    """Return the edit similarity of the sorted words (rapidfuzz token_sort_ratio), in [0, 1]."""
    return fuzz.token_sort_ratio(normalize(text), normalize(gold)) / 100


def evidence_support(text: str, source: str) -> float:
    """Return the share of the text's distinct numbers and content words that occur in the source."""
    content = {word for word in tokens(text) if word not in _STOPWORDS}
    return len(content & set(tokens(source))) / len(content) if content else 0.0


def _source(question: Question) -> str:
    quote = question.evidence.quote if question.evidence else ""
    return f"{question.passage or ''}\n{quote}".strip()


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a field occurs twice")
    return dict(pairs)


def read_object(text: str) -> dict[str, Any] | None:
    """Return the JSON object that the text consists of; None for any other text, or where a field occurs twice."""
    try:
        content = json.loads(text, object_pairs_hook=_no_repeats)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def unfenced(text: str) -> str:
    """Return the content of the code block that the text consists of; any other text unchanged."""
    fenced = _FENCED.fullmatch(text.strip())
    return fenced[1] if fenced else text


def has_labels(question: Question) -> bool:
    """Return whether the right answer is a JSON object with fields, or one of several options."""
    return question.answerable and bool(question.options or read_object(question.gold))


def _label_metrics(question: Question, answer: Answer) -> dict[str, float]:
    """Return the metrics of a gold answer that is a JSON object or one of several options; else none.

    Of several right objects, the one that the answer matches best counts.
    """
    if not question.answerable:
        return {}
    if question.options:
        chosen = chosen_by(question, answer)
        right = chosen is not None and gold_of(question.question, question.options, chosen) == question.gold
        return {LABEL_MATCH: float(right), UNPARSABLE: float(chosen is None)}
    objects = [fields for gold in question.golds if (fields := read_object(gold))]
    return max((structured(fields, answer) for fields in objects), key=lambda m: m[LABEL_MATCH], default={})


def chosen_by(question: Question, answer: Answer) -> int | None:
    """Return the index of the option that an answer chooses; None where its text names none, or several.

    Where the question lists its options, the answer's text names one, as in a chat. Where it does not, none can be
    named: the likeliest is chosen.
    """
    if answer.option_nlls and not lists_options(question.question, question.options):
        return likeliest_option(answer.option_nlls, question.options)
    return chosen_option(answer.text, question.options)


def _answer_fields(answer: Answer) -> dict[str, Any] | None:
    """Return the fields of an answer that is a JSON object, bare or in a code block; else None."""
    if answer.finish == "length":
        return None
    return read_object(unfenced(answer.text))


def _plain(value: Any) -> Any:
    """Return a JSON value for comparison: text normalized, true and false distinct from 1 and 0."""
    if isinstance(value, str):
        return normalize(value)
    if isinstance(value, bool):
        return (bool, value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def structured(gold: Mapping[str, Any], answer: Answer) -> dict[str, float]:
    """Return the metrics of an answer whose gold is a JSON object; all are in [0, 1].

    ``format``: the answer is a JSON object with exactly the gold's fields, and nothing around it. ``label_match``: the
    share of the gold's fields whose value equals the gold's after normalization, also null, also where the object is in
    a code block; ``label_match:FIELD`` for each field. A cut answer, or an answer without an object, is ``unparsable``
    and matches nothing.
    """
    fields = _answer_fields(answer)
    right = {
        name: float(fields is not None and name in fields and _plain(fields[name]) == _plain(value))
        for name, value in gold.items()
    }
    bare = read_object(answer.text) if fields is not None else None
    return {
        FORMAT: float(bare is not None and bare.keys() == gold.keys()),
        LABEL_MATCH: sum(right.values()) / len(right),
        UNPARSABLE: float(fields is None),
        **{f"{LABEL_MATCH}:{name}": match for name, match in right.items()},
    }


def is_structured(metric: str) -> bool:
    """Return whether a metric is one of structured answers."""
    return metric in (FORMAT, UNPARSABLE) or metric.partition(":")[0] == LABEL_MATCH


def _is_cut_short(question: Question, answer: Answer) -> bool:
    """Return whether the token limit may have cost an answer its score: it may still think, or has less than two golds.

    Nothing that follows makes a longer answer a good one.
    """
    if answer.finish != "length":
        return False
    return is_unfinished_reasoning(answer.text) or 0 < len(strip_reasoning(answer.text).strip()) < 2 * len(
        question.gold
    )


# By its form, an object answers, whatever its values say; and its field names and labels occur in no evidence.
_OF_OBJECTS = {"refusal": 0.0, "refusal_right": 1.0, "false_refusal": 0.0}
_NOT_OF_OBJECTS = frozenset({"evidence_support"})

Metric = Callable[[Question, Answer, str], float | None]

# None: the metric does not apply to this question. All are in [0, 1].
METRICS: dict[str, Metric] = {
    "exact": lambda q, a, _: max(exact(a.text, gold) for gold in q.golds) if q.answerable else None,
    "token_f1": lambda q, a, _: max(token_f1(a.text, gold) for gold in q.golds) if q.answerable else None,
    "fuzzy": lambda q, a, _: max(fuzzy(a.text, gold) for gold in q.golds) if q.answerable else None,
    "evidence_support": lambda q, a, _: evidence_support(a.text, _source(q)) if q.answerable and _source(q) else None,
    "refusal": lambda q, a, refusal: float(is_refusal(a.text, refusal)),
    "refusal_right": lambda q, a, refusal: float(is_refusal(a.text, refusal) != q.answerable),
    "false_refusal": lambda q, a, refusal: float(is_refusal(a.text, refusal)) if q.answerable else None,
    "refusal_recall": lambda q, a, refusal: None if q.answerable else float(is_refusal(a.text, refusal)),
    "truncated": lambda q, a, _: float(a.finish == "length"),
    "empty": lambda q, a, _: float(not a.text.strip()),
    "cut_or_empty": lambda q, a, _: float(a.finish == "length" or not a.text.strip()),
    "cut_short": lambda q, a, _: float(_is_cut_short(q, a)),
    # Facts of the question, so that scores can be grouped without the exam.
    "answerable": lambda q, a, _: float(q.answerable),
    "closed_book": lambda q, a, _: float(q.passage is None),
}


def primary(question: Question, text: str, refusal: str) -> float:
    """Return the primary score in [0, 1].

    Unanswerable: 1 when the text declines, else 0. Answerable: 0 when it declines or is empty, else by the question's
    kind: whether it gives the value (short), F1 over the items (list), or token-F1 with the right answer that is
    nearest, as SQuAD's script does (free). Where the gold is a JSON object or one of several
    options, ``score`` uses the label match instead.
    """
    declines = is_refusal(text, refusal)
    if not question.answerable:
        return float(declines)
    return 0.0 if declines or not text.strip() else _SCORERS.get(question.kind, _SCORERS["free"])(question, text)


def items_f1(text: str, items: Sequence[str]) -> float:
    """Return the F1 of the items of a list; an item is right where it holds one of the right items, or the reverse.

    Items stand in lines, or between commas, semicolons and a last "and".
    """
    listed = [item for item in _ITEM_BORDERS.split(_BULLET.sub("", text)) if words(item)]
    right = [item for item in items if any(holds_value(entry, item) or holds_value(item, entry) for entry in listed)]
    matched = [e for e in listed if any(holds_value(e, item) or holds_value(item, e) for item in items)]
    if not right:
        return 0.0
    precision, share = len(matched) / len(listed), len(right) / len(items)
    return 2 * precision * share / (precision + share)


_SCORERS: dict[str, Callable[[Question, str], float]] = {
    "free": lambda q, text: max(token_f1(text, gold) for gold in q.golds),
    "short": lambda q, text: float(gives_value(text, q.golds, q.question)),
    "list": lambda q, text: items_f1(text, q.golds),
}


def score(question: Question, answer: Answer, refusal: str) -> Score:
    """Return the score of one answer, after its reasoning: the primary one and every metric that applies.

    Args:
        question: the exam question.
        answer: one arm's answer to it.
        refusal: the recipe's refusal sentence.
    """
    values = {"cut_short": METRICS["cut_short"](question, answer, refusal)}  # it looks at the reasoning too
    answer = answer.model_copy(update={"text": text_to_score(answer.text)})
    values = {
        name: values[name] if name in values else metric(question, answer, refusal) for name, metric in METRICS.items()
    }
    metrics = {name: value for name, value in values.items() if value is not None}
    main, fields = primary(question, answer.text, refusal), _label_metrics(question, answer)
    if fields:
        main = fields[LABEL_MATCH]
        metrics = {name: value for name, value in metrics.items() if name not in _NOT_OF_OBJECTS} | fields
        metrics |= {} if fields[UNPARSABLE] else _OF_OBJECTS
    return Score(
        question=question.id,
        arm=answer.arm,
        ring=question.ring,
        document=question.document,
        primary=main,
        metrics=metrics,
    )

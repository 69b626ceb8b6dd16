"""The free verifier: whether a passage supports an answer; named checks without a model, the cheapest first.

They detect missing evidence, numbers, units, signs and names that the source lacks, flipped negations and
comparisons, and words without a source. They do not detect a wrong relation between true parts; a judge does.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from tunewright.text.normalization import normalize, words
from tunewright.text.quantities import quantities, quantity_fault

_TOKEN = re.compile(r"(?<!\w)[^\W\d_][\w-]+")
_CODE = re.compile(r"(?<![a-z0-9])[a-z]{1,8}-?\d+[a-z0-9]*\b")
_CLAUSE = re.compile(r"[.;:,()]\s|\b(?:but|although|though|while|whereas|however|except)\b")
_NOT_ONLY = re.compile(r"\bnot (?:only|just|yet|least)\b|\bno (?:longer|doubt|matter)\b|\bnon-")
_BOUND = re.compile(r"\bat (?:least|most)\b|\b(?:or|and) (?:more|less|fewer|older|younger|above|below)\b")
_THAN = re.compile(r"\b(?:than|compared (?:with|to)|relative to|versus|vs)\b")

_LEAST_COVERED = 0.4  # of the answer, by the passage; 2 of 170 supported labeled answers are below, all foreign ones
_LEAST_EVIDENCED = 0.25  # of the answer, by the evidence: 1 of 170, and 98 % of the foreign ones

_IDLE = frozenset(
    words(
        "a about after all also among an and any are as at be been before being between both but by can could did do "
        "does during each for from had has have how in into is it its may might more most much nor not of on only or "
        "other our over same should since so some such than that the their them then there these they this those "
        "through to under up upon was we were what when where which while who whose why will with within would yes "
        "you your"
    )
)
NEGATORS = frozenset(words("not no never none neither nor without cannot"))
_DENIES = re.compile(
    r"\b(?:not|no|never|none|neither|nor|without|cannot|lack\w*|absen\w+|fail\w*|unable|rather than|instead|"
    r"un(?:affected|changed|related|likely|correlated|clear|known)\w*|independent\w*|insignificant\w*|free of)\b"
)
_WEAK = frozenset(words("signif statis clear marked eviden sign proof strong direct consis substa furthe known system"))


@dataclass(frozen=True)
class Claim:
    """An answer to check, with its question, the quoted evidence and the passage as it is now.

    Attributes:
        title: the passage's title and headings, which may name what the passage does not.
        copied: the answer should be the evidence, word for word.
        corrects: the question holds a wrong premise, which the answer corrects.
        further: other quotes that the answer rests on.
    """

    question: str
    answer: str
    evidence: str
    passage: str
    title: str = ""
    copied: bool = False
    corrects: bool = False
    further: tuple[str, ...] = ()

    @property
    def quoted(self) -> str:
        """All quotes of the evidence."""
        return " ".join([self.evidence, *self.further])


def stems(text: str) -> list[str]:
    """Return the content words cut to six letters, endings first: a coarse stem for English, enough to match."""
    result = []
    for word in words(text.replace("-", " ")):
        if word not in _IDLE and word not in NEGATORS:
            result.append(_stem(word))
    return result


def _stem(word: str) -> str:
    if word.isalpha() and len(word) > 4:
        word = re.sub(r"(?<=\w{3})(?:ies|ing|ed|es|s|e|ly|y)$", "", word)
    return word[:6]


def evidence_gone(claim: Claim) -> str | None:
    """The quote must occur in the passage as it is now, up to white space, case and Unicode form."""
    quotes, passage = [normalize(quote) for quote in (claim.evidence, *claim.further)], normalize(claim.passage)
    return None if all(quote and quote in passage for quote in quotes) else "evidence is not in the passage"


def copy_differs(claim: Claim) -> str | None:
    """A copied answer must equal the evidence."""
    same = normalize(claim.answer).rstrip(".!") == normalize(claim.evidence).rstrip(".!")
    return None if same or not claim.copied else "answer is not the evidence"


def premise_wrong(claim: Claim) -> str | None:
    """A quantity that the question takes for granted must occur in the passage or its title."""
    if claim.corrects:
        return None
    fault = quantity_fault(claim.question, f"{claim.passage}\n{claim.title}")
    return f"question has a {fault}" if fault else None


def nothing_corrected(claim: Claim) -> str | None:
    """A correction must state evidence that the question does not have, such as the right number."""
    if not claim.corrects:
        return None
    questioned, answered, shown = (
        {quantity.value for quantity in quantities(text)}
        for text in (claim.question, claim.answer, f"{claim.passage}\n{claim.title}")
    )
    right = {quantity.value for quantity in quantities(claim.quoted)} - questioned
    if questioned - shown and right:
        corrected = bool(right & answered)
    else:
        # Words, not stems: the correction may be a "more" or an "after".
        corrected = not (set(words(claim.quoted)) - set(words(claim.question))).isdisjoint(words(claim.answer))
    return None if corrected else "answer does not correct its question"


def numbers_differ(claim: Claim) -> str | None:
    """Each quantity of the answer must occur in the evidence, the title or the (checked) question."""
    fault = quantity_fault(claim.answer, f"{claim.quoted}\n{claim.title}\n{claim.question}")
    return f"answer has a {fault}" if fault else None


def names_missing(claim: Claim) -> str | None:
    """Each name or code of the answer must occur in the passage, its title or the question."""
    shown = " ".join([claim.passage, claim.title, claim.question])
    known = set(words(shown.replace("-", " ")))
    if named_words(claim.answer) <= known and _codes(claim.answer) <= _codes(shown) | known:
        return None
    return "answer has a name that its source lacks"


def named_words(text: str) -> set[str]:
    """Return the normalized acronyms, and words whose capital does not start a sentence."""
    result: set[str] = set()
    for match in _TOKEN.finditer(text):
        token, before = match.group(), text[max(0, match.start() - 3) : match.start()].rstrip("\"'( \n")
        starts = match.start() == 0 or before.endswith((".", "!", "?", ":")) or not before
        if sum(map(str.isupper, token)) > 1 or (token[0].isupper() and not starts):
            result.update(words(token.replace("-", " ")))
    return result


def _codes(text: str) -> set[str]:
    """Return words of letters and digits, such as IL-23 or p53, without their hyphens."""
    return {code.replace("-", "") for code in _CODE.findall(normalize(text))}


def negation_flipped(claim: Claim) -> str | None:
    """The answer must not assert what the evidence denies, nor deny what it asserts; no fault where both deny."""
    evidence, answer = normalize(claim.quoted), normalize(claim.answer)
    if claim.corrects or bool(_DENIES.search(evidence)) == bool(_DENIES.search(answer)):
        return None
    denied, asserted = (evidence, answer) if _DENIES.search(evidence) else (answer, evidence)
    return "answer flips a negation" if _denied(denied) & set(stems(asserted)) else None


def _denied(text: str) -> set[str]:
    """Return the stems that occur only under a negation: the first content word after each."""
    under: set[str] = set()
    for clause in _CLAUSE.split(_NOT_ONLY.sub(" ", normalize(text).replace("n't", " not"))):
        tokens = words(clause)
        for index, token in enumerate(tokens):
            if token in NEGATORS:
                heads = [stem for stem in stems(" ".join(tokens[index + 1 : index + 6])) if stem not in _WEAK]
                under.update(heads[:1])
    everywhere = stems(text)
    return {stem for stem in under if everywhere.count(stem) == 1}


def comparison_flipped(claim: Claim) -> str | None:
    """A word of direction must not become its opposite, nor may the two sides of a "than" be swapped.

    No fault where the evidence or the question has both directions. "A is higher than B" may become "B is lower than
    A": either change alone is a fault, both together are none.
    """
    evidence, answer = (_BOUND.sub(" ", normalize(text)) for text in (claim.quoted, claim.answer))
    if claim.corrects:
        return None
    known = f"{evidence} {normalize(claim.question)}"
    opposed = same = False
    for pair in OPPOSITES:
        for word, opposite in (pair, pair[::-1]):
            if not _has(word, answer) or _has(opposite, answer):
                continue
            opposed |= not _has(word, known) and _has(opposite, evidence)
            same |= _has(word, evidence) and not _has(opposite, evidence)
    swapped = _sides_swapped(evidence, answer)
    if opposed and not swapped:
        return "answer flips a comparison"
    return "answer turns a comparison around" if same and swapped and not opposed else None


def _has(word: str, text: str) -> bool:
    return re.search(rf"\b(?:{word})", text) is not None


def _sides_swapped(evidence: str, answer: str) -> bool:
    """Return whether the words before "than" in one text follow it in the other, and the reverse."""
    parts = [_THAN.split(text, maxsplit=1) for text in (evidence, answer)]
    if not all(len(part) == 2 for part in parts):
        return False
    (before, behind), (answer_before, answer_behind) = (
        (set(stems(left)), set(stems(" ".join(words(right)[:8])))) for left, right in parts
    )
    return bool(answer_before & (behind - before)) and bool(answer_behind & (before - behind))


def words_without_source(claim: Claim) -> str | None:
    """Enough of the answer's content words must come from the passage, and some from the evidence."""
    answered = set(stems(claim.answer))
    if not answered:
        return None
    questioned = set(stems(f"{claim.question} {claim.title}"))
    passage, evidence = set(stems(claim.passage)), set(stems(claim.quoted))
    if len(answered & (passage | questioned)) < _LEAST_COVERED * len(answered):
        return "answer says what its source does not"
    if len(answered & evidence) < _LEAST_EVIDENCED * len(answered):
        return "answer says what its evidence does not"
    return None


def claim_fault(claim: Claim) -> str | None:
    """Return why the passage does not support the answer, or None when no check has a fault."""
    return next(filter(None, (check(claim) for check in CLAIM_CHECKS.values())), None)


# Words of direction that exclude each other, as beginnings of words.
OPPOSITES: tuple[tuple[str, str], ...] = (
    (r"higher|highest|greater|greatest|larger|largest|bigger", r"lower|lowest|smaller|smallest"),
    (r"increas|rose\b|rise|rising|grew|elevat|gain", r"decreas|declin|reduc|fell\b|drop|diminish|loss\b|lost\b"),
    (r"more\b|most\b", r"less\b|fewer|least\b|fewest"),
    (r"longer|longest", r"shorter|shortest"),
    (r"older|oldest", r"younger|youngest"),
    (r"better|best\b|improv", r"worse|worst|deteriorat"),
    (r"up-?regulat", r"down-?regulat"),
    (r"majority", r"minority"),
    (r"maximum|maximal", r"minimum|minimal"),
    (r"above", r"below"),
    (r"faster|fastest", r"slower|slowest"),
    (r"frequent", r"rare"),
    (r"inhibit", r"stimulat|activat|promot"),
)

CLAIM_CHECKS: dict[str, Callable[[Claim], str | None]] = {
    "evidence": evidence_gone,
    "copy": copy_differs,
    "premise": premise_wrong,
    "correction": nothing_corrected,
    "numbers": numbers_differ,
    "names": names_missing,
    "negation": negation_flipped,
    "comparison": comparison_flipped,
    "coverage": words_without_source,
}

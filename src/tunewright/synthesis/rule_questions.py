"""Exam questions that rules write without a teacher: a value of an evidence sentence is blanked out."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from itertools import islice
from types import MappingProxyType
from typing import Literal

from tunewright.records import Document, Question, digest
from tunewright.synthesis.questions import EvidenceSentence, short_title
from tunewright.text.blanks import Blank, ValueKind, blanks, word_blanks
from tunewright.text.languages import ENGLISH, LANGUAGES
from tunewright.text.normalization import normalize
from tunewright.text.values import holds_value, value_distance

RuleKind = Literal["short", "choice"]
_VALUE_NAMES: dict[ValueKind, str] = {
    "percentage": "percentage",
    "year": "year",
    "decimal": "number",
    "count": "number",
    "name": "name",
    "word": "word",
}
_NUM_WRONG = 3  # options beside the right one
_MOST_COMPARED = 2000  # values: a corpus has hundreds of thousands


@dataclass(frozen=True)
class RuleQuestion:
    """A question with its right answer; ``options`` of a choice, the right one among them, are not listed in it.

    A small model that knows the value does not name its letter (docs/adr/0042-choices-by-likelihood.md).
    """

    kind: RuleKind
    question: str
    gold: str
    evidence: EvidenceSentence
    options: tuple[str, ...] = ()

    def beside_the_exam(self, purpose: str, document: str) -> Question:
        """Return it as a question on a training document, without a passage; ``purpose`` sets its identifier apart."""
        return Question(
            id=digest(purpose, document, self.question),
            ring="learned",
            document=document,
            question=self.question,
            gold=self.gold,
            answerable=True,
            evidence=self.evidence.span,
            options=self.options,
            kind=self.kind,
        )


class RuleWriter:
    """Writes questions on evidence sentences, in their language, and checks them against all other documents.

    Args:
        evidence: the evidence sentences of each document, by its identifier.
        seed: decides which value of a sentence is asked for, and the order of the options.
        languages: the code of each document's language; English where it names none.
        with_words: documents in which a word is asked for where a sentence states no other value that can be.
    """

    def __init__(
        self,
        evidence: Mapping[str, Sequence[EvidenceSentence]],
        seed: int,
        languages: Mapping[str, str] = MappingProxyType({}),
        with_words: Container[str] = frozenset(),
    ) -> None:
        self._seed, self._languages, self._with_words = seed, languages, with_words
        self._by_kind: dict[ValueKind, dict[str, list[str]]] = {}  # kind → value → documents
        self._by_context: dict[str, set[str]] = {}
        for document, sentences in evidence.items():
            for blank in (blank for item in sentences for blank in self._blanks(document, item.sentence)):
                self._by_kind.setdefault(blank.kind, {}).setdefault(blank.value, []).append(document)
                self._by_context.setdefault(blank.context, set()).add(normalize(blank.value))

    def write(
        self, kind: RuleKind, document: Document, evidence: EvidenceSentence, words_too: bool = True
    ) -> RuleQuestion | None:
        """Return a question on one sentence; None where it states no value that can be asked for.

        Without ``words_too``, a word is no such value: quantities, years and names are facts more often.

        The value stands in the sentence, and so in its passage. It is not asked for where the same words stand around
        another value elsewhere: two passages would answer the question differently.
        """
        values = [b for b in self._blanks(document.id, evidence.sentence) if words_too or b.kind != "word"]
        candidates = [blank for blank in values if len(self._by_context[blank.context]) == 1 and self._is_fact(blank)]
        candidates = [blank for blank in candidates if not holds_value(document.title, blank.value)]
        for blank in sorted(candidates, key=lambda item: self._order(document, item)):
            question = self._question(document, blank)
            if kind == "short":
                return RuleQuestion(kind, question, blank.value, evidence)
            options = self._options(blank, document.id)
            if options:
                return RuleQuestion(kind, question, blank.value, evidence, options)
        return None

    def _blanks(self, document: str, sentence: str) -> list[Blank]:
        return [*blanks(sentence), *(word_blanks(sentence) if document in self._with_words else ())]

    def _order(self, document: Document, blank: Blank) -> tuple[bool, str]:
        """Words come after the values of a sentence; otherwise the seed decides."""
        return blank.kind == "word", digest(self._seed, document.source, blank.text, blank.value)

    def _is_fact(self, blank: Blank) -> bool:
        """Return whether a value says something of its document; a word that many documents use does not."""
        return blank.kind != "word" or len(set(self._by_kind["word"][blank.value])) == 1

    def _question(self, document: Document, blank: Blank) -> str:
        language = LANGUAGES.get(self._languages.get(document.id, ""), ENGLISH)
        question = language.blank.format(value=_VALUE_NAMES[blank.kind], text=blank.text)
        name = short_title(document.title, 8)
        return question + (language.source.format(title=name) if name else "") + language.mark

    def _options(self, blank: Blank, document: str) -> tuple[str, ...]:
        """Return the value among three of its kind from other documents, shuffled; none where there are too few.

        They are drawn from the nine nearest in size or form: 16,242 beside 426 nurses would be no choice, nor would a
        verb beside three nouns.
        """
        own = self._by_kind[blank.kind]
        others = islice((value for value, documents in own.items() if document not in documents), _MOST_COMPARED)
        nearest = nsmallest(6 * _NUM_WRONG, others, key=lambda value: (value_distance(value, blank.value), value))
        near = _distinct(nearest, blank.value)
        if len(near) < _NUM_WRONG:
            return ()
        drawn = sorted(near[: 3 * _NUM_WRONG], key=lambda value: digest(self._seed, blank.text, value))
        options = [blank.value, *drawn[:_NUM_WRONG]]
        return tuple(sorted(options, key=lambda value: digest(self._seed, "options", blank.text, value)))


def _distinct(values: Iterable[str], right: str) -> list[str]:
    """Return the values that differ from the right one and from each other by more than their form."""
    kept: list[str] = []
    for value in values:
        if not any(holds_value(value, other) or holds_value(other, value) for other in (right, *kept)):
            kept.append(value)
    return kept

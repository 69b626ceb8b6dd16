"""Evidence sentences, and the wording of their questions: cleaned, checked, and made to stand alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tunewright.records import Chunk, Document, Span, digest
from tunewright.text.normalization import is_evidence, is_unspaced, normalize, words
from tunewright.text.sentences import sentences

# A sentence that starts with one of these refers to the one before it; its question comes last.
_BACK_REFERENCE = re.compile(
    r"(?:this|these|those|that|it|its|they|their|he|she|his|her|such|both|here|there|however|thus|therefore|hence|also"
    r"|furthermore|moreover|additionally|consequently|conversely|nevertheless|similarly|finally|further|then|together"
    r"|in addition|in contrast|in conclusion|in summary|as a result|of these|of them|among them|among these|on the"
    r" other hand|for example|for this)\b",
    re.I,
)


@dataclass(frozen=True)
class EvidenceSentence:
    """A sentence that can answer a question, with its span in the document and its chunk."""

    chunk: Chunk
    span: Span

    @property
    def sentence(self) -> str:
        """The sentence on one line: the gold answer of its question."""
        return " ".join(self.span.quote.split())


def ranked_evidence(document: Document, chunks: Iterable[Chunk], seed: int) -> list[EvidenceSentence]:
    """Return a document's evidence sentences in the order in which questions use them.

    The order depends only on the seed, the source and the sentence: no other document and no other sentence changes it.
    Sentences that refer to the one before come last; a repeated sentence counts once.
    """
    ranked: dict[str, tuple[bool, str, EvidenceSentence]] = {}
    for chunk in chunks:
        for start, end in sentences(chunk.text):
            quote = chunk.text[start:end]
            if not is_evidence(" ".join(quote.split())):
                continue
            span = Span(document=document.id, start=chunk.start + start, end=chunk.start + end, quote=quote)
            evidence = EvidenceSentence(chunk, span)
            order = digest(seed, document.source, evidence.sentence)
            ranked.setdefault(normalize(quote), (bool(_BACK_REFERENCE.match(quote)), order, evidence))
    return [evidence for _, _, evidence in sorted(ranked.values(), key=lambda item: item[:2])]


def chunks_by_document(chunks: Sequence[Chunk]) -> dict[str, list[Chunk]]:
    """Return the chunks of each document, in order."""
    groups: dict[str, list[Chunk]] = {}
    for chunk in chunks:
        groups.setdefault(chunk.document, []).append(chunk)
    return groups


_LABEL = re.compile(r"^(?:[-*•]\s*|\d+[.)]\s+)?\W{0,3}(?:(?:question|q)\s*\d*\s*[:.]\s*)?", re.IGNORECASE)
_FENCED = re.compile(r"```\w*\n(.*?)```", re.DOTALL)
_QUOTES = "\"'“”‘’`*_ "
_OPENING = re.compile(
    r"^(?:What|Which|Who|Whose|Whom|When|Where|Why|How|Is|Are|Was|Were|Do|Does|Did|Can|Could|Has|Have|Had|Will|Would"
    r"|Should|In|For|At|On|To)\b"
)
# Words that any document may use: a question made only of these does not name its subject.
_GENERIC_WORDS = """
about according aim aims also and answer are article author authors based been being between can change changes
common compared conclusion conclusions could data describe did does effect effects evidence examine find finding
findings following for from had has have how impact important information into its main mean method methodology
methods most number our outcome overall paper people percentage primary process purpose question related report
research result results role should show significance significant significantly study studies such than that the
their them there these they this those topic used using was were what when where which while who whose why will
with would
"""
_GENERIC = frozenset(_GENERIC_WORDS.split())
# "this survey", "our findings": only the document shows which survey, whose findings.
_DEICTIC = re.compile(r"\b(?:this|these|our|the (?:study|survey|trial|paper|article|authors?|researchers?))\b", re.I)
_STEM_LETTERS = 5  # "screened" and "screening" have the same stem
_MAX_TITLE_WORDS = 12
_MAX_NAME_WORDS = 8  # exam and training questions of a document share them: they must stay below half of either
_TRAILING = re.compile(
    r"(?:\s+(?:a|an|and|as|at|between|by|for|from|in|into|of|on|or|the|to|using|via|with))+$", re.IGNORECASE
)


def clean_question(text: str) -> str:
    """Return the first question of a reply on one line, without labels, bullets, quotes and code fence."""
    fenced = _FENCED.search(text)
    line = next((line.strip() for line in (fenced[1] if fenced else text).splitlines() if line.strip()), "")
    line = _LABEL.sub("", line.strip(_QUOTES)).strip(_QUOTES)
    line = " ".join(line.split())
    end = line.find("? ")
    return line[: end + 1] if end >= 0 else line


def short_title(title: str, max_words: int = _MAX_TITLE_WORDS) -> str:
    """Return a title without its subtitle, cut to a number of words."""
    main = re.split(r":\s|\s[-–—]\s|\.\s", title.strip().rstrip("."))[0].split()
    if len(main) < 2:
        main = title.strip().rstrip(".").split()
    return _TRAILING.sub("", " ".join(main[:max_words])).rstrip(",;:")


def subjects(text: str) -> set[str]:
    """Return the stems of the words that name what a text is about; of scripts without spaces, pairs of characters."""
    if is_unspaced(text):
        return {first + second for first, second in pairwise(words(text)) if not (first + second).isdigit()}
    return {
        word[:_STEM_LETTERS] for word in words(text) if len(word) > 2 and word not in _GENERIC and not word.isdigit()
    }


def sentence_fault(question: str, title: str, sentence: str) -> str | None:
    """Return why a question is not about the sentence that is to answer it, or None.

    A small teacher sometimes writes a question about the title alone, or about nothing ("What were the findings?"). A
    question must share two subjects with its sentence, or one that the title lacks.
    """
    shared = subjects(question) & subjects(sentence)
    if len(shared) >= 2 or shared - subjects(title):
        return None
    return "question is not about its sentence"


def stand_alone(question: str, title: str, at_end: bool = False) -> str:
    """Return the question with its title named, if it shares fewer than two subjects with it or says "this study".

    Args:
        question: as the teacher wrote it.
        title: the document's title.
        at_end: put the title last (the exam), not first (training), so that the two questions differ.
    """
    name = short_title(title, _MAX_NAME_WORDS)
    of_title = subjects(title)
    is_named = len(subjects(question) & of_title) >= min(2, len(of_title)) and not _DEICTIC.search(question)
    if is_named or not name or not question.endswith("?"):
        return question
    if at_end:
        return f'{question[:-1]}, according to "{name}"?'
    opening = question[0].lower() + question[1:] if _OPENING.match(question) else question
    return f'In "{name}", {opening}'

"""Minimal edits that make a verified answer wrong: another number, another name, a lost citation."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

from tunewright.curation.sample_rules import SampleSources
from tunewright.records import Sample, digest
from tunewright.text.normalization import words
from tunewright.text.perturbation import is_bound, other_number
from tunewright.text.prompts import split_prompt
from tunewright.text.quantities import Fact, name_facts, name_words, number_facts, number_values, plain_number

_LEAST_CHANGE = 0.1  # of the number: 12.3 and 12 may be the same figure, rounded
_CITATION = re.compile(r"\s*(?:\[\d+(?:\s*[,;-]\s*\d+)*\]|\(\s*[\"“][^\"”]{10,}[\"”]\s*\))")


def evidence_of(sample: Sample) -> str:
    """Return the text that supports the answer: its evidence, else the passage in the prompt, else ""."""
    return sample.evidence.quote if sample.evidence else split_prompt(sample.question)[0]


def _other_texts(sample: Sample, sources: SampleSources) -> list[str]:
    """Return the texts to take another fact from: the prompt's passage, the chunk, then the document."""
    chunk = sources.chunks.get(sample.chunk or "")
    document = sources.documents.get(sample.document or "")
    texts = [split_prompt(sample.question)[0], chunk.text if chunk else "", document.text if document else ""]
    return list(filter(None, texts))


def _chance(sample: Sample, sources: SampleSources, kind: str) -> random.Random:
    return random.Random(digest(sources.recipe.seed, kind, sample.id))


def _replaced(text: str, facts: Sequence[Fact], old: str, new: str) -> str:
    """Return the text with each of these facts that equals ``old`` replaced."""
    for fact in sorted(facts, key=lambda fact: -fact.start):
        if fact.text == old:
            text = text[: fact.start] + new + text[fact.end :]
    return text


def swapped_number(sample: Sample, sources: SampleSources) -> str | None:
    """Return the answer with one number changed, or None when no number of it is in the evidence.

    The new number is of the same kind and comes from the passage or the document, the nearest in size first; where
    there is none, it is made up. It occurs in neither evidence nor question.
    """
    evidence, question = number_values(evidence_of(sample)), number_values(split_prompt(sample.question)[1])
    facts = number_facts(sample.answer)
    own = [
        fact
        for fact in facts
        if plain_number(fact.text) in evidence - question and not is_bound(sample.answer, fact.start, fact.end)
    ]
    if not own:
        return None
    chance = _chance(sample, sources, "number")
    target = chance.choice(own)
    taken = evidence | question | number_values(sample.answer)
    new = _nearest_number(target, taken, _other_texts(sample, sources))
    new = new or other_number(target.text, lambda made: plain_number(made) in taken, chance.randrange(1 << 30))
    return _replaced(sample.answer, facts, target.text, new) if new else None


def _nearest_number(target: Fact, taken: set[str], texts: Sequence[str]) -> str | None:
    size = _size(target.text)
    for text in texts:
        candidates = {
            fact.text
            for fact in number_facts(text)
            if fact.kind == target.kind
            and plain_number(fact.text) not in taken
            and (target.kind == "year" or abs(_size(fact.text) - size) >= _LEAST_CHANGE * max(size, 1e-9))
        }
        if candidates:
            return min(candidates, key=lambda number: (abs(_size(number) - size), number))
    return None


def _size(number: str) -> float:
    try:
        return float(plain_number(number))
    except ValueError:  # 1.2.3
        return 0.0


def swapped_name(sample: Sample, sources: SampleSources) -> str | None:
    """Return the answer with one name replaced by another name of the same document, or None.

    The other name is of the same kind, shares no word with evidence, question or answer, and is neither short nor
    long form of a name in them.
    """
    evidence, question = evidence_of(sample), split_prompt(sample.question)[1]
    facts = name_facts(sample.answer)
    own = [
        f for f in facts if set(words(f.text)) <= set(words(evidence)) and not set(words(f.text)) & set(words(question))
    ]
    if not own:
        return None
    chance = _chance(sample, sources, "name")
    target = chance.choice(own)
    taken = f"{evidence}\n{question}\n{sample.answer}"
    for text in _other_texts(sample, sources):
        candidates = {
            fact.text
            for line in text.splitlines()
            if line.rstrip().endswith((".", "!", "?"))  # headings capitalize other words
            for fact in name_facts(line)
            if fact.kind == target.kind and _is_other(fact.text, taken)
        }
        if candidates:
            return _replaced(sample.answer, facts, target.text, chance.choice(sorted(candidates)))
    return None


def _is_other(name: str, taken: str) -> bool:
    """Return whether a name is neither among the words of a text, nor their initials, nor the long form of an acronym.

    "WHO" is not another name than "World Health Organization".
    """
    text_words = words(taken.replace("-", " "))
    parts = words(name.replace("-", " "))
    if _singular(parts) & _singular(text_words):
        return False
    initials, letters = "".join(word[0] for word in text_words), "".join(filter(str.isalpha, name)).casefold()
    if len(parts) == 1:
        return letters not in initials
    return "".join(part[0] for part in parts) not in name_words(taken)


def _singular(tokens: Sequence[str]) -> set[str]:
    return {word.removesuffix("s") for word in tokens}


def lost_citation(sample: Sample, sources: SampleSources) -> str | None:
    """Return the answer without its citations ([1], or a quote in parentheses), or None when it has none."""
    del sources
    bare = _CITATION.sub("", sample.answer).strip()
    return bare if bare and bare != sample.answer.strip() else None


Edit = Callable[[Sample, SampleSources], str | None]

EDITS: dict[str, Edit] = {"number": swapped_number, "name": swapped_name, "citation": lost_citation}

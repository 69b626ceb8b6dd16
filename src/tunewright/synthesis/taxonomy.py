"""The taxonomy of questions, and the recipe's quotas by kind and section."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tunewright.records import Chunk, digest
from tunewright.settings import SynthesisSettings

# The words with which a prompt requests a question of each kind.
QUESTION_KINDS: Mapping[str, str] = {
    "factual": "asks for a fact that the passage states",
    "numeric": "asks for a figure, amount, date or rate that the passage states",
    "comparative": "asks how two things that the passage compares differ",
    "methodological": "asks how something was done, measured or decided",
    "limitation": "asks for a limit, exception or open question that the passage names",
    "multi-hop": "can only be answered with both passages together",
}
MULTI_HOP = "multi-hop"

_CUES = (
    ("limitation", r"limitation|limited (?:by|to)|however|further (?:research|studies|work)|unclear|remains? (?:un|to)"
                   r"|cannot|could not|except|lack of|caution"),
    ("comparative", r"\bthan\b|compared (?:with|to)|versus|\bvs\b|higher|lower|greater|more .{1,40} than|differ"
                    r"|increase|decrease|outperform"),
    ("methodological", r"\b(?:we|was|were) (?:used|measured|assessed|randomi[sz]ed|collected|analy[sz]ed|conducted"
                       r"|performed|evaluated|recruited|estimated|searched|included|interviewed|developed)\b"
                       r"|\busing\b|questionnaire|protocol|method"),
)  # fmt: skip
_FIGURE = re.compile(r"\d")
_PATTERNS = tuple((kind, re.compile(cues, re.IGNORECASE)) for kind, cues in _CUES)


def kind_of(sentence: str) -> str:
    """Return the kind of question that a sentence can answer: that of the first cue in its wording.

    Rarer cues come before numbers; a sentence without any cue is factual.
    """
    for kind, pattern in _PATTERNS:
        if pattern.search(sentence):
            return kind
    return "numeric" if _FIGURE.search(sentence) else "factual"


@dataclass(frozen=True)
class Quota:
    """The share of the questions that have this kind, in sections whose heading holds this text; "" is any."""

    kind: str
    section: str
    weight: float

    def fits(self, kind: str, chunk: Chunk) -> bool:
        """Return whether a question of that kind about that chunk counts toward this quota."""
        return self.kind in ("", kind) and self.in_section(chunk)

    def in_section(self, chunk: Chunk) -> bool:
        """Return whether the chunk is in this quota's section."""
        return self.section.casefold() in " / ".join(chunk.section).casefold()


def read_quotas(settings: SynthesisSettings) -> list[Quota]:
    """Return the recipe's quotas; each is written as "KIND", "KIND @ SECTION" or "@ SECTION" with a weight."""
    quotas = []
    for name, weight in settings.quotas.items():
        kind, _, section = (part.strip() for part in name.partition("@"))
        quotas.append(Quota(kind, section, weight))
    return quotas


def allocate(quotas: Sequence[Quota], number: int, seed: int, source: str) -> list[Quota]:
    """Return the quota of each of a document's questions, by systematic sampling.

    Only the seed and the source decide the start, so no document depends on another; over many documents each quota
    gets its share, even with one question per document.
    """
    total = sum(quota.weight for quota in quotas)
    start = int(digest(seed, "quota", source), 16) / 16**16
    chosen: list[Quota] = []
    for index in range(number):
        target, cumulative = (index + start) / number * total, 0.0
        for quota in quotas:
            cumulative += quota.weight
            if target < cumulative:
                break

        chosen.append(quota)
    return chosen

"""The taxonomy of questions, and the recipe's quotas by kind and section."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tunewright.records import Chunk, digest
from tunewright.settings import SynthesisSettings

# How a question of each kind is asked for.
KINDS: Mapping[str, str] = {
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
    """Return the kind of question that a sentence can answer, by its wording: the first cue that is found.

    Figures come after what is rarer; a sentence without any cue states a fact.
    """
    for kind, pattern in _PATTERNS:
        if pattern.search(sentence):
            return kind
    return "numeric" if _FIGURE.search(sentence) else "factual"


@dataclass(frozen=True)
class Quota:
    """A share of the questions: of this kind, in sections whose heading holds this text; "" is any."""

    kind: str
    section: str
    weight: float

    def fits(self, kind: str, chunk: Chunk) -> bool:
        """Tell whether a question of that kind on that chunk counts for it."""
        return self.kind in ("", kind) and self.in_section(chunk)

    def in_section(self, chunk: Chunk) -> bool:
        """Tell whether the chunk stands in its section."""
        return self.section.casefold() in " / ".join(chunk.section).casefold()


def read_quotas(settings: SynthesisSettings) -> list[Quota]:
    """Return the recipe's quotas: "KIND", "KIND @ SECTION" or "@ SECTION" with a share each."""
    quotas = []
    for name, weight in settings.quotas.items():
        kind, _, section = (part.strip() for part in name.partition("@"))
        quotas.append(Quota(kind, section, weight))
    return quotas


def allot(quotas: Sequence[Quota], number: int, seed: int, source: str) -> list[Quota]:
    """Share out a document's questions over the quotas.

    Systematic sampling from a start that seed and source alone decide: over many documents each quota gets its
    share, even where each document is asked only once, and no document depends on another.
    """
    total = sum(quota.weight for quota in quotas)
    start = int(digest(seed, "quota", source), 16) / 16**16
    chosen: list[Quota] = []
    for place in range(number):
        mark, passed = (place + start) / number * total, 0.0
        for quota in quotas:
            passed += quota.weight
            if mark < passed:
                break
        chosen.append(quota)
    return chosen

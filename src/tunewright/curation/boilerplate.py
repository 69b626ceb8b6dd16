"""Boilerplate: text that many prompts share, such as an instruction, and what is distinctive of a prompt without it."""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from tunewright.records import OWN, Question, Sample
from tunewright.text.normalization import normalize, words
from tunewright.text.repeated_text import LEAST, SHARE

Hashes = np.ndarray[Any, np.dtype[np.uint64]]

_WORDS = 5  # of an n-gram
_MOST_PROMPTS = 10_000  # read: the error of a share of 10 % is then 0.3 %
_BUCKETS = 1 << 22  # of the first count, which bounds the memory of the second
_CACHED = 150_000  # texts: each is compared several times
_SHOWN = 5  # texts in the summary
_CANDIDATES = 40  # most frequent stretches, of which those are chosen
_SHOWN_CHARACTERS = 100
_EDGES = re.compile(r"[\s.,;:!?)\]}\"']*")
# Scripts without spaces between words (Thai, kana, Han) count by the character.
_UNSPACED = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+(?:[.,]\d+)*")
_FACTORS = np.random.default_rng(5).integers(1, 2**63, _WORDS, dtype=np.uint64) | np.uint64(1)


@lru_cache(maxsize=100_000)
def _word_hash(word: str) -> int:
    return zlib.crc32(unicodedata.normalize("NFKC", word).casefold().encode("utf-8", "surrogatepass"))


class _Words:
    """The words of a text, and the hashes of its n-grams and of its lines that are shorter than an n-gram.

    Attributes:
        spans: (start, end) of each word in the text.
        hashes: [num_runs], of each n-gram and short line.
        starts, ends: [num_runs], the words of each run, half open.
    """

    def __init__(self, text: str) -> None:
        self.spans = [match.span() for match in _WORD.finditer(text)]
        numbers = np.array([_word_hash(text[low:high]) for low, high in self.spans], dtype=np.uint64)
        num = max(0, len(numbers) - _WORDS + 1)
        grams = np.zeros(num, dtype=np.uint64)
        for offset in range(_WORDS):
            grams += _FACTORS[offset] * numbers[offset : offset + num]
        lines = np.array([match.start() for match in re.finditer("\n", text)], dtype=np.int64)
        line_of = np.searchsorted(lines, np.array([low for low, _ in self.spans], dtype=np.int64))
        firsts = np.flatnonzero(np.diff(line_of, prepend=-1))
        lasts = np.append(firsts[1:], len(numbers))[: len(firsts)]
        short = (lasts - firsts < _WORDS) & (len(firsts) > 1)
        firsts, lasts = firsts[short], lasts[short]
        own = [
            (numbers[low:high] * _FACTORS[: high - low]).sum() ^ np.uint64(high - low)
            for low, high in zip(firsts, lasts, strict=True)
        ]
        self.hashes: Hashes = np.concatenate([grams, np.array(own, dtype=np.uint64)])
        self.starts = np.concatenate([np.arange(num), firsts])
        self.ends = np.concatenate([np.arange(num) + _WORDS, lasts])


def _text_digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _frequent(prompts: Sequence[str], answers: Sequence[str], of_answers: bool = False) -> Hashes:
    """Return the hashes of the runs in at least 10 % and 5 of the distinct prompts, with two different answers.

    ``of_answers`` counts the runs of the answers to them instead.

    What many prompts share and only one answer follows is one question in many copies, not an instruction. Memory is
    bounded: evenly spaced texts are read, and a first count in hashed buckets chooses the runs that are counted.
    """
    distinct = {_text_digest(normalize(prompt)): number for number, prompt in enumerate(prompts)}
    numbers = list(distinct.values())[:: max(1, math.ceil(len(distinct) / _MOST_PROMPTS))]
    chosen = [(prompts[number], answers[number]) for number in numbers]
    chosen = [(answer, prompt) if of_answers else (prompt, normalize(answer)) for prompt, answer in chosen]
    least = max(LEAST, math.ceil(SHARE * len(chosen)))
    if len(chosen) < least:
        return np.empty(0, dtype=np.uint64)
    buckets = np.zeros(_BUCKETS, dtype=np.uint32)
    for text, _ in chosen:
        buckets[np.unique(_Words(text).hashes % np.uint64(_BUCKETS)).astype(np.int64)] += 1
    counts: Counter[int] = Counter()
    answer_of: dict[int, str] = {}
    several: set[int] = set()
    for text, answer in chosen:
        hashes = np.unique(_Words(text).hashes)
        for number in map(int, hashes[buckets[(hashes % np.uint64(_BUCKETS)).astype(np.int64)] >= least]):
            counts[number] += 1
            if answer_of.setdefault(number, answer) != answer:
                several.add(number)
    return np.array(sorted(n for n, count in counts.items() if count >= least and n in several), dtype=np.uint64)


def _common_words(texts: Sequence[str]) -> set[str]:
    """Return the words in at least 10 % and 5 of the texts."""
    chosen = texts[:: max(1, math.ceil(len(texts) / _MOST_PROMPTS))]
    counts = Counter(word for text in chosen for word in set(words(text)))
    return {word for word, count in counts.items() if count >= max(LEAST, SHARE * len(chosen))}


def _runs(text: str, frequent: Hashes) -> Iterator[tuple[int, int]]:
    """Yield the (start, end) of each stretch of a text that frequent runs cover, with the signs after it."""
    own = _Words(text)
    covered = np.zeros(len(own.spans) + 1, dtype=np.int64)
    nearest = np.minimum(np.searchsorted(frequent, own.hashes), len(frequent) - 1)
    hits = frequent[nearest] == own.hashes
    if not hits.any():
        return
    np.add.at(covered, own.starts[hits], 1)
    np.add.at(covered, own.ends[hits], -1)
    edges = np.flatnonzero(np.diff(np.cumsum(covered) > 0, prepend=False))
    for low, high in zip(edges[::2], edges[1::2], strict=True):
        end = own.spans[high - 1][1]
        match = _EDGES.match(text, end)
        yield own.spans[low][0], match.end() if match else end


def _gap(cut: str) -> str:
    return "\n\n" if "\n\n" in cut else "\n" if "\n" in cut else " "


class Boilerplate:
    """What many of the user's own prompts, or many exam questions, share.

    A run of five words, or a whole shorter line, is boilerplate where it occurs in at least 10 % and at least 5 of the
    distinct prompts of own samples (or of the exam questions), and these have different answers. Its length does not
    count. Where there is no own sample, nothing is boilerplate.
    """

    def __init__(self, samples: Sequence[Sample] = (), exam: Sequence[Question] = ()) -> None:
        prompts: list[str] = []
        answers: list[str] = []
        for sample in samples:
            if sample.task == OWN:
                prompts.append("\n\n".join(m.content for m in sample.messages if m.role == "user"))
                answers.append(sample.answer)
        self._frequent = _frequent(prompts, answers)
        self._answers = _frequent(prompts, answers, of_answers=True)
        self._prompts = prompts[:: max(1, math.ceil(len(prompts) / _MOST_PROMPTS))]
        if prompts:
            questions = [question.question for question in exam]
            golds = [question.gold for question in exam]
            self._frequent = np.union1d(self._frequent, _frequent(questions, golds))
            self._answers = np.union1d(self._answers, _frequent(questions, golds, of_answers=True))
        self._answers = np.union1d(self._answers, self._frequent)
        self._common = _common_words(answers) | (_common_words(golds) if prompts else set())
        self.split = lru_cache(maxsize=_CACHED)(self._split)

    def _split(self, text: str) -> tuple[str, str]:
        """Return (the distinctive text, the boilerplate); the whole text and nothing where all or none of it is."""
        rest, shared = self._cut(text, self._frequent)
        return (rest, shared) if rest else (text, "")

    def distinctive(self, text: str) -> str:
        """Return a prompt without its boilerplate; where nothing would be left, the prompt itself."""
        return self.split(text)[0]

    def is_whole(self, text: str) -> bool:
        """Return whether all words of a prompt are boilerplate."""
        return bool(len(self._frequent)) and not self._cut(text, self._frequent)[0]

    def distinctive_answer(self, text: str) -> str:
        """Return an answer without what many answers or prompts hold, such as a label; this may be nothing."""
        return self._cut(text, self._answers)[0]

    def is_distinctive(self, tokens: Sequence[str]) -> bool:
        """Return whether fewer than half of an answer's words are common in answers, as the keys of JSON labels are."""
        return 2 * sum(token in self._common for token in tokens) < len(tokens)

    @staticmethod
    def _cut(text: str, frequent: Hashes) -> tuple[str, str]:
        if not len(frequent):
            return text, ""
        rest, shared, position = "", list[str](), 0
        for start, end in _runs(text, frequent):
            rest += text[position:start] + _gap(text[start:end])
            shared.append(text[start:end])
            position = end
        if not shared:
            return text, ""
        rest = (rest + text[position:]).strip()
        return rest if _WORD.search(rest) else "", " ".join(shared)

    def figures(self) -> dict[str, float | int | str]:
        """Return the share of the own prompts that hold each of the most frequent texts, by "boilerplate: TEXT"."""
        prompts = self._prompts if len(self._frequent) else []
        runs: Counter[str] = Counter()
        for prompt in prompts:
            runs.update({" ".join(prompt[low:high].split()) for low, high in _runs(prompt, self._frequent)})
        flat = [" ".join(prompt.split()) for prompt in prompts]
        shares = {run: sum(run in prompt for prompt in flat) / len(flat) for run, _ in runs.most_common(_CANDIDATES)}
        shown: dict[str, float] = {}
        # The same instruction with a word more or less is shown once.
        for run in sorted(shares, key=lambda run: (-shares[run], -len(run))):
            if (
                len(shown) < _SHOWN
                and shares[run] >= SHARE
                and not any(run in known or known in run for known in shown)
            ):
                shown[run] = shares[run]
        return {f"boilerplate: {_shorten(run)}": round(value, 4) for run, value in shown.items()}


def _shorten(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"


NO_BOILERPLATE = Boilerplate()

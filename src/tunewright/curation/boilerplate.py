"""Boilerplate: text that many prompts share, such as an instruction, and what is distinctive of a prompt without it."""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
import zlib
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice

import numpy as np

from tunewright.curation.packed_samples import ComputedTexts
from tunewright.records import OWN, Question, Sample
from tunewright.text.normalization import normalize, runs, words
from tunewright.text.repeated_text import LEAST, SHARE

Run = tuple[int, ...]  # its words, as numbers

_WORDS = 5  # of an n-gram
_MOST_PROMPTS = 10_000  # read: the error of a share of 10 % is then 0.3 %
_BUCKETS = 1 << 22  # of the first count, which bounds the memory of the second
_CACHED = 20_000  # texts: each is compared several times
_SHOWN = 5  # texts in the summary
_CANDIDATES = 40  # most frequent stretches, of which those are chosen
_SHOWN_CHARACTERS = 100
_EDGES = re.compile(r"[\s.,;:!?)\]}\"']*")
# Scripts without spaces between words (Thai, kana, Han) count by the character.
_UNSPACED = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+(?:[.,]\d+)*")
_ASCII_WORD = re.compile(r"\w+(?:[.,]\d+)*")  # the same, several times faster


@lru_cache(maxsize=100_000)
def _word_hash(word: str) -> int:
    return zlib.crc32(unicodedata.normalize("NFKC", word).casefold().encode("utf-8", "surrogatepass"))


def _word_pattern(text: str) -> re.Pattern[str]:
    return _ASCII_WORD if text.isascii() else _WORD


def _numbered(text: str) -> tuple[list[int], list[tuple[int, Run]]]:
    """Return the words of a text as numbers; and its lines that are shorter than an n-gram, each behind its start."""
    numbers: list[int] = []
    short: list[tuple[int, Run]] = []
    pattern = _word_pattern(text)
    lines = [words for line in text.split("\n") if (words := pattern.findall(line))]
    for words_of_line in lines:
        if len(words_of_line) < _WORDS and len(lines) > 1:
            short.append((len(numbers), tuple(map(_word_hash, words_of_line))))
        numbers += map(_word_hash, words_of_line)
    return numbers, short


def _text_runs(text: str) -> list[Run]:
    """Return the n-grams of a text, and its lines that are shorter."""
    numbers, short = _numbered(text)
    return [*runs(numbers, _WORDS), *(run for _, run in short)]


@lru_cache(maxsize=8)
def _first_words(frequent: frozenset[Run]) -> frozenset[int]:
    return frozenset(run[0] for run in frequent)


def _present(text: str, frequent: frozenset[Run]) -> list[tuple[int, Run]]:
    """Return the frequent runs in a text in order, each behind the number of its first word."""
    numbers, short = _numbered(text)
    firsts = _first_words(frequent)
    starts = [start for start, number in enumerate(numbers) if number in firsts]
    whole = ((start, tuple(numbers[start : start + _WORDS])) for start in starts if start + _WORDS <= len(numbers))
    return sorted(item for item in (*whole, *short) if item[1] in frequent) if starts else []


def _chosen(prompts: Sequence[str]) -> list[int]:
    """Return the numbers of distinct prompts, the last of each, evenly spaced where there are many."""
    keys = np.fromiter((_text_key(normalize(prompt)) for prompt in prompts), dtype=np.uint64, count=len(prompts))
    firsts = np.unique(keys, return_index=True)[1]
    lasts = len(keys) - 1 - np.unique(keys[::-1], return_index=True)[1]
    return [int(number) for number in lasts[np.argsort(firsts)][:: max(1, math.ceil(len(lasts) / _MOST_PROMPTS))]]


def _text_key(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def _frequent(texts: Sequence[str], others: Sequence[str]) -> frozenset[Run]:
    """Return the runs in at least 10 % and 5 of the texts, with two different others beside them.

    What many prompts share and only one answer follows is one question in many copies, not an instruction. Memory is
    bounded: a first count in hashed buckets chooses the runs that are counted.
    """
    least = max(LEAST, math.ceil(SHARE * len(texts)))
    if len(texts) < least:
        return frozenset()
    buckets = np.zeros(_BUCKETS, dtype=np.uint32)
    for text in texts:
        buckets[list({hash(run) % _BUCKETS for run in _text_runs(text)})] += 1
    counts: Counter[Run] = Counter()
    first_of: dict[Run, str] = {}
    several: set[Run] = set()
    for text, other in zip(texts, others, strict=True):
        for run in {run for run in _text_runs(text) if buckets[hash(run) % _BUCKETS] >= least}:
            counts[run] += 1
            if first_of.setdefault(run, other) != other:
                several.add(run)
    return frozenset(run for run, count in counts.items() if count >= least and run in several)


def _prompt(sample: Sample) -> str:
    return "\n\n".join(message.content for message in sample.messages if message.role == "user")


def _frequent_in_both(prompts: Sequence[str], answers: Sequence[str]) -> tuple[frozenset[Run], frozenset[Run]]:
    """Return the frequent runs of the prompts and of the answers."""
    numbers = _chosen(prompts)
    prompts, answers = [prompts[number] for number in numbers], [answers[number] for number in numbers]
    return _frequent(prompts, list(map(normalize, answers))), _frequent(answers, prompts)


def _common_words(texts: Sequence[str]) -> set[str]:
    """Return the words in at least 10 % and 5 of the texts."""
    chosen = texts[:: max(1, math.ceil(len(texts) / _MOST_PROMPTS))]
    counts = Counter(word for text in chosen for word in set(words(text)))
    return {word for word, count in counts.items() if count >= max(LEAST, SHARE * len(chosen))}


def _runs(text: str, frequent: frozenset[Run]) -> Iterator[tuple[int, int]]:
    """Yield the (start, end) of each stretch of a text that frequent runs cover, with the signs after it."""
    stretches: list[list[int]] = []
    for first, run in _present(text, frequent):
        if stretches and first <= stretches[-1][1]:
            stretches[-1][1] = max(stretches[-1][1], first + len(run))
        else:
            stretches.append([first, first + len(run)])
    spans = (
        [match.span() for match in islice(_word_pattern(text).finditer(text), stretches[-1][1])] if stretches else []
    )
    for first, last in stretches:
        end = spans[last - 1][1]
        match = _EDGES.match(text, end)
        yield spans[first][0], match.end() if match else end


def _gap(cut: str) -> str:
    return "\n\n" if "\n\n" in cut else "\n" if "\n" in cut else " "


class Boilerplate:
    """What many of the user's own prompts, or many exam questions, share.

    A run of five words, or a whole shorter line, is boilerplate where it occurs in at least 10 % and at least 5 of the
    distinct prompts of own samples (or of the exam questions), and these have different answers. Its length does not
    count. Where there is no own sample, nothing is boilerplate.
    """

    def __init__(self, samples: Sequence[Sample] = (), exam: Sequence[Question] = ()) -> None:
        own = array("I", (number for number, sample in enumerate(samples) if sample.task == OWN))
        prompts = ComputedTexts(lambda number: _prompt(samples[own[number]]), len(own))
        answers = ComputedTexts(lambda number: samples[own[number]].answer, len(own))
        self._prompts = prompts[:: max(1, math.ceil(len(prompts) / _MOST_PROMPTS))]
        self._frequent, self._answers = _frequent_in_both(prompts, answers)
        self._common = _common_words(answers)
        if len(own):
            golds = [question.gold for question in exam]
            of_exam, of_golds = _frequent_in_both([question.question for question in exam], golds)
            self._frequent |= of_exam
            self._answers |= of_golds
            self._common |= _common_words(golds)
        self._answers |= self._frequent
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
        return bool(self._frequent) and not self._cut(text, self._frequent)[0]

    def distinctive_answer(self, text: str) -> str:
        """Return an answer without what many answers or prompts hold, such as a label; this may be nothing."""
        return self._cut(text, self._answers)[0]

    def is_distinctive(self, tokens: Sequence[str]) -> bool:
        """Return whether fewer than half of an answer's words are common in answers, as the keys of JSON labels are."""
        return 2 * sum(token in self._common for token in tokens) < len(tokens)

    @staticmethod
    def _cut(text: str, frequent: frozenset[Run]) -> tuple[str, str]:
        if not frequent:
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
        prompts = self._prompts if self._frequent else []
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

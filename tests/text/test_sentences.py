"""Sentences against marks made by hand: tests/text/sentences/ has a sentence a line, an empty line between paragraphs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tunewright.text.sentences import sentences

MARKED = sorted((Path(__file__).parent / "sentences").glob("*.txt"))
UNSPACED = {"zh", "ja"}
_ITEM = re.compile(r"(?:-|\d+\.) ")


def marked_text(paragraphs: list[list[str]], between: str) -> tuple[str, list[int], set[int]]:
    """Return the text, where its sentences end, and which of these ends are those of paragraphs."""
    text, ends, last = "", [], set()
    for paragraph in paragraphs:
        for number, sentence in enumerate(paragraph):
            if number:
                text += "\n" if _ITEM.match(sentence) else between
            text += sentence
            ends.append(len(text))
        last.add(len(text))
        text += "\n\n"
    return text, ends, last


def f1(expected: set[int], predicted: set[int]) -> float:
    return 2 * len(expected & predicted) / (len(expected) + len(predicted))


@pytest.mark.parametrize("file", MARKED, ids=lambda file: file.stem)
def test_sentences_end_where_a_reader_marks_their_ends(file):
    paragraphs = [paragraph.split("\n") for paragraph in file.read_text("utf-8").strip().split("\n\n")]
    text, ends, last = marked_text(paragraphs, "" if file.stem in UNSPACED else " ")
    assert len(ends) >= 100
    predicted = {end for _, end in sentences(text)}
    wrong = "\n".join(
        ("missed: " if end in ends else "added: ") + text[max(0, end - 40) : end] + "|" + text[end : end + 20]
        for end in sorted(predicted ^ set(ends))
    )
    # The ends of paragraphs are easy: they may not carry the others.
    assert last <= predicted, wrong
    assert f1(set(ends), predicted) >= 0.95, wrong
    assert f1(set(ends) - last, predicted - last) >= 0.95, wrong


def test_eight_languages_are_marked():
    assert {file.stem for file in MARKED} == {"ar", "de", "es", "fr", "hi", "ja", "ru", "zh"}

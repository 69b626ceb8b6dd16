"""The child process that recognizes text: pypdfium2 draws a page, RapidOCR reads it with the models of its wheel.

Each line of standard input is ``[path, page number]``, each line of standard output a RecognizedPage as JSON.
"""

from __future__ import annotations

import json
import logging
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from tunewright.documents.markup import clean_text, single_line
from tunewright.documents.recognition import RecognizedPage
from tunewright.models.capped_process import answer_lines

_DPI = 200
_UPRIGHT = 0.7  # confidence below which a page may be upside down
_MAX_PIXELS = 25_000_000  # of a drawn page: A2 at this resolution
_LEAST_COLUMN_LINES = 4
_LEAST_COLUMN_WORDS = 3  # a line on average; cells of a table have fewer


@dataclass(frozen=True)
class Box:
    """A recognized line and where it is on the page, in pixels from the top left."""

    text: str
    score: float
    left: float
    top: float
    right: float
    bottom: float


@cache
def _engine() -> Any:
    from rapidocr import RapidOCR

    return RapidOCR()


def recognized_page(path: str, number: int) -> RecognizedPage:
    """Return the text of a page, counted from 1; every error becomes a fault.

    The engine's classifier of upside-down lines turns some upright ones, so it judges only pages that make no sense
    without it.
    """
    try:
        drawn = _drawn(path, number)
        boxes = _boxes(drawn, turned=False)
        if boxes and _confidence(boxes) < _UPRIGHT:
            boxes = max(boxes, _boxes(drawn, turned=True), key=_confidence)
    except MemoryError:
        return RecognizedPage(fault="too much memory")
    except Exception as error:  # an error in a library must not end the run
        return RecognizedPage(fault=single_line(f"{type(error).__name__}: {error}")[:200])
    return RecognizedPage(lines=tuple(reading_order(boxes)), confidence=round(_confidence(boxes), 4))


def _boxes(drawn: Any, turned: bool) -> list[Box]:
    """Return the recognized lines of a picture; ``turned`` also looks for lines that are upside down."""
    result = _engine()(drawn, use_cls=turned)
    texts = result.txts if result.txts is not None else ()
    return [
        Box(clean_text(text), float(score), *_edges(corners))
        for text, score, corners in zip(texts, result.scores or (), _listed(result.boxes), strict=True)
        if text.strip()
    ]


def _confidence(boxes: Sequence[Box]) -> float:
    """Return the mean score of the characters; 0 for none."""
    num_characters = sum(len(box.text) for box in boxes)
    return sum(box.score * len(box.text) for box in boxes) / num_characters if num_characters else 0.0


def _drawn(path: str, number: int) -> Any:
    """Return the page as an array of colors."""
    import pypdfium2

    document = pypdfium2.PdfDocument(path)
    try:
        page = document[number - 1]
        width, height = page.get_size()
        scale = min(_DPI / 72, (_MAX_PIXELS / max(width * height, 1)) ** 0.5)
        return page.render(scale=scale).to_numpy()
    finally:
        document.close()


def _listed(boxes: Any) -> list[Any]:
    return [] if boxes is None else list(boxes)


def _edges(corners: Any) -> tuple[float, float, float, float]:
    xs, ys = [float(x) for x, _ in corners], [float(y) for _, y in corners]
    return min(xs), min(ys), max(xs), max(ys)


def reading_order(boxes: Sequence[Box]) -> list[str]:
    """Return the lines of a page: two columns of prose one after the other, everything else row by row."""
    gutter = _gutter(boxes)
    if gutter is None:
        return _rows(boxes)
    wide = [box for box in boxes if box.left < gutter < box.right]
    lines: list[str] = []
    above = float("-inf")
    for border in [*sorted(wide, key=lambda box: box.top), None]:  # a wide line ends the columns above it
        below = border.top if border else float("inf")
        band = [box for box in boxes if box not in wide and above <= box.top < below]
        lines += _rows([box for box in band if box.right <= gutter])
        lines += _rows([box for box in band if box.left >= gutter])
        if border:
            lines.append(border.text)
            above = below
    return lines


def _gutter(boxes: Sequence[Box]) -> float | None:
    """Return where two columns of prose part, if a page has them: a few wide lines, such as titles, may cross it."""
    if len(boxes) < 2 * _LEAST_COLUMN_LINES:
        return None
    low, high = min(box.left for box in boxes), max(box.right for box in boxes)
    middles = [low + (high - low) * share / 100 for share in range(35, 66)]
    crossing = [sum(box.left < x < box.right for box in boxes) for x in middles]
    fewest = min(crossing)
    best = [x for x, count in zip(middles, crossing, strict=True) if count == fewest]
    gutter = best[len(best) // 2]
    sides = [[b for b in boxes if b.right <= gutter], [b for b in boxes if b.left >= gutter]]
    is_prose = all(
        len(side) >= _LEAST_COLUMN_LINES and statistics.mean(len(b.text.split()) for b in side) >= _LEAST_COLUMN_WORDS
        for side in sides
    )
    return gutter if is_prose and fewest <= len(boxes) / 5 else None


def _rows(boxes: Sequence[Box]) -> list[str]:
    """Return the boxes row by row: those at one height are one line."""
    rows: list[list[Box]] = []
    for box in sorted(boxes, key=lambda box: (box.top + box.bottom) / 2):
        middle = (box.top + box.bottom) / 2
        if rows and middle < statistics.mean(b.bottom for b in rows[-1]) and middle > rows[-1][0].top:
            rows[-1].append(box)
        else:
            rows.append([box])
    return [" ".join(box.text for box in sorted(row, key=lambda box: box.left)) for row in rows]


if __name__ == "__main__":
    logging.disable()
    answer_lines(sys.argv[1:], lambda line: recognized_page(*json.loads(line)).model_dump_json().encode())

"""The figures of the data report: which sentences the samples reach, and how long the texts are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from tunewright.evaluation.figures import Scale, anchor, nice_scale, svg, tick_text

MOST_CELLS = 120  # in a row: more sentences than these share cells
_FEWEST_CELLS = 12  # that a row's width is made for, so that short documents get no huge cells
_ROW = 46
_CELL = 13
_GUTTER = 7  # percent of the width for the numbers of the vertical axis
_BINS = 24


@dataclass(frozen=True)
class Strip:
    """One row of the heat map: its label, its printed value, and its sections as (name, samples per sentence)."""

    label: str
    value: str
    sections: Sequence[tuple[str, Sequence[int]]]


def cells(counts: Sequence[int], size: int) -> list[int]:
    """Return the shade of each cell, 0 to 3, of ``size`` neighboring sentences each.

    0 is for cells whose sentences no sample reaches, 3 for more than two samples per sentence.
    """
    runs = [counts[start : start + size] for start in range(0, len(counts), size)]
    return [min(3, math.ceil(sum(run) / len(run))) for run in runs]


def sentences_per_cell(rows: Sequence[Strip]) -> int:
    """Return how many sentences share a cell, so that the longest row fits."""
    return max((math.ceil(sum(len(c) for _, c in row.sections) / MOST_CELLS) for row in rows), default=1) or 1


def heat_map(rows: Sequence[Strip], label: str) -> Markup:
    """Return one row of cells per document, shaded by the samples that reach them; lines mark the sections."""
    size = sentences_per_cell(rows)
    shades = [[(name, cells(counts, size)) for name, counts in row.sections] for row in rows]
    widest = max([_FEWEST_CELLS, *(sum(len(own) for _, own in row) for row in shades)])
    width = 100 / widest
    parts = []
    for number, (row, sections) in enumerate(zip(rows, shades, strict=True)):
        y = _ROW * number
        # In one text, the value first: on a phone a long title leaves the page, and covers nothing.
        parts.append(f'<text class="label" x="0" y="{y + 15}">{escape(row.value)} · {escape(row.label)}</text>')
        place = 0
        for name, own in sections:
            parts.append(f"<g><title>{escape(name)}</title>")
            for shade in own:
                at = f'x="{place * width:.2f}%" y="{y + 22}" width="{0.9 * width:.2f}%" height="{_CELL}"'
                parts.append(f'<rect class="cell h{shade}" {at}/>')
                place += 1
            x = (place - len(own) - 0.05) * width
            if place > len(own):
                parts.append(f'<line class="section" x1="{x:.2f}%" x2="{x:.2f}%" y1="{y + 19}" y2="{y + 25 + _CELL}"/>')
            parts.append("</g>")
    return svg(_ROW * len(rows), label, parts)


def histogram(values: Sequence[float], label: str) -> Markup:
    """Return how many values fall into each of about 24 bins; the last holds all above the 99th percentile too."""
    if not values:
        return Markup("")
    high = sorted(values)[math.ceil(0.99 * len(values)) - 1]
    scale = nice_scale(0.0, max(high, 1.0), _BINS)
    step, num = scale.ticks[1] - scale.ticks[0], len(scale.ticks) - 1
    counts = [0] * num
    for value in values:
        counts[min(num - 1, int(value / step))] += 1
    height, top, bottom = 170, 10, 140
    upward = nice_scale(0.0, max(counts), 3)
    parts = []
    for tick in upward.ticks:
        y = bottom - (bottom - top) * upward.percent(tick) / 100
        parts.append(f'<line class="grid" x1="{_GUTTER}%" x2="100%" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="0" y="{y + 4:.1f}">{tick_text(tick)}</text>')
    width = (100 - _GUTTER) / num
    for place, found in enumerate(counts):
        if found:
            tall = max(1.0, (bottom - top) * upward.percent(found) / 100)
            at = f'x="{_GUTTER + (place + 0.08) * width:.2f}%" width="{0.84 * width:.2f}%"'
            parts.append(f'<rect class="bar tuned" {at} y="{bottom - tall:.1f}" height="{tall:.1f}"/>')
    across = nice_scale(0.0, scale.high, 6)
    for tick in across.ticks:
        if tick <= scale.high:
            x = _GUTTER + (100 - _GUTTER) * Scale(0.0, scale.high, ()).percent(tick) / 100
            parts.append(
                f'<text class="tick" x="{x:.2f}%" y="{bottom + 18}" text-anchor="{anchor(x)}">{tick_text(tick)}</text>'
            )
    return svg(height, label, parts)

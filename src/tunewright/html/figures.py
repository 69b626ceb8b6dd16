"""Static SVG figures that follow the page: x in percent, text at its own size, colors by the style sheet's classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup, escape

_ROW = 46  # pixels from one forest row to the next
_TOP = 8
_AXIS = 26  # pixels below a plot for its tick labels
_GUTTER = 9  # percent of the width kept for the labels of a vertical axis
_NAMES = 16  # percent of the width kept for the names of several lines
_NAME_HEIGHT = 17  # pixels that one name needs
_MAX_POINTS = 400


@dataclass(frozen=True)
class ForestRow:
    """One row of a forest plot: label, printed value, interval, and style class (its color)."""

    label: str
    value: str
    mean: float
    low: float
    high: float
    kind: str = ""


@dataclass(frozen=True)
class Scale:
    """A linear axis from ``low`` to ``high`` with its ticks."""

    low: float
    high: float
    ticks: tuple[float, ...]

    def percent(self, value: float) -> float:
        """Return the position of a value, 0 to 100; values outside the scale are clipped to its ends."""
        return min(100.0, max(0.0, 100 * (value - self.low) / (self.high - self.low)))


@dataclass(frozen=True)
class Line:
    """One line of a curve: name, (x, y) points from left to right, style class; ``marked`` draws the points."""

    name: str
    points: Sequence[tuple[float, float]]
    kind: str = ""
    marked: bool = False


def nice_scale(low: float, high: float, num_ticks: int = 5) -> Scale:
    """Return a scale of round numbers (1, 2 or 5 times a power of ten) that covers low to high."""
    span = max(high - low, 1e-9)
    rough = span / num_ticks
    magnitude = 10 ** math.floor(math.log10(rough))
    step = next(m * magnitude for m in (1, 2, 5, 10) if m * magnitude >= rough)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    last = max(last, first + 1)
    return Scale(first * step, last * step, tuple(round(k * step, 10) for k in range(first, last + 1)))


def svg(height: int, label: str, parts: Sequence[str]) -> Markup:
    """Return an SVG image as wide as the page from escaped parts; ``label`` is its accessible name."""
    return Markup('<svg role="img" aria-label="{}" width="100%" height="{}">{}</svg>').format(
        label, height, Markup("").join(Markup(part) for part in parts)
    )


def tick_text(value: float) -> str:
    """Return a tick's number with a real minus sign."""
    return f"{value:g}".replace("-", "−")


def anchor(percent: float) -> str:
    """Return the text anchor that keeps a tick's label on the page."""
    return "start" if percent < 2 else "end" if percent > 98 else "middle"


def _grid(scale: Scale, bottom: int, strong: float | None = None) -> list[str]:
    """Return vertical grid lines with labels below; ``strong`` is drawn as an axis."""
    parts = []
    for tick in scale.ticks:
        x = scale.percent(tick)
        kind = "axis" if strong is not None and math.isclose(tick, strong, abs_tol=1e-12) else "grid"
        parts.append(f'<line class="{kind}" x1="{x:.2f}%" x2="{x:.2f}%" y1="{_TOP}" y2="{bottom}"/>')
        parts.append(
            f'<text class="tick" x="{x:.2f}%" y="{bottom + 17}" text-anchor="{anchor(x)}">{tick_text(tick)}</text>'
        )
    return parts


def forest(
    rows: Sequence[ForestRow],
    scale: Scale,
    label: str,
    zero: float | None = None,
    band: tuple[float, float] | None = None,
) -> Markup:
    """Return a forest plot: each row's label and value above its interval.

    Args:
        rows: from top to bottom.
        scale: the common axis.
        label: the accessible name.
        zero: a value whose grid line is drawn as an axis.
        band: a shaded part of the axis (the margin).
    """
    bottom = _TOP + _ROW * len(rows)
    parts = []
    if band is not None:
        x, end = scale.percent(band[0]), scale.percent(band[1])
        parts.append(f'<rect class="band" x="{x:.2f}%" width="{end - x:.2f}%" y="{_TOP}" height="{bottom - _TOP}"/>')
    parts += _grid(scale, bottom, zero)
    for number, row in enumerate(rows):
        y = _TOP + _ROW * number
        low, mid, high = (scale.percent(v) for v in (row.low, row.mean, row.high))
        line = y + 32
        parts += [
            f'<text class="label" x="0" y="{y + 17}">{escape(row.label)}</text>',
            f'<text class="value" x="100%" y="{y + 17}" text-anchor="end">{escape(row.value)}</text>',
            f'<g class="mark {escape(row.kind)}">'
            f'<line x1="{low:.2f}%" x2="{high:.2f}%" y1="{line}" y2="{line}"/>'
            f'<line x1="{low:.2f}%" x2="{low:.2f}%" y1="{line - 4}" y2="{line + 4}"/>'
            f'<line x1="{high:.2f}%" x2="{high:.2f}%" y1="{line - 4}" y2="{line + 4}"/>'
            f'<circle cx="{mid:.2f}%" cy="{line}" r="5"/></g>',
        ]
    return svg(bottom + _AXIS, label, parts)


def thin(points: Sequence[tuple[float, float]], most: int = _MAX_POINTS) -> list[tuple[float, float]]:
    """Return at most ``most`` points, each the mean of an equal run of neighbors."""
    size = math.ceil(len(points) / most)
    runs = [points[i : i + size] for i in range(0, len(points), size)] if size > 1 else [[p] for p in points]
    return [(math.fsum(x for x, _ in run) / len(run), math.fsum(y for _, y in run) / len(run)) for run in runs]


def curve(lines: Sequence[Line], label: str, x_name: str) -> Markup:
    """Return lines on common axes, each thinned to 400 points; several lines have their names at their right ends."""
    lines = [replace(line, points=thin([p for p in line.points if math.isfinite(p[1])])) for line in lines]
    lines = [line for line in lines if line.points]
    if not lines:
        return Markup("")
    height, top, bottom = 240, _TOP + 8, 214
    xs, ys = ([point[axis] for line in lines for point in line.points] for axis in (0, 1))
    scale = nice_scale(min(ys), max(ys), 4)
    across = Scale(min(xs), max(max(xs), min(xs) + 1e-9), nice_scale(min(xs), max(xs), 5).ticks)
    width = 100 - _GUTTER - (_NAMES if len(lines) > 1 else 0)
    parts = [f'<text class="tick" x="0" y="{bottom + 19}">{escape(x_name)}</text>']
    for tick in scale.ticks:
        y = _height(scale, tick, top, bottom)
        parts.append(f'<line class="grid" x1="{_GUTTER}%" x2="{_GUTTER + width}%" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="0" y="{y + 4:.1f}">{tick_text(tick)}</text>')
    for tick in across.ticks:
        if across.low < tick <= across.high:
            x = _GUTTER + width * across.percent(tick) / 100
            parts.append(
                f'<text class="tick" x="{x:.2f}%" y="{bottom + 19}" text-anchor="{anchor(x)}">{tick_text(tick)}</text>'
            )
    for line in lines:
        path = " ".join(f"{across.percent(x):.2f},{100 - scale.percent(y):.2f}" for x, y in line.points)
        parts.append(
            f'<svg x="{_GUTTER}%" y="{top}" width="{width}%" height="{bottom - top}" viewBox="0 0 100 100" '
            f'preserveAspectRatio="none" overflow="visible"><polyline class="curve {escape(line.kind)}" '
            f'points="{path}"/></svg>'
        )
        for x, y in line.points if line.marked else ():
            at = f'cx="{_GUTTER + width * across.percent(x) / 100:.2f}%" cy="{_height(scale, y, top, bottom):.1f}"'
            parts.append(f'<circle class="curve-point {escape(line.kind)}" {at} r="4"/>')
    if len(lines) > 1:
        parts += _names(lines, [_height(scale, line.points[-1][1], top, bottom) for line in lines], bottom)
    return svg(height, label, parts)


def _height(scale: Scale, value: float, top: int, bottom: int) -> float:
    return bottom - (bottom - top) * scale.percent(value) / 100


def _names(lines: Sequence[Line], ends: Sequence[float], bottom: int) -> list[str]:
    """Return the names of the lines beside their last points, moved apart where they would overlap."""
    order = sorted(range(len(lines)), key=lambda n: ends[n])
    heights: list[float] = []
    for n in order:
        heights.append(max(ends[n], heights[-1] + _NAME_HEIGHT) if heights else ends[n])
    over = max(0.0, heights[-1] - bottom)
    return [
        f'<text class="name {escape(lines[n].kind)}" x="{100 - _NAMES}%" dx="9" y="{height - over + 4:.1f}">'
        f"{escape(lines[n].name)}</text>"
        for n, height in zip(order, heights, strict=True)
    ]


def scatter(points: Sequence[tuple[float, float]], label: str, x_name: str, y_name: str) -> Markup:
    """Return a scatter plot of (x, y) on equal axes with the diagonal x = y; points below it are better."""
    values = [v for point in points for v in point]
    if not values:
        return Markup("")
    scale = nice_scale(min(0.0, *values), max(values), 4)
    height, bottom = 320, 280
    parts = [f'<line class="axis dashed" x1="0" y1="{bottom}" x2="100%" y2="{_TOP}"/>']
    for tick in scale.ticks:
        x, y = scale.percent(tick), bottom - (bottom - _TOP) * scale.percent(tick) / 100
        parts.append(f'<line class="grid" x1="0" x2="100%" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<line class="grid" x1="{x:.2f}%" x2="{x:.2f}%" y1="{_TOP}" y2="{bottom}"/>')
        parts.append(
            f'<text class="tick" x="{x:.2f}%" y="{bottom + 17}" text-anchor="{anchor(x)}">{tick_text(tick)}</text>'
        )
        if tick != scale.ticks[0]:
            parts.append(f'<text class="tick" x="4" y="{y + 14:.1f}">{tick_text(tick)}</text>')
    for left, right in points:
        kind = "better" if right < left else "worse"
        y = bottom - (bottom - _TOP) * scale.percent(right) / 100
        parts.append(f'<circle class="{kind}" cx="{scale.percent(left):.2f}%" cy="{y:.1f}" r="4"/>')
    parts.append(f'<text class="label" x="100%" y="{bottom + 36}" text-anchor="end">{escape(x_name)} →</text>')
    parts.append(f'<text class="label" x="34" y="{_TOP + 14}">↑ {escape(y_name)}</text>')
    return svg(height, label, parts)


def bars(rows: Sequence[tuple[str, int, str]], label: str) -> Markup:
    """Return horizontal bars: (label, count, class), each as long as its share of the largest count."""
    largest = max((count for _, count, _ in rows), default=0) or 1
    parts = []
    for number, (name, count, kind) in enumerate(rows):
        y = 36 * number
        width = max(0.3, 100 * count / largest)
        parts += [
            f'<text class="label" x="0" y="{y + 15}">{escape(name)}</text>',
            f'<text class="value" x="100%" y="{y + 15}" text-anchor="end">{count:,}</text>',
            f'<rect class="track" x="0" y="{y + 21}" width="100%" height="7" rx="3.5"/>',
            f'<rect class="bar {escape(kind)}" x="0" y="{y + 21}" width="{width:.2f}%" height="7" rx="3.5"/>',
        ]
    return svg(36 * len(rows), label, parts)


MOST_CELLS = 120  # in a row: where there are more sentences, several share a cell
_FEWEST_CELLS = 12  # a row is at least as wide as so many, so that short documents get no huge cells
_BAR_ROW = 46
_CELL = 13
_BAR_GUTTER = 7  # percent of the width for the numbers of the vertical axis
_BINS = 24


@dataclass(frozen=True)
class Strip:
    """One row of the heat map: its label, its printed value, and its sections as (name, samples per sentence)."""

    label: str
    value: str
    sections: Sequence[tuple[str, Sequence[int]]]


def cells(counts: Sequence[int], size: int) -> list[int]:
    """Return the shade of each cell, 0 to 3, of ``size`` neighboring sentences each.

    0: no sample reaches the sentences of the cell; 3: more than two samples per sentence.
    """
    runs = [counts[start : start + size] for start in range(0, len(counts), size)]
    return [min(3, math.ceil(sum(run) / len(run))) for run in runs]


def sentences_per_cell(rows: Sequence[Strip]) -> int:
    """Return how many sentences share a cell, so that the longest row fits."""
    return max((math.ceil(sum(len(c) for _, c in row.sections) / MOST_CELLS) for row in rows), default=1) or 1


def heat_map(rows: Sequence[Strip], label: str) -> Markup:
    """Return one row of cells per document, shaded by the samples per sentence; lines separate the sections."""
    size = sentences_per_cell(rows)
    shades = [[(name, cells(counts, size)) for name, counts in row.sections] for row in rows]
    widest = max([_FEWEST_CELLS, *(sum(len(own) for _, own in row) for row in shades)])
    width = 100 / widest
    parts = []
    for number, (row, sections) in enumerate(zip(rows, shades, strict=True)):
        y = _BAR_ROW * number
        # In one text, the value first: on a phone a long title leaves the page, and covers nothing.
        parts.append(f'<text class="label" x="0" y="{y + 15}">{escape(row.value)} · {escape(row.label)}</text>')
        column = 0
        for name, own in sections:
            parts.append(f"<g><title>{escape(name)}</title>")
            for shade in own:
                at = f'x="{column * width:.2f}%" y="{y + 22}" width="{0.9 * width:.2f}%" height="{_CELL}"'
                parts.append(f'<rect class="cell h{shade}" {at}/>')
                column += 1
            x = (column - len(own) - 0.05) * width
            if column > len(own):
                parts.append(f'<line class="section" x1="{x:.2f}%" x2="{x:.2f}%" y1="{y + 19}" y2="{y + 25 + _CELL}"/>')
            parts.append("</g>")
    return svg(_BAR_ROW * len(rows), label, parts)


def histogram(values: Sequence[float], label: str) -> Markup:
    """Return a histogram of about 24 bins; the last bin also counts all values above the 99th percentile."""
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
        parts.append(f'<line class="grid" x1="{_BAR_GUTTER}%" x2="100%" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="0" y="{y + 4:.1f}">{tick_text(tick)}</text>')
    width = (100 - _BAR_GUTTER) / num
    for index, num_values in enumerate(counts):
        if num_values:
            tall = max(1.0, (bottom - top) * upward.percent(num_values) / 100)
            at = f'x="{_BAR_GUTTER + (index + 0.08) * width:.2f}%" width="{0.84 * width:.2f}%"'
            parts.append(f'<rect class="bar tuned" {at} y="{bottom - tall:.1f}" height="{tall:.1f}"/>')
    across = nice_scale(0.0, scale.high, 6)
    for tick in across.ticks:
        if tick <= scale.high:
            x = _BAR_GUTTER + (100 - _BAR_GUTTER) * Scale(0.0, scale.high, ()).percent(tick) / 100
            parts.append(
                f'<text class="tick" x="{x:.2f}%" y="{bottom + 18}" text-anchor="{anchor(x)}">{tick_text(tick)}</text>'
            )
    return svg(height, label, parts)

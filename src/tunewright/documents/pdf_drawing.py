"""The text of a PDF page in drawing order: what is drawn elsewhere is never glued to the line before."""

from __future__ import annotations

import math
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunewright.documents.markup import raised

if TYPE_CHECKING:
    from pypdf import PageObject

_NARROWEST = 0.15  # width of a letter on average, as a share of the font's size: a line is longer than that
_SMALLER = 0.85  # a superscript's font, as a share of that of its line
_RISE = (0.15, 0.8)  # of a superscript above its line, as a share of the line's font
_OVERPRINTED = 0.2  # of the font's size: the same text this close was drawn twice, for its weight or its shadow
_MOVE, _SHOW = (b"BT", b"Td", b"TD", b"Tm", b"T*"), (b"Tj", b"TJ", b"'", b'"')
_RECENT = 100  # fragments of one text that a further one may overprint


@dataclass
class _Fragment:
    """Text that is drawn from one position on; in forms and after a change of font, the position is not known."""

    text: str
    x: float = math.nan
    y: float = math.nan
    size: float = 0.0

    def starts_inside(self, before: _Fragment) -> bool:
        """Return whether this starts to the left of where the one before it ends, by more than any kerning."""
        size = max(self.size, before.size)
        is_left = self.x < before.x + _NARROWEST * len(before.text.strip()) * before.size - size
        return is_left and not _is_right_to_left(before.text + self.text)

    def extend(self, text: str, size: float) -> None:
        """Add text that follows in another font."""
        self.text += text
        self.size = min(self.size, size)

    def is_raised(self, line: _Fragment) -> bool:
        """Return whether this is a superscript of the line."""
        is_close = not self.text[:1].isspace() and not line.text[-1:].isspace()
        is_above = _RISE[0] * line.size < self.y - line.y < _RISE[1] * line.size
        return is_close and is_above and self.size < _SMALLER * line.size

    def overprints(self, other: _Fragment) -> bool:
        """Return whether this is the same text at the same position."""
        return math.hypot(self.x - other.x, self.y - other.y) <= _OVERPRINTED * self.size


def _is_right_to_left(text: str) -> bool:
    return any(unicodedata.bidirectional(c) in ("R", "AL", "AN") for c in text)


@dataclass(frozen=True)
class DrawnText:
    """The text of a page in drawing order, and the heights at which text is, from the top.

    Attributes:
        num_unknown: characters in fonts that do not say which characters they show.
        num_known: other characters, blanks aside.
    """

    text: str
    heights: list[float]
    num_unknown: int = 0
    num_known: int = 0


class _Drawing:
    """The fragments of a page, as pypdf reports them with its operators."""

    def __init__(self) -> None:
        self.fragments: list[_Fragment] = []
        self.heights: set[int] = set()  # at which text is
        self._depth = 0  # of forms: pypdf reports their text at positions of their own
        self._is_moved = self._is_positioned = self._is_shown = False  # of the text since the last report
        self._rise = self._shown_rise = 0.0
        self.num_unknown = self.num_known = 0

    def before(self, operator: bytes, operands: Any, *_: Any) -> None:
        """Note what moves text, and that a form begins."""
        if operator in _SHOW:
            if not self._is_shown:
                self._is_shown, self._is_positioned, self._shown_rise = True, self._is_moved, self._rise
            self._is_moved = False
        self._is_moved = self._is_moved or operator in _MOVE
        if operator == b"Ts" and operands and isinstance(operands[0], int | float):
            self._rise = float(operands[0])
        self._depth += operator == b"Do"

    def after(self, operator: bytes, *_: Any) -> None:
        """Note that a form ends: what follows it is on a line of its own."""
        if operator == b"Do":
            self._depth -= 1
            if self.fragments and not self.fragments[-1].text.endswith("\n"):
                self.fragments[-1].text += "\n"

    def text(self, text: str, transform: Sequence[float], matrix: Sequence[float], font: Any, size: float) -> None:
        """Note text; ``matrix`` is its position, in the coordinates of ``transform``."""
        num_characters = len("".join(text.split()))
        if num_characters and _is_without_characters(font):
            self.num_unknown += num_characters
            text = "\ufffd" + "\n" * text.endswith("\n")
        else:
            self.num_known += num_characters
        text = raised(text) if self._shown_rise > 0 else text
        if text.strip():
            x, y = (matrix[4] * transform[i] + matrix[5] * transform[i + 2] + transform[i + 4] for i in (0, 1))
            self.heights.add(round(y))
            width = math.hypot(matrix[0] * transform[0], matrix[1] * transform[2]) * size
            is_level = math.isclose(matrix[0] * transform[1] + matrix[1] * transform[3], 0, abs_tol=1e-6)
            if self._is_positioned and is_level and not self._depth:
                self.fragments.append(_Fragment(text, x, y, abs(width)))
            elif self.fragments and not self._depth and not self.fragments[-1].text.endswith("\n"):
                self.fragments[-1].extend(text, abs(width))
            else:
                self.fragments.append(_Fragment(text))
        elif text and self.fragments and not self.fragments[-1].text.endswith("\n"):
            self.fragments[-1].text += text
        self._is_shown = False


def _is_without_characters(font: Any) -> bool:
    """Return whether a font numbers its glyphs and does not say which characters they are (ISO 32000-2, 9.10.2)."""
    if not font or font.get("/Subtype") != "/Type0" or "/ToUnicode" in font:
        return False
    orderings = [
        str(descendant.get_object().get("/CIDSystemInfo", {}).get("/Ordering", ""))
        for descendant in font.get("/DescendantFonts") or ()
    ]
    return str(font.get("/Encoding")) in ("/Identity-H", "/Identity-V") and set(orderings) <= {"Identity", ""}


def drawn_text(page: PageObject) -> DrawnText:
    """Return the text of a page in drawing order.

    Text that is drawn twice at one position, as makers of PDFs do for weight and shadows, is there once.
    """
    drawing = _Drawing()
    page.extract_text(
        visitor_operand_before=drawing.before, visitor_operand_after=drawing.after, visitor_text=drawing.text
    )
    text = ""
    before: _Fragment | None = None
    line: _Fragment | None = None  # the last text on the line that is not raised
    drawn: dict[str, list[_Fragment]] = defaultdict(list)
    for fragment in drawing.fragments:
        alike = drawn[fragment.text.strip()]
        if any(fragment.overprints(other) for other in alike[-_RECENT:]):
            text += "\n" * (fragment.text.endswith("\n") and not text.endswith("\n"))
            continue
        alike.append(fragment)
        if before and not text.endswith("\n") and fragment.starts_inside(before):
            text = text.rstrip(" ") + "\n"
        if line and not text.endswith("\n") and fragment.is_raised(line):
            text += raised(fragment.text)
        else:
            text += fragment.text
            line = fragment
        before = fragment
    heights = sorted(map(float, drawing.heights), reverse=True)
    return DrawnText(text, heights, drawing.num_unknown, drawing.num_known)

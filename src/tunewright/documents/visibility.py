"""What a reader of a web page cannot see: text without size, ink or room, by inline styles and style sheets."""

from __future__ import annotations

import colorsys
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from math import inf
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from bs4 import BeautifulSoup, Tag

Style = Mapping[str, str]  # values by property, in lower case

_STRING = r"\"[^\"\n]*\"|'[^'\n]*'"
_COMMENT = re.compile(rf"({_STRING})|/\*.*?(?:\*/|\Z)|<!--|-->", re.DOTALL)  # in a string, it is none
_ESCAPE = re.compile(r"\\(?:([0-9a-f]{1,6})\s?|([^\n0-9a-f]))", re.IGNORECASE)
_DECLARATION = re.compile(r"(?:^|[;{])\s*([\w-]+)\s*:((?:\((?:[^()]|\([^()]*\))*\)|[^;{}()])*)")
_RULE = re.compile(r"([^{};]{1,400})\{([^{}]*+)(?:\}|\Z)")
_ON_EVERY_SCREEN = re.compile(
    r"@(?:media\s+(?:only\s+)?(?:screen|all)|supports[^{};]{0,200}|scope[^{};]{0,200}|layer[^{};]{0,100})\s*\{",
    re.IGNORECASE,
)
_AT_RULE = re.compile(r"@[^{};]{0,400}(?:;|\{(?:[^{}]*\{[^{}]*\})*[^{}]*\})")
_COMMA = re.compile(r",(?![^()]*\))")
_SPACE = re.compile(r"[\s,]+(?![^()]*\))")
_BESIDE_NAMES = re.compile(r"\([^()]*\)|\[[^\]]*\]|:+[\w-]+")  # of a selector: conditions and attributes
_MAX_COMPARISONS = 200_000  # of rules with elements
_MAX_DEPTH = 256  # of elements that are compared with more than a name: that takes time for each element around them
_LENGTH = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d{1,3})?)([a-z%]*)")
_PIXELS = {"pt": 4 / 3, "pc": 16.0, "in": 96.0, "cm": 38.0, "mm": 3.8, "q": 0.95} | {
    **dict.fromkeys(("em", "rem", "ex", "ch", "lh", "rlh"), 16.0),
    **dict.fromkeys(("vw", "vh", "vmin", "vmax", "vi", "vb", "dvh", "dvw", "svh", "svw"), 10.0),
}
_LARGEST_UNSEEN_FONT = 2.0  # pixels
_LARGEST_UNSEEN_SHARE = 0.1  # of size or opacity
_FAR_BEFORE, _FAR_BEHIND = -100.0, 3000.0  # pixels, or percent, from where an element belongs
_LEAST_CONTRAST = 1.2  # of 1 to 21, as WCAG measures it; for text it asks for 3
_MOST_ALIKE = 48  # of 255, in each channel: colors that differ more are seen, however light they are
_OVERFLOWS = ("overflow", "overflow-x", "overflow-y", "overflow-block", "overflow-inline")
_WIDTHS = ("width", "max-width", "inline-size", "max-inline-size")
_HEIGHTS = ("height", "max-height", "block-size", "max-block-size")
_SIDES = (
    *("left", "right", "top", "bottom", "inset", "inset-inline", "inset-block", "inset-inline-start"),
    *("inset-block-start", "inset-inline-end", "inset-block-end", "margin", "margin-left", "margin-top"),
    *("margin-inline", "margin-block", "margin-inline-start", "margin-block-start", "text-indent", "letter-spacing"),
)
_NAMES = {
    **{"black": "#000", "canvastext": "#000", "transparent": "#0000", "white": "#fff", "canvas": "#fff"},
    **{"snow": "#fffafa", "ivory": "#fffff0", "ghostwhite": "#f8f8ff", "whitesmoke": "#f5f5f5", "azure": "#f0ffff"},
    **{"floralwhite": "#fffaf0", "mintcream": "#f5fffa", "aliceblue": "#f0f8ff", "honeydew": "#f0fff0"},
    **{"seashell": "#fff5ee", "lightyellow": "#ffffe0", "navy": "#000080", "midnightblue": "#191970"},
    **{"red": "#f00", "green": "#008000", "blue": "#00f", "gray": "#808080", "grey": "#808080", "yellow": "#ff0"},
    **{"orange": "#ffa500", "purple": "#800080", "maroon": "#800000", "teal": "#008080", "silver": "#c0c0c0"},
}
_COLOR = re.compile(r"#[0-9a-f]{3,8}|(?:rgba?|hsla?|lab|lch|oklab|oklch|color)\([^()]*\)|(?<![\w-])[a-z]+(?![\w(-])")


class Color(NamedTuple):
    """A color: three channels of 0 to 255, and its opacity, of 0 to 1."""

    red: float
    green: float
    blue: float
    alpha: float = 1.0

    @property
    def luminance(self) -> float:
        """The relative luminance of WCAG."""
        parts = (channel / 255 for channel in self[:3])
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def is_seen_on(self, ground: Color) -> bool:
        """Return whether a reader can tell text of this color from its ground."""
        if self.alpha <= _LARGEST_UNSEEN_SHARE:
            return False
        dark, light = sorted((self.luminance, ground.luminance))
        difference = max(abs(mine - its) for mine, its in zip(self[:3], ground[:3], strict=True))
        return difference > _MOST_ALIKE or (light + 0.05) / (dark + 0.05) >= _LEAST_CONTRAST


def hidden_elements(soup: BeautifulSoup) -> list[Tag]:
    """Return the elements of a page whose text a reader cannot see.

    What a style sheet does not display, or only on some screens, a reader may open: a tab, a menu, an answer.
    """
    styles = _Styles(soup)
    return [tag for tag in soup.find_all(True) if _has_hiding_attribute(tag) or styles.hide(tag)]


def _has_hiding_attribute(tag: Tag) -> bool:
    is_zero = tag.name == "font" and str(tag.get("size")) == "0"
    return is_zero or tag.has_attr("hidden") or str(tag.get("aria-hidden")).lower() == "true"


class _Styles:
    """The styles of a page's elements: their own, and those of its style sheets."""

    def __init__(self, soup: BeautifulSoup) -> None:
        css_texts = [_plain(css.get_text()) for css in soup.find_all("style")]
        own = {id(tag): _plain(str(tag["style"])).lower() for tag in soup.find_all(style=True)}
        self._variables = {
            name: value.strip()[:200]
            for text in (*css_texts, *own.values())
            if "--" in text
            for name, value in _DECLARATION.findall(text.lower())
            if name.startswith("--")
        }
        self._own = {key: self._declarations(text) for key, text in own.items()}
        self._global: dict[int, dict[str, str]] = defaultdict(dict)
        rules = [(selector, self._declarations(style)) for css in css_texts for selector, style in _rules(css)]
        for tag, selector, style in islice(_candidates(soup, rules), _MAX_COMPARISONS):
            if not selector or _fits(tag, selector):
                self._global[id(tag)].update(style)
        self._grounds: dict[int, tuple[Color, ...]] = {}

    def _declarations(self, text: str) -> dict[str, str]:
        style = {}
        for name, value in _DECLARATION.findall(text):
            for _ in range(3 if "var(" in value else 0):
                value = re.sub(r"var\(\s*(--[\w-]+)[^()]*\)", lambda m: self._variables.get(m[1], ""), value[:2000])
            style[name] = " ".join(value.replace("!important", " ").split())
        return style

    def hide(self, tag: Tag) -> bool:
        """Return whether the styles of an element hide its text for good."""
        own, shared = self._own.get(id(tag), {}), self._global.get(id(tag), {})
        if own and (_is_closed(own) or _has_no_room(own)) or shared and _has_no_room(shared):
            return True
        ink = color_of(self._value(tag, "-webkit-text-fill-color")) or color_of(self._value(tag, "color"))
        return ink is not None and not any(map(ink.is_seen_on, self._ground(tag)))

    def _value(self, tag: Tag, name: str) -> str:
        if value := self._own.get(id(tag), {}).get(name) or self._global.get(id(tag), {}).get(name):
            return value
        if name == "color" and tag.name in ("font", "body"):
            return str(tag.get("text" if tag.name == "body" else "color") or "").lower()
        return str(tag.get("bgcolor") or "").lower() if name == "background-color" else ""

    def _ground(self, tag: Tag) -> tuple[Color, ...]:
        """Return the colors behind an element: those of a gradient; none of an image. A page is white."""
        between: list[int] = []
        grounds: tuple[Color, ...] | None = None
        around: Tag | None = tag
        while grounds is None and around is not None:
            between.append(id(around))
            grounds, around = self._grounds.get(id(around)) or self._own_ground(around), around.parent
        self._grounds.update(dict.fromkeys(between, grounds or _WHITE))
        return grounds or _WHITE

    def _own_ground(self, tag: Tag) -> tuple[Color, ...] | None:
        values = f"{self._value(tag, 'background-color')} {self._value(tag, 'background')}"
        image = self._value(tag, "background-image")
        colors = [color for match in _COLOR.findall(f"{values} {image}") if (color := color_of(match))]
        opaque = tuple(color for color in colors if color.alpha > _LARGEST_UNSEEN_SHARE)
        is_image = "url(" in values or "url(" in image
        return opaque or ((_UNKNOWN,) if is_image else None)


_WHITE = (Color(255, 255, 255),)
_UNKNOWN = Color(inf, inf, inf)  # on which every color is seen


def _plain(css: str) -> str:
    """Return a style without comments and escapes."""
    return _ESCAPE.sub(
        lambda m: m[2] or (chr(int(m[1], 16)) if int(m[1], 16) < 0xD800 else ""), _COMMENT.sub(_without_braces, css)
    )


def _without_braces(match: re.Match[str]) -> str:
    """Return the string that stands in place of a comment; its braces and semicolons belong to no rule."""
    return re.sub("[{};]", "", match[1] or "")


def _rules(css: str) -> Iterator[tuple[str, str]]:
    """Yield selector and declarations of the rules that hold on every screen; of nested rules, the inner ones."""
    css = _AT_RULE.sub("", _ON_EVERY_SCREEN.sub("{", css)) if "@" in css else css
    for selectors, style in _RULE.findall(css):
        for selector in _COMMA.split(selectors):
            yield selector.strip().lstrip("& "), style.lower()


def _candidates(soup: BeautifulSoup, rules: Sequence[tuple[str, Style]]) -> Iterator[tuple[Tag, str, Style]]:
    """Yield, in the order of the rules, each with each element that has the last name in its selector.

    The selector is empty where that name is all of it.
    """
    by_name: dict[str, list[Tag]] = defaultdict(list)
    depth: dict[int, int] = {}
    for tag in soup.find_all(True) if rules else ():
        depth[id(tag)] = depth.get(id(tag.parent), 0) + 1
        classes = tag.get("class")
        names = [f".{name}" for name in classes] if isinstance(classes, list) else []
        for key in {"", tag.name, f"#{tag.get('id')}", *names}:
            by_name[key].append(tag)
    for selector, style in rules:
        last = re.split(r"[\s>+~]+", _BESIDE_NAMES.sub("", selector))[-1]
        names = re.findall(r"[.#][\w-]+", last) or [last.strip("*").lower()]
        rest = "" if names[0] in (selector, selector.lower()) else selector
        tags = by_name.get(names[0], ())
        yield from ((tag, rest, style) for tag in tags if not rest or depth[id(tag)] <= _MAX_DEPTH)


def _fits(tag: Tag, selector: str) -> bool:
    try:
        return bool(tag.css.match(selector))
    except Exception:  # not a selector, or of a state that a page at rest does not have (:hover)
        return False


def _is_closed(style: Style) -> bool:
    """Return whether an element is not shown, which for a style sheet may mean: until a reader opens it."""
    return (
        style.get("display") == "none"
        or style.get("visibility") in ("hidden", "collapse")
        or style.get("content-visibility") == "hidden"
        or _share(style.get("opacity", "")) == 0
        or _is_clipped(style, _HEIGHTS, 0.0)
    )


def _is_clipped(style: Style, sizes: Sequence[str], least: float = 1e-9) -> bool:
    """Return whether an element of such a size, from ``least`` to one pixel, clips what overflows it."""
    clips = any(style.get(name, "visible").split()[0] != "visible" for name in _OVERFLOWS if style.get(name))
    return clips and any(least <= _pixels(style.get(name, ""), inf) <= 1 for name in sizes)


def _has_no_room(style: Style) -> bool:
    """Return whether text is too small, or lies outside of the page or of its own clip."""
    fonts = re.findall(r"(?:^| )([\d.][\w.%+-]*)(?=$|[ /])", style.get("font", ""))
    font = style.get("font-size") or next((size for size in fonts if not re.fullmatch("[1-9]00", size)), "")
    if font and 0 <= _pixels(font, inf, percent=0.16) <= _LARGEST_UNSEEN_FONT:
        return True
    if any(_is_outside(style[name]) for name in _SIDES if name in style):
        return True
    return _is_moved_away(style) or _is_cut_off(style)


def _is_outside(value: str) -> bool:
    return any(not _FAR_BEFORE < _pixels(part, 0.0) < _FAR_BEHIND for part in _SPACE.split(value))


def _is_moved_away(style: Style) -> bool:
    """Return whether a transformation leaves nothing of the text, or nothing on the page."""
    transform = style.get("transform", "")
    scales = [style.get("zoom", ""), style.get("scale", ""), *re.findall(r"scale(?:x|y|3d)?\(([^()]*)\)", transform)]
    scales += [f"{m[1]} {m[2]}" for m in re.finditer(r"matrix\(([^,]*),[^,]*,[^,]*,([^,]*),", transform)]
    if any(_share(part) <= _LARGEST_UNSEEN_SHARE for scale in scales for part in _SPACE.split(scale)[:2]):
        return True
    moves = [style.get("translate", ""), *re.findall(r"translate(?:x|y|3d)?\(([^()]*)\)", transform)]
    # Of percents, 100 is the size of the element itself: where it goes, its neighbor may make room.
    if any(_is_outside(part) for move in moves for part in _SPACE.split(move) if not part.endswith("%")):
        return True
    return bool(re.search(r"rotate[xy]\(-?(?:90deg|270deg|0?\.25turn)\)", transform))


def _is_cut_off(style: Style) -> bool:
    """Return whether a clip, a mask or a filter leaves nothing of the text."""
    if _is_clipped(style, _WIDTHS, 0.0) or _is_clipped(style, _HEIGHTS):
        return True
    if _pixels(style.get("text-indent", ""), 0.0) >= 100 and style.get("text-indent", "").endswith("%"):
        return any(style.get(name) for name in _OVERFLOWS)
    opacity = min(_share(style.get("filter", "").partition("opacity(")[2]), _share(style.get("opacity", "")) or 1.0)
    if opacity <= _LARGEST_UNSEEN_SHARE:
        return True
    rect = re.search(r"rect\(([^()]*)\)", style.get("clip", ""))
    if rect and all(_pixels(side, inf) <= 1 for side in _SPACE.split(rect[1].strip())):
        return True
    mask = style.get("mask") or style.get("mask-image") or style.get("-webkit-mask-image") or ""
    if re.fullmatch(r"[a-z-]*gradient\((?:to [a-z ]+,|[\d.]+deg,)?\s*transparent(?:,\s*transparent)*\)", mask):
        return True
    return _is_empty(style.get("clip-path") or style.get("-webkit-clip-path") or "")


def _is_empty(path: str) -> bool:
    """Return whether a clip's shape has no area."""
    shape, _, inside = path.partition("(")
    sides = [_pixels(side, 0.0) for side in _SPACE.split(re.split(" at | round ", inside)[0].rstrip(") "))]
    if shape == "inset":
        top, right, bottom, left = {1: sides * 4, 2: sides * 2, 3: [*sides, sides[1 % len(sides)]]}.get(
            len(sides), sides[:4]
        )
        return "%" in inside and (top + bottom >= 100 or left + right >= 100)
    if shape in ("circle", "ellipse"):
        return inside[:1].isdigit() and max(sides) <= 1
    return shape == "polygon" and len({tuple(point.split()) for point in inside.rstrip(")").split(",")}) <= 2


def _share(text: str) -> float:
    """Return a share, such as an opacity or a scale; 1 for text that is none."""
    match = _LENGTH.match(text)
    return abs(float(match[1])) / (100 if match[2] == "%" else 1) if match else 1.0


def _pixels(text: str, default: float, percent: float = 1.0) -> float:
    """Return about how many pixels a length has, ``percent`` for each percent; the default for what is no length."""
    if inner := re.fullmatch(r"(calc|min|max|clamp)\((.{0,200})\)", text):
        lengths = [_pixels(match[0], default, percent) for match in _LENGTH.finditer(inner[2])]
        if re.search(r"\*\s*0(?![\d.])", inner[2]):
            return 0.0
        return min(lengths) if len(lengths) == 1 or lengths and inner[1] == "min" else default
    match = _LENGTH.fullmatch(text)
    return float(match[1]) * (percent if match[2] == "%" else _PIXELS.get(match[2], 1.0)) if match else default


def color_of(value: str) -> Color | None:
    """Return the color that a value names; None for one that is not known."""
    value = _NAMES.get(value, value)
    if match := re.fullmatch(r"#?([0-9a-f]{3,4}|[0-9a-f]{6}|[0-9a-f]{8})", value):
        digits = match[1] if len(match[1]) > 4 else "".join(digit * 2 for digit in match[1])
        red, green, blue, opacity = (int((digits + "ff")[at : at + 2], 16) for at in range(0, 8, 2))
        return Color(red, green, blue, opacity / 255)
    function, _, inside = value.partition("(")
    numbers = [(float(match[1]), match[2] == "%") for match in _LENGTH.finditer(inside)]
    if len(numbers) < 3:
        return None
    parts = [number / 100 if is_share else number for number, is_share in numbers]
    alpha = parts[3] if len(parts) > 3 else 1.0
    if function in ("rgb", "rgba"):
        channels = [part * (255 if is_share else 1) for part, (_, is_share) in zip(parts, numbers, strict=True)]
        return Color(channels[0], channels[1], channels[2], alpha)
    if function in ("hsl", "hsla"):
        shares = colorsys.hls_to_rgb(parts[0] / 360 % 1, parts[2], parts[1])
        return Color(255 * shares[0], 255 * shares[1], 255 * shares[2], alpha)
    if function == "color":
        return Color(255 * parts[0], 255 * parts[1], 255 * parts[2], alpha)
    light = parts[0] / (100 if function in ("lab", "lch") and not numbers[0][1] else 1)
    is_gray = function in ("lab", "lch", "oklab", "oklch") and not 0.03 < light < 0.97
    gray = 255.0 * round(light)
    return Color(gray, gray, gray, alpha) if is_gray else None

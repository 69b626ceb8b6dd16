"""Commands of LaTeX that stand for text: those that a source defines, and the numbers and units of siunitx."""

from __future__ import annotations

import re

from tunewright.documents.markup import raised

_DEFINITION = re.compile(
    r"\\(?:(?:re)?newcommand|providecommand|DeclareRobustCommand)\*?\s*(?:\{\s*\\([A-Za-z]+)\s*\}|\\([A-Za-z]+))\s*"
    r"(?:\[([1-9])\])?\s*(\[[^\]\n]*\])?\s*\{|\\def\s*\\([A-Za-z]+)\s*\{"
)
_USE = re.compile(r"\\([A-Za-z]+)[ \t]*(?:\{\})?")
_MOST_PASSES = 5  # a macro may use others
_MOST_GROWTH = 4  # of the text, by all macros
_TEST = re.compile(r"\\(if(?!f\b|thenelse\b)[a-zA-Z]*|else|fi)(?![a-zA-Z])[ \t]*\n?")
_GROUP = r"\{((?:[^{}]|\{[^{}]*\})*)\}"
_OPTIONS = r"\s*(?:\[[^\]\n]*\])?\s*"
_RANGE = re.compile(rf"\\(?:SIrange|qtyrange){_OPTIONS}{_GROUP}\s*{_GROUP}\s*{_GROUP}")
_NUMBERS = re.compile(rf"\\numrange{_OPTIONS}{_GROUP}\s*{_GROUP}")
_QUANTITY = re.compile(rf"\\(?:SI|qty){_OPTIONS}{_GROUP}\s*{_GROUP}")
_UNIT = re.compile(rf"\\(?:si|unit){_OPTIONS}{_GROUP}")
_ANGLE = re.compile(rf"\\ang{_OPTIONS}\{{([^{{}};]*)\}}")
_PREFIXES = {
    "pico": "p", "nano": "n", "micro": "µ", "milli": "m", "centi": "c", "deci": "d", "hecto": "h", "kilo": "k",
    "mega": "M", "giga": "G", "tera": "T",
}  # fmt: skip
_UNITS = {
    "gram": "g", "meter": "m", "metre": "m", "second": "s", "minute": "min", "hour": "h", "day": "d", "ampere": "A",
    "kelvin": "K", "mole": "mol", "candela": "cd", "hertz": "Hz", "newton": "N", "pascal": "Pa", "joule": "J",
    "watt": "W", "coulomb": "C", "volt": "V", "farad": "F", "ohm": "Ω", "siemens": "S", "weber": "Wb", "tesla": "T",
    "henry": "H", "lumen": "lm", "lux": "lx", "becquerel": "Bq", "gray": "Gy", "sievert": "Sv", "liter": "L",
    "litre": "L", "tonne": "t", "hectare": "ha", "electronvolt": "eV", "bar": "bar", "bit": "bit", "byte": "B",
    "percent": "%", "celsius": "°C", "degreeCelsius": "°C", "degree": "°", "squared": "²", "cubed": "³",
}  # fmt: skip


def with_macros(text: str) -> str:
    """Return a source in which the commands that it defines are replaced by what they stand for."""
    macros: dict[str, tuple[int, str | None, str]] = {}  # by name: number of arguments, default of the first, body
    pieces, at = [], 0
    while match := _DEFINITION.search(text, at):
        end = closing(text, match.end())
        name = match[1] or match[2] or match[5]
        macros[name] = (int(match[3] or 0), match[4], text[match.end() : end])
        pieces.append(text[at : match.start()])
        at = end + 1
    if not macros:
        return text
    text = "".join(pieces) + text[at:]
    most = _MOST_GROWTH * len(text) + 10_000
    for _ in range(_MOST_PASSES):
        expanded = _expanded(text, macros)
        if expanded == text or len(expanded) > most:
            break
        text = expanded
    return text


def _expanded(text: str, macros: dict[str, tuple[int, str | None, str]]) -> str:
    """Return the text with each use of a macro replaced once."""
    pieces, at, length = [], 0, 0
    search_from = 0
    while (match := _USE.search(text, max(at, search_from))) and length < 5 * len(text) + 10_000:
        if match[1] not in macros:
            search_from = match.end()
            continue
        num_arguments, default, body = macros[match[1]]
        arguments, end = [], match.end()
        if default is not None:
            given = re.compile(r"\s*\[([^\]\n]*)\]").match(text, end)
            arguments.append(given[1] if given else default[1:-1])
            end = given.end() if given else end
        while len(arguments) < num_arguments and (opening := re.compile(r"\s*\{").match(text, end)):
            close = closing(text, opening.end())
            arguments.append(text[opening.end() : close])
            end = close + 1
        for number, argument in enumerate(arguments, 1):
            body = body.replace(f"#{number}", argument)
        # The blanks after a command are eaten, unless braces end it.
        pieces += [text[at : match.start()], body]
        length += len(pieces[-2]) + len(body)
        at = end
    return "".join(pieces) + text[at:]


def without_unshown(text: str) -> str:
    r"""Return a source without what is in ``\iffalse ... \fi``, or after the ``\else`` of ``\iftrue``."""
    pieces, at = [], 0
    open_tests: list[str] = []
    hidden_since: tuple[int, int] | None = None  # depth and start of what is not shown
    for match in _TEST.finditer(text):
        word = match[1]
        depth = len(open_tests)
        if word not in ("else", "fi"):
            open_tests.append(word)
            if word == "iffalse" and hidden_since is None:
                hidden_since = (depth + 1, match.start())
        elif open_tests:
            is_own = hidden_since is not None and hidden_since[0] == depth
            if hidden_since is not None and is_own:
                pieces.append(text[at : hidden_since[1]])
                at, hidden_since = match.end(), None
            elif word == "else" and open_tests[-1] == "iftrue" and hidden_since is None:
                hidden_since = (depth, match.start())
            if word == "fi":
                open_tests.pop()
    return "".join(pieces) + text[at:]


def closing(text: str, start: int) -> int:
    """Return where the brace closes that opens before ``start``."""
    depth = 1
    for match in re.compile(r"\\.|[{}]", re.DOTALL).finditer(text, start):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if not depth:
            return match.start()
    return len(text)


def with_quantities(text: str) -> str:
    r"""Return a source with the numbers and units of siunitx as text: ``\SI{12.5}{\kilo\gram}`` is 12.5 kg."""
    text = _RANGE.sub(lambda m: f"{m[1]} to {m[2]}{_unit(m[3])}", text)
    text = _NUMBERS.sub(lambda m: f"{m[1]} to {m[2]}", text)
    text = _QUANTITY.sub(lambda m: f"{m[1]}{_unit(m[2])}", text)
    text = _UNIT.sub(lambda m: _unit(m[1]).strip(), text)
    return _ANGLE.sub(lambda m: f"{m[1]}°", text)


def _unit(source: str) -> str:
    r"""Return the text of a unit, with a blank before it: ``\metre\per\second`` is m/s, ``m.s^{-1}`` is m·s⁻¹."""
    source = re.sub(r"\\tothe\{([^{}]*)\}|\^\{?(-?\d+)\}?", lambda m: raised(m[1] or m[2]), source)
    text, is_prefix, is_first = "", False, True
    for name, literal in re.findall(r"\\([A-Za-z]+)\s*|([^\\\s{}])", source):
        if name == "per":
            text, is_prefix = text + "/", True
            continue
        piece = _PREFIXES.get(name) or _UNITS.get(name) or literal.replace(".", "·").replace("~", "·") or name
        is_apart = name in _UNITS and piece not in "²³" or name in _PREFIXES
        text += "·" * (is_apart and not is_prefix and not is_first) + piece
        is_prefix, is_first = name in _PREFIXES, False
    return text if text in ("", "°") else f" {text}"

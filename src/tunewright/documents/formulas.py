"""Formulas of office documents (Office MathML, MathML) as LaTeX."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunewright.documents.package import local_name

if TYPE_CHECKING:
    from lxml.etree import _Element as Element

_PATTERNS = {  # of an element: how its parts are written, by their names (Office MathML) or in order (MathML)
    "f": r"\frac{{{num}}}{{{den}}}",
    "sSup": r"{e}^{{{sup}}}",
    "sSub": r"{e}_{{{sub}}}",
    "sSubSup": r"{e}_{{{sub}}}^{{{sup}}}",
    "sPre": r"_{{{sub}}}^{{{sup}}}{e}",
    "limLow": r"{e}_{{{lim}}}",
    "limUpp": r"{e}^{{{lim}}}",
    "func": r"{fName} {e}",
    "bar": r"\overline{{{e}}}",
    "acc": r"\hat{{{e}}}",
    "mfrac": r"\frac{{{0}}}{{{1}}}",
    "msup": r"{0}^{{{1}}}",
    "msub": r"{0}_{{{1}}}",
    "msubsup": r"{0}_{{{1}}}^{{{2}}}",
    "munder": r"{0}_{{{1}}}",
    "mover": r"{0}^{{{1}}}",
    "munderover": r"{0}_{{{1}}}^{{{2}}}",
    "mroot": r"\sqrt[{1}]{{{0}}}",
}
_ROWS = {"m": "mr", "eqArr": "e", "mtable": "mtr"}  # of a matrix: the name of its rows
_PROPERTIES = ("Pr", "ctrlPr", "annotation", "annotation-xml")
_MAX_DEPTH = 100


def latex(element: Element, depth: int = 0) -> str:
    """Return a formula as LaTeX; an element without a rule is the formula of its parts, one after the other.

    Formulas nested deeper than 100 levels become their bare characters.
    """
    if depth > _MAX_DEPTH:
        return "".join(map(str, element.itertext()))
    name = local_name(element)
    parts = [part for part in element if local_name(part) and not local_name(part).endswith(_PROPERTIES)]
    texts = [latex(part, depth + 1) for part in parts]
    if name in _PATTERNS:
        named: dict[str, str] = {}
        for part, text in zip(parts, texts, strict=True):
            named.setdefault(local_name(part), text)
        try:
            return _PATTERNS[name].format(*texts, **named)
        except (KeyError, IndexError):  # a part is missing
            return "".join(texts)
    if name in _ROWS:
        return " \\\\ ".join(texts)
    if name in ("mr", "mtr"):
        return " & ".join(texts)
    if name in ("rad", "msqrt"):
        degree = next((text for part, text in zip(parts, texts, strict=True) if local_name(part) == "deg"), "")
        inner = "".join(text for part, text in zip(parts, texts, strict=True) if local_name(part) != "deg")
        return (f"\\sqrt[{degree}]" if degree else "\\sqrt") + f"{{{inner}}}"
    if name == "nary":
        return _n_ary(element, parts, texts)
    if name == "d":
        return (
            _value(element, "begChr", "(") + _value(element, "sepChr", "|").join(texts) + _value(element, "endChr", ")")
        )
    if name in ("t", "mi", "mn", "mo", "ms", "mtext"):
        return "".join(map(str, element.itertext())).strip() if name != "t" else element.text or ""
    return "".join(texts)


def _n_ary(element: Element, parts: list[Element], texts: list[str]) -> str:
    named = {local_name(part): text for part, text in zip(parts, texts, strict=True)}
    low = f"_{{{named['sub']}}}" if named.get("sub") else ""
    high = f"^{{{named['sup']}}}" if named.get("sup") else ""
    return f"{_value(element, 'chr', '∫')}{low}{high} {named.get('e', '')}"


def _value(element: Element, name: str, default: str) -> str:
    """Return the value of a property of an element of Office MathML."""
    for match in element.iterfind(f"./{{*}}*/{{*}}{name}"):
        for key, value in match.attrib.items():
            if str(key).rpartition("}")[2] == "val":
                return str(value)
    return default

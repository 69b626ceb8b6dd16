"""LaTeX sources (.tex)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from tunewright.documents.latex_macros import closing, with_macros, with_quantities, without_unshown
from tunewright.documents.markup import (
    Block,
    Failure,
    ReadItems,
    assemble,
    decode_text,
    in_encoding,
    raised,
    single_line,
    struck,
)

_COMMENT = re.compile(r"(?<!\\)((?:\\\\)*)%.*(?:\n[ \t]*)?")
_LEVELS = {
    "part": 1,
    "chapter": 1,
    "section": 2,
    "subsection": 3,
    "subsubsection": 4,
    "paragraph": 5,
    "subparagraph": 6,
}
_HEADING = re.compile(rf"\\({'|'.join(_LEVELS)})\*?\s*(?:\[[^\]\n]*\])?\s*\{{")
_VERBATIM = re.compile(r"\\begin\{(?:verbatim|lstlisting|minted)\*?\}")
_MATH = re.compile(
    r"(?<!\\)\$\$|\\\[|\\\("
    r"|\\begin\{(?:equation|align|gather|multline|eqnarray|displaymath|math|flalign|alignat)\*?\}"
)
_INLINE = re.compile(r"(?<![\\$])\$[^$\n]+(?:\n[^$\n]+)*\$")
_TABLE = re.compile(r"\\begin\{(?:tabular[x*]?|longtable|array)\}")
_CLOSING = {"$$": "$$", r"\[": r"\]", r"\(": r"\)"}
# Commands whose argument no reader sees, or sees in another way.
_UNSEEN = re.compile(
    r"\\(?:label|bibliography|bibliographystyle|usepackage|documentclass|input|include"
    r"|includegraphics|vspace|hspace|pagestyle|thispagestyle|newcommand|renewcommand|index"
    r"|hypersetup|parbox|raisebox|footnotemark|pagebreak|linebreak|nopagebreak|definecolor)(?![A-Za-z])"
    r"\*?\s*(?:\[[^\]]{0,500}\]\s*)*(?:\{[^{}]*\}\s*)?"
    r"|\\(?:setlength|addtolength|setcounter|addtocounter|rule)(?![A-Za-z])\s*(?:\[[^\]]{0,500}\]\s*)?\{[^{}]*\}\s*\{[^{}]*\}"
)
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\{[^{}]*\}(?:\[[^\]\n]*\])?")
_COMMAND = re.compile(r"\\([a-zA-Z]+)\*?[ \t]*(?:\[[^\]\n]{0,500}\][ \t]*(?=\{))?")
_FRACTION = re.compile(r"([0-9]?)\\(?:nice|s|t|d)?frac\s*(?:\[[^\]\n]*\])?\{([^{}]*)\}\s*\{([^{}]*)\}")
_COMMENT_BLOCK = re.compile(r"\\begin\{comment\}")
_MULTIROW = re.compile(r"\\multirow\*?(?:\[[^\]\n]*\])?\{([0-9]{1,3})\}(?:\[[^\]\n]*\])?\{[^{}]*\}")
_ACCENTS = {"'": "\u0301", "`": "\u0300", "^": "\u0302", '"': "\u0308", "~": "\u0303", "=": "\u0304", ".": "\u0307"}
_ACCENTS |= {"c": "\u0327", "v": "\u030c", "u": "\u0306", "H": "\u030b", "r": "\u030a", "k": "\u0328"}
_ACCENT = re.compile(r"""\\(?:(['`^"~=.])\s*|([cvuHrk])(?:\s+|(?=\{)))(?:\{\\?([A-Za-z])\}|\\?([A-Za-z]))""")
_LETTERS = {"ss": "ß", "o": "ø", "O": "Ø", "l": "ł", "L": "Ł", "ae": "æ", "AE": "Æ", "oe": "œ", "OE": "Œ", "aa": "å"}
_LETTERS |= {"AA": "Å", "i": "ı", "S": "§", "dots": "…", "ldots": "…", "euro": "€", "pounds": "£", "copyright": "©"}
_LETTERS |= {"textdegree": "°", "textbackslash": "\\", "item": "\n- ", "par": "\n\n", "newline": "\n", "TeX": "TeX"}
_LETTERS |= {
    "EUR": "€",
    "pm": "±",
    "textpm": "±",
    "times": "×",
    "texttimes": "×",
    "cdot": "·",
    "textmu": "µ",
    "mu": "µ",
}
_LETTERS |= {"leq": "≤", "le": "≤", "geq": "≥", "ge": "≥", "approx": "≈", "to": "→", "infty": "∞"}
_LETTERS |= {"LaTeX": "LaTeX", "textemdash": "—", "textendash": "–", "quad": " ", "qquad": " "}


def read_tex(path: Path) -> ReadItems:
    """Read a LaTeX source: sections, text, formulas as they are written, and the rows of tables."""
    decoded = decode_text(path.read_bytes())
    if isinstance(decoded, Failure):
        return [decoded]
    text = decoded.text.replace("\r\n", "\n").replace("\r", "\n")
    literal: list[str] = []

    def hold(content: str) -> str:
        """Put what is not to be read as markup aside; a mark of two private characters remains."""
        literal.append(content)
        return f"\ue000{len(literal) - 1}\ue001"

    text = text.replace("\ue000", "").replace("\ue001", "")
    left_out = list(_left_out(_COMMENT.sub("", text)))
    text = _replaced(text, _VERBATIM, lambda piece, inner: hold(inner.strip("\n")))
    text = without_unshown(_replaced(text, _COMMENT_BLOCK, lambda piece, inner: ""))
    text = re.sub(r"\\verb\*?([^\sA-Za-z*])(.*?)\1", lambda match: hold(match[2]), text)
    text = with_quantities(with_macros(_COMMENT.sub(r"\1", text)))
    title, author = (_bare(_argument(text, name)) for name in ("title", "author"))
    before, start, body = text.partition(r"\begin{document}")
    body = body.partition(r"\end{document}")[0] if start else before
    for name in ("title", "author", "date"):
        body = body.replace(f"\\{name}{{{_argument(body, name)}}}", "")
    body = _replaced(body, _MATH, lambda piece, inner: hold(_formula(piece)))
    body = _INLINE.sub(lambda match: hold(match[0]), body)
    body = _replaced(body, _TABLE, lambda piece, inner: f"\n\n{_rows(inner)}\n\n")

    def whole(part: str) -> str:
        return re.sub("\ue000(\\d+)\ue001", lambda match: literal[int(match[1])], _bare(part))

    metadata = {"author": single_line(author)}
    blocks: list[Block] = [(level, whole(part)) for level, part in _sections(body)]
    return [in_encoding(assemble(blocks, path.stem, title, metadata=metadata, left_out=left_out), decoded)]


def _left_out(text: str) -> Iterator[Failure]:
    """Yield the pictures and files that a source includes, which are not read with it."""
    for part, commands in (("figures", "includegraphics"), ("included files", "input|include|subfile|bibliography")):
        names = re.findall(rf"\\(?:{commands})\s*(?:\[[^\]]{{0,500}}\])?\{{([^{{}}]+)\}}", text)
        if names:
            yield Failure(part=part, reason="not read", detail=single_line(", ".join(names))[:200])


def _replaced(text: str, opening: re.Pattern[str], replacement: Callable[[str, str], str]) -> str:
    """Return the text with each stretch from an opening to its closing replaced, by the stretch and what is inside it.

    The time is linear: a closing that is missing once is not searched again.
    """
    pieces: list[str] = []
    missing: set[str] = set()
    at = kept = 0
    while match := opening.search(text, at):
        closing = _CLOSING.get(match[0]) or match[0].replace("begin", "end", 1)
        end = -1 if closing in missing else text.find(closing, match.end())
        if end < 0:
            missing.add(closing)
            at = match.end()
            continue
        at = end + len(closing)
        pieces += [text[kept : match.start()], replacement(text[match.start() : at], text[match.end() : end])]
        kept = at
    return "".join(pieces) + text[kept:]


def _formula(text: str) -> str:
    return re.sub(r"\\label\{[^{}]*\}", "", text)


def _argument(text: str, command: str) -> str:
    """Return the argument of a command in braces; empty if there is none."""
    start = re.search(rf"\\{command}\s*(?:\[[^\]]{{0,500}}\])?\{{", text)
    return text[start.end() : closing(text, start.end())] if start else ""


def _sections(body: str) -> Iterator[Block]:
    at = 0
    while match := _HEADING.search(body, at):
        end = closing(body, match.end())
        yield 0, body[at : match.start()]
        yield _LEVELS[match[1]], body[match.end() : end]
        at = end + 1
    yield 0, body[at:]


def _rows(content: str) -> str:
    """Return the rows of a table as lines with bars."""
    content = re.sub(r"^\s*(?:\[[^\]]{0,500}\])?(?:\{(?:[^{}]|\{[^{}]*\})*\}\s*)+", "", content)
    content = re.sub(
        r"\\(?:hline|toprule|midrule|bottomrule|cline\{[^{}]*\}|cmidrule(?:\([^)]*\))?\{[^{}]*\})", "", content
    )
    content = re.sub(r"\\multicolumn\{[^{}]*\}\{[^{}]*\}", "", content)
    rows = []
    spans: dict[int, tuple[int, str]] = {}  # by column: how many rows below have a cell's text, and the text
    for row in re.split(r"\\\\(?:\[[^\]]{0,500}\])?", content):
        cells = [" ".join(cell.split()) for cell in re.split(r"(?<!\\)&", row)]
        if not any(cells):
            continue
        for column, cell in enumerate(cells):
            left, above = spans.pop(column, (0, ""))
            if match := _MULTIROW.match(cell):
                cells[column] = cell[match.end() :]
                spans[column] = (int(match[1]) - 1, cells[column])
            elif left:
                cells[column] = cell or above
                spans[column] = (left - 1, above)
        rows.append(" | ".join(cells))
    return "\n".join(rows)


def _bare(text: str) -> str:
    """Return text without its commands; their arguments are text, notes stand in brackets."""
    text = _UNSEEN.sub("", text)
    text = re.sub(
        r"\\(?:ref|eqref|pageref|autoref|[Cc]ref|cite[a-z]*)\*?\s*(?:\[[^\]]{0,500}\]\s*)*\{([^{}]*)\}", r"[\1]", text
    )
    text = _ENVIRONMENT.sub("\n\n", text)
    text = _ACCENT.sub(lambda match: (match[3] or match[4]) + _ACCENTS[match[1] or match[2]], text)
    text = re.sub(r"\\footnote\s*\{((?:[^{}]|\{[^{}]*\})*)\}", r" (\1)", text)
    text = re.sub(r"\\textsuperscript\s*\{([^{}]*)\}", lambda match: raised(match[1]), text)
    text = re.sub(r"\\(?:sout|st)\s*\{([^{}]*)\}", lambda match: struck(match[1]).replace("~", "\x03"), text)
    text = re.sub(r"\\(?:text)?color(?:box)?\s*(?:\[[^\]\n]*\])?\s*\{[^{}]*\}", "", text)
    text = re.sub(r"\\item\s*\[([^\]\n]{0,200})\]", r"\\item \1 ", text)
    text = _FRACTION.sub(lambda match: f"{match[1]}{' ' if match[1] else ''}{match[2]}/{match[3]}", text)
    text = re.sub(r"\\href\s*\{[^{}]*\}", "", text)
    text = re.sub(r"\\\\(?:\[[^\]\n]*\])?", "\n", text)
    text = re.sub(r"\}[ \t]*\{", "} {", text)  # the arguments of an unknown command are not glued
    text = _COMMAND.sub(lambda match: _LETTERS.get(match[1], ""), text)
    text = re.sub(r"\\([%&$#_{} ])", lambda match: {"{": "\x01", "}": "\x02"}.get(match[1], match[1]), text)
    text = (
        re.sub(r"\\[!/>@-]", "", re.sub(r"\\[,;:]", " ", text)).replace("~", " ").replace("---", "—").replace("--", "–")
    )
    text = text.replace("``", "“").replace("''", "”").replace("{", "").replace("}", "")
    return text.replace("\x01", "{").replace("\x02", "}").replace("\x03", "~")

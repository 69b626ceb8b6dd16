"""LaTeX sources (.tex) and rich text (.rtf)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from tunewright.documents.latex_macros import closing, with_macros, with_quantities
from tunewright.documents.markup import (
    Block,
    Failure,
    ReadItems,
    assemble,
    decode_text,
    in_encoding,
    parse_errors,
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
    r"|includegraphics|vspace|hspace|setlength|setcounter|bibliographystyle|pagestyle|thispagestyle|newcommand|renewcommand|index|hypersetup)"
    r"\*?\s*(?:\[[^\]]{0,500}\]\s*)*(?:\{[^{}]*\}\s*)?"
)
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\{[^{}]*\}(?:\[[^\]\n]*\])?")
_COMMAND = re.compile(r"\\([a-zA-Z]+)\*?[ \t]*")
_ACCENTS = {"'": "\u0301", "`": "\u0300", "^": "\u0302", '"': "\u0308", "~": "\u0303", "=": "\u0304", ".": "\u0307"}
_ACCENTS |= {"c": "\u0327", "v": "\u030c", "u": "\u0306", "H": "\u030b", "r": "\u030a", "k": "\u0328"}
_RTF_RAISED = re.compile(r"(\\super(?:\\[a-z]+-?[0-9]*)*[ ]?)([0-9+-]{1,12})(?=[\\}])")
_RTF_STRUCK = re.compile(r"(\\striked?(?:1|(?![0-9a-z]))(?:\\[a-z]+-?[0-9]*)*[ ]?)([^\\{}\n]{1,200})(?=[\\}])")
_ACCENT = re.compile(r"""\\(?:(['`^"~=.])\s*|([cvuHrk])(?:\s+|(?=\{)))(?:\{\\?([A-Za-z])\}|\\?([A-Za-z]))""")
_LETTERS = {"ss": "ß", "o": "ø", "O": "Ø", "l": "ł", "L": "Ł", "ae": "æ", "AE": "Æ", "oe": "œ", "OE": "Œ", "aa": "å"}
_LETTERS |= {"AA": "Å", "i": "ı", "S": "§", "dots": "…", "ldots": "…", "euro": "€", "pounds": "£", "copyright": "©"}
_LETTERS |= {"textdegree": "°", "textbackslash": "\\", "item": "\n- ", "par": "\n\n", "newline": "\n", "TeX": "TeX"}
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
    content = re.sub(r"\\multi(?:column|row)\{[^{}]*\}\{[^{}]*\}", "", content)
    rows = [
        " | ".join(cell.strip() for cell in re.split(r"(?<!\\)&", row))
        for row in re.split(r"\\\\(?:\[[^\]]{0,500}\])?", content)
    ]
    return "\n".join(" ".join(row.split()) for row in rows if row.strip(" |\n"))


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


def read_rtf(path: Path) -> ReadItems:
    """Read rich text; the cells of a table row are one line with bars, pictures are left out and counted."""
    from striprtf.striprtf import rtf_to_text

    raw = path.read_bytes()
    if not raw.lstrip().startswith(b"{\\rtf"):
        return [Failure(reason="unreadable", detail=r"not rich text: it does not start with {\rtf")]
    source = raw.decode("latin-1")
    pictures = source.count("\\pict")
    source = _RTF_RAISED.sub(lambda match: match[1] + "".join(f"\\u{ord(c)}?" for c in raised(match[2])), source)
    source = _RTF_STRUCK.sub(lambda match: match[1] + struck(match[2]), source)
    with parse_errors(".rtf"):
        text = rtf_to_text(source, errors="replace")
    text = "\n".join(line.strip().rstrip("|").replace("|", " | ") if "|" in line else line for line in text.split("\n"))
    left_out = [Failure(part="pictures", reason="not read", detail=f"{pictures} picture(s)")] if pictures else []
    return [assemble([(0, text)], path.stem, left_out=left_out)]

"""A reader for each document format, and the table of readers by file extension."""

from __future__ import annotations

import csv
import json
import re
import statistics
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewright.documents.markup import (
    Block,
    Failure,
    ReadDocument,
    ReadItems,
    assemble,
    clean_text,
    decode_text,
    markdown_blocks,
    parse_errors,
    parse_front_matter,
    single_line,
    without_comments,
)
from tunewright.text.normalization import normalize
from tunewright.text.tables import parse_table

if TYPE_CHECKING:
    from bs4 import BeautifulSoup, Tag
    from docx.document import Document
    from docx.table import Table
    from docx.text.paragraph import Paragraph


_BODY_COLUMNS = ("text", "content", "body")


def _row(row: dict[str, Any], stem: str, number: int) -> ReadDocument | Failure:
    """Return the document of a row: its text is the column text, content or body; other columns are metadata."""
    columns = {key.strip().lower(): key for key in row if isinstance(key, str)}
    key = next((columns[name] for name in _BODY_COLUMNS if name in columns), None)
    if key is None or not isinstance(row[key], str):
        return _no_text_column(row, str(number))
    title = columns.get("title")
    others = {
        single_line(name): single_line(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
        for name, value in row.items()
        if name not in (key, title, None) and value not in (None, "")
    }
    # A row with an id keeps its name when other rows come or go.
    part = others.get("id", "")[:80] or str(number)
    declared = str(row[title] or "") if title else ""
    return assemble([(0, row[key])], f"{stem} {part}", declared, metadata=others, part=part)


def _no_text_column(columns: Iterable[object], part: str) -> Failure:
    names = single_line(", ".join(map(str, columns))) or "none"
    expected = " or ".join(_BODY_COLUMNS)
    return Failure(part=part, reason="no text column", detail=f"columns: {names[:120]}; wanted: {expected}")


def read_json_lines(path: Path) -> ReadItems:
    """Read one document per JSON line: an object with the key text, content or body, or a bare string."""
    text = decode_text(path.read_bytes())
    if isinstance(text, Failure):
        return [text]
    items: ReadItems = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            row = {"text": row} if isinstance(row, str) else row
            items.append(_row(row if isinstance(row, dict) else {}, path.stem, number))
        except ValueError as error:
            items.append(Failure(part=str(number), reason="not JSON", detail=str(error)))
        except RecursionError:
            items.append(Failure(part=str(number), reason="not JSON", detail="nested too deep"))
    return items


def read_csv(path: Path) -> ReadItems:
    """Read one document per row of a CSV table with a header line; the delimiter is a comma, semicolon or tab."""
    text = decode_text(path.read_bytes())
    if isinstance(text, Failure):
        return [text]
    try:
        columns, rows = parse_table(text)
    except csv.Error as error:
        return [Failure(reason="not a table", detail=str(error))]
    if not any(name.strip().lower() in _BODY_COLUMNS for name in columns):
        return [_no_text_column(columns, "")]
    return [
        Failure(part=str(number), reason="not a row of the table", detail=fault)
        if fault
        else _row(cells, path.stem, index)
        for index, (number, cells, fault) in enumerate(rows, 1)
    ]


MAX_UNPACKED_BYTES = 512 * 2**20  # of a .docx; a long book with pictures is far smaller

_BLOCK_TAG = re.compile(
    "h[1-6]|p|div|section|article|main|header|footer|aside|address|blockquote|pre|ul|ol|li|dl|dt|dd|table|caption"
    "|thead|tbody|tr|figure|figcaption|details|summary|form|fieldset|body|html|title"
)
_INVISIBLE_TAGS = ["script", "style", "nav", "template", "noscript", "iframe", "svg", "button", "select"]
_HYPHENATED = re.compile(r"(?<=[^\W\d_])-\n(?=[^\W\d_A-Z])")


def read_markdown(path: Path) -> ReadItems:
    """Read Markdown; the front matter is metadata, and comments are dropped."""
    text = decode_text(path.read_bytes())
    if isinstance(text, Failure):
        return [text]
    metadata, text = parse_front_matter(clean_text(text))
    metadata = {key: single_line(value) for key, value in metadata.items()}
    title = metadata.pop("title", "")
    return [assemble(markdown_blocks(without_comments(text)), path.stem, title, metadata=metadata)]


def read_plain(path: Path) -> ReadItems:
    """Read plain text in UTF-8, UTF-16 or Latin-1."""
    text = decode_text(path.read_bytes())
    return [text if isinstance(text, Failure) else assemble([(0, text)], path.stem)]


# What a reader of the page cannot see: not displayed, outside of the page, clipped away, without size or ink.
_HIDING = re.compile(
    r"display:none|visibility:(?:hidden|collapse)|content-visibility:hidden|scale\(0\)|clip-path:inset\((?:50|100)%"
    r"|(?:left|right|top|bottom|text-indent|margin-left|margin-top):-\d{3,}|translate[xy]?\(-\d{3,}|color:transparent"
    r"|clip:rect\([01](?:px)?,?[01]|(?=.*overflow:hidden)(?=(?:.*;)?(?:max-)?(?:height|width):[01](?:px)?(?:;|$))"
)
_SIZE = re.compile(r"(?:^|;)(font-size|opacity):(\d*\.?\d+)(px|pt|em|rem|%)?")
_SMALLEST = {"px": 2.0, "pt": 2.0, "em": 0.1, "rem": 0.1, "%": 10.0}  # visible font sizes are larger
_INK = re.compile(r"(?:^|;)color:(#[0-9a-f]+|rgba?\([^)]*\)|[a-z]+)")
_PAPER = re.compile(r"(?:^|;)background(?:-color)?:([^;]*)")
_WHITE = re.compile(
    r"white|#fff(?:f|fff|fffff)?|#fefefe|rgba?\(25[45],25[45],25[45](?:,[\d.]+)?\)|rgba\([^)]*,0(?:\.0+)?\)"
)
_AT_RULE = re.compile(r"/\*.*?\*/|@[^{};]{0,400}(?:;|\{(?:[^{}]*\{[^{}]*\})*[^{}]*\})", re.DOTALL)
_OPENS = re.compile(r"display:none|visibility:|(?:height|opacity):0")
_SIMPLE = re.compile(r"[\w-]*[.#]?[\w-]+")
_RULE = re.compile(r"([^{}]{1,400})\{([^{}]{0,2000})\}")


def _hiding_rules(soup: BeautifulSoup) -> Iterator[str]:
    """Yield the simple selectors (tag, .class, #id) under which the page's own style sheets hide text for good.

    What a sheet does not display, or only on some screens, a reader may open: a tab, a menu, an answer.
    """
    for css in soup.find_all("style"):
        for selectors, style in _RULE.findall(_AT_RULE.sub("", css.get_text())):
            if not _OPENS.search(_compact(style)) and _hides(_compact(style), ()):
                yield from (name for name in map(str.strip, selectors.split(",")) if _SIMPLE.fullmatch(name))


def _compact(style: str) -> str:
    return re.sub(r"\s+", "", style).lower()


def _hides(style: str, around: Iterable[Tag]) -> bool:
    """Return whether a style hides its text; ``around`` are the tags that may color the ground."""
    for name, number, unit in _SIZE.findall(style):
        least = 0.1 if name == "opacity" and unit != "%" else _SMALLEST.get(unit, 2.0)
        if float(number) <= least:
            return True
    return bool(_HIDING.search(style)) or _is_white_on_white(style, around)


def _is_white_on_white(style: str, around: Iterable[Tag]) -> bool:
    """Return whether the text has the color of its page: that of its background, or white where none is set."""
    ink = _INK.search(style)
    if not ink:
        return False
    papers = [_PAPER.search(style), *(_PAPER.search(_compact(str(tag.get("style") or ""))) for tag in around)]
    paper = next((match[1] for match in papers if match), "")
    return ink[1] == paper or bool(_WHITE.fullmatch(ink[1])) and (not paper or bool(_WHITE.fullmatch(paper)))


def _is_hidden(tag: Tag) -> bool:
    style = _compact(str(tag.get("style") or ""))
    font = tag.name == "font" and (str(tag.get("size")) == "0" or _WHITE.fullmatch(str(tag.get("color") or "").lower()))
    return (
        tag.has_attr("hidden")
        or str(tag.get("aria-hidden")).lower() == "true"
        or bool(font)
        or bool(style and _hides(style, tag.parents))
    )


def _html_blocks(soup: BeautifulSoup) -> Iterator[Block]:
    """Yield the visible text of each block element; bars separate the cells of a table row."""
    from bs4.element import CData, NavigableString

    hidden = [tag for rule in dict.fromkeys(_hiding_rules(soup)) for tag in soup.select(rule)]
    for tag in [*hidden, *soup.find_all(_INVISIBLE_TAGS), *soup.find_all(_is_hidden)]:
        if not tag.decomposed:
            tag.decompose()
    for tag in soup.find_all("br"):
        tag.replace_with("\v")
    for tag in soup.find_all(["td", "th"]):
        if tag.find_previous_sibling(["td", "th"]):
            tag.insert_before(" | ")
    # Comments, doctypes and declarations are subclasses.
    nodes = [node for node in soup.find_all(string=True) if type(node) in (NavigableString, CData)]
    blocks = [next((tag for tag in node.parents if _BLOCK_TAG.fullmatch(tag.name)), None) for node in nodes]
    for _, group in groupby(zip(blocks, nodes, strict=True), key=lambda pair: id(pair[0])):
        pairs = list(group)
        name = pairs[0][0].name if pairs[0][0] else ""
        text = "".join(node for _, node in pairs)
        if name != "pre":
            text = "\n".join(" ".join(line.split()).strip(" |") for line in text.split("\v"))
        if name != "title":
            yield (int(name[1]) if re.fullmatch("h[1-6]", name) else 0), text


def read_html(path: Path) -> ReadItems:
    """Read a web page; scripts, styles, navigation and hidden elements are dropped."""
    from bs4 import BeautifulSoup

    raw = path.read_bytes()
    text = decode_text(raw)
    if isinstance(text, Failure):
        return [text]
    # A page that is valid UTF-8 needs no detection; for others the parser reads the page's own declaration.
    with parse_errors("page"):
        soup = BeautifulSoup(text if _is_utf8(raw) else raw, "html.parser")
        title = soup.title.get_text() if soup.title else ""
        blocks = list(_html_blocks(soup))
    return [assemble(blocks, path.stem, fallback_title=title)]


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _check_package(path: Path) -> Failure | None:
    """Return why a .docx must not be opened (not a zip, encrypted, too large when unpacked), or None."""
    try:
        with zipfile.ZipFile(path) as package:
            members = package.infolist()
    except zipfile.BadZipFile:
        return Failure(reason="unreadable", detail="not a .docx: an old .doc, or protected by a password?")
    if any(member.flag_bits & 1 for member in members):
        return Failure(reason="encrypted", detail="protected by a password")
    if len({member.filename for member in members}) < len(members):
        return Failure(reason="unreadable", detail="two parts of the same name")
    # The sizes are declared by the file, but zipfile never unpacks more than a member declares.
    num_bytes = sum(member.file_size for member in members)
    if num_bytes > MAX_UNPACKED_BYTES:
        return Failure(reason="too large", detail=f"unpacks to {num_bytes / 2**20:,.0f} MB")
    return None


def _paragraph_text(paragraph: Paragraph) -> str:
    """Return a paragraph's text: with accepted insertions and links, without hidden runs and drawings' fallbacks."""
    nodes = paragraph._p.xpath(
        ".//w:r[not(w:rPr/w:vanish[not(@w:val='0' or @w:val='false')])]"
        "[not(ancestor::*[local-name()='Fallback'])]"
        "/*[self::w:t or self::w:tab or self::w:br or self::w:noBreakHyphen]"
    )
    plain = {"tab": "\t", "br": "\n", "noBreakHyphen": "-"}
    return "".join(plain.get(node.tag.rpartition("}")[2]) or node.text or "" for node in nodes)


def _table_text(table: Table) -> str:
    rows = []
    for row in table.rows:
        cells = {cell._tc: cell for cell in row.cells}.values()  # a merged cell is listed once per column
        texts = ["\n".join(text for _, text in _docx_blocks(cell.iter_inner_content(), {})) for cell in cells]
        rows.append(" | ".join(" ".join(text.split()) for text in texts))
    return "\n".join(row for row in rows if row.strip(" |"))


def _docx_blocks(content: Iterable[Paragraph | Table], levels: dict[str, int]) -> Iterator[Block]:
    from docx.table import Table

    for item in content:
        if isinstance(item, Table):
            yield 0, _table_text(item)
        else:
            yield levels.get(item._p.style or "", 0), _paragraph_text(item)


def _heading_levels(document: Document) -> dict[str, int]:
    """Return the heading level by style identifier; a look-up per paragraph would search all styles each time."""
    headings = ((style, re.fullmatch(r"(?i)heading ([1-9])|(title)", style.name or "")) for style in document.styles)
    return {style.style_id: int(match[1] or 1) for style, match in headings if match}


def read_docx(path: Path) -> ReadItems:
    """Read a Word document: heading styles start sections, and each table row becomes one line."""
    import docx

    if failure := _check_package(path):
        return [failure]
    with parse_errors(".docx"):
        document = docx.Document(str(path))
        title, author = document.core_properties.title or "", document.core_properties.author or ""
        blocks = list(_docx_blocks(document.iter_inner_content(), _heading_levels(document)))
    return [assemble(blocks, path.stem, fallback_title=title, metadata={"author": author})]


def _without_running_lines(pages: list[str]) -> list[list[str]]:
    """Return each page's lines without first and last lines that most pages repeat, apart from their numbers."""
    split = [page.split("\n") for page in pages]
    for edge in (0, -1):
        forms = [re.sub(r"\d+", "#", lines[edge]) for lines in split]
        common, count = Counter(forms).most_common(1)[0]
        if len(pages) >= 3 and common and count > len(pages) / 2:
            for lines, form in zip(split, forms, strict=True):
                if form == common:
                    lines[edge] = ""
    return split


def _unwrap(lines: list[str], width: float) -> str:
    """Return the lines as running text; a line shorter than 0.7 times ``width`` ends its paragraph."""
    text = ""
    for line in lines:
        text += line + (" " if len(line) >= 0.7 * width else "\n\n")
    return text


def read_pdf(path: Path) -> ReadItems:
    """Read a PDF's text layer; the metadata ``pages`` holds the start offset of each page."""
    import pypdf

    with parse_errors("PDF"):
        try:
            reader = pypdf.PdfReader(path)
            if reader.is_encrypted and not reader.decrypt(""):
                return [Failure(reason="encrypted", detail="protected by a password")]
        except pypdf.errors.DependencyError as error:
            return [Failure(reason="encrypted", detail=str(error))]  # names the package to install
        pages = [clean_text(page.extract_text()) for page in reader.pages]
        title = single_line(str(reader.metadata.title or "")) if reader.metadata else ""
    if not any(pages):
        return [Failure(reason="no text", detail=f"{len(pages)} scanned page(s): run text recognition (OCR) first")]
    paged = _without_running_lines(pages)
    lengths = [len(line) for lines in paged for line in lines if line]
    width = statistics.median(lengths) if lengths else 0
    text, starts = "", []
    for lines in paged:
        page = clean_text(_unwrap(_HYPHENATED.sub("", "\n".join(lines)).split("\n"), width))
        # A sentence that continues on the next page is not split.
        text += "" if not text or not page else "\n\n" if text[-1] in ".!?:" else " "
        starts.append(len(text))
        text += page
    if normalize(title) not in normalize(pages[0]):  # then it is often the name of a template or a file
        title = ""
    document = assemble([(0, text)], path.stem, title, metadata={"pages": " ".join(map(str, starts))})
    return [document]


READERS: dict[str, Callable[[Path], ReadItems]] = {
    ".md": read_markdown,
    ".markdown": read_markdown,
    ".txt": read_plain,
    ".text": read_plain,
    ".pdf": read_pdf,
    ".html": read_html,
    ".htm": read_html,
    ".docx": read_docx,
    ".jsonl": read_json_lines,
    ".csv": read_csv,
}

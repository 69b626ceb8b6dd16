"""Web pages: the text that a reader of the page sees, without what frames every page."""

from __future__ import annotations

import codecs
import re
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from tunewright.documents.markup import (
    BOILERPLATE,
    Block,
    Failure,
    ReadDocument,
    ReadItems,
    assemble,
    decode_text,
    in_encoding,
    parse_errors,
    raised,
    single_line,
    struck,
)
from tunewright.documents.visibility import hidden_elements
from tunewright.text.encoding import DecodedText

if TYPE_CHECKING:
    from bs4 import BeautifulSoup, Tag

_BLOCK_TAG = re.compile(
    "h[1-6]|p|div|section|article|main|header|footer|aside|address|blockquote|pre|ul|ol|li|dl|dt|dd|table|caption"
    "|thead|tbody|tr|figure|figcaption|details|summary|form|fieldset|body|html|title"
)
_INVISIBLE_TAGS = ["script", "style", "template", "noscript", "iframe", "svg", "button"] + (
    ["datalist", "noembed", "noframes", "mphantom", "annotation-xml"]
)
_FALLBACK_TAGS = ["audio", "canvas", "meter", "object", "progress", "video"]  # what older browsers show instead
_CHARSET = re.compile(
    rb"""(?i)<(?:meta\b[^>]{0,200}?charset|\?xml\b[^>]{0,100}?encoding)\s*=\s*["']?\s*([\w.:-]{1,40})"""
)
_XML = re.compile(r"\s*<(?:\?xml|!doctype[^>]{0,80}xhtml)", re.IGNORECASE)  # elsewhere, a CDATA section is a comment
_COOKIES = re.compile(
    r"(?i)(?:^|[-_])(?:cookies?|gdpr|ccpa)(?:[-_]?(?:banner|consent|notice|bar|popup|law|info|modal|dialog|overlay|message|policy|wall))?$|consent[-_](?:banner|popup|modal|overlay)|cookie[-_]?(?:banner|consent|notice|bar)"
)
_MENU = re.compile(
    r"(?i)(?:site|main|top|page|global)?[-_]?(?:nav(?:bar|igation)?|menu|breadcrumbs?|footer|skip-?link|skip-to-content)"
)

_SIDEBAR = re.compile(
    r"(?i)side-?bar|share(?:-(?:buttons?|links?|bar))?|social(?:-(?:links?|buttons?|media|share|icons?))?|newsletter(?:-[\w-]+)?"
    r"|related(?:-(?:posts?|articles?|links?|content|stories))|advert(?:isement)?s?|ad-(?:banner|slot|container|unit)"
)
_FIELDS = ("text", "number", "date", "datetime-local", "email", "month", "search", "tel", "time", "url", "week")

_STRUCK = ("del", "s", "strike")
_MAX_REPEATED = 1_000_000  # characters of a table


def read_html(path: Path) -> ReadItems:
    """Read a web page; scripts, styles, hidden elements, and what frames every page of a site are left out."""
    raw = path.read_bytes()
    decoded = decode_page(raw)
    return [decoded] if isinstance(decoded, Failure) else [in_encoding(read_page(decoded.text, path.stem), decoded)]


def decode_page(raw: bytes) -> DecodedText | Failure:
    """Return the text of a page: in UTF-8, else as the page declares itself, else as its bytes suggest."""
    decoded = decode_text(raw)
    if isinstance(decoded, Failure) or (decoded.encoding.upper().startswith("UTF") and not decoded.doubt):
        return decoded
    declared = _CHARSET.search(raw[:2048])
    try:
        if declared:
            name = codecs.lookup(declared[1].decode("ascii")).name
            return DecodedText(raw.decode(name), name)
    except (LookupError, ValueError):  # what it declares it is not
        pass
    return decoded


def read_page(text: str, name: str) -> ReadDocument:
    """Return the document of a page's markup; ``name`` is its title if it has neither a heading nor a title."""
    title, blocks, left_out = page_blocks(text)
    return assemble(blocks, name, fallback_title=title, left_out=left_out)


def page_blocks(text: str) -> tuple[str, list[Block], list[Failure]]:
    """Return the title and the blocks of a page's markup, and what was left out."""
    from bs4 import BeautifulSoup

    with parse_errors("page"):
        soup = BeautifulSoup(text, "html.parser")
        title = soup.title.get_text() if soup.title else ""
        left_out = list(_remove_frame(soup))
        return title, list(_html_blocks(soup, bool(_XML.match(text)))), left_out


def _remove_frame(soup: BeautifulSoup) -> Iterator[Failure]:
    """Remove navigation, footers and notices about cookies, by element, role and name; yield what they were.

    A page that would lose more than nine tenths of its text keeps all: there, the names mean something else.
    """
    outermost = list(_frames(soup))
    total = len(soup.get_text())
    texts: dict[str, list[str]] = defaultdict(list)
    if sum(len(tag.get_text()) for tag, kind in outermost if kind != "navigation") > 0.9 * total:
        outermost = [(tag, kind) for tag, kind in outermost if kind == "navigation"]
    for tag, kind in outermost:
        texts[kind].append(single_line(tag.get_text(" ")))
        tag.decompose()
    for kind, shown in texts.items():
        if any(shown):
            yield Failure(part=kind, reason=BOILERPLATE, detail=" / ".join(filter(None, shown))[:200])


def _frames(soup: BeautifulSoup) -> Iterator[tuple[Tag, str]]:
    """Yield the outermost frames of a page in order; each element is seen once, however deep it is nested."""
    from bs4.element import Tag

    waiting: list[tuple[Tag, bool]] = [(soup, True)]
    while waiting:
        tag, is_of_page = waiting.pop()
        if kind := _frame(tag, is_of_page):
            yield tag, kind
        else:
            is_of_page = is_of_page and tag.name not in ("article", "main", "section", "blockquote")
            waiting += [(child, is_of_page) for child in reversed(tag.contents) if isinstance(child, Tag)]


def _frame(tag: Tag, is_of_page: bool) -> str:
    """Return which frame an element is; empty if it is content. A footer may be that of an article, not of the page."""
    role = str(tag.get("role") or "").lower()
    if tag.name == "nav" or role in ("navigation", "menu", "menubar", "search", "tree"):
        return "navigation"
    if role == "contentinfo" or tag.name == "footer" and is_of_page:
        return "footer"
    if role == "banner" and not tag.find("h1"):
        return "banner"
    if tag.name not in ("body", "html", "main", "article", "p", "a", "td", "li") and not tag.name.startswith("h"):
        classes = tag.get("class")
        names = [str(tag.get("id") or ""), *(classes if isinstance(classes, list) else [])]
        if any(_COOKIES.search(name) for name in names):
            return "cookie notice"
        if any(_MENU.fullmatch(name) for name in names):
            return "navigation"
        if any(_SIDEBAR.fullmatch(name) for name in names):
            return "sidebar"
    return ""


def _enclosing(tags: Iterable[Tag], *names: str) -> list[Tag | None]:
    """Return the nearest element of these names around each tag; what is between is seen once, however deep."""
    known: dict[int, Tag | None] = {}
    result = []
    for tag in tags:
        above, between = tag.parent, list[int]()
        while above is not None and above.name not in names and id(above) not in known:
            between.append(id(above))
            above = above.parent
        nearest = above if above is None or above.name in names else known[id(above)]
        known.update(dict.fromkeys(between, nearest))
        result.append(nearest)
    return result


def _repeat_spans(soup: BeautifulSoup, rows: Iterable[Tag], outer: Container[int]) -> None:
    """Put the text of a table's cell that spans several rows into each; not of ``outer`` cells around others."""
    spans: dict[int, tuple[int, int, str]] = {}  # by first column: how many rows below have a cell, its width, its text
    num_repeated = 0
    for row in rows:
        column = 0
        for cell in [*row.find_all(["td", "th"], recursive=False), None]:
            while column in spans and num_repeated < _MAX_REPEATED:
                left, width, text = spans.pop(column)
                if left > 1:
                    spans[column] = (left - 1, width, text)
                repeated = soup.new_tag("td", string=text)
                row.append(repeated) if cell is None else cell.insert_before(repeated)
                num_repeated += 1 + len(text)
                column += width
            if cell is not None:
                width = _span(cell, "colspan")
                if (num_rows := _span(cell, "rowspan")) > 1 and id(cell) not in outer:
                    spans[column] = (num_rows - 1, width, cell.get_text(" "))
                column += width


def _span(cell: Tag, name: str) -> int:
    number = str(cell.get(name) or "")
    return int(number) if re.fullmatch("[1-9][0-9]{0,3}", number) else 1


def _form_value(field: Tag) -> str:
    """Return what a field of a form shows: its text, its choice, or its check mark."""
    if field.name == "select":
        chosen = [option for option in field.find_all("option") if option.has_attr("selected")]
        return f" {', '.join(single_line(option.get_text()) for option in chosen)} "
    kind = str(field.get("type") or "text").lower()
    if kind in ("checkbox", "radio"):
        return "☑ " if field.has_attr("checked") else "☐ "
    if field.name == "textarea":
        return f" {field.get_text()} "
    return f" {field.get('value') or ''} " if kind in _FIELDS else ""


def _formula(tag: Tag) -> str:
    """Return a formula as the LaTeX that it carries, else as its characters."""
    note = tag.find("annotation", attrs={"encoding": re.compile("tex$", re.IGNORECASE)})
    if written := str(tag.get("alttext") or "") or (note.get_text() if note else ""):
        return written
    for other in tag.find_all("annotation"):
        other.decompose()
    return tag.get_text()


def _html_blocks(soup: BeautifulSoup, is_xml: bool) -> Iterator[Block]:
    """Yield the visible text of each block element; bars separate the cells of a table row."""
    from bs4.element import CData, NavigableString

    for script in soup.find_all("script", attrs={"type": re.compile("^math/tex")}):
        script.replace_with(script.get_text())
    for image in soup.find_all("img", attrs={"class": re.compile("(?i)math|latex|tex$")}):
        image.replace_with(str(image.get("alt") or ""))
    for tag in [*hidden_elements(soup), *soup.find_all(_INVISIBLE_TAGS + _FALLBACK_TAGS)]:
        if not tag.decomposed:
            tag.decompose()
    fields = soup.find_all(["input", "select", "textarea"])
    for tag, choice in zip(fields, _enclosing(fields, "select"), strict=True):
        if choice is None:
            tag.replace_with(_form_value(tag))
    for formula in soup.find_all("math"):
        formula.replace_with(_formula(formula))
    marked = soup.find_all(["sup", *_STRUCK])
    for tag, around in zip(marked, _enclosing(marked, "sup", *_STRUCK), strict=True):
        if around is not None:
            continue  # the outermost is seen once, however deep
        if tag.name == "sup":
            tag.replace_with(raised(tag.get_text()))
        elif not any(_BLOCK_TAG.fullmatch(inner.name) for inner in tag.find_all(True)):
            tag.replace_with(struck(tag.get_text()))
    for tag in soup.find_all("br"):
        tag.replace_with("\v")
    rows: dict[int, list[Tag]] = defaultdict(list)  # by their table: each row is seen once, however deep it is nested
    all_rows = soup.find_all("tr")
    for row, table in zip(all_rows, _enclosing(all_rows, "table"), strict=True):
        rows[id(table)].append(row)
    outer = set(map(id, _enclosing(soup.find_all(["table", "td", "th"]), "td", "th")))
    for rows_of_table in rows.values():
        _repeat_spans(soup, rows_of_table, outer)
    for tag in soup.find_all(["td", "th"]):
        # A cell without its end tag holds the next one.
        if tag.find_previous_sibling(["td", "th"]) or (tag.parent is not None and tag.parent.name in ("td", "th")):
            tag.insert_before(" | ")
    # Comments, doctypes and declarations are subclasses.
    texts = (NavigableString, CData) if is_xml else (NavigableString,)
    nodes = [node for node in soup.find_all(string=True) if type(node) in texts]
    blocks = [next((tag for tag in node.parents if _BLOCK_TAG.fullmatch(tag.name)), None) for node in nodes]
    for _, group in groupby(zip(blocks, nodes, strict=True), key=lambda pair: id(pair[0])):
        pairs = list(group)
        name = pairs[0][0].name if pairs[0][0] else ""
        text = "".join(node for _, node in pairs)
        if name != "pre":
            text = "\n".join(" ".join(line.split()).strip(" |") for line in text.split("\v"))
        if name != "title":
            yield (int(name[1]) if re.fullmatch("h[1-6]", name) else 0), text

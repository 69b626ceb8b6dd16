"""Whole files of each format, small and full of what the format can do; and packages that unpack to very much."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from support import office_files as office
from support.document_files import docx_members, write_pdf

PROSE = "The pump failed at 09:14. Two of five valves stayed open; nobody was hurt.\nÉlan, naïve, 東京, \U0001f600."

_FORM = b"/Type /XObject /Subtype /Form /BBox [0 0 9 9] /Resources << /XObject << /X1 8 0 R >> /Font << /F1 3 0 R >> >>"
TO_UNICODE = (
    b"begincmap 1 begincodespacerange <00> <FF> endcodespacerange 1 beginbfrange <20> <7E> <0020> endbfrange"
    b" 2 beginbfchar <41> <0041> <42> <00420043> endbfchar endcmap"
)
CONTENT = (
    b"q 1 0 0 1 50 700 cm BT /F1 12 Tf 14 TL (Some words of the first line) Tj T* [(and) -250 (the)] TJ 0 -14 Td"
    b" <546865206E657874> Tj /F2 9 Tf (AB) ' ET /X1 Do Q BI /W 1 /H 1 /BPC 8 /CS /G ID x EI"
)


def packed_pdf(content: bytes, form: bytes, cmap: bytes, packing: str) -> bytes:
    """Return a PDF with fonts of three kinds, a form that calls itself, and an xref stream; streams packed."""

    def stream(entries: bytes, body: bytes) -> bytes:
        if packing == "flate":
            entries, body = entries + b" /Filter /FlateDecode", zlib.compress(body)
        elif packing == "hex":
            entries, body = entries + b" /Filter [/ASCIIHexDecode]", body.hex().encode() + b">"
        return b"<< %s /Length %d >>\nstream\n%s\nendstream" % (entries, len(body), body)

    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Count 1 /Kids [5 0 R] >>",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Courier /FirstChar 32 /LastChar 34 /Widths [600 600 600]"
        b" /Encoding << /Differences [65 /B /C 128 /euro] >> >>",
        b"<< /Type /Font /Subtype /Type0 /BaseFont /X /Encoding /Identity-H /ToUnicode 7 0 R /DescendantFonts [<< /Type"
        b" /Font /Subtype /CIDFontType2 /BaseFont /X /DW 1000 /W [1 [500 600] 5 9 700] >>] >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents [6 0 R] /Resources << /Font << /F1 3 0 R"
        b" /F2 4 0 R >> /XObject << /X1 8 0 R >> >> >>",
        stream(b"", content),
        stream(b"", cmap),
        stream(_FORM, form),
        b"<< /Title (Some words) >>",
    ]
    raw, rows = b"%PDF-1.5\n", b"\x00\x00\x00\x00\x00\xff"
    for number, item in enumerate(objects, 1):
        rows += b"\x01" + len(raw).to_bytes(4, "big") + b"\x00"
        raw += b"%d 0 obj\n%s\nendobj\n" % (number, item)
    rows += b"\x01" + len(raw).to_bytes(4, "big") + b"\x00"
    table = zlib.compress(rows)
    entries = b"/Type /XRef /Size 11 /W [1 4 1] /Root 1 0 R /Info 9 0 R /Filter /FlateDecode /Length %d" % len(table)
    return raw + b"10 0 obj\n<< %s >>\nstream\n%s\nendstream\nendobj\nstartxref\n%d\n%%%%EOF" % (
        entries,
        table,
        len(raw),
    )


@cache
def originals(extension: str) -> tuple[bytes, ...]:
    """Return whole files of a format."""
    with TemporaryDirectory() as folder:
        return tuple(_ORIGINALS[extension](Path(folder)))


def _texts(*contents: str) -> Callable[[Path], list[bytes]]:
    return lambda folder: [content.encode() for content in contents]


def _jsonl(folder: Path) -> list[bytes]:
    rows = [{"id": "a1", "title": "One", "text": PROSE}, {"content": "Two.", "year": 2020, "tags": [1, {"b": None}]}]
    return ["\n".join(map(json.dumps, [*rows, "Bare text."])).encode(), json.dumps({"body": PROSE}).encode() + b"\n"]


def _pdf(folder: Path) -> list[bytes]:
    import pypdf

    pages = [["Journal 12", "A Study of Lines", "The first sentence is hyphen-", "ated."], ["Journal 13", "More."], []]
    plain = write_pdf(folder / "plain.pdf", pages, "A Study of Lines")
    made = [plain.read_bytes()]
    made += [packed_pdf(CONTENT, b"BT /F1 9 Tf (In) Tj ET", TO_UNICODE, packing) for packing in ("none", "flate")]
    for algorithm in ("RC4-128", "AES-256"):
        writer = pypdf.PdfWriter(clone_from=plain)
        writer.encrypt("", "owner", algorithm=algorithm)
        writer.write(folder / "locked.pdf")
        made.append((folder / "locked.pdf").read_bytes())
    return made


@cache
def docx_originals() -> tuple[dict[str, bytes], ...]:
    import docx

    with TemporaryDirectory() as folder:
        paper = docx.Document()
        path = Path(folder) / "paper.docx"
        paper.add_paragraph(PROSE)
        paper.save(str(path))
        small = docx_members(path)
        paper.add_heading("Methods", 1)
        table = paper.add_table(3, 3)
        for number, cell in enumerate(table._cells):
            cell.text = f"cell {number}"
        table.cell(0, 0).merge(table.cell(1, 1))
        table.cell(2, 2).add_table(1, 1).cell(0, 0).text = "inner"
        paper.core_properties.title = "Paper"
        paper.save(str(path))
        return small, docx_members(path)


@cache
def package_originals(extension: str) -> tuple[dict[str, bytes], ...]:
    """Return the members of whole packages of a format."""
    if extension == ".docx":
        return docx_originals()
    shapes = office.shape("Loads", "title") + office.shape(PROSE) + office.slide_table(("Ship", "Fee"), ("Brig", "90"))
    chart = office.chart_of("Ships", "1871", {"May": "4.70"})
    sheet = office.workbook([["Ship", "Fee"], ["Brig", 90.5], [PROSE, True]], [["=1+1"]])
    body = (
        f'<text:h text:outline-level="1">One</text:h><text:p>{PROSE}<text:s text:c="3"/><text:note><text:note-body><text:p>N'
        "</text:p></text:note-body></text:note></text:p><table:table><table:table-row><table:table-cell><text:p>a</text:p>"
        '</table:table-cell><table:table-cell table:number-columns-repeated="9"/></table:table-row></table:table>'
    )
    with zipfile.ZipFile(io.BytesIO(sheet)) as package:
        members = {name: package.read(name) for name in package.namelist()}
    made: dict[str, list[dict[str, str | bytes]]] = {
        ".pptx": [
            office.presentation(office.shape("Words.")),
            office.presentation(shapes + office.CHART_FRAME, office.shape(""), notes="Notes.", chart=chart),
        ],
        ".xlsx": [dict(members)],
        ".odt": [office.open_text("<text:p>Words.</text:p>"), office.open_text(body)],
        ".epub": [office.book(f"<h1>One</h1><p>{PROSE}</p>", "<p>Two</p>")],
    }
    return tuple(
        {name: content.encode() if isinstance(content, str) else content for name, content in one.items()}
        for one in made[extension]
    )


def _packages(extension: str) -> Callable[[Path], list[bytes]]:
    return lambda folder: [office.packed(dict(members)) for members in package_originals(extension)]


@cache
def bombs() -> tuple[bytes, ...]:
    """Return small packages that unpack to much: spaces, and paragraphs."""
    made = []
    for filling, num_mb in ((b" " * 2**20, 300), (b"<w:p/>" * 2**17, 16), (b" " * 2**20, 600)):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as package:
            for name, content in docx_originals()[0].items():
                head, body, tail = content.partition(b"<w:body>")
                with package.open(name, "w") as member:
                    member.write(head + body)
                    for _ in range(num_mb if body else 0):
                        member.write(filling)
                    member.write(tail)
        made.append(packed.getvalue())
    return tuple(made)


_ORIGINALS: dict[str, Callable[[Path], list[bytes]]] = {
    ".md": _texts(
        f"---\ntitle: \"A title\"\nyear: 2021\nauthors:\n  - Ada\n  - 'O''Hara'\n---\n\n# One\n\n{PROSE}\n\n## Two\n\nEnd.",
        f"Title\n=====\n\n{PROSE}\n\nPart\n----\n\n```\n# code\n```\n\n<!-- unseen -->\n\n| a | b |\n|---|---|\n| 1 | 2 |\n",
    ),
    ".txt": _texts(PROSE, "\n\n".join([PROSE] * 5), "one\r\ntwo\rthree\f"),
    ".html": _texts(
        f"<!doctype html><html><head><meta charset='utf-8'><title>T</title></head><body><nav>n</nav><h1>A</h1><p>{PROSE}"
        "</p><table><tr><th>k<th>v<tr><td>a<td>1</table><p hidden>x</p><pre>a\n b</pre><script>1<2</script></body></html>",
        "<meta charset='iso-8859-2'><p>one<br>two &amp; &eacute; &#x41;<div style='display: none'>x<ul><li>1<li>2</ul>",
    ),
    ".csv": _texts(
        'id,title,text,year\r\na1,One,"First, with\nline; and ""quotes"".",2020\r\na2,Two,Second.,\r\n',
        "text;label\nOne;1\nTwo;2;3\n\nThree\n",
        f'body\tid\n"{PROSE}"\t7\n',
    ),
    ".jsonl": _jsonl,
    **{extension: _packages(extension) for extension in (".docx", ".pptx", ".xlsx", ".odt", ".epub")},
    ".eml": lambda folder: [
        office.message(PROSE, f"<p>{PROSE}</p>", "a.pdf").as_bytes(),
        office.message("", "<h1>One</h1><p>Two</p>").as_bytes(),
    ],
    ".mbox": lambda folder: [office.mailbox(office.message(PROSE), office.message("x", "<p>y</p>"))],
    ".ipynb": _texts(json.dumps(office.NOTEBOOK)),
    ".tex": _texts(office.TEX),
    ".rtf": _texts(office.RTF),
    ".json": _texts('{"title": "H", "a": {"b": 4.70, "c": [1, null, {"d": [true]}]}}', json.dumps([{"text": PROSE}])),
    ".py": _texts(f"# {PROSE.splitlines()[0]}\ndef f(x):\n    return x  # one\n"),
    ".pdf": _pdf,
}

"""Small real files of office formats, mail and books, as bytes or as the members of a package."""

from __future__ import annotations

import io
import zipfile
from email.message import EmailMessage

_P = "http://schemas.openxmlformats.org/presentationml/2006/main"
_A = "http://schemas.openxmlformats.org/drawingml/2006/main"
_R = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_C = "http://schemas.openxmlformats.org/drawingml/2006/chart"
_RELS = "http://schemas.openxmlformats.org/package/2006/relationships"
NAMES = f'xmlns:p="{_P}" xmlns:a="{_A}" xmlns:r="{_R}" xmlns:c="{_C}"'


def packed(members: dict[str, str | bytes]) -> bytes:
    """Return a zip of these members."""
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as package:
        for name, content in members.items():
            package.writestr(name, content)
    return raw.getvalue()


def relations(*links: tuple[str, str, str]) -> str:
    """Return the part that names other parts: (identifier, kind, target)."""
    items = "".join(f'<Relationship Id="{i}" Type="{_R}/{kind}" Target="{target}"/>' for i, kind, target in links)
    return f'<Relationships xmlns="{_RELS}">{items}</Relationships>'


def shape(text: str, placeholder: str = "") -> str:
    mark = f'<p:ph type="{placeholder}"/>' if placeholder else ""
    lines = "".join(f"<a:p><a:r><a:t>{line}</a:t></a:r></a:p>" for line in text.split("\n"))
    return f"<p:sp><p:nvSpPr><p:nvPr>{mark}</p:nvPr></p:nvSpPr><p:txBody>{lines}</p:txBody></p:sp>"


def slide_table(*rows: tuple[str, ...]) -> str:
    cells = "".join(
        "<a:tr>"
        + "".join(f"<a:tc><a:txBody><a:p><a:r><a:t>{c}</a:t></a:r></a:p></a:txBody></a:tc>" for c in row)
        + "</a:tr>"
        for row in rows
    )
    return (
        f"<p:graphicFrame><a:graphic><a:graphicData><a:tbl>{cells}</a:tbl></a:graphicData></a:graphic></p:graphicFrame>"
    )


def presentation(
    *slides: str, hidden: tuple[int, ...] = (), notes: str = "", chart: str = ""
) -> dict[str, str | bytes]:
    """Return the members of a .pptx with these shapes on its slides; the first slide has the notes and the chart."""
    numbers = range(1, len(slides) + 1)
    ids = "".join(f'<p:sldId id="{255 + n}" r:id="s{n}"/>' for n in numbers)
    members: dict[str, str | bytes] = {
        "_rels/.rels": relations(("m", "officeDocument", "ppt/presentation.xml")),
        "ppt/presentation.xml": f"<p:presentation {NAMES}><p:sldIdLst>{ids}</p:sldIdLst></p:presentation>",
        "ppt/_rels/presentation.xml.rels": relations(*((f"s{n}", "slide", f"slides/slide{n}.xml") for n in numbers)),
    }
    for n, shapes in zip(numbers, slides, strict=True):
        show = ' show="0"' if n in hidden else ""
        members[f"ppt/slides/slide{n}.xml"] = (
            f"<p:sld {NAMES}{show}><p:cSld><p:spTree>{shapes}</p:spTree></p:cSld></p:sld>"
        )
    links = [("n", "notesSlide", "../notesSlides/notes1.xml")] if notes else []
    links += [("c", "chart", "../charts/chart1.xml")] if chart else []
    members["ppt/slides/_rels/slide1.xml.rels"] = relations(*links)
    if notes:
        tree = shape("7", "sldNum") + shape(notes, "body")
        members["ppt/notesSlides/notes1.xml"] = (
            f"<p:notes {NAMES}><p:cSld><p:spTree>{tree}</p:spTree></p:cSld></p:notes>"
        )
    if chart:
        members["ppt/charts/chart1.xml"] = f"<c:chartSpace {NAMES}>{chart}</c:chartSpace>"
    return members


CHART_FRAME = (
    '<p:graphicFrame><a:graphic><a:graphicData><c:chart r:id="c"/></a:graphicData></a:graphic></p:graphicFrame>'
)


def chart_of(title: str, series: str, points: dict[str, str]) -> str:
    def values(kind: str, texts: list[str]) -> str:
        return f"<c:{kind}>" + "".join(f"<c:pt><c:v>{text}</c:v></c:pt>" for text in texts) + f"</c:{kind}>"

    return (
        f"<c:chart><c:title><a:t>{title}</a:t></c:title><c:ser><c:tx><c:v>{series}</c:v></c:tx>"
        + values("cat", list(points))
        + values("val", list(points.values()))
        + "</c:ser></c:chart>"
    )


_OPEN = " ".join(
    f'xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{kind}:1.0"'
    for name, kind in (("office", "office"), ("text", "text"), ("table", "table"), ("draw", "drawing"))
)


def open_text(body: str, **others: str) -> dict[str, str | bytes]:
    """Return the members of an .odt with this body."""
    links = 'xmlns:xlink="http://www.w3.org/1999/xlink"'
    content = f"<office:document-content {_OPEN} {links}><office:body><office:text>{body}</office:text></office:body></office:document-content>"
    return {"mimetype": "application/vnd.oasis.opendocument.text", "content.xml": content, **others}


def book(*pages: str, title: str = "The book") -> dict[str, str | bytes]:
    """Return the members of an .epub with these pages, and a navigation page that is to be left out."""
    items = "".join(
        f'<item id="p{n}" href="text/p%20{n}.xhtml" media-type="application/xhtml+xml"/>' for n in range(len(pages))
    )
    spine = "".join(f'<itemref idref="p{n}"/>' for n in range(len(pages)))
    members: dict[str, str | bytes] = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": '<container><rootfiles><rootfile full-path="OEBPS/book.opf"/></rootfiles></container>',
        "OEBPS/book.opf": '<package xmlns="http://www.idpf.org/2007/opf"><metadata '
        f'xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>{title}</dc:title><dc:creator>Ada</dc:creator></metadata>'
        f'<manifest>{items}<item id="n" href="nav.xhtml" properties="nav" media-type="application/xhtml+xml"/></manifest>'
        f'<spine><itemref idref="n"/>{spine}</spine></package>',
        "OEBPS/nav.xhtml": "<html><body><nav>Contents</nav></body></html>",
    }
    return members | {f"OEBPS/text/p {n}.xhtml": f"<html><body>{page}</body></html>" for n, page in enumerate(pages)}


def message(text: str = "", page: str = "", attachment: str = "", subject: str = "The pier") -> EmailMessage:
    mail = EmailMessage()
    mail["Subject"], mail["From"], mail["To"] = subject, "Ada <ada@elm.example>", "bob@elm.example"
    mail["Date"] = "Mon, 03 May 2021 09:14:00 +0000"
    if text:
        mail.set_content(text)
        if page:
            mail.add_alternative(page, subtype="html")
    else:
        mail.set_content(page, subtype="html")
    if attachment:
        mail.add_attachment(b"%PDF-", maintype="application", subtype="pdf", filename=attachment)
    return mail


def mailbox(*messages: EmailMessage) -> bytes:
    return b"".join(b"From ada@elm.example Mon May  3 09:14:00 2021\n" + m.as_bytes() + b"\n" for m in messages)


def workbook(*tables: list[list[object]], titles: tuple[str, ...] = ()) -> bytes:
    """Return an .xlsx with a sheet for each table; (value, format) is a cell with a number format."""
    import openpyxl

    made = openpyxl.Workbook()
    made.remove(made.active)
    for number, table in enumerate(tables):
        page = made.create_sheet(titles[number] if titles else f"Part {number + 1}")
        for r, row in enumerate(table, 1):
            for c, value in enumerate(row, 1):
                cell = page.cell(r, c)
                if isinstance(value, tuple):
                    cell.value, cell.number_format = value
                else:
                    cell.value = value
    raw = io.BytesIO()
    made.save(raw)
    return raw.getvalue()


TEX = r"""\documentclass{article}
\title{The \emph{pier} of Elm}\author{Ada}
\begin{document}\maketitle
% a comment
\section{Loads}\label{s:loads}
The pier carries 4.7\,t, or 12\,\% more\footnote{Measured in \textbf{May}.} than in 1871, see~\cite{x}.
\[ F = \frac{m}{s^2} \]
\begin{table}\begin{tabular}{lr}\hline Ship & Fee \\ \hline Brig & 90 \\ Yawl & 55 \\ \end{tabular}\end{table}
\subsection*{Caf\'e}
Energy $E=mc^2$ and \"Ol.
\begin{verbatim}
% kept \x
\end{verbatim}
\end{document}
"""
RTF = (
    r"{\rtf1\ansi\ansicpg1252{\fonttbl{\f0 Arial;}}\f0 The pier is 40 m long.\par Fee: \'80 12 \u1088?."
    r"\par\trowd\cellx1\cellx2 Ship\cell Fee\cell\row\trowd Brig\cell 90\cell\row}"
)
NOTEBOOK = {
    "nbformat": 4,
    "metadata": {},
    "cells": [
        {"cell_type": "markdown", "source": ["# The pier\n", "\n", "It is **40 m** long."]},
        {
            "cell_type": "code",
            "source": "# length\nprint(40)",
            "outputs": [
                {"output_type": "stream", "text": ["40\n"]},
                {"output_type": "display_data", "data": {"image/png": "AAAA", "text/plain": "<Figure>"}},
            ],
        },
        {"cell_type": "markdown", "source": "## Loads\n\nNone."},
    ],
}

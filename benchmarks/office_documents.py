"""Office documents, books and web pages made from known text, for office_readers.py."""

from __future__ import annotations

import datetime
import re
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TABLE = [
    ("Region", "Sites", "Patients", "Positive", "Share"),
    ("North Bay", "14", "1,204", "312", "25.9%"),
    ("Lower Valley", "9", "876", "201", "22.9%"),
    ("Coast", "21", "2,310", "498", "21.6%"),
]
WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
PICTURE_TEXT = "The survey vessel carried 37 floats and 4 winches."


@dataclass
class Case:
    """A document: what it shows.

    Attributes:
        orders: the words in each order that is right; notes may follow their paragraph or the text.
        rows: of tables.
        hidden: words that the document does not show, or that frame every page of a site.
        same: other ways to write a value, by the value.
    """

    name: str
    orders: list[str]
    rows: Sequence[Sequence[str]] = ()
    headings: Sequence[str] = ()
    hidden: Sequence[str] = ()
    same: dict[str, Sequence[str]] = field(default_factory=dict)


def flat(rows: Sequence[Sequence[str]]) -> str:
    """Return the words of a table, row by row."""
    return " ".join(" ".join(row) for row in rows)


def named(rows: Sequence[Sequence[str]]) -> str:
    """Return the words of a table whose values have the names of their columns before them."""
    return " ".join(f"{name} {cell}" for row in rows[1:] for name, cell in zip(rows[0], row, strict=True))


def edited(path: Path, part: str, change: Callable[[str], str], others: dict[str, str] | None = None) -> None:
    """Change one part of a package, and add others."""
    with zipfile.ZipFile(path) as opened:
        members = {name: opened.read(name) for name in opened.namelist()}
    members[part] = change(members[part].decode()).encode()
    members |= {name: content.encode() for name, content in (others or {}).items()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as package:
        for name, raw in members.items():
            package.writestr(name, raw)


def word_documents(folder: Path, texts: Sequence[str]) -> list[Case]:
    """Return the .docx files."""
    import docx

    def headings(document: Any) -> None:
        document.add_heading("Survey of 2019", 1)
        document.add_paragraph(texts[0])
        document.add_heading("Methods", 2)
        for item in ("Check the oil", "Close the valve at 2.5 bar", "Wait 15 minutes"):
            document.add_paragraph(item, style="List Number")
        document.add_heading("Results", 2)
        document.add_paragraph(texts[1])
        document.sections[0].header.paragraphs[0].text = "Bulletin Nordhaven"
        document.sections[0].footer.paragraphs[0].text = "Confidential"

    def table(document: Any) -> None:
        document.add_paragraph(texts[2])
        grid = document.add_table(0, 5)
        for row in TABLE:
            for cell, text in zip(grid.add_row().cells, row, strict=True):
                cell.text = text
        document.add_paragraph(texts[3])

    def merged(document: Any) -> None:
        grid = document.add_table(4, 3)
        content = [("Harbor", "Tons 2021", ""), ("", "in", "out"), ("Malmby", "4,310", "2,950"), ("", "5,120", "3,275")]
        for row, texts_of_row in zip(grid.rows, content, strict=True):
            for cell, text in zip(row.cells, texts_of_row, strict=True):
                cell.text = text
        grid.cell(0, 1).merge(grid.cell(0, 2))
        grid.cell(0, 0).merge(grid.cell(1, 0))
        grid.cell(2, 0).merge(grid.cell(3, 0))

    def nested(document: Any) -> None:
        outer = document.add_table(2, 2)
        outer.cell(0, 0).text, outer.cell(0, 1).text = "Depot", "Stock"
        outer.cell(1, 0).text = "East 12"
        inner = outer.cell(1, 1).add_table(2, 2)
        for cell, text in zip([*inner.row_cells(0), *inner.row_cells(1)], ("oil", "410", "salt", "75"), strict=True):
            cell.text = text

    def saved(name: str, fill: Callable[[Any], None]) -> Path:
        document = docx.Document()
        fill(document)
        document.save(str(folder / name))
        return folder / name

    saved("headings.docx", headings)
    saved("table.docx", table)
    saved("merged.docx", merged)
    saved("nested.docx", nested)
    items = "Check the oil Close the valve at 2.5 bar Wait 15 minutes"
    cases = [
        Case(
            "headings.docx",
            [f"Survey of 2019 {texts[0]} Methods {items} Results {texts[1]}"],
            headings=["Survey of 2019", "Methods", "Results"],
            hidden=["Nordhaven", "Confidential"],
        ),
        Case("table.docx", [f"{texts[2]} {flat(TABLE)} {texts[3]}"], rows=TABLE),
        Case(
            "merged.docx",
            ["Harbor Tons 2021 in out Malmby 4,310 2,950 5,120 3,275"],
            rows=[("Harbor", "in", "out"), ("Malmby", "4,310", "2,950"), ("Malmby", "5,120", "3,275")],
        ),
        Case("nested.docx", ["Depot Stock East 12 oil 410 salt 75"], rows=[("Depot", "Stock"), ("oil", "410")]),
    ]
    return cases + word_markup(folder, saved, texts)


def word_markup(folder: Path, saved: Callable[[str, Any], Path], texts: Sequence[str]) -> list[Case]:
    """Return the .docx files whose markup no library writes: notes, boxes, tracked changes, superscripts, controls."""

    def run(text: str, properties: str = "") -> str:
        return f'<w:r><w:rPr>{properties}</w:rPr><w:t xml:space="preserve">{text}</w:t></w:r>'

    def body(name: str, paragraphs: Sequence[str]) -> None:
        path = saved(name, lambda document: document.add_paragraph("HERE"))
        content = "".join(f"<w:p>{paragraph}</w:p>" for paragraph in paragraphs)
        edited(
            path,
            "word/document.xml",
            lambda xml: re.sub(r"<w:p>(?:(?!</w:p>).)*HERE.*?</w:p>", lambda _: content, xml, flags=re.DOTALL),
        )

    note = '<w:r><w:footnoteReference w:id="2"/></w:r>'
    body("notes.docx", [run(texts[4]) + note + run(" Later text of 1998."), run("The last paragraph has 3 words.")])
    with zipfile.ZipFile(folder / "notes.docx") as opened:
        links = opened.read("word/_rels/document.xml.rels").decode()
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    link = f'<Relationship Id="rIdN" Type="{office}/footnotes" Target="footnotes.xml"/>'
    notes = f'<w:footnotes xmlns:w="{WORD}"><w:footnote w:id="2"><w:p>{run("Measured at 37.5 degrees.")}</w:p></w:footnote></w:footnotes>'
    kind = "application/vnd.openxmlformats-officedocument.wordprocessingml.footnotes+xml"
    edited(
        folder / "notes.docx",
        "[Content_Types].xml",
        lambda xml: xml.replace("</Types>", f'<Override PartName="/word/footnotes.xml" ContentType="{kind}"/></Types>'),
        {
            "word/footnotes.xml": notes,
            "word/_rels/document.xml.rels": links.replace("</Relationships>", f"{link}</Relationships>"),
        },
    )
    box = (
        '<w:r><mc:AlternateContent xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006">'
        '<mc:Choice Requires="wps" xmlns:wps="http://schemas.microsoft.com/office/word/2010/wordprocessingShape">'
        f"<w:drawing><wps:wsp><wps:txbx><w:txbxContent><w:p>{run(PICTURE_TEXT)}</w:p></w:txbxContent></wps:txbx></wps:wsp>"
        '</w:drawing></mc:Choice><mc:Fallback><w:pict><v:shape xmlns:v="urn:schemas-microsoft-com:vml"><v:textbox>'
        f"<w:txbxContent><w:p>{run(PICTURE_TEXT)}</w:p></w:txbxContent></v:textbox></v:shape></w:pict></mc:Fallback>"
        "</mc:AlternateContent></w:r>"
    )
    body("box.docx", [run(texts[5]) + box, run("The end of 2020.")])
    deleted = '<w:del w:id="1" w:author="a"><w:r><w:delText>4,999</w:delText></w:r></w:del>'
    inserted = f'<w:ins w:id="2" w:author="a">{run("5,120")}</w:ins>'
    body(
        "changes.docx",
        [run("The toll is ") + deleted + inserted + run(" crowns."), run("Erased 777.", "<w:vanish/>") + run("Kept.")],
    )
    raised = '<w:vertAlign w:val="superscript"/>'
    lowered = '<w:vertAlign w:val="subscript"/>'
    body(
        "raised.docx",
        [
            run("About 10") + run("6", raised) + run(" cells in 2019") + run("3", raised) + run(" on 12 m") + run("2", raised)
            + run(", with CO") + run("2", lowered) + run(" at 3.5 · 10") + run("-7", raised) + run("."),
        ],
    )  # fmt: skip
    control = f"<w:sdt><w:sdtPr/><w:sdtContent>{run('4,750.20')}</w:sdtContent></w:sdt>"
    field_code = (
        '<w:r><w:fldChar w:fldCharType="begin"/></w:r><w:r><w:instrText> PAGEREF 9191 </w:instrText></w:r>'
        f'<w:r><w:fldChar w:fldCharType="separate"/></w:r>{run("17")}<w:r><w:fldChar w:fldCharType="end"/></w:r>'
    )
    link_text = f'<w:hyperlink w:anchor="x">{run("table 4")}</w:hyperlink>'
    body(
        "controls.docx",
        [run("Amount: ") + control, run("See page ") + field_code + run(" and ") + link_text + run(".")],
    )
    return [
        Case(
            "notes.docx",
            [
                f"{texts[4]} Later text of 1998. Measured at 37.5 degrees. The last paragraph has 3 words.",
                f"{texts[4]} Later text of 1998. The last paragraph has 3 words. Measured at 37.5 degrees.",
            ],
        ),
        Case(
            "box.docx", [f"{texts[5]} {PICTURE_TEXT} The end of 2020.", f"{texts[5]} The end of 2020. {PICTURE_TEXT}"]
        ),
        Case("changes.docx", ["The toll is 5,120 crowns. Kept."], hidden=["4,999", "777"]),
        Case(
            "raised.docx",
            ["About 10⁶ cells in 2019³ on 12 m² with CO2 at 3.5 · 10⁻⁷."],
            same=RAISED,
        ),
        Case("controls.docx", ["Amount: 4,750.20 See page 17 and table 4."], hidden=["9191"]),
    ]


RAISED = {
    "10⁶": ["10^6", "10^{6}", "10^6^", "10<sup>6</sup>", "10**6"],
    "2019³": ["2019^3", "2019^{3}", "2019^3^", "2019<sup>3</sup>", "2019[3]"],
    "m²": ["m2", "m^2", "m^{2}", "m^2^", "m<sup>2</sup>"],
    "CO2": ["CO₂", "CO_2", "CO_{2}", "CO~2~", "CO<sub>2</sub>"],
    "10⁻⁷": ["10^-7", "10^{-7}", "10^-7^", "10<sup>-7</sup>", "10**-7", "10⁻7"],
}


def presentations(folder: Path, texts: Sequence[str]) -> list[Case]:
    """Return the .pptx files."""
    import pptx
    from pptx.chart.data import CategoryChartData
    from pptx.enum.chart import XL_CHART_TYPE
    from pptx.util import Inches

    titled, bare, blank = 1, 5, 6  # layouts

    show = pptx.Presentation()
    slide = show.slides.add_slide(show.slide_layouts[titled])
    slide.shapes.title.text = "Catch of 2021"
    slide.placeholders[1].text = "Herring rose to 4,310 tons\nCod fell by 12.5%"
    slide.notes_slide.notes_text_frame.text = "Mention the 37 new licenses."
    slide = show.slides.add_slide(show.slide_layouts[bare])
    slide.shapes.title.text = "Regions"
    grid = slide.shapes.add_table(4, 5, Inches(1), Inches(2), Inches(8), Inches(3)).table
    for i, row in enumerate(TABLE):
        for j, text in enumerate(row):
            grid.cell(i, j).text = text
    hidden = show.slides.add_slide(show.slide_layouts[titled])
    hidden.shapes.title.text = "Unreleased 8,888"
    hidden._element.set("show", "0")
    show.save(str(folder / "slides.pptx"))

    show = pptx.Presentation()
    slide = show.slides.add_slide(show.slide_layouts[blank])

    def box(x: float, y: float, text: str, shapes: Any = slide.shapes) -> None:
        shapes.add_textbox(Inches(x), Inches(y), Inches(4), Inches(1)).text_frame.text = text

    # Drawn from bottom to top: the order of a page is that of the eye.
    box(5, 4, "Closing: 21 sites remain.")
    box(5, 2, "Costs were 48,500 euros.")
    box(0.5, 4, "The second survey had 9 sites.")
    box(0.5, 2, "The first survey had 14 sites.")
    box(0.5, 0.5, "Two surveys")
    group = slide.shapes.add_group_shape()
    box(0.5, 6, "Source: yearbook 2022", group.shapes)
    show.save(str(folder / "columns.pptx"))

    show = pptx.Presentation()
    slide = show.slides.add_slide(show.slide_layouts[bare])
    slide.shapes.title.text = "Tonnage"
    data = CategoryChartData()
    data.categories = ["2019", "2020"]
    data.add_series("Herring", (4310, 5120))
    slide.shapes.add_chart(XL_CHART_TYPE.COLUMN_CLUSTERED, Inches(1), Inches(2), Inches(6), Inches(4), data)
    show.save(str(folder / "chart.pptx"))
    return [
        Case(
            "slides.pptx",
            [
                "Catch of 2021 Herring rose to 4,310 tons Cod fell by 12.5% Mention the 37 new licenses. Regions "
                + flat(TABLE)
            ],
            rows=TABLE,
            headings=["Catch of 2021", "Regions"],
            hidden=["8,888"],
        ),
        Case(
            "columns.pptx",
            [
                "Two surveys The first survey had 14 sites. The second survey had 9 sites. Costs were 48,500 euros. "
                "Closing: 21 sites remain. Source: yearbook 2022",
                "Two surveys The first survey had 14 sites. Costs were 48,500 euros. The second survey had 9 sites. "
                "Closing: 21 sites remain. Source: yearbook 2022",
            ],
        ),
        Case(
            "chart.pptx",
            ["Tonnage Herring 2019 4310 2020 5120"],
            rows=[("2019", "4310"), ("2020", "5120")],
            headings=["Tonnage"],
            same={"4310": ["4310.0"], "5120": ["5120.0"]},
        ),
    ]


def workbooks(folder: Path) -> list[Case]:
    """Return the .xlsx files; xlsxwriter stores the values of formulas."""
    import xlsxwriter

    book = xlsxwriter.Workbook(str(folder / "values.xlsx"))
    sheet = book.add_worksheet("Accounts")
    formats = [
        "yyyy-mm-dd", "dd.mm.yyyy", "0.0%", "0%", '#,##0.00 "EUR"', "$#,##0.00", "00000", '0" kg"', "0.00E+00", "#,##0",
        "hh:mm", "[h]:mm", "# ?/?", "@", '0.0" °C"', "General", '"No. "000',
    ]  # fmt: skip
    values = [
        datetime.date(2024, 3, 12), datetime.date(2023, 11, 5), 0.256, 0.07, 4750.2, 1234.5, 1234, 12, 6.02e23, -98765,
        datetime.time(14, 30), 1.0625, 0.5, "007", 37.5, 1234567890123, 17,
    ]  # fmt: skip
    shown = [
        "2024-03-12", "05.11.2023", "25.6%", "7%", "4,750.20 EUR", "$1,234.50", "01234", "12 kg", "6.02E+23", "-98,765",
        "14:30", "25:30", "1/2", "007", "37.5 °C", "1234567890123", "No. 017",
    ]  # fmt: skip
    sheet.write_row(0, 0, ("Field", "Value"))
    for row, (form, value) in enumerate(zip(formats, values, strict=True), 1):
        sheet.write(row, 0, f"field{'abcdefghijklmnopq'[row - 1]}")
        cell = book.add_format({"num_format": form})
        if isinstance(value, (datetime.date, datetime.time)):
            sheet.write_datetime(row, 1, value, cell)
        else:
            sheet.write(row, 1, value, cell)
    book.close()
    rows = [(f"field{'abcdefghijklmnopq'[i]}", text) for i, text in enumerate(shown)]

    book = xlsxwriter.Workbook(str(folder / "sheets.xlsx"))
    sheet = book.add_worksheet("Regions")
    sheet.merge_range(0, 0, 0, 4, "Patients of the 2019 survey")
    for row, cells in enumerate(TABLE, 1):
        sheet.write_row(row, 0, cells)
    other = book.add_worksheet("Totals")
    other.write_row(0, 0, ("Item", "Amount"))
    other.write(1, 0, "Fees")
    other.write(1, 1, 410)
    other.write(2, 0, "Tolls")
    other.write(2, 1, 75.5)
    other.write(3, 0, "Sum")
    other.write_formula(3, 1, "=B2+B3", None, 485.5)
    secret = book.add_worksheet("Draft")
    secret.write(0, 0, "Unreleased 8888")
    secret.hide()
    book.close()
    totals = [("Item", "Amount"), ("Fees", "410"), ("Tolls", "75.5"), ("Sum", "485.5")]
    return [
        Case(
            "values.xlsx",
            ["Field Value " + flat(rows), named([("Field", "Value"), *rows])],
            rows=rows,
            headings=["Accounts"],
            same={
                "05.11.2023": ["2023-11-05", "2023-11-05T00:00:00"],
                "2024-03-12": ["2024-03-12T00:00:00"],
                "6.02E+23": ["6.02e+23", "602000000000000000000000"],
                "14:30": ["14:30:00"],
                "1/2": ["0.5"],
                "25:30": ["25:30:00"],
            },
        ),
        Case(
            "sheets.xlsx",
            [
                f"Patients of the 2019 survey {flat(TABLE)} Item Amount Fees 410 Tolls 75.5 Sum 485.5",
                f"Patients of the 2019 survey {named(TABLE)} {named(totals)}",
                f"Patients of the 2019 survey {named(TABLE)} {flat(totals)}",
            ],
            rows=[*TABLE[1:], ("Fees", "410"), ("Sum", "485.5")],
            headings=["Regions", "Totals"],
            hidden=["8888"],
        ),
    ]


def open_documents(folder: Path, texts: Sequence[str]) -> list[Case]:
    """Return the .odt files."""
    from odf import opendocument, table, text

    document = opendocument.OpenDocumentText()
    document.text.addElement(text.H(outlinelevel=1, text="Survey of 2019"))
    paragraph = text.P(text=f"{texts[6]}")
    note = text.Note(noteclass="footnote", id="n1")
    note.addElement(text.NoteCitation(text="1"))
    content = text.NoteBody()
    content.addElement(text.P(text="Measured at 37.5 degrees."))
    note.addElement(content)
    paragraph.addElement(note)
    document.text.addElement(paragraph)
    document.text.addElement(text.H(outlinelevel=2, text="Methods"))
    items = text.List()
    for entry in ("Check the oil", "Close the valve at 2.5 bar"):
        item = text.ListItem()
        item.addElement(text.P(text=entry))
        items.addElement(item)
    document.text.addElement(items)
    document.save(str(folder / "headings.odt"))

    document = opendocument.OpenDocumentText()
    grid = table.Table()
    for row in TABLE:
        line = table.TableRow()
        for number, cell_text in enumerate(row):
            cell = table.TableCell(numberrowsspanned=3) if number == 5 else table.TableCell()
            cell.addElement(text.P(text=cell_text))
            line.addElement(cell)
        grid.addElement(line)
    document.text.addElement(text.P(text=texts[7]))
    document.text.addElement(grid)
    spanned = table.Table()
    content_rows = [[("Malmby", 2), ("4,310", 1), ("2,950", 1)], [None, ("5,120", 1), ("3,275", 1)]]
    for cells in content_rows:
        line = table.TableRow()
        for entry in cells:
            cell = table.CoveredTableCell() if entry is None else table.TableCell(numberrowsspanned=entry[1])
            if entry:
                cell.addElement(text.P(text=entry[0]))
            line.addElement(cell)
        spanned.addElement(line)
    document.text.addElement(spanned)
    document.save(str(folder / "table.odt"))
    body = f"Survey of 2019 {texts[6]}"
    return [
        Case(
            "headings.odt",
            [
                f"{body} Measured at 37.5 degrees. Methods Check the oil Close the valve at 2.5 bar",
                f"{body} Methods Check the oil Close the valve at 2.5 bar Measured at 37.5 degrees.",
            ],
            headings=["Survey of 2019", "Methods"],
        ),
        Case(
            "table.odt",
            [f"{texts[7]} {flat(TABLE)} Malmby 4,310 2,950 5,120 3,275"],
            rows=[*TABLE, ("Malmby", "4,310", "2,950"), ("Malmby", "5,120", "3,275")],
        ),
    ]


def table_of(rows: Sequence[Sequence[str]]) -> str:
    """Return the markup of a table."""
    return f"<table>{''.join('<tr>' + ''.join(f'<td>{c}</td>' for c in row) + '</tr>' for row in rows)}</table>"


def pages(folder: Path, texts: Sequence[str]) -> list[Case]:
    """Return the .html and .epub files."""
    from ebooklib import epub

    frame = '<nav><a href="/">Startmenu</a></nav><div class="cookie-banner">Acceptall</div>'
    article = f"<main><h1>Survey of 2019</h1><p>{texts[8]}</p><h2>Regions</h2>{table_of(TABLE)}</main>"
    (folder / "page.html").write_text(
        f'<html lang="en"><meta charset="utf-8"><title>Survey of 2019</title><body>{frame}{article}'
        f"<footer>Imprint 1987</footer><script>var x=9191</script><p hidden>Secret 777</p></body></html>",
        encoding="utf-8",
    )
    spans = (
        "<table><tr><th rowspan=2>Harbor</th><th colspan=2>Tons 2021</th></tr><tr><th>in</th><th>out</th></tr>"
        "<tr><td rowspan=2>Malmby</td><td>4,310</td><td>2,950</td></tr><tr><td>5,120</td><td>3,275</td></tr></table>"
    )
    inner = table_of([("oil", "410"), ("salt", "75")])
    raised = "About 10<sup>6</sup> cells in 2019<sup>3</sup> on 12 m<sup>2</sup>, with CO<sub>2</sub> at 3.5 · 10<sup>-7</sup>."
    lists = "<ol><li>Check the oil<li>Close the valve at 2.5 bar</ol><dl><dt>Toll</dt><dd>75 crowns</dd></dl>"
    (folder / "markup.html").write_text(
        f'<meta charset="utf-8"><h1>Harbors</h1><p>{raised}</p>{spans}{lists}'
        f"<table><tr><td>East 12</td><td>{inner}</td></tr></table>"
        "<details><summary>More</summary><p>The berth is 4.70 m deep.</p></details>",
        encoding="utf-8",
    )
    book = epub.EpubBook()
    book.set_title("The Survey")
    book.set_language("en")
    chapters = []
    for number, (title, content) in enumerate((("North", texts[9]), ("South", texts[10])), 1):
        chapter = epub.EpubHtml(title=title, file_name=f"c{number}.xhtml", lang="en")
        grid = table_of(TABLE) if number == 2 else ""
        chapter.content = f"<html><body><h1>{title}</h1><p>{content}</p>{grid}</body></html>"
        book.add_item(chapter)
        chapters.append(chapter)
    book.toc = chapters
    book.add_item(epub.EpubNcx())
    book.add_item(epub.EpubNav())
    book.spine = ["nav", *chapters]
    epub.write_epub(str(folder / "book.epub"), book)
    return [
        Case(
            "page.html",
            [f"Survey of 2019 {texts[8]} Regions {flat(TABLE)}"],
            rows=TABLE,
            headings=["Survey of 2019", "Regions"],
            hidden=["Startmenu", "Acceptall", "1987", "9191", "777"],
        ),
        Case(
            "markup.html",
            [
                "Harbors About 10⁶ cells in 2019³ on 12 m² with CO2 at 3.5 · 10⁻⁷. Harbor Tons 2021 in out Malmby 4,310 2,950 "
                "5,120 3,275 Check the oil Close the valve at 2.5 bar Toll 75 crowns East 12 oil 410 salt 75 More "
                "The berth is 4.70 m deep."
            ],
            rows=[("Malmby", "4,310", "2,950"), ("Malmby", "5,120", "3,275"), ("oil", "410"), ("salt", "75")],
            headings=["Harbors"],
            same=RAISED,
        ),
        Case(
            "book.epub",
            [f"North {texts[9]} South {texts[10]} {flat(TABLE)}"],
            rows=TABLE,
            headings=["North", "South"],
        ),
    ]


def all_documents(folder: Path, texts: Sequence[str]) -> list[Case]:
    """Write all documents into a folder, and return what each shows."""
    return [
        *word_documents(folder, texts),
        *presentations(folder, texts),
        *workbooks(folder),
        *open_documents(folder, texts),
        *pages(folder, texts),
    ]

"""Slides, workbooks, OpenDocument texts and books: text in order, tables as rows, numbers untouched, loss counted."""

from __future__ import annotations

import datetime
import io
import re
import zipfile
from pathlib import Path

import pytest

from support.office_files import (
    CHART_FRAME,
    book,
    chart_of,
    open_text,
    packed,
    presentation,
    shape,
    slide_table,
    workbook,
)
from tunewright.documents import package, workbooks
from tunewright.documents.markup import Failure, ReadDocument
from tunewright.documents.readers import READERS


def read_item(folder: Path, name: str, raw: bytes) -> ReadDocument | Failure:
    (folder / name).write_bytes(raw)
    (item,) = READERS[Path(name).suffix](folder / name)
    return item


def read(folder: Path, name: str, raw: bytes) -> ReadDocument:
    item = read_item(folder, name, raw)
    assert isinstance(item, ReadDocument), item
    return item


def test_slides_in_order_with_tables_charts_and_notes(tmp_path: Path) -> None:
    first = shape("Loads", "title") + shape("One\nTwo") + slide_table(("Ship", "Fee"), ("Brig", "4.70")) + CHART_FRAME
    grouped = f"<p:grpSp>{shape('In a group')}</p:grpSp>" + shape("7", "sldNum") + shape("Board", "ftr")
    chart = chart_of("Ships", "1871", {"May": "4.70", "June": "12"})
    raw = packed(presentation(first, grouped, shape(""), shape("Gone"), hidden=(4,), notes="Say so.", chart=chart))
    document = read(tmp_path, "a.pptx", raw)
    assert document.text == (
        "Loads\n\nOne\nTwo\n\nShip | Fee\nBrig | 4.70\n\nShips\n| 1871\nMay | 4.70\nJune | 12\n\nSay so.\n\nSlide 2\n\nIn a group"
    )
    assert [section.path for section in document.sections] == [(), ("Slide 2",)]
    assert [(part.part, part.reason) for part in document.left_out] == [
        ("slide 3", "no text"),
        ("hidden slides", "hidden"),
    ]


def test_slides_drawn_from_bottom_to_top_are_read_from_top_to_bottom(tmp_path: Path) -> None:
    def box(x: int, y: int, text: str) -> str:
        frame = f'<p:spPr><a:xfrm><a:off x="{x}" y="{y}"/><a:ext cx="400" cy="100"/></a:xfrm></p:spPr>'
        return shape(text).replace("<p:txBody>", f"{frame}<p:txBody>")

    up = box(0, 400, "Closing: 21 sites.") + box(0, 200, "Costs were 48,500.") + box(0, 0, "Two surveys")
    columns = box(0, 0, "A") + box(0, 200, "B") + box(500, 0, "C") + box(500, 200, "D")
    text = read(tmp_path, "a.pptx", packed(presentation(up, columns))).text
    assert text.split("\n\n")[1:] == [
        *("Two surveys", "Costs were 48,500.", "Closing: 21 sites.", "Slide 2"),
        *("A", "B", "C", "D"),
    ]


def test_slides_without_any_text_are_refused(tmp_path: Path) -> None:
    item = read_item(tmp_path, "a.pptx", packed(presentation(shape(""), shape(""))))
    assert isinstance(item, Failure)
    assert (item.reason, item.detail) == ("no text", "2 slide(s) without text that is shown")


def test_a_workbook_as_rows_with_their_header(tmp_path: Path) -> None:
    fees = [
        ["Fees of the harbor"],
        ["Ship", "Fee", "Share", "Day", "Paid"],
        ["Brig", 90.5, (0.07, "0%"), datetime.date(2021, 5, 3), True],
        ["Yawl", (4.7, "0.00"), (0.125, "0.0%"), datetime.datetime(2021, 5, 3, 9, 14), False],
        ["Sloop", 0.1 + 0.2, None, None, (1234567890123456, "0")],
        ["Ketch", (55, "[$€-407]#,##0.00"), None, None, (12, '#,##0 "$"')],
    ]
    document = read(tmp_path, "fees.xlsx", workbook(fees, [], [[1, 2], [3, 4]], titles=("Fees", "Empty", "Bare")))
    assert document.text == (
        "Fees\n\nFees of the harbor\n"
        "Ship: Brig | Fee: 90.5 | Share: 7% | Day: 2021-05-03 | Paid: TRUE\n"
        "Ship: Yawl | Fee: 4.70 | Share: 12.5% | Day: 2021-05-03 09:14:00 | Paid: FALSE\n"
        "Ship: Sloop | Fee: 0.3 | Paid: 1234567890123456\n"
        "Ship: Ketch | Fee: €55.00 | Paid: 12 $\n\nBare\n\n1 | 2\n3 | 4"
    )
    assert [(part.part, part.reason) for part in document.left_out] == [("sheet 2", "no text")]


def sheet(folder: Path, rows: list[list[object]], merged: tuple[str, ...] = (), bold: tuple[int, ...] = ()) -> str:
    """Return the lines of a workbook with one sheet of this content, its first line, the name, left out."""
    import openpyxl
    from openpyxl.styles import Font

    made = openpyxl.load_workbook(io.BytesIO(workbook(rows, titles=("Sheet",))))
    for cells in merged:
        made["Sheet"].merge_cells(cells)
    for row in bold:
        for cell in made["Sheet"][row]:
            cell.font = Font(bold=True)
    made.save(folder / "a.xlsx")
    text = read(folder, "a.xlsx", (folder / "a.xlsx").read_bytes()).text
    return text.removeprefix("Sheet\n\n")


def test_a_row_of_texts_below_a_cell_over_two_columns_is_no_header(tmp_path: Path) -> None:
    rows: list[list[object]] = [["Name", "Contact", None], ["Ann", "Oslo", "a@b.c"], ["Bob", "Rome", "d@e.f"]]
    text = sheet(tmp_path, rows, merged=("B1:C1",))
    assert "Name: Ann | Contact: Oslo | a@b.c\nName: Bob | Contact: Rome | d@e.f" in text


def test_merged_cells_name_every_row_and_column_that_they_span(tmp_path: Path) -> None:
    rows: list[list[object]] = [
        ["Harbor", "Tons 2021", None, "Share"],
        [None, "in", "out", "%"],
        ["Malmby", 4310, 2950, 0.5],
        [None, 5120, 3275, 0.25],
    ]
    assert sheet(tmp_path, rows, merged=("B1:C1", "A3:A4")) == (
        "Harbor: Malmby | Tons 2021 in: 4310 | Tons 2021 out: 2950 | Share %: 0.5\n"
        "Harbor: Malmby | Tons 2021 in: 5120 | Tons 2021 out: 3275 | Share %: 0.25"
    )


def test_values_are_not_named_by_what_is_perhaps_no_header(tmp_path: Path) -> None:
    keys: list[list[object]] = [["Owner", "Ada"], ["Built", 1868], ["Depth", 4.7]]
    assert sheet(tmp_path, keys) == "Owner | Ada\nBuilt | 1868\nDepth | 4.7"
    assert sheet(tmp_path, [["Item", "Fee"], *keys], bold=(1,)).startswith("Item: Owner | Fee: Ada\n")
    two: list[list[object]] = [["A", "B", "C"], ["x", 1, 2], [], ["D", "E", "F"], ["y", 3, 4]]
    assert sheet(tmp_path, two) == "A: x | B: 1 | C: 2\nD | E | F\ny | 3 | 4"
    assert sheet(tmp_path, two, bold=(4,)) == "A: x | B: 1 | C: 2\nD: y | E: 3 | F: 4"
    assert sheet(tmp_path, [["Region", 2019, 2020], ["North", None, 15]]) == "Region | 2019 | 2020\nNorth |  | 15"


def test_superscripts_and_struck_out_cells_of_a_workbook_are_marked(tmp_path: Path) -> None:
    import openpyxl
    from openpyxl.styles import Font

    made = openpyxl.Workbook()
    made.active.append(["cells", "RICH"])
    made.active.append(["price", 20])
    made.active["B2"].font = Font(strike=True)
    made.save(tmp_path / "a.xlsx")
    with zipfile.ZipFile(tmp_path / "a.xlsx") as opened:
        members: dict[str, str | bytes] = {name: opened.read(name) for name in opened.namelist()}
    runs = (("", "10"), ('<rPr><vertAlign val="superscript"/></rPr>', "6"), ("", " per ml"))
    rich = "".join(f'<r>{how}<t xml:space="preserve">{text}</t></r>' for how, text in runs)
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    types, links, content = (
        members[name].decode()  # type: ignore[union-attr]
        for name in ("[Content_Types].xml", "xl/_rels/workbook.xml.rels", "xl/worksheets/sheet1.xml")
    )
    kind = "application/vnd.openxmlformats-officedocument.spreadsheetml.sharedStrings+xml"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    # openpyxl writes strings into the cells, spreadsheets into a part of their own.
    types = types.replace("</Types>", f'<Override PartName="/xl/sharedStrings.xml" ContentType="{kind}"/></Types>')
    link = f'<Relationship Id="strings" Type="{office}/sharedStrings" Target="sharedStrings.xml"/>'
    links = links.replace("</Relationships>", f"{link}</Relationships>")
    content, num_cells = re.subn(
        r'<c r="B1"[^>]*>.*?</c>', '<c r="B1" t="s"><v>0</v></c>', re.sub(r'<c r="A1"[^>]*>.*?</c>', "", content)
    )
    assert num_cells == 1
    members["[Content_Types].xml"], members["xl/_rels/workbook.xml.rels"] = types, links
    members["xl/worksheets/sheet1.xml"] = content
    members["xl/sharedStrings.xml"] = f'<sst xmlns="{main}"><si>{rich}</si></sst>'
    assert read(tmp_path, "a.xlsx", packed(members)).text == "Sheet\n\n10⁶ per ml\nprice | ~~20~~"


def test_points_of_a_chart_are_shown_in_their_format(tmp_path: Path) -> None:
    chart = chart_of("Share", "A", {"44197": "0.256"})
    chart = chart.replace("<c:cat>", "<c:cat><c:formatCode>yyyy</c:formatCode>").replace(
        "<c:val>", "<c:val><c:formatCode>0.0%</c:formatCode>"
    )
    raw = packed(presentation(shape("Loads", "title") + CHART_FRAME, chart=chart))
    assert "2021-01-01 | 25.6%" in read(tmp_path, "a.pptx", raw).text


@pytest.mark.parametrize(("code", "shown"), [("0%", "5%"), ("General", "0.05")])
def test_a_point_of_a_chart_may_be_stored_with_an_exponent(tmp_path: Path, code: str, shown: str) -> None:
    chart = chart_of("Share", "A", {"1.5E3": "5.0000000000000003E-2"})
    chart = chart.replace("<c:val>", f"<c:val><c:formatCode>{code}</c:formatCode>")
    raw = packed(presentation(shape("Loads", "title") + CHART_FRAME, chart=chart))
    assert f"1.5E3 | {shown}" in read(tmp_path, "a.pptx", raw).text  # the category is a text


def test_a_cell_over_several_rows_of_a_slide_is_in_each(tmp_path: Path) -> None:
    table = slide_table(("Malmby", "4,310"), ("", "5,120"))
    first, second = table.split("</a:tr><a:tr>")
    table = first + "</a:tr><a:tr>" + second.replace("<a:tc>", '<a:tc vMerge="1">', 1)
    assert read(tmp_path, "a.pptx", packed(presentation(table))).text.endswith("Malmby | 4,310\nMalmby | 5,120")


def test_formulas_without_a_value_are_counted(tmp_path: Path) -> None:
    document = read(tmp_path, "a.xlsx", workbook([["Sum", "=1+1"], ["x", "=2+2"]]))
    assert [(part.part, part.detail[:12]) for part in document.left_out] == [("formulas", "2 formula(s)")]


def test_a_workbook_of_too_many_cells_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workbooks, "MAX_CELLS", 10)
    item = read_item(tmp_path, "a.xlsx", workbook([[1, 2, 3]] * 5))
    assert isinstance(item, Failure)
    assert item.reason == "too large"


def test_an_open_document_text(tmp_path: Path) -> None:
    body = (
        '<text:h text:outline-level="1">The pier</text:h><text:tracked-changes><text:p>deleted</text:p></text:tracked-changes>'
        '<text:p>It is<text:s text:c="2"/>40<text:tab/>m<text:note><text:note-body><text:p>Since 1871.</text:p></text:note-body>'
        "</text:note> <text:span>long</text:span>.</text:p><text:table-of-content><text:p>Fees 2</text:p></text:table-of-content>"
        '<text:h text:outline-level="2">Fees</text:h><text:list><text:list-item><text:p>Item.</text:p></text:list-item></text:list>'
        "<table:table><table:table-row><table:table-cell><text:p>Ship</text:p></table:table-cell><table:table-cell><text:p>Fee"
        "</text:p></table:table-cell></table:table-row><table:table-row><table:table-cell><text:p>Brig</text:p></table:table-cell>"
        '<table:table-cell><text:p>4.70</text:p></table:table-cell><table:table-cell table:number-columns-repeated="16000"/>'
        "</table:table-row></table:table><text:p><draw:frame><draw:text-box><text:p>Boxed.</text:p></draw:text-box></draw:frame>"
        '<draw:frame><draw:object xlink:href="./F"/></draw:frame><draw:frame><draw:object xlink:href="./Chart"/></draw:frame></text:p>'
    )
    formula = '<math xmlns="http://www.w3.org/1998/Math/MathML"><mfrac><mi>m</mi><mn>2</mn></mfrac></math>'
    document = read(tmp_path, "a.odt", packed(open_text(body, **{"F/content.xml": formula})))
    assert document.text == (
        "The pier\n\nIt is  40\tm[^1] long.\n\n[^1]: Since 1871.\n\nFees\n\nItem.\n\nShip | Fee\nBrig | 4.70\n\n"
        "\\frac{m}{2}\n\nBoxed."
    )
    assert [section.path for section in document.sections] == [(), ("Fees",)]
    assert [part.detail for part in document.left_out] == ["1 object(s)"]


def test_a_cell_over_several_rows_of_an_open_document_is_in_each(tmp_path: Path) -> None:
    def cell(text: str, spans: str = "") -> str:
        return f"<table:table-cell {spans}><text:p>{text}</text:p></table:table-cell>"

    first = cell("Malmby", 'table:number-rows-spanned="2"') + cell("4,310")
    rows = [first, "<table:covered-table-cell/>" + cell("5,120"), cell("Elm") + cell("75")]
    table = f"<table:table>{''.join(f'<table:table-row>{row}</table:table-row>' for row in rows)}</table:table>"
    text = read(tmp_path, "a.odt", packed(open_text(table))).text
    assert text == "Malmby | 4,310\nMalmby | 5,120\nElm | 75"


def test_repeated_covered_cells_of_an_open_document_belong_to_the_cells_above_each(tmp_path: Path) -> None:
    spans = 'table:number-rows-spanned="2"'
    first = "".join(f"<table:table-cell {spans}><text:p>{text}</text:p></table:table-cell>" for text in ("Elm", "2025"))
    rows = [f"{first}<table:table-cell><text:p>4,310</text:p></table:table-cell>"]
    rows += ['<table:covered-table-cell table:number-columns-repeated="2"/>' + rows[0][len(first) :].replace("4", "5")]
    table = f"<table:table>{''.join(f'<table:table-row>{row}</table:table-row>' for row in rows)}</table:table>"
    assert read(tmp_path, "a.odt", packed(open_text(table))).text == "Elm | 2025 | 4,310\nElm | 2025 | 5,310"


def test_a_book_in_reading_order(tmp_path: Path) -> None:
    document = read(
        tmp_path, "a.epub", packed(book("<h1>One</h1><p>First.</p>", "<img/>", "<h1>Two</h1><p>Last <b>x</b>.</p>"))
    )
    assert (document.title, document.metadata) == ("The book", {"author": "Ada"})
    assert document.text == "One\n\nFirst.\n\nTwo\n\nLast x."
    assert [part.part for part in document.left_out] == ["page 2"]


WRITERS = {
    ".pptx": lambda: presentation(shape("Words.")),
    ".odt": lambda: open_text("<text:p>Words.</text:p>"),
    ".epub": lambda: book("<p>Words.</p>"),
}
MAIN = {".pptx": "ppt/slides/slide1.xml", ".odt": "content.xml", ".epub": "OEBPS/text/p 0.xhtml"}


@pytest.mark.parametrize("kind", WRITERS)
def test_bombs_of_size_members_and_entities_are_refused(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = WRITERS[kind]()
    large = members | {MAIN[kind]: bytes(members[MAIN[kind]], "utf-8") + b" " * 2**23}
    item = read_item(tmp_path, f"a{kind}", packed(large))
    assert isinstance(item, Failure)
    assert item.reason == "too large"
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))
    doctype = f'<!DOCTYPE x [<!ENTITY e0 "lol">{entities}]>'
    body = str(members[MAIN[kind]]).replace("Words.", "Words.&e11;")
    try:
        item = read_item(tmp_path, f"b{kind}", packed(members | {MAIN[kind]: doctype + body}))
        assert isinstance(item, ReadDocument)
        assert "lollol" not in item.text
    except package.DocumentError:  # as good
        pass
    monkeypatch.setattr(package, "MAX_MEMBERS", 2)
    item = read_item(tmp_path, f"c{kind}", packed(members | {"x": "", "y": ""}))
    assert isinstance(item, Failure)
    assert item.reason == "too large"


@pytest.mark.parametrize("kind", [".pptx", ".xlsx", ".odt", ".epub", ".docx"])
def test_what_is_no_package_is_refused(tmp_path: Path, kind: str) -> None:
    item = read_item(tmp_path, f"a{kind}", b"\xd0\xcf\x11\xe0 an old file")
    assert isinstance(item, Failure)
    assert item.detail == f"not a {kind}: an older format, or protected by a password?"


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_given_twice_locked_or_outside_are_refused_or_ignored(tmp_path: Path, kind: str) -> None:
    whole = packed(WRITERS[kind]())
    buffer = io.BytesIO(whole)
    with zipfile.ZipFile(buffer, "a") as package_file:
        package_file.writestr(MAIN[kind], "<x>Other words.</x>")
    item = read_item(tmp_path, f"a{kind}", buffer.getvalue())
    assert isinstance(item, Failure)
    assert item.detail == "two parts of the same name"
    locked = bytearray(whole)
    at = whole.index(b"PK\x01\x02")  # the first entry of the list of members: its flags
    locked[at + 8] |= 1
    item = read_item(tmp_path, f"b{kind}", bytes(locked))
    assert isinstance(item, Failure)
    assert item.reason == "encrypted"
    buffer = io.BytesIO(whole)
    with zipfile.ZipFile(buffer, "a") as package_file:
        link = zipfile.ZipInfo("link.xml")
        link.external_attr = 0o120777 << 16
        package_file.writestr(link, "/etc/passwd")
        package_file.writestr("../../outside.txt", "outside")
    item = read_item(tmp_path, f"c{kind}", buffer.getvalue())
    assert isinstance(item, ReadDocument)
    assert "root:" not in item.text
    assert not list(tmp_path.parent.glob("**/outside.txt"))

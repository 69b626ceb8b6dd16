"""Word documents: all that a reader of the page sees is read once, and what is not read is counted."""

from __future__ import annotations

import re
from pathlib import Path

import docx
import pytest
from docx.oxml import parse_xml
from docx.oxml.ns import nsdecls

from support.document_files import docx_members, write_package
from tunewright.documents.markup import ReadDocument
from tunewright.documents.readers import READERS

NAMES = (
    nsdecls("w")
    + ' xmlns:m="http://schemas.openxmlformats.org/officeDocument/2006/math"'
    + ' xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006" xmlns:v="urn:schemas-microsoft-com:vml"'
    + ' xmlns:c="http://schemas.openxmlformats.org/drawingml/2006/chart"'
)


def read(path: Path) -> ReadDocument:
    (item,) = READERS[path.suffix](path)
    assert isinstance(item, ReadDocument), item
    return item


def run(text: str) -> str:
    return f'<w:r><w:t xml:space="preserve">{text}</w:t></w:r>'


def word_file(folder: Path, *blocks: str, parts: dict[str, bytes] | None = None) -> Path:
    """Write a Word document with these blocks of its body, and with other parts that it refers to."""
    written = docx.Document()
    last = written.element.body[-1]
    for block in blocks:
        last.addprevious(parse_xml(re.sub(r"^<[\w:]+", rf"\g<0> {NAMES}", block)))
    path = folder / "a.docx"
    written.save(str(path))
    members = docx_members(path)
    links = "".join(
        f'<Relationship Id="x{kind}" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/{kind}" '
        f'Target="{kind}.xml"/>'
        for kind in parts or {}
    )
    rels = "word/_rels/document.xml.rels"
    members[rels] = members[rels].replace(b"</Relationships>", links.encode() + b"</Relationships>")
    members |= {f"word/{kind}.xml": content for kind, content in (parts or {}).items()}
    return write_package(path, members)


PIECES = {
    "a block content control": (
        f"<w:sdt><w:sdtContent><w:p>{run('Fee 340.')}</w:p></w:sdtContent></w:sdt>",
        "Fee 340.",
    ),
    "an inline content control": (
        f"<w:p>{run('A tug is ')}<w:sdt><w:sdtContent>{run('120 crowns')}</w:sdtContent></w:sdt>{run('.')}</w:p>",
        "A tug is 120 crowns.",
    ),
    "the hint of an empty control": (
        f"<w:p>{run('Name: ')}<w:sdt><w:sdtPr><w:showingPlcHdr/></w:sdtPr><w:sdtContent>{run('Click here')}"
        "</w:sdtContent></w:sdt></w:p>",
        "Name:",
    ),
    "accepted and deleted text": (
        f"<w:p>{run('Lifts ')}<w:del><w:r><w:delText>10</w:delText></w:r></w:del><w:ins>{run('14')}</w:ins></w:p>",
        "Lifts 14",
    ),
    "moved text": (
        f"<w:p><w:moveFrom>{run('Opens.')}</w:moveFrom><w:moveTo>{run('Opens.')}</w:moveTo></w:p>",
        "Opens.",
    ),
    "a deleted row": (
        f"<w:tbl><w:tr><w:trPr><w:del/></w:trPr><w:tc><w:p>{run('old')}</w:p></w:tc></w:tr>"
        f"<w:tr><w:tc><w:p>{run('new')}</w:p></w:tc></w:tr></w:tbl>",
        "new",
    ),
    "a row in a content control": (
        f"<w:tbl><w:tr><w:tc><w:p>{run('Brig')}</w:p></w:tc></w:tr><w:sdt><w:sdtContent><w:tr><w:tc><w:p>{run('Yawl')}"
        "</w:p></w:tc></w:tr></w:sdtContent></w:sdt></w:tbl>",
        "Brig\nYawl",
    ),
    "a cell over two rows": (
        f"<w:tbl><w:tr><w:tc><w:tcPr><w:vMerge w:val='restart'/></w:tcPr><w:p>{run('May')}</w:p></w:tc><w:tc><w:p>"
        f"{run('1')}</w:p></w:tc></w:tr><w:tr><w:tc><w:tcPr><w:vMerge/></w:tcPr><w:p/></w:tc><w:tc><w:p>{run('2')}</w:p>"
        "</w:tc></w:tr></w:tbl>",
        "May | 1\nMay | 2",
    ),
    "a formula": (
        "<w:p><w:r><w:t>E = </w:t></w:r><m:oMath><m:f><m:num><m:r><m:t>m</m:t></m:r></m:num><m:den><m:sSup><m:e><m:r>"
        "<m:t>s</m:t></m:r></m:e><m:sup><m:r><m:t>2</m:t></m:r></m:sup></m:sSup></m:den></m:f></m:oMath></w:p>",
        r"E = \frac{m}{s^{2}}",
    ),
    "a formula of its own": (
        "<m:oMathPara><m:oMath><m:rad><m:deg/><m:e><m:r><m:t>x+1</m:t></m:r></m:e></m:rad></m:oMath></m:oMathPara>",
        r"\sqrt{x+1}",
    ),
    "a text box": (
        f"<w:p>{run('Host.')}<w:r><mc:AlternateContent><mc:Choice><w:txbxContent><w:p>{run('Box.')}</w:p></w:txbxContent>"
        f"</mc:Choice><mc:Fallback><w:pict><v:textbox><w:txbxContent><w:p>{run('Box.')}</w:p></w:txbxContent></v:textbox>"
        "</w:pict></mc:Fallback></mc:AlternateContent></w:r></w:p>",
        "Host.\n\nBox.",
    ),
    "a text box of an old version": (
        f"<w:p><w:r><w:pict><v:textbox><w:txbxContent><w:p>{run('Box.')}</w:p></w:txbxContent></v:textbox></w:pict></w:r></w:p>",
        "Box.",
    ),
    "a field": (
        "<w:p><w:r><w:instrText> PAGE </w:instrText></w:r><w:fldSimple>" + run("7") + "</w:fldSimple></w:p>",
        "7",
    ),
    "a ticked box": (
        "<w:p><w:r><w:fldChar><w:ffData><w:checkBox><w:checked/></w:checkBox></w:ffData></w:fldChar></w:r>"
        + run(" paid")
        + "</w:p>",
        "☑ paid",
    ),
    "a list of a form": (
        "<w:p><w:r><w:fldChar><w:ffData><w:ddList><w:result w:val='1'/><w:listEntry w:val='red'/><w:listEntry w:val='blue'/>"
        "</w:ddList></w:ffData></w:fldChar></w:r></w:p>",
        "blue",
    ),
    "symbols": (
        "<w:p><w:r><w:t>9</w:t><w:sym w:font='Symbol' w:char='F0B0'/><w:sym w:font='Wingdings' w:char='F0FE'/></w:r></w:p>",
        "9°☑",
    ),
    "a ligature": (f"<w:p>{run('eﬃcient ﬁre')}</w:p>", "efficient fire"),
}


@pytest.mark.parametrize("name", PIECES)
def test_visible_text_is_read_once(tmp_path: Path, name: str) -> None:
    block, text = PIECES[name]
    assert read(word_file(tmp_path, "<w:p/>", block)).text == text


def test_notes_follow_the_paragraph_that_refers_to_them(tmp_path: Path) -> None:
    def notes(kind: str, text: str) -> bytes:
        return f"<w:{kind}s {NAMES}><w:{kind} w:id='2'><w:p>{run(text)}</w:p></w:{kind}></w:{kind}s>".encode()

    reference = "<w:r><w:footnoteReference w:id='2'/></w:r>"
    path = word_file(
        tmp_path,
        f"<w:p>{run('Deep')}{reference}{run('.')}<w:r><w:endnoteReference w:id='2'/></w:r></w:p>",
        f"<w:p>{run('Again')}{reference}</w:p>",
        parts={"footnotes": notes("footnote", "Since 1871."), "endnotes": notes("endnote", "By hand.")},
    )
    assert read(path).text == "Deep[^1].[^2]\n\n[^1]: Since 1871.\n\n[^2]: By hand.\n\nAgain[^1]"


def test_what_is_not_read_is_counted(tmp_path: Path) -> None:
    path = word_file(
        tmp_path, f"<w:p>{run('Words.')}<w:r><w:object/></w:r><w:r><w:drawing><c:chart/></w:drawing></w:r></w:p>"
    )
    written = docx.Document(str(path))
    written.sections[0].header.paragraphs[0].text = "Port of Elm"
    written.save(str(path))
    left_out = {failure.part: failure.reason for failure in read(path).left_out}
    assert left_out == {
        "embedded objects": "not read",
        "charts": "not read",
        "headers and footers": "boilerplate",
    }


def test_a_private_character_is_kept_and_warned_of(tmp_path: Path) -> None:
    document = read(word_file(tmp_path, "<w:p><w:r><w:sym w:font='Own' w:char='F041'/><w:t>x</w:t></w:r></w:p>"))
    assert document.text == "\uf041x"
    assert "U+F041" in document.doubts[0]


def test_headings_by_outline_and_by_the_style_below(tmp_path: Path) -> None:
    styles = (
        f"<w:styles {NAMES}><w:style w:styleId='a'><w:name w:val='Heading 2'/></w:style>"
        "<w:style w:styleId='b'><w:name w:val='Own'/><w:basedOn w:val='a'/></w:style>"
        "<w:style w:styleId='c'><w:name w:val='Loop'/><w:basedOn w:val='c'/></w:style>"
        "<w:style w:styleId='d'><w:name w:val='Überschrift'/><w:pPr><w:outlineLvl w:val='0'/></w:pPr></w:style></w:styles>"
    )
    path = word_file(
        tmp_path,
        *(f"<w:p><w:pPr><w:pStyle w:val='{s}'/></w:pPr>{run(s)}</w:p>" for s in "dbc"),
    )
    members = docx_members(path)
    members["word/styles.xml"] = styles.encode()
    assert [section.path for section in read(write_package(path, members)).sections] == [("b",)]
    assert read(path).text == "d\n\nb\n\nc"

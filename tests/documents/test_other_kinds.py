"""Mail, notebooks, JSON, LaTeX, rich text and source code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.office_files import NOTEBOOK, RTF, TEX, mailbox, message
from tunewright.documents.markup import Failure, ReadDocument
from tunewright.documents.readers import CODE, READERS
from tunewright.documents.sandbox import read_files


def read_all(folder: Path, name: str, content: str | bytes) -> list[ReadDocument | Failure]:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return READERS[Path(name).suffix](folder / name)


def read(folder: Path, name: str, content: str | bytes) -> ReadDocument:
    (item,) = read_all(folder, name, content)
    assert isinstance(item, ReadDocument), item
    return item


def test_a_message_with_alternatives_and_an_attachment(tmp_path: Path) -> None:
    document = read(tmp_path, "a.eml", message("Grüße: 4.70 m", "<p>Page</p>", "plan.pdf").as_bytes())
    assert (document.title, document.text) == ("The pier", "Grüße: 4.70 m")
    assert document.metadata["from"] == "Ada <ada@elm.example>"
    assert [(part.part, part.reason) for part in document.left_out] == [("attachment plan.pdf", "attachment")]


def test_a_message_that_is_a_page_alone(tmp_path: Path) -> None:
    page = "<p>The <b>pier</b>.</p><table><tr><td>Brig<td>4.70</table>"
    assert read(tmp_path, "a.eml", message("", page).as_bytes()).text == "The pier.\n\nBrig | 4.70"


def test_a_message_inside_of_a_message_has_its_own_heading(tmp_path: Path) -> None:
    outer = message("The price is now 15 crowns.", subject="New offer")
    outer.add_attachment(message("The old price was 20 crowns.", subject="Old offer"))
    (tmp_path / "a.eml").write_bytes(outer.as_bytes())
    (document,) = READERS[".eml"](tmp_path / "a.eml")
    assert isinstance(document, ReadDocument)
    assert document.text == (
        "The price is now 15 crowns.\n\nAttached message: subject: Old offer; from: Ada <ada@elm.example>; "
        "date: Mon, 03 May 2021 09:14:00 +0000\n\nThe old price was 20 crowns."
    )


def test_a_plain_form_that_only_points_to_the_page_is_not_chosen(tmp_path: Path) -> None:
    page = "<p>The toll of the pier is 75 crowns for each ship of more than ten tons.</p>"
    (tmp_path / "a.eml").write_bytes(message("View in a browser.", page).as_bytes())
    (document,) = READERS[".eml"](tmp_path / "a.eml")
    assert isinstance(document, ReadDocument) and document.text.startswith("The toll of the pier is 75 crowns")


@pytest.mark.parametrize("declared", ["windows-1251", "us-ascii", "nonsense", "utf-8"])
def test_a_message_whatever_encoding_it_declares(tmp_path: Path, declared: str) -> None:
    text = "Портовый сбор составляет триста крон в день. Капитан платит утром."
    head = f"Subject: x\nContent-Type: text/plain; charset={declared}\nContent-Transfer-Encoding: 8bit\n\n"
    assert read(tmp_path, "a.eml", head.encode() + text.encode("cp1251")).text == text


def test_a_message_without_text_is_refused(tmp_path: Path) -> None:
    (item,) = read_all(tmp_path, "a.eml", message("\n", "", "plan.pdf").as_bytes())
    assert isinstance(item, Failure)
    assert (item.reason, item.detail) == ("no text", "attachment plan.pdf")


def test_a_mailbox_is_a_document_a_message(tmp_path: Path) -> None:
    items = read_all(tmp_path, "a.mbox", mailbox(message("First"), message("Second\n\n>From here on")))
    assert [(item.text, item.part) for item in items if isinstance(item, ReadDocument)] == [
        ("First", "1"),
        ("Second\n\nFrom here on", "2"),
    ]
    (refused,) = read_all(tmp_path, "b.mbox", b"no mailbox")
    assert isinstance(refused, Failure)


def test_a_notebook(tmp_path: Path) -> None:
    document = read(tmp_path, "a.ipynb", json.dumps(NOTEBOOK))
    assert document.text == (
        "The pier\n\nIt is **40 m** long.\n\n```\n# length\nprint(40)\n```\n\n```\n40\n```\n\nLoads\n\nNone."
    )
    assert [part.detail for part in document.left_out] == ["1 figure(s)"]


def test_results_of_a_notebook_in_markdown_formulas_and_pages(tmp_path: Path) -> None:
    outputs = [{"data": {kind: text}} for kind, text in (
        ("text/markdown", "Mean: **17**"), ("text/latex", "$x = 5$"), ("text/html", "<table><tr><td>Brig<td>4.70</table>"),
    )]  # fmt: skip
    cells = [{"cell_type": "code", "source": "show()", "outputs": outputs}]
    (tmp_path / "a.ipynb").write_text(json.dumps({"nbformat": 4, "cells": cells}))
    (document,) = READERS[".ipynb"](tmp_path / "a.ipynb")
    assert isinstance(document, ReadDocument)
    assert document.text.endswith("Mean: **17**\n\n$x = 5$\n\n```\nBrig | 4.70\n```")


def test_json_as_lines_and_rows(tmp_path: Path) -> None:
    content = (
        '{"title": "Harbor", "pier": {"m": 4.70, "ok": true, "of": ["a", 1e3]}, "ships": [{"name": "Brig", "fee": 90}]}'
    )
    document = read(tmp_path, "a.json", content)
    assert document.title == "Harbor"
    assert document.text == "title: Harbor\npier.m: 4.70\npier.ok: true\npier.of: a, 1e3\nships: name: Brig | fee: 90"
    items = read_all(tmp_path, "b.json", '[{"text": "One"}, {"text": "Two", "id": "x"}, {"no": 1}]')
    assert [(item.part, isinstance(item, ReadDocument)) for item in items] == [("1", True), ("x", True), ("3", False)]


def test_a_latex_source(tmp_path: Path) -> None:
    document = read(tmp_path, "a.tex", TEX)
    assert (document.title, document.metadata) == ("The pier of Elm", {"author": "Ada"})
    assert {section.path: document.text[section.start : section.end] for section in document.sections} == {
        ("Loads",): (
            "The pier carries 4.7 t, or 12 % more (Measured in May.) than in 1871, see [x].\n"
            "\\[ F = \\frac{m}{s^2} \\]\n\nShip | Fee\nBrig | 90\nYawl | 55"
        ),
        ("Loads", "Café"): "Energy $E=mc^2$ and Öl.\n% kept \\x",
    }


def test_commands_that_a_latex_source_defines_and_units_are_text(tmp_path: Path) -> None:
    path = tmp_path / "a.tex"
    path.write_text(
        r"\newcommand{\drug}{Zolvanin}\newcommand{\dose}[1]{#1~mg}\def\half{0.5}"
        r"\newcommand{\opt}[2][5]{#1 of #2}\newcommand{\trial}{the \drug{} trial}"
        r"\begin{document}In \trial\ of \SI{12.5}{\kilo\gram}, \qty{3}{\percent}, \SIrange{2}{4}{mm} and "
        r"\SI{9.81}{\metre\per\second\squared}, \dose{40} or \half g; \opt{9}, \opt[7]{9}, \ang{30}, \verb|a_b 9|, "
        r"\unknown{2}{4}, \textcolor{red}{5}. \input{other}\end{document}"
    )
    (document,) = READERS[".tex"](path)
    assert isinstance(document, ReadDocument)
    assert document.text == (
        "In the Zolvanin trial of 12.5 kg, 3 %, 2 to 4 mm and 9.81 m/s², 40 mg or 0.5g; 5 of 9, 7 of 9, 30°, a_b 9, 2 4, 5."
    )
    assert [(part.part, part.detail) for part in document.left_out] == [("included files", "other")]


def test_latex_that_no_reader_of_the_page_sees_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.tex"
    path.write_text(
        r"\begin{document}\iffalse Never 3 \ifnum1>0 x\fi\else Shown 4.\fi{} \iftrue Yes 5.\else No 6.\fi{} $a \iff b$ "
        r"\begin{comment}Hidden 7\end{comment}\setlength{\x}{5pt}\setcounter{page}{9}\rule{1pt}{2pt}\footnotemark[3]"
        r"\includegraphics[width=.5\textwidth]{a.png}\parbox{5cm}{All text} of 3\nicefrac{1}{2} \EUR{12} \pm 5. "
        r"\caption[short 8]{Catch 2021}\begin{itemize}\item[a)] One\end{itemize}"
        "\\begin{tabular}{ll}\\multirow{2}{*}{North} & 14 \\\\ & 15 \\\\ \\multicolumn{2}{c}{Total 29} \\\\\\end{tabular}"
        r"\end{document}"
    )
    (document,) = READERS[".tex"](path)
    assert isinstance(document, ReadDocument)
    assert " ".join(document.text.split()) == (
        r"Shown 4. Yes 5. $a \iff b$ All text of 3 1/2 €12 ±5. Catch 2021 - a) One North | 14 North | 15 Total 29"
    )


def test_macros_that_grow_without_end_are_left(tmp_path: Path) -> None:
    path = tmp_path / "a.tex"
    path.write_text(
        "".join(rf"\def\{a}{{{f'{chr(92)}{b} x' * 10}}}" for a, b in ("ab", "bc", "ca")) + r"The \a end." * 2000
    )
    (document,) = READERS[".tex"](path)
    assert isinstance(document, ReadDocument) and document.text.count("end.") == 2000 and len(document.text) < 2_000_000


def test_rich_text(tmp_path: Path) -> None:
    assert read(tmp_path, "a.rtf", RTF).text == "The pier is 40 m long.\nFee: € 12 р.\nShip | Fee\nBrig | 90"
    (refused,) = read_all(tmp_path, "b.rtf", b"no rich text")
    assert isinstance(refused, Failure)


def test_rich_text_without_what_is_hidden_and_with_its_notes(tmp_path: Path) -> None:
    (tmp_path / "a.rtf").write_bytes(
        rb"{\rtf1\ansi Toll 75{\v secret 99}{\deleted old 3} crowns{\footnote See 2020.} a|b. \v gone 5\v0 Kept.\par"
        rb"\trowd\cellx1\cellx2\pard\intbl North\par Bay\cell 14\cell\row\pard End.}"
    )
    (document,) = READERS[".rtf"](tmp_path / "a.rtf")
    assert isinstance(document, ReadDocument)
    assert document.text == "Toll 75 crowns (See 2020.) a|b. Kept.\nNorth Bay | 14\nEnd."


def test_source_code_keeps_its_lines(tmp_path: Path) -> None:
    code = "# A comment: 4.70\ndef f(x):\n    return x + 1"
    document = read(tmp_path, "a.py", code)
    assert (document.title, document.text) == ("a.py", code)
    assert {".py", ".java", ".rs", ".sql"} < set(CODE)


@pytest.mark.parametrize(
    "part",
    [
        "$",
        "\\section{",
        "\\begin{equation}",
        "\\begin{verbatim}x",
        "\\begin{tabular}{l",
        "\\footnote{",
        "\\cite[a",
        "\\title{",
        "\\[",
        "\\SI{",
        "\\newcommand{\\a}{",
        "\\item[",
        "\\iffalse ",
    ],
)
def test_markup_that_never_closes_takes_linear_time(tmp_path: Path, part: str) -> None:
    path = tmp_path / "a.tex"
    path.write_text(part * 20_000 + "The end.")  # in quadratic time, a minute
    ((_, reading),) = read_files([path], timeout_s=30)
    assert not reading.failures or reading.failures[0].reason != "timed out"

"""PDFs made from known text, read by tunewright and by other readers: words in order, numbers, table rows, time.

    python benchmarks/pdf_readers.py [--chromium /usr/bin/chromium] [--out benchmarks/results/pdf_readers.json]

Needs reportlab, pillow, pypdfium2 and pdfplumber, and for the scanned pages the extra ``ocr``. The text is that of the
bundled abstracts and reports. Scores of a PDF: the longest common subsequence of words, as a share of the known words
(in order) and of the read words (not made up or repeated); numbers read exactly; table rows on one line, cells in order.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import subprocess
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.metadata import distribution, version
from itertools import cycle
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

from rapidfuzz.distance import LCSseq

from tunewright.documents.sandbox import read_files

EXAMPLES = Path(__file__).parents[1] / "src" / "tunewright" / "examples"
WIDTH, HEIGHT, MARGIN = 595, 842, 60
TABLE = [
    ("Region", "Sites", "Patients", "Positive", "Share"),
    ("North Bay", "14", "1,204", "312", "25.9%"),
    ("Lower Valley", "9", "876", "201", "22.9%"),
    ("Coast", "21", "2,310", "498", "21.6%"),
    ("High Plain", "6", "415", "77", "18.6%"),
    ("Old Town", "11", "1,038", "188", "18.1%"),
]
CELLS = [cell for row in TABLE for cell in row]


@dataclass
class Case:
    """A PDF: what it shows, and the words that a reader is to return in this order."""

    name: str
    words: list[str]
    rows: list[tuple[str, ...]] = field(default_factory=list)
    path: Path = Path()


def prose() -> Iterator[str]:
    """Yield paragraphs of the bundled abstracts, 40 to 160 words each."""
    for file in sorted((EXAMPLES / "abstracts").glob("*.md")):
        for paragraph in file.read_text(encoding="utf-8").split("---", 2)[-1].split("\n\n"):
            text = " ".join(paragraph.split())
            if not text.startswith("#") and 40 <= len(text.split()) <= 160 and text.isascii():
                yield text


def split_words(text: str) -> list[str]:
    """Return words and numbers without punctuation around them; a table's bars are none."""
    bare = (word.strip(".,;:()[]|\"'“”‘’") for word in text.split())
    return [word for word in bare if word]


def wrapped(text: str, width: float, size: float, hyphens: bool = False) -> list[str]:
    """Return lines of a width in points; with hyphens, long words are cut where a line has room."""
    from reportlab.pdfbase.pdfmetrics import stringWidth

    lines, line = [], ""
    for word in text.split():
        wanted = f"{line} {word}".strip()
        if stringWidth(wanted, "Times-Roman", size) <= width:
            line = wanted
            continue
        if hyphens and len(word) > 8 and word.isalpha():
            for cut in range(len(word) - 3, 3, -1):
                part = f"{line} {word[:cut]}-".strip()
                if stringWidth(part, "Times-Roman", size) <= width:
                    lines.append(part)
                    line, word = "", word[cut:]
                    break
        if line:
            lines.append(line)
        line = word
    return [*lines, line]


def drawn_cases(folder: Path, paragraphs: Iterator[str]) -> Iterator[Case]:
    """Yield the PDFs drawn by reportlab."""
    from reportlab.pdfgen.canvas import Canvas

    def canvas(name: str) -> Canvas:
        return Canvas(str(folder / f"{name}.pdf"), pagesize=(WIDTH, HEIGHT), invariant=1)

    def column(c: Canvas, lines: Sequence[str], x: float, y: float, size: float = 10, leading: float = 13) -> float:
        c.setFont("Times-Roman", size)
        for line in lines:
            c.drawString(x, y, line)
            y -= leading
        return y

    def pages(name: str, texts: list[list[str]], decorate: Callable[[Canvas, int], None], **options: Any) -> Case:
        c = canvas(name)
        for number, page in enumerate(texts, 1):
            decorate(c, number)
            y = HEIGHT - MARGIN - 50
            for text in page:
                y = column(c, wrapped(text, WIDTH - 2 * MARGIN, 10, **options), MARGIN, y) - 8
            c.showPage()
        c.save()
        return Case(name, split_words(" ".join(text for page in texts for text in page)))

    def some(count: int) -> list[str]:
        return [next(paragraphs) for _ in range(count)]

    def nothing(c: Canvas, number: int) -> None:
        pass

    def headed(lines_above: list[str], lines_below: list[str]) -> Callable[[Canvas, int], None]:
        def decorate(c: Canvas, number: int) -> None:
            column(c, [line.replace("#", str(number)) for line in lines_above], MARGIN, HEIGHT - 40, 9, 11)
            column(c, [line.replace("#", str(number)) for line in lines_below], MARGIN, 45, 9, 11)

        return decorate

    yield pages("drawn, one column", [some(3), some(3)], nothing)
    yield pages("drawn, header and footer", [some(3) for _ in range(4)], headed(["Annual Review 2024"], ["Page #"]))
    yield pages(
        "drawn, two-line header and footer",
        [some(3) for _ in range(4)],
        headed(["Ministry of Harbors", "Circular 17"], ["Confidential draft", "page # of 4"]),
    )
    yield pages("drawn, hyphenated", [some(4), some(4)], nothing, hyphens=True)

    def two_columns(name: str, by_row: bool) -> Case:
        c, texts = canvas(name), some(6)
        width = (WIDTH - 2 * MARGIN - 24) / 2
        sides = [[line for t in texts[k : k + 3] for line in wrapped(t, width, 10)] for k in (0, 3)]
        c.setFont("Times-Roman", 10)
        places = [(x, y) for x in range(2) for y in range(len(sides[x]))]
        for side, row in sorted(places, key=lambda at: at[::-1]) if by_row else places:
            c.drawString(MARGIN + side * (width + 24), HEIGHT - MARGIN - 13 * row, sides[side][row])
        c.save()
        return Case(name, split_words(" ".join(texts)))

    yield two_columns("drawn, two columns one by one", by_row=False)
    yield two_columns("drawn, two columns row by row", by_row=True)

    def table(name: str, by_column: bool) -> Case:
        c, (before, after) = canvas(name), some(2)
        y = column(c, wrapped(before, WIDTH - 2 * MARGIN, 10), MARGIN, HEIGHT - MARGIN) - 10
        cells = [(row, number) for row in range(len(TABLE)) for number in range(5)]
        for row, number in sorted(cells, key=lambda at: at[::-1]) if by_column else cells:
            c.drawString(MARGIN + 95 * number, y - 16 * row, TABLE[row][number])
        column(c, wrapped(after, WIDTH - 2 * MARGIN, 10), MARGIN, y - 16 * len(TABLE) - 10)
        c.save()
        return Case(name, split_words(" ".join([before, *CELLS, after])), TABLE)

    yield table("drawn, table by rows", by_column=False)
    yield table("drawn, table by columns", by_column=True)

    def footnotes(name: str) -> Case:
        c, (body, note) = canvas(name), some(2)
        column(c, wrapped(body, WIDTH - 2 * MARGIN, 10), MARGIN, HEIGHT - MARGIN)
        column(c, wrapped(note, WIDTH - 2 * MARGIN, 8), MARGIN, 160, 8, 10)
        c.save()
        return Case(name, split_words(f"{body} {note}"))

    yield footnotes("drawn, footnote")

    def rotated(name: str) -> Case:
        c, texts = canvas(name), some(2)
        c.setPageRotation(90)
        c.translate(WIDTH, 0)
        c.rotate(90)
        y: float = WIDTH - MARGIN
        for text in texts:
            y = column(c, wrapped(text, HEIGHT - 2 * MARGIN, 10), MARGIN, y) - 8
        c.save()
        return Case(name, split_words(" ".join(texts)))

    yield rotated("drawn, rotated page")

    def form(name: str) -> Case:
        c, (text,) = canvas(name), some(1)
        column(c, wrapped(text, WIDTH - 2 * MARGIN, 10), MARGIN, HEIGHT - MARGIN)
        for number, (key, value) in enumerate((("Applicant", "Marta Olsen"), ("Amount", "4,750.20"))):
            c.acroForm.textfield(name=key, value=value, x=MARGIN, y=400 - 40 * number, width=200, height=20)
        c.save()
        return Case(name, split_words(f"{text} Marta Olsen 4,750.20"))

    yield form("drawn, form")

    def formula(name: str) -> Case:
        c, (text,) = canvas(name), some(1)
        y = column(c, wrapped(text, WIDTH - 2 * MARGIN, 10), MARGIN, HEIGHT - MARGIN) - 10
        column(c, ["E = 3.2 x + 0.75 y", "where x is at most 12.5 and y at least 4"], MARGIN + 40, y)
        c.save()
        return Case(name, split_words(f"{text} E = 3.2 x + 0.75 y where x is at most 12.5 and y at least 4"))

    yield formula("drawn, formula")


STYLE = "body{font:11pt 'DejaVu Serif',serif;text-align:justify}td,th{padding:2px 10px;text-align:left}"


def printed_cases(folder: Path, paragraphs: Iterator[str], chromium: str) -> Iterator[Case]:
    """Yield the PDFs that Chromium prints, ligatures and automatic hyphens included."""

    def printed(name: str, body: str, words: Sequence[str], style: str = "", rows: Sequence[Any] = ()) -> Case:
        page = folder / f"{name}.html"
        html = f'<html lang="en"><meta charset="utf-8"><style>{STYLE}{style}</style><body>{body}</body></html>'
        page.write_text(html, encoding="utf-8")
        command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer"]
        target = f"--print-to-pdf={folder / f'{name}.pdf'}"
        subprocess.run([*command, target, page.as_uri()], check=True, capture_output=True, timeout=120)
        return Case(name, split_words(" ".join(words)), list(rows))

    def some(count: int) -> list[str]:
        return [next(paragraphs) for _ in range(count)]

    def paragraph(texts: Sequence[str]) -> str:
        return "".join(f"<p>{escape(text)}</p>" for text in texts)

    texts = some(6)
    yield printed("printed, one column", paragraph(texts), texts)
    texts = some(8)
    yield printed("printed, two columns", paragraph(texts), texts, "body{columns:2}")
    texts = some(8)
    title = ["A survey of coastal stations"]
    body = f"<h1>{title[0]}</h1><div style='columns:2;hyphens:auto'>{paragraph(texts)}</div>"
    yield printed("printed, two columns, title, hyphens", body, title + texts)
    texts = some(6)
    yield printed("printed, hyphens", paragraph(texts), texts, "body{hyphens:auto;width:9cm}")
    texts = some(4)
    ligatures = ["The official staff of the offline office affirmed five fluffy flags and a difficult fjord."]
    style = "body{font-family:'DejaVu Serif';font-variant-ligatures:common-ligatures}"
    yield printed("printed, ligatures", paragraph(ligatures + texts), ligatures + texts, style)
    rows = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in TABLE)
    texts = some(2)
    body = f"{paragraph(texts[:1])}<table>{rows}</table>{paragraph(texts[1:])}"
    yield printed("printed, table", body, [texts[0], *CELLS, texts[1]], rows=TABLE)
    body = (
        f"{paragraph(texts[:1])}<table border='1' style='border-collapse:collapse'>{rows}</table>{paragraph(texts[1:])}"
    )
    yield printed("printed, table with rules", body, [texts[0], *CELLS, texts[1]], rows=TABLE)
    texts = some(14)
    fixed = "<div style='position:fixed;top:-1cm'>Coast Guard Bulletin</div><div style='position:fixed;bottom:-1cm'>Public</div>"
    yield printed("printed, header and footer", fixed + paragraph(texts), texts, "@page{margin:3cm}")
    texts = some(2)
    raised = ["About 10⁶ cells were counted in 2019³ on 12 m² at 3.5 · 10⁻⁷ of the 4 rates."]
    marked = re.sub("[⁰¹²³⁴-⁹⁻]+", lambda match: f"<sup>{unicodedata.normalize('NFKC', match[0])}</sup>", raised[0])
    body = f"{paragraph(texts[:1])}<p>{marked}</p>{paragraph(texts[1:])}"
    yield printed("printed, superscripts", body, [texts[0], *raised, texts[1]])
    texts = some(3)
    lists = [["Check the oil level", "Close the valve at 2.5 bar", "Wait 15 minutes"], ["gloves", "a dry cloth"]]
    body = paragraph(texts) + "".join(f"<ul>{''.join(f'<li>{item}</li>' for item in items)}</ul>" for items in lists)
    yield printed("printed, lists", body, [*texts, *lists[0], *lists[1]])
    texts = some(3)
    note = "Measured in 2019 at 37.5 degrees"
    body = f"{paragraph(texts)}<hr><p style='font-size:8pt'>{note}</p>"
    yield printed("printed, footnote", body, [*texts, note])


def scanned_cases(folder: Path, paragraphs: Iterator[str]) -> Iterator[Case]:
    """Yield PDFs with pages that are pictures, drawn by pillow at 200 dpi."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.truetype("/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf", 30)

    def picture(blocks: list[tuple[float, str]], width: float) -> Any:
        page = Image.new("RGB", (1654, 2339), "white")
        draw = ImageDraw.Draw(page)
        for x, text in blocks:
            y = 150.0
            line = ""
            for word in [*text.split(), ""]:
                if word and draw.textlength(f"{line} {word}", font) <= width:
                    line = f"{line} {word}".strip()
                    continue
                draw.text((x, y), line, "black", font)
                line, y = word, y + 44
        return page

    def scan(name: str, pictures: list[Any], words: Sequence[str]) -> Case:
        pictures[0].save(folder / f"{name}.pdf", save_all=True, append_images=pictures[1:], resolution=200)
        return Case(name, split_words(" ".join(words)))

    texts = [next(paragraphs) for _ in range(4)]
    one = [" ".join(texts[:2]), " ".join(texts[2:])]
    yield scan("scanned, one column", [picture([(150, text)], 1350) for text in one], one)
    texts = [next(paragraphs) for _ in range(2)]
    yield scan("scanned, two columns", [picture([(120, texts[0]), (860, texts[1])], 660)], texts)


def read_by_tunewright(path: Path) -> str:
    """Return the text as ingest has it."""
    ((_, reading),) = read_files([path])
    return "\n".join(document.text for document in reading.documents)


def read_by_pypdf(path: Path) -> str:
    """Return the text of pypdf."""
    import pypdf

    return "\n".join(page.extract_text() for page in pypdf.PdfReader(path).pages)


def read_by_pypdfium2(path: Path) -> str:
    """Return the text of pypdfium2."""
    import pypdfium2

    document = pypdfium2.PdfDocument(path)
    return "\n".join(page.get_textpage().get_text_range() for page in document)


def read_by_pdfplumber(path: Path) -> str:
    """Return the text of pdfplumber."""
    import pdfplumber

    with pdfplumber.open(path) as document:
        return "\n".join(page.extract_text() for page in document.pages)


READERS = {
    "tunewright": read_by_tunewright,
    "pypdf": read_by_pypdf,
    "pypdfium2": read_by_pypdfium2,
    "pdfplumber": read_by_pdfplumber,
}


def scores(case: Case, text: str) -> dict[str, float]:
    """Return the scores of a text, each in [0, 1]."""
    read = split_words(text)
    common = LCSseq.similarity(case.words, read)
    wanted = Counter(word for word in case.words if any(c.isdigit() for c in word))
    kept = sum((wanted & Counter(read)).values())
    lines = [" ".join(split_words(line)) for line in text.splitlines()]
    rows = sum(any(" ".join(split_words(" ".join(row))) in line for line in lines) for row in case.rows)
    return {
        "in_order": common / len(case.words),
        "not_added": common / len(read) if read else 0.0,
        "numbers": kept / wanted.total() if wanted else 1.0,
        **({"rows": rows / len(case.rows)} if case.rows else {}),
    }


def megabytes(package: str) -> float:
    """Return the size of an installed package without its dependencies."""
    files = distribution(package).files or []
    return round(sum(Path(str(f.locate())).stat().st_size for f in files if Path(str(f.locate())).is_file()) / 1e6, 1)


def main() -> None:
    """Make the PDFs, read each with every reader, and record the scores."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/pdf_readers.json"))
    options = parser.parse_args()
    paragraphs = cycle(prose())
    results: dict[str, dict[str, Any]] = {}
    times = Counter[str]()
    with TemporaryDirectory() as name:
        folder = Path(name)
        cases = [*drawn_cases(folder, paragraphs), *scanned_cases(folder, paragraphs)]
        cases += printed_cases(folder, paragraphs, options.chromium)
        for case in cases:
            results[case.name] = {}
            for reader, read in READERS.items():
                start = time.perf_counter()
                text = read(folder / f"{case.name}.pdf")
                times[reader] += time.perf_counter() - start
                results[case.name][reader] = {key: round(value, 4) for key, value in scores(case, text).items()}
            print(case.name, json.dumps(results[case.name]), flush=True)  # noqa: T201
    text_cases = [name for name in results if not name.startswith("scanned")]
    summary = {
        reader: {
            key: round(mean(values), 4)
            for key in ("in_order", "not_added", "numbers", "rows")
            if (values := [r[reader][key] for n, r in results.items() if n in text_cases and key in r[reader]])
        }
        | {"seconds": round(times[reader], 2)}
        for reader in READERS
    }
    record = {
        "pdfs": len(results),
        "text_pdfs": summary,
        "scanned_words_in_order": {n: r["tunewright"]["in_order"] for n, r in results.items() if n not in text_cases},
        "versions": {p: version(p) for p in ("pypdf", "pypdfium2", "pdfplumber", "rapidocr", "onnxruntime")},
        "megabytes": {p: megabytes(p) for p in ("pypdf", "pypdfium2", "pdfplumber", "rapidocr", "onnxruntime")},
        "machine": platform.machine(),
        "each": results,
    }
    options.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(record["text_pdfs"], indent=1), record["scanned_words_in_order"])  # noqa: T201


if __name__ == "__main__":
    main()

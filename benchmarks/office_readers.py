"""Office documents, books and pages made from known text, read by tunewright and by other readers.

    python benchmarks/office_readers.py --rivals PYTHON [--out benchmarks/results/office_readers.json]

Needs python-docx, python-pptx, xlsxwriter, odfpy and ebooklib. PYTHON is an interpreter of an environment of its own with
markitdown[docx,pptx,xlsx], kreuzberg and docling-slim[format-office,format-opendocument,format-html]. docling's readers of
these formats need no model. Scores: the longest common subsequence of words, as a share of the shown words; numbers read
as they are shown (separators of thousands aside); rows of tables on one line, cells in order; headings read as headings;
words that are hidden or frame every page, left out. A document that a reader refuses is not in its averages.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

from office_documents import Case, all_documents
from pdf_readers import prose, split_words
from rapidfuzz.distance import LCSseq

from tunewright.documents.sandbox import read_files

READ_BY_RIVALS = r"""
import json, sys
from importlib.metadata import version
from pathlib import Path

def by_markitdown(path):
    from markitdown import MarkItDown
    return MarkItDown().convert(str(path)).text_content

def by_kreuzberg(path):
    from kreuzberg import ExtractionConfig, extract_file_sync
    return extract_file_sync(str(path), config=ExtractionConfig(output_format="markdown")).content

def by_docling(path):
    from docling.backend import epub_backend, html_backend, msexcel_backend, mspowerpoint_backend, msword_backend
    from docling.backend import opendocument_backend
    from docling.datamodel.base_models import InputFormat
    from docling.datamodel.document import InputDocument
    kinds = {
        ".docx": (InputFormat.DOCX, msword_backend.MsWordDocumentBackend),
        ".pptx": (InputFormat.PPTX, mspowerpoint_backend.MsPowerpointDocumentBackend),
        ".xlsx": (InputFormat.XLSX, msexcel_backend.MsExcelDocumentBackend),
        ".html": (InputFormat.HTML, html_backend.HTMLDocumentBackend),
        ".odt": (InputFormat.ODT, opendocument_backend.OdtDocumentBackend),
        ".epub": (InputFormat.EPUB, epub_backend.EpubDocumentBackend),
    }
    kind, backend = kinds[path.suffix]
    document = InputDocument(path_or_stream=path, format=kind, backend=backend, filename=path.name)
    return document._backend.convert().export_to_markdown()

read = {"markitdown": by_markitdown, "kreuzberg": by_kreuzberg, "docling": by_docling}
texts = {}
for name in sys.argv[2:]:
    for reader in read:
        try:
            texts[f"{reader} {name}"] = read[reader](Path(name))
        except Exception as error:
            texts[f"{reader} {name}"] = f"!{type(error).__name__}: {error}"[:200]
versions = {"markitdown": version("markitdown"), "kreuzberg": version("kreuzberg"), "docling": version("docling-slim")}
Path(sys.argv[1]).write_text(json.dumps({"texts": texts, "versions": versions}), encoding="utf-8")
"""
THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
ENTITIES = {"&amp;": "&", "&lt;": "<", "&gt;": ">", "\\_": "_", "\\*": "*", "\\~": "~", "\xa0": " "}


def read_by_tunewright(path: Path) -> tuple[str, list[str]]:
    """Return the text as ingest has it, and its headings."""
    ((_, reading),) = read_files([path])
    headings = [name for d in reading.documents for section in d.sections for name in (d.title, *section.path)]
    return "\n".join(document.text for document in reading.documents), headings


def headings_of_markdown(text: str) -> list[str]:
    """Return the headings of Markdown."""
    return [re.sub(r"[*_]+", "", line.lstrip("# ")).strip() for line in text.split("\n") if re.match("#+ ", line)]


def words_of(text: str, case: Case) -> list[str]:
    """Return the words of a text with values in the form that the document shows, thousands without commas."""
    for entity, character in ENTITIES.items():
        text = text.replace(entity, character)
    other = {way: shown for shown, ways in case.same.items() for way in ways}
    text = re.sub(r"\[\^?\d+\]|(?<=\d) (?=%)|\*\*(?!\d)", "", text)
    return [THOUSANDS.sub("", other.get(word, word)) for word in split_words(text.replace("°", " °"))]


def is_row(cells: list[str], words: list[str]) -> bool:
    """Return whether the cells stand in a line in their order, with anything between them."""
    line, at = f" {' '.join(words)} ", 0
    for cell in cells:
        at = line.find(f" {cell} ", at) + 1
        if not at:
            return False
        at += len(cell)
    return True


def scores(case: Case, text: str, headings: list[str]) -> dict[str, float]:
    """Return the scores of a text, each in [0, 1]."""
    read = words_of(text, case)
    orders = [words_of(order, case) for order in case.orders]
    wanted = Counter(word for word in orders[0] if any(c.isdigit() for c in word))
    lines = [words_of(line, case) for line in text.splitlines()]
    rows = [[" ".join(words_of(cell, case)) for cell in row] for row in case.rows]
    hidden = [word for entry in case.hidden for word in words_of(entry, case)]
    shares = {
        "rows": [any(is_row(row, line) for line in lines) for row in rows],
        "headings": [heading in headings for heading in case.headings],
        "hidden": [word not in read for word in hidden],
    }
    return {
        "in_order": max(LCSseq.similarity(order, read) / len(order) for order in orders),
        "numbers": (wanted & Counter(read)).total() / wanted.total(),
        **{name: mean(map(float, values)) for name, values in shares.items() if values},
    }


def main() -> None:
    """Make the documents, read each with every reader, and record the scores."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rivals", required=True)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/office_readers.json"))
    options = parser.parse_args()
    paragraphs = prose()
    results: dict[str, dict[str, Any]] = defaultdict(dict)
    with TemporaryDirectory() as name:
        folder = Path(name)
        cases = all_documents(folder, [next(paragraphs) for _ in range(11)])
        paths = [str(folder / case.name) for case in cases]
        command = [options.rivals, "-c", READ_BY_RIVALS, str(folder / "rivals.json"), *paths]
        subprocess.run(command, check=True, stdout=sys.stderr)
        rivals = json.loads((folder / "rivals.json").read_text(encoding="utf-8"))
        for case in cases:
            results[case.name]["tunewright"] = scores(case, *read_by_tunewright(folder / case.name))
            for reader in rivals["versions"]:
                text = rivals["texts"][f"{reader} {folder / case.name}"]
                results[case.name][reader] = (
                    {"refused": text[1:]} if text.startswith("!") else scores(case, text, headings_of_markdown(text))
                )
    print(json.dumps(results, indent=1))  # noqa: T201
    summary = {
        reader: {"read": sum("refused" not in r[reader] for r in results.values())}
        | {
            key: round(mean(values), 4)
            for key in ("in_order", "numbers", "rows", "headings", "hidden")
            if (values := [r[reader][key] for r in results.values() if key in r[reader]])
        }
        for reader in ("tunewright", *rivals["versions"])
    }
    rounded = {
        case: {
            reader: {key: value if isinstance(value, str) else round(value, 4) for key, value in read.items()}
            for reader, read in readers.items()
        }
        for case, readers in results.items()
    }
    record = {"documents": len(results), "summary": summary, "versions": rivals["versions"], "each": rounded}
    options.out.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps(summary, indent=1))  # noqa: T201


if __name__ == "__main__":
    main()

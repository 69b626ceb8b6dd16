"""Text that many documents repeat is kept out of their sections; facts and texts are not touched."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tunewright.documents.chunking import chunk_document
from tunewright.documents.markup import Block, assemble
from tunewright.records import Document, Section
from tunewright.text.repeated_text import without_repeated_text

LICENSE = (
    "# Licensed under the Apache License, Version 2.0; you may not use this file except in compliance.\n"
    "# You may obtain a copy of the License at the address that it names.\n"
    "# See it for details."
)


def document(number: int, *blocks: Block) -> Document:
    read = assemble(blocks, f"d{number}")
    return Document(id=str(number), source=f"{number}.md", title=read.title, text=read.text, sections=read.sections)


def bodies(document: Document) -> list[str]:
    return [document.text[section.start : section.end] for section in document.sections]


def own(number: int) -> str:
    return f"Ship {number} carries {number * 7} barrels of oil to the port, and its master is paid every {number + 2} days."


@pytest.mark.parametrize("place", ["before", "between", "after"])
def test_a_license_over_many_files_is_no_evidence(place: str) -> None:
    order = {"before": [LICENSE, "{a}", "{b}"], "between": ["{a}", LICENSE, "{b}"], "after": ["{a}", "{b}", LICENSE]}[
        place
    ]
    texts = [
        "\n".join(order).format(a=own(n), b=own(n + 50)) + f"\n{own(n + 100)}" * (place != "after") for n in range(6)
    ]
    documents = [document(n, (1, "Log"), (0, text)) for n, text in enumerate(texts)]
    cleaned, removed = without_repeated_text(documents)
    assert len(removed) == 6
    assert [d.text for d in cleaned] == [d.text for d in documents]
    for d in cleaned:
        assert all(line in "\n".join(bodies(d)) for line in d.text.split("\n") if "Ship" in line)
        assert not any("License" in chunk.text or "details" in chunk.text for chunk in chunks(d))


def chunks(document: Document) -> Sequence[object]:
    made = chunk_document(document, lambda text: len(text.split()), 30)
    assert all(document.text[chunk.start : chunk.end] == chunk.text for chunk in made)
    return made


def test_lines_of_a_template_that_differ_by_a_number_are_facts() -> None:
    lines = [f"The patient was {n} years old when the doctor saw her for the first time." for n in range(20, 30)]
    documents = [document(n, (0, f"{line}\n{own(n)}")) for n, line in enumerate(lines)]
    assert without_repeated_text(documents) == (documents, {})


def test_few_documents_short_lines_and_headings_stay() -> None:
    few = [document(n, (0, f"{LICENSE}\n\n{own(n)}\n\n{own(n + 9)}\n\n{own(n + 20)}")) for n in range(4)]
    assert without_repeated_text(few)[1] == {}
    short = [document(n, (2, "Loads"), (0, f"Status: open\n{own(n)}")) for n in range(9)]
    assert without_repeated_text(short) == (short, {})


def test_versions_of_one_document_keep_their_text() -> None:
    same = "\n".join(own(n) for n in range(9))
    versions = [
        document(n, (0, f"{same}\nVersion {n} of this contract was signed by the two masters.")) for n in range(9)
    ]
    assert without_repeated_text(versions) == (versions, {})


def test_sections_keep_their_paths() -> None:
    documents = [
        document(n, (1, "Log"), (0, own(n)), (2, "Fees"), (0, f"{own(n + 10)}\n\n{LICENSE}\n\n{own(n + 20)}"))
        for n in range(5)
    ]
    cleaned, removed = without_repeated_text(documents)
    assert cleaned[0].sections[-2:] == tuple(
        Section(path=("Fees",), start=at, end=at + len(text))
        for text in (own(10), own(20))
        for at in [documents[0].text.index(text)]
    )
    assert removed["0.md"].startswith(f"{len(LICENSE)} characters, as in other documents: # Licensed under")

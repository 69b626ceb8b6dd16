"""Writers of small real files for the readers' tests."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

Drawn = str | tuple[int, int, str]  # a line below the one before, or a text at x and y


def write_pdf(path: Path, pages: Sequence[Sequence[Drawn]], title: str = "") -> Path:
    """Write a PDF whose pages show the given lines; a page without lines is blank, as a scan is."""
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>", b"", b"<< /Type /Font /Subtype /Type1 /BaseFont /Courier >>"]
    kids = []
    for lines in pages:
        shown = "".join(
            f"({line}) Tj 0 -14 Td "
            if isinstance(line, str)
            else "ET BT /F1 12 Tf 1 0 0 1 {} {} Tm ({}) Tj ".format(*line)
            for line in lines
        )
        content = f"BT /F1 12 Tf 50 750 Td {shown}ET".encode("latin-1")
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content))
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents %d 0 R"
            b" /Resources << /Font << /F1 3 0 R >> >> >>" % len(objects)
        )
        kids.append(b"%d 0 R" % len(objects))
    objects[1] = b"<< /Type /Pages /Count %d /Kids [%s] >>" % (len(kids), b" ".join(kids))
    objects.append(b"<< /Title (%s) >>" % title.encode("latin-1"))
    raw, offsets = b"%PDF-1.4\n", []
    for number, item in enumerate(objects, 1):
        offsets.append(len(raw))
        raw += b"%d 0 obj\n%s\nendobj\n" % (number, item)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    size = len(objects) + 1
    trailer = b"trailer << /Size %d /Root 1 0 R /Info %d 0 R >>" % (size, len(objects))
    path.write_bytes(
        raw + b"xref\n0 %d\n0000000000 65535 f \n%s%s\nstartxref\n%d\n%%%%EOF\n" % (size, table, trailer, len(raw))
    )
    return path


def write_package(path: Path, members: dict[str, bytes]) -> Path:
    """Write a zip with the given members, compressed."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as package:
        for name, content in members.items():
            package.writestr(name, content)
    return path


def docx_members(path: Path) -> dict[str, bytes]:
    """Return the members of a .docx."""
    with zipfile.ZipFile(path) as package:
        return {name: package.read(name) for name in package.namelist()}

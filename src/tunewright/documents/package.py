"""Zip packages of documents (.docx, .pptx, .xlsx, .odt, .epub), checked before they are unpacked."""

from __future__ import annotations

import posixpath
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from tunewright.documents.markup import Failure, parse_errors, single_line
from tunewright.errors import DocumentError

if TYPE_CHECKING:
    from lxml.etree import _Element as Element

MAX_UNPACKED_BYTES = 512 * 2**20  # a long book with pictures is far smaller
MAX_MEMBERS = 20_000
MAX_XML_BYTES = 64 * 2**20  # of one part of markup: its tree takes some ten times as much memory
_MAX_RATIO = 250  # of a part of markup larger than a megabyte; a sheet of equal cells reaches about 100
_MARKUP = (".xml", ".rels", ".html", ".xhtml", ".htm", ".opf", ".ncx")


def check_package(path: Path) -> Failure | None:
    """Return why a package must not be opened (not a zip, encrypted, too many or too large parts), or None."""
    kind = path.suffix.lower()
    try:
        with parse_errors(kind), zipfile.ZipFile(path) as package:
            members = package.infolist()
    except DocumentError as error:
        if not isinstance(error.__cause__, zipfile.BadZipFile):
            raise
        return Failure(reason="unreadable", detail=f"not a {kind}: an older format, or protected by a password?")
    if any(member.flag_bits & 1 for member in members):
        return Failure(reason="encrypted", detail="protected by a password")
    if len(members) > MAX_MEMBERS:
        return Failure(reason="too large", detail=f"{len(members):,} parts")
    if len({member.filename for member in members}) < len(members):
        return Failure(reason="unreadable", detail="two parts of the same name")
    # The sizes are declared by the file, but zipfile never unpacks more than a member declares.
    num_bytes = sum(member.file_size for member in members)
    if num_bytes > MAX_UNPACKED_BYTES:
        return Failure(reason="too large", detail=f"unpacks to {num_bytes / 2**20:,.0f} MB")
    for member in members:
        if not member.filename.lower().endswith(_MARKUP):
            continue
        is_bomb = member.file_size > 2**20 and member.file_size > _MAX_RATIO * max(1, member.compress_size)
        if member.file_size > MAX_XML_BYTES or is_bomb:
            return Failure(
                reason="too large", detail=f"{member.filename} unpacks to {member.file_size / 2**20:,.0f} MB"
            )
    return None


class Package:
    """The parts of an open package, by their names."""

    def __init__(self, package: zipfile.ZipFile) -> None:
        self._package = package
        self.names = frozenset(package.namelist())

    def read(self, name: str) -> bytes:
        """Return the bytes of a part.

        Raises:
            DocumentError: there is no such part.
        """
        if name not in self.names:
            raise DocumentError(f"damaged {Path(str(self._package.filename)).suffix.lower()}", f"it has no part {name}")
        return self._package.read(name)

    def xml(self, name: str) -> Element:
        """Return the root element of a part.

        Raises:
            DocumentError: there is no such part.
        """
        return parse_xml(self.read(name))

    def related(self, name: str) -> Iterator[tuple[str, str, str]]:
        """Yield the identifier, the last word of the type, and the name of each part that a part refers to."""
        folder, base = posixpath.split(name)
        rels = posixpath.join(folder, "_rels", f"{base}.rels")
        if rels not in self.names:
            return
        for link in self.xml(rels).iter("{*}Relationship"):
            if link.get("TargetMode") != "External":
                target = unquote(link.get("Target") or "")
                target = target.lstrip("/") if target.startswith("/") else posixpath.join(folder, target)
                kind = (link.get("Type") or "").rpartition("/")[2]
                yield link.get("Id") or "", kind, posixpath.normpath(target)


def main_part(package: Package, default: str) -> str:
    """Return the name of the part that holds an office document's text."""
    return next((name for _, kind, name in package.related("") if kind == "officeDocument"), default)


def core_properties(package: Package) -> tuple[str, str]:
    """Return an office document's declared title and author."""
    name = next((name for _, kind, name in package.related("") if kind == "core-properties"), "")
    root = package.xml(name) if name in package.names else None
    texts = {local_name(item): item.text or "" for item in root} if root is not None else {}
    return texts.get("title", ""), single_line(texts.get("creator", ""))


def parse_xml(raw: bytes) -> Element:
    """Return the root element of XML; entities are not expanded, and nothing is fetched.

    Raises:
        DocumentError: it is not XML.
    """
    from lxml import etree

    try:
        return etree.fromstring(raw, etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=False))
    except (etree.XMLSyntaxError, ValueError) as error:
        raise DocumentError("damaged markup", single_line(f"{type(error).__name__}: {error}")[:200]) from error


def local_name(element: Element) -> str:
    """Return an element's name without its namespace; empty for comments and the like."""
    tag = element.tag
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""

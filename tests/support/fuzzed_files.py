"""Damaged files of each format: real ones, mutated; the same seed gives the same bytes.

Mutations are of three kinds: of bytes (flips, cuts, splices, repetitions), of a format's words (its own tokens put,
doubled, nested deep, or with numbers blown up), and of a container (a .docx rewritten member by member, a PDF whose
references point elsewhere or whose packed streams hold damaged content).
"""

from __future__ import annotations

import copy
import io
import random
import re
import zipfile
from collections.abc import Callable

from support.whole_files import CONTENT, PROSE, TO_UNICODE, bombs, originals, package_originals, packed_pdf

_NUMBERS = [b"0", b"-1", b"1e999", b"NaN", b"65536", b"2147483648", b"-9223372036854775809", b"9" * 5000]
_WORDS: dict[str, list[bytes]] = {
    ".md": [b"---\n", b"# ", b"```\n", b"<!--", b"-->", b"\n===\n", b"key: |\n", b"- ", b'title: "\\ud800"\n', b"~~~"],
    ".txt": [b"\r", b"\x0c", b"\xe2\x80\xa8", b"\xef\xbb\xbf", b"\xff\xfe", b"\xcc\x81" * 50, b"-\n"],
    ".html": [
        *[b"<b>", b"<div>", b"<table><tr><td>", b"<!--", b"<![CDATA[", b"<!DOCTYPE x [", b"<?php", b"&#xD800;"],
        *[b"&#x110000;", b"&#99999999999;", b"<p hidden>", b"<svg>", b"</p>", b"<br>", b"<title>", b"<h1>", b"<![if"],
        *[b"<meta charset='utf-7'>", b"<meta charset='nonsense'>", b"<p style=", b"<a b='", b"<pre>", b"</"],
    ],
    ".csv": [b'"', b'""', b",", b";", b"\t", b"\r", b"\n", b"\x00", b"text", b"id", b"title", b"a,a,a\n"],
    ".jsonl": [
        *[b'"', b"{", b"[", b"}", b"]", b"null", b"\\ud800", b'{"text":', b'{"\\udfff": 1}\n', b'{"\\ud800": 1}\n'],
        *[b'{"text": "a", "id": "\\ud800"}\n', b'{"text": "a", "title": {"b": [1]}}\n', b'{"text": 3}\n', b"\n"],
        *[b'{"text": "a", "\\u0000": [[1e400]]}\n', b'{"Text": "x", "text": "y", "title": 5}\n'],
    ],
    ".docx": [
        *[b"<w:p>", b"</w:p>", b"<w:tbl><w:tr><w:tc>", b"<w:r><w:t>x</w:t></w:r>", b"<w:gridSpan w:val='9999'/>"],
        *[
            b"<w:vMerge/>",
            b"<w:pStyle w:val='none'/>",
            b"&e;",
            b"<!DOCTYPE x [<!ENTITY e 'x'>]>",
            b"<w:tblGrid/>",
            b"<",
        ],
        *[b"<w:gridBefore w:val='99'/>", b"<w:outlineLvl w:val='x'/>", b'Target="../../../etc/passwd"', b"xmlns:w='x'"],
    ],
    ".pdf": [
        *[b"<<", b">>", b"[", b"]", b"(", b"stream\n", b"endstream", b"endobj", b"xref\n", b"trailer", b"startxref\n0"],
        *[b"/Length 99999999", b"/Filter /LZWDecode", b"/Filter [/ASCII85Decode /FlateDecode]", b"/Prev 9", b"/Kids"],
        *[b"/DecodeParms << /Predictor 15 /Columns 99999999 >>", b"/Encrypt 1 0 R", b"/XRefStm 15", b"/W [1 99 1]"],
        *[b"BT", b"ET", b"Tj", b"TJ", b"Tf", b"Do", b"BI", b"ID", b"EI", b"q", b"Q", b"cm", b"Td", b"/F1 -9 Tf", b"Tm"],
        *[b"/Count -5", b"/Index [0 999999999]", b"/Size 99999999999", b"/Type /ObjStm", b"/Contents 4 0 R", b"'"],
    ],
}
_MARKUP = [
    b"<",
    b"</",
    b"&e;",
    b"<!DOCTYPE x [<!ENTITY e 'x'>]>",
    b"<![CDATA[",
    b'Target="../../../etc/passwd"',
    b"<x/>",
]
_JSON = [*[b'"', b"{", b"[", b"}", b"]", b"null", b"\\ud800", b'{"cells":', b'"cells": 3,', b'"source": {}', b"1e999"]]
_WORDS |= {
    ".pptx": [*_MARKUP, b"<p:sp>", b"<a:p>", b"<p:grpSp>", b"<a:tbl><a:tr><a:tc>", b"<c:ser>", b"<m:oMath>"],
    ".xlsx": [*_MARKUP, b"<row r='99999999'>", b"<c r='XFD1048576' t='s'><v>9</v></c>", b"<v>1e999</v>", b"<c t='d'/>"],
    ".odt": [
        *_MARKUP,
        b"<text:p>",
        b"<text:s text:c='999999999'/>",
        b"<table:table><table:table-row>",
        b"<draw:object/>",
    ],
    ".epub": [*_MARKUP, b"<itemref idref='p0'/>", b"<p hidden>", b"<table><tr><td>", b'href="../../x"'],
    ".eml": [
        *[
            b"\n\n",
            b'Content-Type: multipart/mixed; boundary=""\n',
            b"Content-Transfer-Encoding: base64\n",
            b"=?utf-8?Q?",
        ],
        *[
            b"Content-Type: message/rfc822\n",
            b"charset=utf-7",
            b"From: <<<@\n",
            b"Date: x\n",
            b"Subject: =?x?B?\xff?=\n",
        ],
    ],
    ".mbox": [
        b"From ",
        b"\n\nFrom x\n",
        b">From ",
        b"\n\n",
        b"Content-Type: multipart/alternative; boundary=x\n",
        b"--x\n",
    ],
    ".ipynb": _JSON,
    ".json": _JSON,
    ".tex": [
        *[
            b"\\",
            b"{",
            b"}",
            b"$",
            b"$$",
            b"%",
            b"&",
            b"\\begin{tabular}{l",
            b"\\end{tabular}",
            b"\\begin{verbatim}",
            b"\\[",
        ],
        *[b"\\section{", b"\\footnote{", b"\\title{", b"\\cite[", b"\xee\x80\x80999\xee\x80\x81", b"\\'"],
    ],
    ".rtf": [
        b"{",
        b"}",
        b"\\u-99999?",
        b"\\'ff",
        b"\\bin9999 ",
        b"\\ansicpg99999",
        b"{\\pict ",
        b"\\cell",
        b"\\row",
        b"\\uc9",
    ],
    ".py": [b"#", b'"""', b"\x00", b"\t", b"\xff"],
}
PACKAGES = (".docx", ".pptx", ".xlsx", ".odt", ".epub")
_OPENERS = {
    ".md": [b"> ", b"- ", b"#"],
    ".txt": [b"(", b"\t"],
    ".html": [b"<b>", b"<div>", b"<table><tr><td>", b"<ul><li>", b"<svg>", b"<p hidden>"],
    ".csv": [b'"', b","],
    ".jsonl": [b"[", b'{"text":', b'{"a":[', b'{"text":"x","a":' + b"[" * 480 + b"]" * 480 + b"}\n"],
    ".docx": [b"<w:p>", b"<w:tbl><w:tr><w:tc>", b"<w:sdt><w:sdtContent>", b"<w:r>", b"<x>"],
    ".pdf": [b"[", b"<<", b"<< /Kids [", b"q ", b"(", b"BT "],
    ".pptx": [b"<p:grpSp>", b"<a:p>", b"<x>"],
    ".xlsx": [b"<row>", b"<c><is>", b"<x>"],
    ".odt": [b"<text:span>", b"<text:list><text:list-item>", b"<table:table><table:table-row><table:table-cell>"],
    ".epub": [b"<div>", b"<b>", b"<table><tr><td>"],
    ".eml": [b"Content-Type: message/rfc822\n\n", b">", b"("],
    ".mbox": [b"From x\n\n", b">"],
    ".ipynb": [b"[", b'{"cells":['],
    ".json": [b"[", b'{"a":'],
    ".tex": [b"{", b"\\begin{x}", b"$", b"\\footnote{", b"\\section{"],
    ".rtf": [b"{", b"{\\*\\x"],
    ".py": [b"(", b"#"],
}


def damaged(extension: str, seed: int, number: int) -> bytes:
    """Return the bytes of one damaged file; every 50th is left whole."""
    rng = random.Random(f"{extension} {seed} {number}")
    intact = originals(extension)
    if number % 50 == 0:
        return rng.choice(intact)
    if extension in PACKAGES and rng.random() < 0.75:
        return _damaged_package(extension, rng)
    if extension == ".pdf" and rng.random() < 0.6:
        return _damaged_pdf(rng)
    return _mutated(rng.choice(intact), extension, rng)


def _mutated(raw: bytes, extension: str, rng: random.Random) -> bytes:
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        raw = rng.choice(_MUTATIONS)(raw, extension, rng)
    return raw[: 2**20]


def _random_span(raw: bytes, rng: random.Random) -> tuple[int, int]:
    start, end = sorted(rng.randrange(len(raw) + 1) for _ in range(2))
    return start, min(end, start + rng.choice((1, 8, 64, 512, 4096)))


def _flip(raw: bytes, extension: str, rng: random.Random) -> bytes:
    flipped = bytearray(raw)
    for _ in range(rng.choice((1, 2, 8, 64)) if raw else 0):
        flipped[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    return bytes(flipped)


def _cut(raw: bytes, extension: str, rng: random.Random) -> bytes:
    start, end = _random_span(raw, rng)
    return raw[:start] if rng.random() < 0.4 else raw[:start] + raw[end:]


def _splice(raw: bytes, extension: str, rng: random.Random) -> bytes:
    other = rng.choice(originals(extension))
    start, end = _random_span(other, rng)
    at = rng.randrange(len(raw) + 1)
    return raw[:at] + other[start:end] + raw[at:]


def _insert(raw: bytes, extension: str, rng: random.Random) -> bytes:
    at = rng.randrange(len(raw) + 1)
    if rng.random() < 0.3:
        at = raw.rfind(b"\n", 0, at) + 1  # a word that starts a line often means more
    garbage = rng.randbytes(rng.choice((1, 4, 100))) if rng.random() < 0.3 else rng.choice(_WORDS[extension])
    return raw[:at] + garbage + raw[at + rng.choice((0, 0, len(garbage))) :]


def _repeat(raw: bytes, extension: str, rng: random.Random) -> bytes:
    start, end = _random_span(raw, rng)
    return raw[:end] + raw[start:end] * rng.choice((1, 10, 200)) + raw[end:]


def _nest(raw: bytes, extension: str, rng: random.Random) -> bytes:
    at = rng.randrange(len(raw) + 1)
    return raw[:at] + rng.choice(_OPENERS[extension]) * rng.choice((10, 300, 3_000, 20_000)) + raw[at:]


def _blow_up_number(raw: bytes, extension: str, rng: random.Random) -> bytes:
    numbers = list(re.finditer(rb"\d+", raw))
    if not numbers:
        return rng.choice(_NUMBERS) + raw
    match = rng.choice(numbers)
    return raw[: match.start()] + rng.choice(_NUMBERS) + raw[match.end() :]


def _recode(raw: bytes, extension: str, rng: random.Random) -> bytes:
    return raw.decode("utf-8", "replace").encode(rng.choice(("utf-16", "utf-16-le", "utf-8-sig", "cp1252")), "replace")


_MUTATIONS: list[Callable[[bytes, str, random.Random], bytes]] = [
    *[_flip, _flip, _cut, _cut, _splice, _splice, _insert, _insert, _insert],
    *[_repeat, _repeat, _nest, _blow_up_number, _blow_up_number, _recode],
]


_VALUES = (
    "",
    "0",
    "-1",
    "9999",
    "65536",
    "x",
    "true",
    "rId99",
    "../../up.xml",
    "word/document.xml",
    "Normal",
    "\u202e",
)


def _reshaped(content: bytes, rng: random.Random) -> bytes:
    """Return well-formed XML with elements doubled, moved, dropped, wrapped deep, or with odd attribute values."""
    from lxml import etree

    try:
        root = etree.fromstring(content, etree.XMLParser(huge_tree=True))
    except etree.XMLSyntaxError:
        return content
    for _ in range(rng.choice((1, 2, 4, 8))):
        element, other = (rng.choice(list(root.iter("*"))) for _ in range(2))
        chance = rng.random()
        if chance < 0.35 and element.attrib:
            element.set(rng.choice(list(element.attrib)), rng.choice(_VALUES))
        elif chance < 0.45:
            element.attrib.clear()
        elif chance < 0.6 and element is not root:
            element.getparent().remove(element)
        elif chance < 0.85:
            other.insert(rng.randrange(len(other) + 1), copy.deepcopy(element))
        elif chance < 0.9:
            element.text = rng.choice((PROSE, None, "9" * 5000, "\u0301\u0316" * 3000))
        elif element is not root:
            for _ in range(rng.choice((3, 3, 30, 100, 2000))):
                wrapper = etree.Element(element.tag, dict(element.attrib))
                element.getparent().replace(element, wrapper)
                wrapper.append(element)
    return etree.tostring(root, xml_declaration=True, encoding="UTF-8", standalone=True)


def _damaged_package(extension: str, rng: random.Random) -> bytes:
    """Return a package with members damaged, missing, doubled, blown up or of a wrong size."""
    if extension == ".docx" and rng.random() < 0.002:
        return rng.choice(bombs())
    whole = package_originals(extension)
    members = dict(whole[rng.randrange(len(whole))])
    main = {".docx": "word/document.xml"}.get(extension) or max(members, key=lambda name: len(members[name]))
    for _ in range(rng.choice((1, 1, 2, 4))):
        name = main if rng.random() < 0.7 else rng.choice(sorted(members) or [main])
        content = members.pop(name, b"")
        chance = rng.random()
        if chance < 0.6:
            members[name] = _reshaped(content, rng)
        elif chance < 0.8:
            members[name] = _mutated(content, extension, rng)
        elif chance < 0.9:  # gone, or under another name
            members[rng.choice(("word/other.xml", "/", "../up.xml", main, "a" * 300))] = content
        else:
            start = b"<w:p>" if extension == ".docx" else b"<"
            members[name] = content.replace(start, rng.choice(_WORDS[extension]) + start, 50)
    packed = io.BytesIO()
    method = rng.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED, zipfile.ZIP_LZMA))
    with zipfile.ZipFile(packed, "w", method) as package:
        for name, content in members.items():
            package.writestr(name, content)
    raw = bytearray(packed.getvalue())
    if rng.random() < 0.1:  # the central directory's word about a member: flags, method, sizes, offset
        entry = raw.rfind(b"PK\x01\x02", 0, rng.randrange(len(raw)) + 4)
        if entry >= 0:
            raw[entry + rng.randrange(4, 46)] ^= 1 << rng.randrange(8)
    return bytes(raw)


def _damaged_pdf(rng: random.Random) -> bytes:
    """Return a PDF whose references point elsewhere, or whose packed streams hold damaged content."""
    parts = [CONTENT, b"BT /F1 9 Tf (In the form) Tj ET", TO_UNICODE]
    if rng.random() < 0.6:
        chosen = rng.randrange(3)
        parts[chosen] = _mutated(parts[chosen], ".pdf", rng)
    raw = packed_pdf(*parts, packing=rng.choice(("none", "flate", "hex")))
    if rng.random() < 0.6:
        for _ in range(rng.choice((1, 1, 2, 5))):
            references = list(re.finditer(rb"\d+ 0 R", raw))
            match = rng.choice(references)
            # Of the same length, so that the table of offsets still holds.
            raw = raw[: match.start()] + (b"%d 0 R" % rng.randrange(1, 10))[: len(match[0])] + raw[match.end() :]
    if rng.random() < 0.4:
        names = list(re.finditer(rb"/[A-Za-z]+", raw))
        match, other = rng.choice(names), rng.choice(names)
        raw = raw[: match.start()] + other[0] + raw[match.end() :]
    return raw

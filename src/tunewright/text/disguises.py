"""Texts in disguise, as a reader or a model may take them: look-alike letters, letters apart, encodings, mirrors."""

from __future__ import annotations

import base64
import codecs
import html
import re
import unicodedata
from collections.abc import Iterator
from urllib.parse import unquote

# Characters that nobody sees: without width, joiners, fillers, marks of direction, variation selectors, tags.
_UNSEEN = dict.fromkeys(
    (
        *(0xAD, 0x34F, 0x61C, 0x115F, 0x1160, 0x17B4, 0x17B5, *range(0x180B, 0x1810), *range(0x200B, 0x2010)),
        *(*range(0x202A, 0x202F), *range(0x2060, 0x2070), 0x3164, *range(0xFE00, 0xFE10), 0xFEFF, 0xFFA0),
        *(*range(0xFFF9, 0xFFFC), *range(0x1D173, 0x1D17B), *range(0xE0000, 0xE1000)),
    )
)
_AS_PLAIN = {0x2019: "'", 0x2018: "'", 0x2800: " "}
# Letters of Cyrillic, Greek, Armenian and phonetic alphabets with the Latin ones that they look like.
_ALIKE = str.maketrans(
    "аеорсухіјѕԁһԝѵкмтвнгӏցոսհοαεικνρτυχωγημɑɡıʟɪɢɴᴏʀᴇᴀᴘᴠᴜᴛᴄᴅꜱᴍʙʜᴊᴋǫᴡʏᴢꜰß",
    "aeopcyxijsdhwvkmtbhrlgnuhoaeikvptuxwynuagilignoreapvutcdsmbhjkqwyzfs",
)
_DIGITS_FOR_LETTERS = str.maketrans("0134579@$!", "oieastgasi")
_WITH_DIGIT = re.compile(r"(?<!\S)(?=\S*[a-z])(?=\S*[a-z@$][0-9@$!]|[0-9@$!]+[a-z])[a-z0-9@$!]+")
_LETTERS_APART = re.compile(r"(?<!\w)(?:\w[ .·*_|-]){5,}\w(?!\w)")
_WORDS_APART = re.compile(r"(?<!\w)(?:\w[ .·*_|-]+){9,}\w(?!\w)")
_INSIDE_WORDS = re.compile(r"(?<=\w)[-.·_](?=\w)")
_ENCODED = re.compile(r"[A-Za-z0-9+/_-]{24,4000}={0,2}")
_HEX = re.compile(r"(?:[0-9a-fA-F]{2}[ :]?){16,2000}")
_CODE_POINT = re.compile(r"\\u\{?([0-9a-fA-F]{4})\}?|\\x([0-9a-fA-F]{2})")
_MIRRORED = ("snoitcurtsni", "tpmorp", "sevitcerid")
_ROTATED = ("vafgehpgvba", "flfgrz cebzcg")


def plain_text(text: str) -> str:
    """Return a text in lower case, in plain forms of its characters, with single spaces, without unseen characters."""
    return " ".join(unicodedata.normalize("NFKC", text).translate(_AS_PLAIN).translate(_UNSEEN).lower().split())


def other_readings(text: str, plain: str) -> Iterator[str]:
    """Yield what a text may also say, each in plain form; ``plain`` is its own.

    Letters that stand apart without gaps between the words come as one word; what is encoded follows the text.
    """
    latin = plain
    if not plain.isascii():
        marked = unicodedata.normalize("NFKD", plain)
        latin = "".join(c for c in marked if not unicodedata.combining(c)).translate(_ALIKE)
        if latin != plain:
            yield latin
    if _WITH_DIGIT.search(latin):
        yield _WITH_DIGIT.sub(lambda match: match.group().translate(_DIGITS_FOR_LETTERS), latin)
    if _WORDS_APART.search(text):
        joined = _LETTERS_APART.sub(lambda match: re.sub(r"\W|_", "", match.group()), text)
        yield plain_text(joined)
    if "-" in latin or "_" in latin or "." in latin or "·" in latin:
        yield _INSIDE_WORDS.sub("", latin)
    if any(word in plain for word in _MIRRORED):
        yield plain[::-1]
    if any(word in plain for word in _ROTATED):
        yield codecs.encode(plain, "rot13")
    yield from (f"{plain}\n{plain_text(inner)}" for inner in _decoded(text))


def _decoded(text: str) -> Iterator[str]:
    """Yield what is encoded in a text: percent codes, character references, escapes, base64, hexadecimal numbers."""
    if "%" in text and (other := unquote(text)) != text:
        yield other
    if "&" in text and (other := html.unescape(text)) != text:
        yield other
    if "\\" in text and (other := _CODE_POINT.sub(lambda match: chr(int(match[1] or match[2], 16)), text)) != text:
        yield other
    for match in _ENCODED.finditer(text):
        word = match.group().rstrip("=").replace("-", "+").replace("_", "/")
        yield from _prose(base64.b64decode(word[: len(word) - (len(word) % 4 == 1)] + "=" * (-len(word) % 4 % 3)))
    for match in _HEX.finditer(text):
        yield from _prose(bytes.fromhex(re.sub("[ :]", "", match.group())))


def _prose(raw: bytes) -> Iterator[str]:
    """Yield the text of bytes if it is one, of several words."""
    text = raw.decode("utf-8", "replace")
    if " " in text and sum(map(str.isprintable, text)) > 0.9 * len(text) and text.count("\ufffd") < 3:
        yield text

"""The text of a user's file, whatever encoding it was saved in."""

from __future__ import annotations

import re

_ESCAPED = re.compile("[\udc80-\udcff]")  # bytes that are not UTF-8, as "surrogateescape" decodes them
_BEYOND_ASCII = re.compile("[^\x00-\x7f]")
_FOREIGN = {
    b"PK\x03\x04": "it is a zip archive, such as an Excel workbook: save it as CSV UTF-8",
    b"\xd0\xcf\x11\xe0": "it is an old Office file: save it as CSV UTF-8",
    b"PAR1": "it is a Parquet file: end its name in .parquet",
    b"\x1f\x8b": "it is compressed with gzip: unpack it",
    b"%PDF": "it is a PDF",
    b"GGUF": "it is a GGUF model",
}


def decode_text(raw: bytes) -> str:
    """Return the text of bytes in UTF-8, UTF-16 or Windows-1252 (a superset of Latin-1).

    Text that is UTF-8 but for a few damaged bytes is taken for UTF-8; ``damaged_byte`` finds those in it.

    Raises:
        ValueError: the bytes are not text; it says what they are.
    """
    for start, what in _FOREIGN.items():
        if raw.startswith(start):
            raise ValueError(what)
    if raw and not raw.strip(b"\0"):
        raise ValueError("binary content: zero bytes only, as a crash can leave")
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return raw.decode("utf-16", "replace")
    half = max(1, len(raw) // 2)
    for encoding, zeros in (("utf-16-le", raw[1::2]), ("utf-16-be", raw[::2])):
        if zeros.count(0) > 0.4 * half:  # Latin text in UTF-16 has a zero in every other byte
            return raw.decode(encoding, "replace")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    if raw.startswith(b"\xef\xbb\xbf"):
        return text
    num_damaged = len(_ESCAPED.findall(text))
    if len(_BEYOND_ASCII.findall(text)) - num_damaged > num_damaged:  # in Windows-1252, hardly a letter is valid UTF-8
        return text
    text = raw.decode("cp1252", "replace")
    # Text in any encoding has almost no control characters; in compressed or random bytes one in ten is one.
    if sum(ord(c) < 32 and c not in "\t\n\r\f" for c in text) > 0.05 * len(text):
        raise ValueError("binary content")
    return text


def damaged_byte(text: str) -> str:
    """Return which byte of decoded text is not UTF-8 as the rest; empty where all are."""
    match = _ESCAPED.search(text)
    return f"the byte 0x{ord(match[0]) - 0xDC00:02x} is not UTF-8, as the rest of the file is" if match else ""


def without_damage(text: str) -> str:
    """Return decoded text with a replacement character for each damaged byte."""
    return _ESCAPED.sub("\ufffd", text)

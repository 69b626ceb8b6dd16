"""The text of a user's file, whatever encoding it was saved in."""

from __future__ import annotations

import codecs
from dataclasses import dataclass

import regex

_ESCAPED = regex.compile("[\udc80-\udcff]")  # bytes that are not UTF-8, as "surrogateescape" decodes them
_BEYOND_ASCII = regex.compile("[^\x00-\x7f]")
_FOREIGN = {
    b"PK\x03\x04": "it is a zip archive, such as an Excel workbook: save it as CSV UTF-8",
    b"\xd0\xcf\x11\xe0": "it is an old Office file: save it as CSV UTF-8",
    b"PAR1": "it is a Parquet file: end its name in .parquet",
    b"\x1f\x8b": "it is compressed with gzip: unpack it",
    b"%PDF": "it is a PDF",
    b"GGUF": "it is a GGUF model",
}
_SAMPLE = 4000  # bytes that tell an encoding
_SHORT = 30  # bytes
_SURE = 0.05  # odd characters per character beyond ASCII that a right decoding may have

# Encodings and the languages that are written in them; of equal candidates, the first.
_ENCODINGS = (
    ("windows-1252", "en de fr es pt it nl sv da no nb nn fi ca gl is af eu ga id ms sq lb"),
    ("iso8859-15", "fr fi de"),
    ("windows-1250", "pl cs sk hu ro sl hr bs"),
    ("iso8859-2", "pl cs sk hu ro sl hr bs"),
    ("windows-1254", "tr az"),
    ("windows-1257", "lt lv et"),
    ("windows-1251", "ru uk bg sr mk be kk"),
    ("koi8-u", "ru uk"),
    ("cp866", "ru uk be"),
    ("iso8859-5", "ru bg sr mk be"),
    ("windows-1253", "el"),
    ("iso8859-7", "el"),
    ("windows-1255", "he"),
    ("windows-1256", "ar fa ur"),
    ("iso8859-6", "ar"),
    ("cp874", "th"),
    ("cp932", "ja"),
    ("euc_jis_2004", "ja"),
    ("gb18030", "zh"),
    ("big5hkscs", "zh"),
    ("cp949", "ko"),
)
_WESTERN = _ENCODINGS[0][0]
# What a wrong decoding leaves inside words: symbols, capitals after small letters, controls, letters of another script.
_ODD = regex.compile(
    r"(?<=\p{L})(?:[^\x00-\x7f\p{L}\p{M}\p{P}\s·]|\p{Lu}(?=\p{Ll}))|[\x80-\x9f]|(?<=\p{Ll})\p{Lu}"
    r"|[^\x00-\x7f\p{L}\p{M}\p{P}\s](?=\p{L})|\p{Co}|¶|(?<=\p{L})[¡¿“„‚‘‹›«»†‡](?=\p{L})|[\uff61-\uff9f]"
    r"|[A-Za-z][\p{Cyrillic}\p{Greek}\p{Hebrew}\p{Arabic}]|[\p{Cyrillic}\p{Greek}\p{Hebrew}\p{Arabic}][A-Za-z]"
    r"|(?<![A-Za-z])[^\x00-\x7f\P{Latin}àáâåæèéêíóôöøùúäëïüœÀÅÉÓÖÄ](?![A-Za-z])(?![^\x00-\x7f\P{Latin}])"
)
_CAPITAL, _SMALL = regex.compile(r"(?=\P{ASCII})\p{Lu}"), regex.compile(r"(?=\P{ASCII})\p{Ll}")
_FOREIGN_LETTERS = {  # that a language does not write, but its neighbors in the same encoding
    code: regex.compile(f"(?i)[{letters}]")
    for code, letters in {
        "cs": "ąęłľ",
        "sk": "ąęł",
        "sl": "ąęłľ",
        "hr": "ąęłľ",
        "pl": "ľšťžřů",
        "hu": "ąęłšťžřů",
        "ru": "ўєіїјљњћќџѓѕґ",
        "uk": "ыэъёўјљњћќџѓѕ",
        "be": "щъиєїјљњћќџѓѕ",
        "bg": "ыэёўєіїјљњћќџѓѕ",
        "sr": "щыэъьюяйёўєіїќѓѕ",
        "mk": "щыэъьюяйёўєіїћ",
        "ar": "پچژگڈڑںےٹک×÷",
    }.items()
}
_ESCAPES = (b"\x1b$B", b"\x1b$@", b"\x1b(J", b"\x1b$(D")  # of ISO-2022-JP, which is ASCII to the eye of UTF-8


@dataclass(frozen=True)
class DecodedText:
    """The text of a file.

    Attributes:
        text: bytes that are not as the rest are escaped as surrogates (``damaged_byte``).
        encoding: its name.
        doubt: why the text may be wrong; empty where it is sure.
    """

    text: str
    encoding: str = "UTF-8"
    doubt: str = ""


def decode_text(raw: bytes) -> str:
    """Return the text of bytes in a common encoding (``decode``).

    Raises:
        ValueError: the bytes are not text; it says what they are.
    """
    return decode(raw).text


def decode(raw: bytes) -> DecodedText:
    """Return the text of bytes in UTF-8, UTF-16, UTF-32, or an older encoding that its language gives away.

    Text that is UTF-8 but for a few damaged bytes is taken for UTF-8; ``damaged_byte`` finds those in it.

    Raises:
        ValueError: the bytes are not text; it says what they are.
    """
    for start, what in _FOREIGN.items():
        if raw.startswith(start):
            raise ValueError(what)
    if raw and not raw.strip(b"\0"):
        raise ValueError("binary content: zero bytes only, as a crash can leave")
    if wide := _wide_encoding(raw):
        return DecodedText(raw.decode(wide, "replace").removeprefix("\ufeff"), wide.upper())
    if any(escape in raw for escape in _ESCAPES):
        try:
            return DecodedText(raw.decode("iso2022_jp_2"), "ISO-2022-JP")
        except UnicodeDecodeError:
            pass
    try:
        return DecodedText(raw.decode("utf-8-sig"))
    except UnicodeDecodeError:
        text = raw.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    num_damaged = len(_ESCAPED.findall(text))
    # In older encodings, hardly a letter is valid UTF-8.
    if raw.startswith(codecs.BOM_UTF8) or len(_BEYOND_ASCII.findall(text)) - num_damaged > num_damaged:
        return DecodedText(text, doubt=f"{num_damaged} byte(s) are not UTF-8, as the rest is")
    return _decode_older(raw)


def _wide_encoding(raw: bytes) -> str:
    """Return the name of the encoding of text in two or four bytes a character; empty if it is none."""
    if raw.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)) and len(raw) % 4 == 0:
        return "utf-32"
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    half = max(1, len(raw) // 2)
    for encoding, upper in (("utf-16-le", raw[1::2]), ("utf-16-be", raw[::2])):
        if upper.count(0) > 0.4 * half:  # Latin text in UTF-16 has a zero in every other byte
            return encoding
        if b"\0" in upper and len(raw) % 2 == 0:  # other scripts have it in blanks and line ends alone
            try:
                text = raw[: _SAMPLE // 2 * 2].decode(encoding, "strict")
            except UnicodeDecodeError:
                continue
            usual = len(regex.findall(r"[\p{L}\p{M}\p{N}\p{P}\s]", text))
            if (
                usual > 0.98 * len(text)
                and len(set(regex.findall(r"\p{Script=Latin}", text))) < 60
                and "\0" not in text
            ):
                return encoding
    return ""


def _decode_older(raw: bytes) -> DecodedText:
    """Return text in the encoding whose language its letters are in, with the fewest characters odd in a word."""
    encoding, is_sure = _older_encoding(raw[:_SAMPLE])
    text = raw.decode(encoding, "replace")
    # Text in any encoding has almost no control characters; in compressed or random bytes one in ten is one.
    if sum(ord(c) < 32 and c not in "\t\n\r\f" for c in text) > 0.05 * len(text):
        raise ValueError("binary content")
    lost = text.count("\ufffd")
    doubt = "" if is_sure and not lost else f"its encoding is not sure (read as {encoding}): save it as UTF-8"
    return DecodedText(text, encoding, doubt)


def _older_encoding(raw: bytes) -> tuple[str, bool]:
    """Return the most likely encoding of a sample, and whether no other one gives a text that is as good."""
    import charset_normalizer
    import py3langid

    match = charset_normalizer.from_bytes(raw).best()
    second = str(match) if match else ""
    ranked: list[tuple[float, int, str, str]] = []
    for order, (encoding, languages) in enumerate(_ENCODINGS):
        try:
            text = codecs.getincrementaldecoder(encoding)().decode(raw)  # a character cut at the end is no fault
        except UnicodeDecodeError:
            continue
        language = py3langid.classify(text)[0]
        is_western = encoding == _WESTERN and len(raw) < _SHORT  # too short to tell the language
        if is_western or language in languages.split():
            bonus = 0.1 * (text == second) + 0.2 * is_western
            ranked.append((_oddness(text, language) - bonus, order, encoding, text))
    ranked.sort()
    if not ranked:
        return _WESTERN, False
    best = ranked[0]
    rivals = [rank for rank in ranked[1:] if rank[0] < best[0] + _SURE and rank[3] != best[3]]
    return best[2], best[0] <= _SURE and not rivals and len(raw) >= _SHORT


def _oddness(text: str, language: str) -> float:
    """Return the odd characters of a decoding per character beyond ASCII; capitals outnumber no small letters."""
    odd = len(_ODD.findall(text)) / max(1, len(_BEYOND_ASCII.findall(text)))
    if len(_CAPITAL.findall(text)) > len(_SMALL.findall(text)):
        odd += 0.5
    foreign = _FOREIGN_LETTERS.get(language)
    return odd + (3 * len(foreign.findall(text)) / max(1, len(_BEYOND_ASCII.findall(text))) if foreign else 0)


def damaged_byte(text: str) -> str:
    """Return which byte of decoded text is not UTF-8 as the rest; empty where all are."""
    match = _ESCAPED.search(text)
    return f"the byte 0x{ord(match[0]) - 0xDC00:02x} is not UTF-8, as the rest of the file is" if match else ""


def without_damage(text: str) -> str:
    """Return decoded text with a replacement character for each damaged byte."""
    return str(_ESCAPED.sub("\ufffd", text))

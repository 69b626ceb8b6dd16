"""Sentences of a text, in any script: ends are marks, and what stands around a mark decides whether it ends one."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

import regex

# Marks, with the quotes and brackets that close behind them. Scripts without spaces need none behind the mark.
_CLOSERS = r"(?:[\"'”’»›)\]）」』】》]|“(?=\W|$))*+(?:[\u00a0\u202f ]»)?+"
_MARK = regex.compile(
    rf"(?<![.!?…])(?P<mark>[.!?…؟۔।॥։።፧။។།]++){_CLOSERS}(?=\s|$|[\p{{Han}}\p{{Hiragana}}\p{{Katakana}}“「『（])"
    rf"|(?<![。！？…])(?P<wide>[。！？｡…]++)[\"'”’»›)\]）」』】》]*+"
)
# What begins a sentence: openers, then anything but a small letter.
_OPENERS = r"(?:«\s|[\"'“‘«„‹¿¡(\[「『（【《]|[—–-]\s?)*+"
_NEXT = regex.compile(rf"\s*+(?P<openers>{_OPENERS})(?P<first>[\p{{Lu}}\p{{Lt}}\p{{Lo}}\p{{Nd}}]|https?://|www\.|\S+@)")
_NUMBER = regex.compile(r"\s*+[(\[]?(?:\p{Nd}|[IVXLC]+\b)")
# A blank line ends a sentence, and so does a line before an item of a list.
_BREAK = regex.compile(
    r"\n[^\S\n]*\n|\n(?=[^\S\n]*[-*•‣·][^\S\n]+\S)"
    r"|(?<=(?:^|\n)[^\S\n]*\d{1,3}[.)][^\n]{1,300}|[.:;!?])\n(?=[^\S\n]*\d{1,3}[.)][^\S\n]+\S)"
)
_ITEM = regex.compile(r"\s*(?:[-*•‣·]\s+)?[(\[]?\p{Nd}{1,3}[.)]$")
# Quotes and brackets that close soon: in scripts without capitals, no sentence ends inside them.
_QUOTED = regex.compile(r"“[^“”]{0,300}”|「[^「」]{0,300}」|『[^『』]{0,300}』|«[^«»]{0,300}»|（[^（）]{0,300}）")
_UNSPACED = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}]")
# Behind a quotation: words that belong to its sentence, and reports of who speaks.
_CONTINUES = regex.compile(r"(?:と|って|の|は|が|を|に|も|で|、|，|,|的|吗|呢|吧|；|：)")
_REPORTS = regex.compile(
    r"\s?[^.!?。！？।…]{0,30}?(?:[问說说喊答叫道]|言っ|言う|聞い|聞く|尋ね|問い|問う|叫ん|叫ぶ|答え|述べ|話し"
    r"|पूछा|पूछी|कहा|कही|बोल|चिल्ला|बताया|उत्तर दिया)"
)
_SHORT = 8  # characters before dots that only hesitate: "我……我不知道"

_CONTEXT = 28  # characters before a full stop
_WORD = regex.compile(r"(?:(?![\p{Han}\p{Hiragana}\p{Katakana}])[\p{L}\p{M}])+(?:-[\p{L}\p{M}]+)*$|\p{Nd}+$")
# Abbreviations that something always follows, by language: en, de, fr, es, the other Latin ones, ru, hi.
_NEVER_LAST = """
e.g i.e eg ie vs cf Dr Drs Mr Mrs Ms Messrs Prof Gen Sen Rep Gov Capt Lt Col Rev Hon St Ste approx resp spp sp pv var
bzw vgl Vgl Hrsg Hr Hrn Fr Ing Dipl Fa Abt gem Gem einschl inkl exkl zzgl abzgl evtl ggf sog Mio Mrd Tsd em med phil rer
nat jur zw betr Betr lt ders geb gest ev kath ehem
MM Mme Mmes Mlle Mlles Me Pr Sté Mgr env av chap
Sr Sra Srta Sres Sras Dra Dres Dña Avda Hnos Dir Gral Ayto Lic Excmo Excma ej Cía
dott sig sigg Sig ing avv Exmo Exma Profa mevr dhr drs hr fru np tzw tj
ул кв пр просп пл пер проф акад доц им см См ср Ср напр обл оз тыс млн млрд рис табл гл
डॉ श्री प्रो पं सं कि
"""
# Abbreviations that may end a sentence, but not before a number.
_BEFORE_NUMBERS = """
No Nos no Fig Figs Eq Eqs Tab Vol vol pp ch Ch sec Sec ca Ca Nr nr Abs Art art Abb Kap Bd Tel tel Ziff Rn Str str
Chr mind max rec Postf Anm tél al éd pág págs pag núm núms Núm cap fig стр ст тел гг вв руб Jan Feb Mar Apr Jun Jul
Aug Sep Sept Oct Okt Nov Dec Dez ene abr ago dic janv févr juil déc
"""
_FORMS = {**dict.fromkeys(_BEFORE_NUMBERS.split(), False), **dict.fromkeys(_NEVER_LAST.split(), True)}
_LAST_LETTERS = regex.compile(r"(?:[ap]\.\s?m|т\.\s?[пд])$")  # 10 a.m., и т. п.
_DOUBLED = regex.compile(r"\s?(\p{Lu})\1\.")
_STREET = regex.compile(r"\p{L}+str$")  # Bahnhofstr. 12
_ET_AL = regex.compile(r"\bet\s+al$")
# "Im 16. Jahrhundert", "am 3. März": behind these words a number is an ordinal.
_ORDINAL = regex.compile(
    r"(?:^|\W)(?:im|Im|am|Am|vom|Vom|zum|Zum|zur|der|Der|die|Die|das|Das|den|Den|dem|Dem|des|ab|Ab|seit|Seit|bis|Bis|und|oder"
    r"|beim|nach|vor|jede[rsnm]?|ihr|ihre[rsnm]?|sein|seine[rsnm]?|\p{Nd}{1,2}\.)\s+\p{Nd}{1,2}$"
)
_STARTERS = regex.compile(
    r"\s+(?:The|This|These|Those|In|It|Its|We|He|She|They|However|There|A|An|Der|Die|Das|Es|Er|Sie|Wir|Im|Ein|Eine"
    r"|Le|La|Les|Il|Elle|Un|Une|El|Los|Las|Una)\s"
)


def sentences(text: str) -> list[tuple[int, int]]:
    """Return the (start, end) offsets of the sentences of a text, in order, without outer white space.

    The rules are the same for all scripts; their words are those of some twenty languages.
    """
    bounds = []
    start = 0
    for end in _ends(text):
        bounds.append((start, end))
        start = end
    bounds.append((start, len(text)))
    spans = []
    for low, high in bounds:
        piece = text[low:high]
        if piece.strip():
            spans.append((low + len(piece) - len(piece.lstrip()), low + len(piece.rstrip())))
    return spans


@dataclass(frozen=True)
class _Candidate:
    """A mark that may end a sentence: where its sentence begins, and where its closing quotes end."""

    text: str
    start: int
    mark: int
    marks: str
    end: int

    @property
    def before(self) -> str:
        return self.text[max(self.start, self.mark - _CONTEXT) : self.mark]

    @property
    def closers(self) -> str:
        return self.text[self.mark + len(self.marks) : self.end].strip()


def _ends(text: str) -> Iterator[int]:
    """Yield where the sentences end, in order, the last one not always."""
    breaks = [match.start() for match in _BREAK.finditer(text)]
    quoted = [match.span() for match in _QUOTED.finditer(text)]
    opens = [start for start, _ in quoted]
    has_danda = "।" in text
    start, number = 0, 0
    for match in _MARK.finditer(text):
        while number < len(breaks) and breaks[number] < match.start():
            yield breaks[number]
            start, number = breaks[number], number + 1
        while start < len(text) and text[start].isspace():
            start += 1
        stop = _Candidate(text, start, match.start(), match["wide"] or match["mark"], match.end())
        is_wide = match["wide"] or "…" in stop.marks and _UNSPACED.match(_letter_before(stop))
        span = quoted[at] if (at := bisect_right(opens, stop.mark) - 1) >= 0 else (0, 0)
        if stop.end < span[1] and not _is_cased_at(stop):
            continue
        if has_danda and stop.marks == "." and "\u0900" <= _letter_before(stop) <= "\u097f":
            continue
        if (_ends_wide if is_wide else _ends_spaced)(stop):
            yield stop.end
            start = stop.end
    yield from breaks[number:]


def _letter_before(stop: _Candidate) -> str:
    return next((character for character in reversed(stop.before) if character.isalpha()), "")


def _is_cased_at(stop: _Candidate) -> bool:
    """Return whether the letter before the mark is of a script with capitals."""
    letter = _letter_before(stop)
    return letter.lower() != letter.upper()


def _ends_wide(stop: _Candidate) -> bool:
    """Return whether a mark of a script without spaces ends a sentence."""
    if "…" in stop.marks and (stop.mark - stop.start < _SHORT or stop.end == len(stop.text)):
        return False
    return not _is_continued(stop)


def _is_continued(stop: _Candidate) -> bool:
    """Return whether the sentence of a quotation continues behind it: by a particle, or by who speaks."""
    if not stop.closers:
        return False
    if _UNSPACED.search(stop.before) and _CONTINUES.match(stop.text, stop.end):
        return True
    is_first = stop.text[stop.start] in '“「『«"„'
    return is_first and _REPORTS.match(stop.text, stop.end) is not None


def _ends_spaced(stop: _Candidate) -> bool:
    """Return whether a mark before white space, or before a script without spaces, ends a sentence."""
    following = _NEXT.match(stop.text, stop.end)
    if following is None:
        return False
    if not stop.text[stop.end].isspace() and not _UNSPACED.match(_letter_before(stop)):
        return False
    if {")", "]", "）"} & set(stop.closers):
        return stop.text[stop.start] in "([（"
    if stop.closers and not _is_cased_at(stop) and _is_continued(stop):
        return False
    return stop.marks != "." or not _is_abbreviation(stop, following["openers"] == "")


def _is_abbreviation(stop: _Candidate, is_bare: bool) -> bool:
    """Return whether a full stop belongs to an abbreviation, an initial, an ordinal or the number of an item."""
    before = stop.before
    word = match[0] if (match := _WORD.search(before)) else ""
    rest = before[: len(before) - len(word)]
    is_number_next = _NUMBER.match(stop.text, stop.end) is not None
    if not word:
        return False
    if word.isdigit():
        is_item = _ITEM.match(stop.text[stop.start : stop.mark + 1]) is not None
        return is_item or (is_bare and _ORDINAL.search(before) is not None)
    if _ET_AL.search(before):
        return True
    form = word if word in _FORMS else _STREET.sub("str", word)
    if form in _FORMS:
        return _FORMS[form] or is_number_next
    if len(word) == 2 and word[0] == word[1] and word.isupper():  # EE. UU.
        return _DOUBLED.match(stop.text, stop.end) is not None
    if regex.fullmatch(r"\p{L}\p{M}*", word):
        return _is_initial(stop, word, rest)
    return False


def _is_initial(stop: _Candidate, letter: str, rest: str) -> bool:
    """Return whether a single letter before a full stop abbreviates a word: not a unit behind a number, nor °C."""
    if _LAST_LETTERS.search(rest + letter) or rest.endswith("°"):
        return False
    previous = rest.rstrip()
    if previous != rest and regex.search(r"(?:\p{Nd}|\b[IVXLC]+)$", previous) and letter.islower():
        return False
    if letter.isupper() and regex.search(r"\p{Ll}$", previous):  # "vitamin C. The", not "by J. Smith"
        return _STARTERS.match(stop.text, stop.end) is None
    return True

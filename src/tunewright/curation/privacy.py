"""Personal data and secrets in a text, detected by libraries and check digits; names and addresses are not detected.

docs/privacy.md lists the kinds, the means, recall and precision, and what is missed.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from functools import cache, lru_cache
from itertools import product
from typing import Any, NamedTuple

from tunewright.records import Message, Sample


class PersonalData(NamedTuple):
    """A piece of personal data or a secret: its kind and its half-open offsets in the text."""

    kind: str
    start: int
    end: int


Finder = Callable[[str], Iterator[tuple[int, int]]]

_EMAIL = re.compile(r"(?<![\w.+-])[A-Za-z0-9][\w.+%-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,24}\b")
_LABELED_PHONE = re.compile(
    r"\b(?:(?:tel(?:ephone)?|phone|fax|whatsapp|hotline|call)\b(?: (?:number|no))?[.:]*|(?:mobile|cell)[.:]+)\s{0,2}"
    r"(?:(?:us|me|him|her)\s+)?(?:(?:at|on)\s+)?(\(?\d[\d ()./-]{5,18}\d)(?![\d%])",
    re.IGNORECASE,
)
_US_PHONE = re.compile(r"(?<![\w.,/(+-])(?:\(\d{3}\) ?|\d{3}[-.])\d{3}[-.]\d{4}(?![\w/-]|[.,]\d)")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")
_CARD = re.compile(
    r"(?<![\w./-])(?:\d{4}([ -])\d{4}\1\d{4}\1\d{4}|3\d{3}([ -])\d{6}\2\d{5}|\d{13,16}|\d{19})(?![\w/-]|[.,]\d)"
)
_CARD_PREFIX = re.compile(r"4|5[1-5]|2[2-7]|3[47]|3[068]|35|6011|6[45]")
_IPV4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)")
_IPV6 = re.compile(r"(?<![\w:])[23][0-9a-fA-F]{3}:(?:[0-9a-fA-F]{0,4}:){1,6}[0-9a-fA-F]{1,4}(?![\w:])")
_US_NUMBER = re.compile(r"(?<![\w-])(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\w-])")
_UK_NUMBER = re.compile(r"\b(?!BG|GB|KN|NK|NT|TN|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?(?:\d\d ?){3}[A-D]\b(?!\.\d)")
_ITALIAN_NUMBER = re.compile(r"\b[A-Z]{6}\d\d[A-EHLMPRST]\d\d[A-Z]\d{3}[A-Z]\b")
_SPANISH_NUMBER = re.compile(r"(?<![\w.-])(\d{8})-?([A-HJ-NP-TV-Z])\b")
_FRENCH_NUMBER = re.compile(r"(?<![\w.])([12] ?\d\d ?(?:0[1-9]|1[0-2]) ?\d\d ?\d{3} ?\d{3}) ?(\d\d)(?![\w])")
_PEM = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----(?:[\s\S]*?-----END [A-Z ]*PRIVATE KEY(?: BLOCK)?-----)?"
)
_KEY = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{30,}|AIza[\w-]{35}|sk-(?:ant|proj|svcacct)-[\w-]{20,}|sk-[A-Za-z0-9]{32,}|github_pat_\w{40,}"
    r"|dop_v1_[0-9a-f]{64})"
)
_ASSIGNED = re.compile(
    r"(?<![A-Za-z])(?:api[ _-]?key|secret(?:[ _-](?:access[ _-])?key)?|access[ _-]?token"
    r"|auth[ _-]?token|password|passwd|pwd)\b[\"']?\s*"
    r"(?:[:=]|is:?)\s*"
    r"[\"']?((?=[^\s\"',;]*\d)(?=[^\s\"',;]*[A-Za-z])[^\s\"',;]{8,})",
    re.IGNORECASE,
)
_SECRET_HINTS = (
    *(
        "-----BEGIN",
        "AKIA",
        "ASIA",
        "ghp_",
        "glpat-",
        "sk-",
        "sk_live",
        "rk_live",
        "xox",
        "eyJ",
        "SG.",
        "npm_",
        "pypi-",
    ),
    *("AIza", "hf_", "AccountKey=", "://", "dop_v1_", "pwd", "passw", "Passw", "oken", "ecret"),
    *(
        "gho_",
        "ghu_",
        "ghs_",
        "ghr_",
        "github_pat_",
        "pi key",
        "pi_key",
        "pi-key",
        "PI key",
        "PI_KEY",
        "pikey",
        "PASSW",
    ),
)
_PLUGINS = {
    "aws": "AWSKeyDetector",
    "azure_storage_key": "AzureStorageKeyDetector",
    "basic_auth": "BasicAuthDetector",
    "github_token": "GitHubTokenDetector",
    "gitlab_token": "GitLabTokenDetector",
    "jwt": "JwtTokenDetector",
    "npm": "NpmDetector",
    "openai": "OpenAIDetector",
    "pypi_token": "PypiTokenDetector",
    "sendgrid": "SendGridDetector",
    "slack": "SlackDetector",
    "stripe": "StripeDetector",
}


def _emails(text: str) -> Iterator[tuple[int, int]]:
    if "@" in text:
        yield from (match.span() for match in _EMAIL.finditer(text))


def _phones(text: str) -> Iterator[tuple[int, int]]:
    """Yield numbers with a country code; without it, those after a word such as "phone" or in North American form."""
    import phonenumbers

    if "+" in text:
        yield from ((match.start, match.end) for match in phonenumbers.PhoneNumberMatcher(text, None))
    yield from (match.span(1) for match in _LABELED_PHONE.finditer(text))
    for match in _US_PHONE.finditer(text):
        if phonenumbers.is_valid_number(phonenumbers.parse(match.group(), "US")):
            yield match.span()


def _ibans(text: str) -> Iterator[tuple[int, int]]:
    """ISO 13616: the first four characters moved to the end, letters as 10 to 35, the number is 1 modulo 97."""
    for match in _IBAN.finditer(text):
        code = match.group().replace(" ", "")
        if 15 <= len(code) <= 34 and int("".join(str(int(c, 36)) for c in code[4:] + code[:4])) % 97 == 1:
            yield match.span()


def luhn(digits: str) -> bool:
    """Return whether the last digit is the check digit of the others (ISO/IEC 7812-1, annex B)."""
    total = sum(sum(divmod(int(digit) * (1 + index % 2), 10)) for index, digit in enumerate(reversed(digits)))
    return total % 10 == 0


def _cards(text: str) -> Iterator[tuple[int, int]]:
    for match in _CARD.finditer(text):
        digits = re.sub(r"\D", "", match.group())
        if _CARD_PREFIX.match(digits) and len(set(digits)) > 1 and luhn(digits):
            yield match.span()


def _ips(text: str) -> Iterator[tuple[int, int]]:
    """Yield public addresses; four small numbers with points are an enzyme, a section or a version."""
    for match in (*_IPV4.finditer(text), *(_IPV6.finditer(text) if ":" in text else ())):
        try:
            address = ipaddress.ip_address(match.group())
        except ValueError:
            continue
        named = re.search(
            r"\b(?:IP|address|host|server)\b[^.]{0,12}$", text[max(0, match.start() - 24) : match.start()]
        )
        parts = [int(part) for part in match.group().split(".")] if address.version == 4 else [255]
        if address.is_global and (named or (parts[0] > 7 and max(parts) > 31)):
            yield match.span()


def _national_numbers(text: str) -> Iterator[tuple[int, int]]:
    """Yield numbers of the United States, the United Kingdom and Italy by form, of Spain and France by check digits."""
    for pattern in (_US_NUMBER, _UK_NUMBER, _ITALIAN_NUMBER):
        yield from (match.span() for match in pattern.finditer(text))
    for match in _SPANISH_NUMBER.finditer(text):
        if "TRWAGMYFPDXBNJZSQVHLCKE"[int(match[1]) % 23] == match[2]:
            yield match.span()
    for match in _FRENCH_NUMBER.finditer(text):
        if 97 - int(match[1].replace(" ", "")) % 97 == int(match[2]):
            yield match.span()


@cache
def _plugins() -> list[Any]:
    from importlib import import_module

    return [getattr(import_module(f"detect_secrets.plugins.{module}"), name)() for module, name in _PLUGINS.items()]


def _secrets(text: str) -> Iterator[tuple[int, int]]:
    for hint in _SECRET_HINTS:  # a plain loop: most texts have none of them
        if hint in text:
            break
    else:
        return
    for match in (*_PEM.finditer(text), *_KEY.finditer(text)):
        yield match.span()
    yield from (match.span(1) for match in _ASSIGNED.finditer(text))
    for plugin, line in product(_plugins(), text.splitlines()):
        for secret in plugin.analyze_string(line):
            start = text.find(secret)
            if secret and start >= 0:
                yield _whole_token(text, start, start + len(secret))


def _whole_token(text: str, start: int, end: int) -> tuple[int, int]:
    """Return the span widened to the full token: a detector may report its beginning alone."""
    while start > 0 and (text[start - 1].isalnum() or text[start - 1] in _TOKEN_SIGNS):
        start -= 1
    while end < len(text) and (text[end].isalnum() or text[end] in _TOKEN_SIGNS):
        end += 1
    return start, end - text[start:end].endswith(".")


@lru_cache(maxsize=10_000)  # a passage is shown by many samples
def find(text: str) -> tuple[PersonalData, ...]:
    """Return the personal data and secrets of a text, in order, none overlapping.

    Of overlapping ones the longest is kept, and a secret before all others.
    """
    has_digits = bool(_DIGITS.search(text) or ("+" in text and _SHORT_DIGITS.search(text)))
    every = [
        PersonalData(kind, *span)
        for kind, finder in FINDERS.items()
        if has_digits or kind in _WITHOUT_DIGITS
        for span in finder(text)
    ]
    chosen: list[PersonalData] = []
    for item in sorted(every, key=lambda item: (item.kind != "SECRET", item.start - item.end, item.start)):
        if all(item.end <= other.start or other.end <= item.start for other in chosen):
            chosen.append(item)
    return tuple(sorted(chosen, key=lambda item: item.start))


def _texts(sample: Sample) -> list[str]:
    turns = [message.content for message in sample.messages if message.role != "system"]
    return [*turns, sample.evidence.quote] if sample.evidence else turns


def kinds(sample: Sample) -> list[str]:
    """Return the kinds of personal data in a sample, each once; the system turn, the recipe's, is not searched."""
    return list(dict.fromkeys(item.kind for text in _texts(sample) for item in find(text)))


def mask(text: str) -> str:
    """Return the text with personal data replaced by its kind, such as [EMAIL]."""
    for item in reversed(find(text)):
        text = f"{text[: item.start]}[{item.kind}]{text[item.end :]}"
    return text


def masked(sample: Sample) -> Sample:
    """Return the sample with the personal data of its turns masked.

    The evidence keeps its quote: its offsets must match the document, and no model is trained on it.
    """
    turns = tuple(
        turn if turn.role == "system" else Message(role=turn.role, content=mask(turn.content))
        for turn in sample.messages
    )
    return sample.model_copy(update={"messages": turns})


_TOKEN_SIGNS = "_-.+="
# Without these, no finder has a match: the shortest are a labeled phone, an address, an IBAN and a British number.
_DIGITS = re.compile(r"\d[\d .()/-]{5,}\d|\d\.\d+\.\d+\.\d|:[0-9a-fA-F]*:|[A-Z]\d\d|\d{6} ?[A-D]")
_SHORT_DIGITS = re.compile(r"\d[\d .()/-]{4}\d")  # of a phone number behind a plus
_WITHOUT_DIGITS = frozenset({"EMAIL", "SECRET"})

FINDERS: dict[str, Finder] = {
    "EMAIL": _emails,
    "PHONE": _phones,
    "IBAN": _ibans,
    "CARD": _cards,
    "IP": _ips,
    "NATIONAL_NUMBER": _national_numbers,
    "SECRET": _secrets,
}

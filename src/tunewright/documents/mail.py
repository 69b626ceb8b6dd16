"""Mail (.eml, .mbox): subject, sender and the text of each message."""

from __future__ import annotations

import email.message
import email.policy
import re
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path

from tunewright.documents.markup import (
    ENCODING,
    Failure,
    ReadDocument,
    ReadItems,
    assemble,
    decode_text,
    parse_errors,
    single_line,
)
from tunewright.documents.web import read_page
from tunewright.text.encoding import DecodedText

_MAX_MESSAGES = 20_000
_HEADERS = ("from", "to", "cc", "date")
_START = re.compile(rb"^From [^\n]*\n", re.MULTILINE)  # of a message in an mbox (RFC 4155)


def read_eml(path: Path) -> ReadItems:
    """Read one message; attachments are named and not read."""
    return [_read_message(path.read_bytes(), path.stem, "")]


def read_mbox(path: Path) -> ReadItems:
    """Read one document per message of a mailbox."""
    raw = path.read_bytes().replace(b"\r\n", b"\n")
    starts = [m for m in _START.finditer(raw) if m.start() == 0 or raw[m.start() - 2 : m.start()] == b"\n\n"]
    if not starts or starts[0].start():
        return [Failure(reason="unreadable", detail="not a mailbox: its first line does not start with From")]
    if len(starts) > _MAX_MESSAGES:
        return [Failure(reason="too large", detail=f"more than {_MAX_MESSAGES:,} messages")]
    ends = [match.start() for match in starts[1:]] + [len(raw)]
    return [
        _read_message(re.sub(rb"(?m)^>(>*From )", rb"\1", raw[start.end() : end]), f"{path.stem} {number}", str(number))
        for number, (start, end) in enumerate(zip(starts, ends, strict=True), 1)
    ]


def _read_message(raw: bytes, name: str, part: str) -> ReadDocument | Failure:
    with parse_errors("message"):
        message = email.message_from_bytes(raw, policy=email.policy.default)
        assert isinstance(message, EmailMessage)
        headers = {key: _header(message, key) for key in ("subject", *_HEADERS)}
        texts, left_out, doubts, encodings = [], [], [], set()
        for kind, decoded in _bodies(message):
            if isinstance(decoded, Failure):
                left_out.append(decoded)
                continue
            if decoded.doubt:
                doubts.append(decoded.doubt)
            encodings.add(decoded.encoding)
            if kind == "html":
                page = read_page(decoded.text, name)
                texts.append(page.text)
                left_out += page.left_out
            else:
                texts.append(decoded.text)
    if not any(text.strip() for text in texts):
        return Failure(part=part, reason="no text", detail=single_line("; ".join(f.part for f in left_out))[:200])
    metadata = {key: headers[key] for key in _HEADERS}
    others = encodings - {"UTF-8"}
    metadata[ENCODING] = ", ".join(sorted(others))
    document = assemble(
        [(0, text) for text in texts], name, headers["subject"], metadata=metadata, part=part, left_out=left_out
    )
    return document.model_copy(update={"doubts": (*doubts, *document.doubts)})


def _header(message: EmailMessage, name: str) -> str:
    """Return a header as a line; one that is damaged as its bare characters."""
    try:
        return single_line(str(message[name] or ""))
    except Exception:  # the parser of headers fails on odd ones in many ways
        return single_line(next((value for key, value in message._headers if key.lower() == name), ""))  # type: ignore[attr-defined]


def _bodies(message: EmailMessage) -> Iterator[tuple[str, DecodedText | Failure]]:
    """Yield the kind and text of each body: of alternatives the plain one, else the page; attachments as failures."""
    if message.is_multipart():
        parts = [part for part in message.iter_parts() if isinstance(part, EmailMessage)] if _is_list(message) else []
        if message.get_content_subtype() == "alternative":
            kinds = {part.get_content_type(): part for part in reversed(parts)}
            plain, page = kinds.get("text/plain"), kinds.get("text/html")
            chosen = page if plain is None or page is not None and _is_stub(plain, page) else plain
            if chosen is not None and _payload(chosen).strip():
                yield from _bodies(chosen)
                return
        if message.get_content_type() == "message/rfc822":
            yield "plain", DecodedText(_attached(parts[0]) if parts else "")
        for part in parts:
            yield from _bodies(part)
        return
    kind = message.get_content_type()
    file = single_line(message.get_filename() or "")
    if message.get_content_disposition() == "attachment" or kind not in ("text/plain", "text/html") or file:
        detail = f"save it as a file of its own: {kind}"
        yield "", Failure(part=f"attachment {(file or kind)[:80]}", reason="attachment", detail=detail)
    else:
        yield kind.rpartition("/")[2], _decoded(message)


def _is_stub(plain: EmailMessage, page: EmailMessage) -> bool:
    """Return whether a plain form says less than half of the page: "please view this in a browser"."""
    decoded = [_decoded(part) for part in (plain, page)]
    if any(isinstance(item, Failure) for item in decoded):
        return False
    text, markup = (item.text for item in decoded if isinstance(item, DecodedText))
    return len(text.split()) < 0.5 * len(read_page(markup, "").text.split())


def _attached(message: EmailMessage) -> str:
    """Return the line above the text of a message that is attached: what it says is not said by the outer message."""
    headers = {name: _header(message, name) for name in ("subject", "from", "date")}
    return "Attached message: " + "; ".join(f"{name}: {value}" for name, value in headers.items() if value)


def _is_list(message: EmailMessage) -> bool:
    return isinstance(message.get_payload(), list)


def _payload(message: EmailMessage) -> bytes:
    payload = message.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""


def _decoded(message: EmailMessage) -> DecodedText | Failure:
    """Return a body in the encoding that it declares, else in the one that its bytes suggest."""
    raw = _payload(message)
    declared = message.get_content_charset() or ""
    if declared and declared.lower() not in ("us-ascii", "ascii", "unknown-8bit"):
        try:
            return DecodedText(raw.decode(declared))
        except (LookupError, ValueError):  # what it declares it is not
            pass
    return decode_text(raw)

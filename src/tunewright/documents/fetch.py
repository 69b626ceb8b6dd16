"""Pages that a recipe lists by URL: fetched once, from public addresses only, and kept with date and digest."""

from __future__ import annotations

import hashlib
import ipaddress
import socket
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

from pydantic import ValidationError

from tunewright import __version__
from tunewright.documents.readers import READERS
from tunewright.records import Record
from tunewright.storage import make_folder, write_atomic

MAX_BYTES = 64 * 2**20
TIMEOUT_S = 60.0  # for one answer, from the connection to its last byte
_MAX_REDIRECTS = 5
_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_INDEX = "index.jsonl"
_TRANSLATORS = ipaddress.ip_network("64:ff9b::/96")  # IPv4 addresses in IPv6 (RFC 6052)
# Addresses and ports that are reached beside the public ones: none, but for a test's own server.
REACHABLE: frozenset[tuple[str, int]] = frozenset()
# The extension of a content type. Where the type is unspecific, the URL's own extension counts.
_EXTENSIONS = {
    "text/html": ".html",
    "application/xhtml+xml": ".xhtml",
    "text/plain": ".txt",
    "text/markdown": ".md",
    "text/csv": ".csv",
    "text/tab-separated-values": ".tsv",
    "text/rtf": ".rtf",
    "text/x-tex": ".tex",
    "application/rtf": ".rtf",
    "application/x-tex": ".tex",
    "application/json": ".json",
    "application/jsonl": ".jsonl",
    "application/x-ndjson": ".jsonl",
    "application/x-ipynb+json": ".ipynb",
    "application/pdf": ".pdf",
    "application/epub+zip": ".epub",
    "message/rfc822": ".eml",
    "application/mbox": ".mbox",
    "application/vnd.oasis.opendocument.text": ".odt",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": ".docx",
    "application/vnd.openxmlformats-officedocument.presentationml.presentation": ".pptx",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": ".xlsx",
}
_UNSPECIFIC = frozenset(("", "application/octet-stream", "binary/octet-stream", "text/plain", "application/x-download"))


class FetchError(Exception):
    """A URL that is refused or not reached; the message says why."""


class Fetched(Record):
    """A page or file that was fetched, and where it is kept.

    Attributes:
        url: as the recipe lists it.
        final_url: behind all redirects.
        time: when, in UTC.
        content_type: as the server sent it.
        sha256: of the content.
        file: its name in the folder; the extension chooses the reader.
    """

    url: str
    final_url: str
    time: str
    content_type: str
    sha256: str
    file: str


def fetch_all(
    urls: Sequence[str], folder: Path, note: Callable[[str], None] = lambda url: None
) -> tuple[list[Fetched], dict[str, str]]:
    """Return what each URL gives, fetched now unless the folder has it, and why each other URL gives nothing.

    Args:
        urls: in the order of the recipe; a repeated one counts once.
        folder: keeps the contents and their index; what no URL names any more is removed.
        note: called with each URL before it is fetched.
    """
    known = {item.url: item for item in _kept(folder)}
    done: list[Fetched] = []
    failures: dict[str, str] = {}
    for url in dict.fromkeys(urls):
        if url in known:
            done.append(known[url])
            continue
        note(url)
        try:
            item, content = fetch(url)
        except FetchError as error:
            failures[url] = str(error)
            continue
        make_folder(folder)
        write_atomic(folder / item.file, content)
        done.append(item)
        _write_index(folder, [*done, *(other for name, other in known.items() if name in urls and other not in done)])
    if folder.is_dir() and not failures:
        _write_index(folder, done)
        for file in set(folder.iterdir()) - {folder / _INDEX, *(folder / item.file for item in done)}:
            file.unlink()
    return done, failures


def _kept(folder: Path) -> list[Fetched]:
    """Return what the folder has, as far as its contents are what they were."""
    index = folder / _INDEX
    kept: list[Fetched] = []
    for line in index.read_text(encoding="utf-8").splitlines() if index.is_file() else ():
        try:
            item = Fetched.model_validate_json(line)
        except ValidationError:
            continue
        file = folder / Path(item.file).name
        if file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == item.sha256:
            kept.append(item)
    return kept


def _write_index(folder: Path, items: Sequence[Fetched]) -> None:
    write_atomic(folder / _INDEX, "".join(item.model_dump_json() + "\n" for item in items).encode())


def fetch(url: str, max_bytes: int = MAX_BYTES, timeout_s: float = TIMEOUT_S) -> tuple[Fetched, bytes]:
    """Return what a URL gives now, with its content.

    Every redirect is checked as the first URL is: by scheme and by address. The connection goes to the address that
    was checked, so that a name which resolves to another one a moment later (DNS rebinding) gains nothing. Proxies of
    the environment are not used: they would choose the address.

    Raises:
        FetchError: the URL is refused or not reached.
    """
    current = url
    for _ in range(_MAX_REDIRECTS + 1):
        parts = _checked(current)
        status, headers, content = _get(parts, _public_address(parts), max_bytes, timeout_s)
        if status not in _REDIRECTS or "location" not in headers:
            break
        target = urljoin(current, headers["location"])
        if parts.scheme == "https" and urlsplit(target).scheme == "http":
            raise FetchError(f"it redirects from https to http: {target}")
        current = target
    else:
        raise FetchError(f"more than {_MAX_REDIRECTS} redirects")
    if status != 200:
        raise FetchError(f"the server answers {status}")
    if not content:
        raise FetchError("the answer is empty")
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    sha256 = hashlib.sha256(content).hexdigest()
    name = hashlib.sha256(url.encode()).hexdigest()[:16] + _extension(kind, parts.path)
    time = datetime.now(UTC).isoformat(timespec="seconds")
    return Fetched(url=url, final_url=current, time=time, content_type=kind, sha256=sha256, file=name), content


def _checked(url: str) -> SplitResult:
    """Return the parts of a URL that may be fetched, as far as its text shows."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  a port that is no number is an error here
    except ValueError as error:
        raise FetchError(f"it is no URL: {error}") from error
    if parts.scheme.lower() not in ("http", "https"):
        raise FetchError(f"the scheme {parts.scheme}: is refused; only http: and https: are fetched")
    if not parts.hostname:
        raise FetchError("it names no host")
    if parts.username is not None or parts.password is not None:
        raise FetchError("it holds a user name or a password, which a recipe must not")
    if any(ord(character) < 33 for character in url):
        raise FetchError("it holds white space or control characters")
    try:
        host = parts.hostname.encode("idna").decode() if not parts.hostname.isascii() else parts.hostname
    except UnicodeError as error:
        raise FetchError(f"{parts.hostname} is no name of a host") from error
    host = f"[{host}]" if ":" in host else host
    return parts._replace(scheme=parts.scheme.lower(), netloc=host + (f":{parts.port}" if parts.port else ""))


def _public_address(parts: SplitResult) -> str:
    """Return the address to connect to; every address that the name has must be public."""
    host, port = str(parts.hostname), _port(parts)
    try:
        answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise FetchError(f"the name {host} is unknown ({error})") from error
    addresses = [str(answer[4][0]) for answer in answers]
    for address in addresses:
        if (address, port) not in REACHABLE and not is_public(address):
            raise FetchError(f"{host} has the address {address}, which is not public")
    return addresses[0]


def is_public(address: str) -> bool:
    """Return whether an address is in the public Internet, also where it wraps an IPv4 address."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        wrapped = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if ip in _TRANSLATORS or int(ip) < 2**32:
            wrapped = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if wrapped is not None:
            return wrapped.is_global and not wrapped.is_multicast
    return ip.is_global and not ip.is_multicast


def _port(parts: SplitResult) -> int:
    return parts.port or (443 if parts.scheme == "https" else 80)


def _get(parts: SplitResult, address: str, max_bytes: int, timeout_s: float) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers (names in lower case) and body of a GET at this address."""
    import urllib3

    from tunewright.teacher.connection import Connections, LateError, TooLongError

    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    headers = {
        "Host": parts.netloc,
        "User-Agent": f"tunewright/{__version__}",
        "Accept": "text/html,*/*;q=0.8",
        "Accept-Encoding": "gzip, identity",
    }
    connections: Any = Connections(parts.geturl(), 1, timeout_s, address)
    try:
        answer = connections.get(_quoted(target), headers, max_bytes)
    except LateError as error:
        raise FetchError(f"the answer is not complete after {timeout_s:g} s") from error
    except TooLongError as error:
        raise FetchError(str(error)) from error
    except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        raise FetchError(f"the connection fails: {error}") from error
    finally:
        connections.close()
    return answer.status, {name.lower(): value for name, value in answer.headers.items()}, answer.content


def _quoted(target: str) -> str:
    """Return path and query with everything but ASCII as percent escapes."""
    return quote(target, safe="/?&=%:;,+$!*'()@~#[]")


def _extension(kind: str, path: str) -> str:
    """Return the extension of a content type; where the type says little, that of the URL.

    Raises:
        FetchError: there is no reader for the type.
    """
    own = Path(unquote(path)).suffix.lower()
    if kind in _UNSPECIFIC and own in READERS:
        return own
    if kind in _EXTENSIONS:
        return _EXTENSIONS[kind]
    raise FetchError(f"its content type is {kind or 'not given'}; there is no reader for it")

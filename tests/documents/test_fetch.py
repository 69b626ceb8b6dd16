"""URLs of a recipe: fetched once from public addresses; everything else is refused by name. A real server on this machine answers."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tunewright.documents import fetch as fetch_module
from tunewright.documents.fetch import FetchError, fetch, fetch_all, is_public
from tunewright.documents.stage import ingest, source_digest
from tunewright.errors import DocumentError
from tunewright.recipe import Recipe
from tunewright.records import Document
from tunewright.run_folder import RunFolder
from tunewright.settings import DocumentSettings, ModelSettings
from tunewright.stages import stages_of

PAGE = b"<html><head><title>Harbor rules</title></head><body><main><p>Ships moor at pier four. Dues are 12 euros.</p></main></body></html>"


class Site(BaseHTTPRequestHandler):
    requests: list[tuple[str, str]] = []
    closed_port = 0

    def do_GET(self) -> None:
        self.requests.append((self.path, self.headers["Host"]))
        name = self.path.partition("?")[0]
        if name in ("/page", "/"):
            self.answer(PAGE, "text/html; charset=utf-8")
        elif name == "/notes.md":
            self.answer(b"# Tides\n\nHigh water is at noon on Friday.\n", "text/plain")
        elif name == "/moved":
            self.answer(b"", "text/html", 302, Location="/page")
        elif name == "/inside":
            self.answer(b"", "text/html", 302, Location=f"http://127.0.0.1:{self.closed_port}/secret")
        elif name == "/away":
            self.answer(b"", "text/html", 302, Location="file:///etc/passwd")
        elif name == "/circle":
            self.answer(b"", "text/html", 302, Location="/circle")
        elif name == "/big":
            self.answer(b"x" * 200_000, "text/plain")
        elif name == "/bomb":
            self.answer(gzip.compress(b"x" * 3_000_000), "text/plain", **{"Content-Encoding": "gzip"})
        elif name == "/picture":
            self.answer(b"\x89PNG", "image/png")
        elif name == "/drip":
            self.send_response(200)
            self.end_headers()
            for _ in range(100):
                time.sleep(0.05)
                self.wfile.write(b"x")
                self.wfile.flush()
        else:
            self.answer(b"no", "text/plain", 404)

    def answer(self, body: bytes, kind: str, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for header, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(header, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass

    def handle(self) -> None:
        with suppress(ConnectionError):
            super().handle()


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Yield the address of a server on this machine that, alone of all local ones, may be fetched from."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
        server.daemon_threads = True
        Site.requests, Site.closed_port = [], other.getsockname()[1]
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setattr(fetch_module, "REACHABLE", frozenset({("127.0.0.1", server.server_port)}))
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://127.0.0.1/", "not public"),
        ("http://localhost:8080/", "not public"),
        ("http://2130706433/", "not public"),
        ("http://0x7f.1/", "not public"),
        ("http://10.1.2.3/", "not public"),
        ("http://192.168.0.1/admin", "not public"),
        ("http://169.254.169.254/latest/meta-data/", "not public"),
        ("http://100.64.0.1/", "not public"),
        ("http://0.0.0.0/", "not public"),
        ("http://[::1]/", "not public"),
        ("http://[::ffff:127.0.0.1]/", "not public"),
        ("http://[64:ff9b::7f00:1]/", "not public"),
        ("http://[fd00::1]/", "not public"),
        ("http://[fe80::1]/", "not public"),
        ("file:///etc/passwd", "scheme file: is refused"),
        ("ftp://example.org/a.txt", "scheme ftp: is refused"),
        ("gopher://example.org/", "scheme gopher: is refused"),
        ("https://user:word@example.org/", "a user name or a password"),
        ("https:///page", "names no host"),
        ("http://example.org:99999/", "no URL"),
        ("http://example.org/a\r\nX: y", "control characters"),
    ],
)
def test_what_is_not_public_is_refused_before_any_connection(url: str, why: str) -> None:
    with pytest.raises(FetchError, match=why):
        fetch(url)


def test_public_addresses_are_public() -> None:
    assert is_public("93.184.216.34") and is_public("2606:4700:4700::1111") and is_public("64:ff9b::5db8:d822")
    assert not is_public("224.0.0.1") and not is_public("2002:7f00:1::") and not is_public("nonsense")


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/inside", "127.0.0.1, which is not public"),
        ("/away", "scheme file: is refused"),
        ("/circle", "more than 5 redirects"),
        ("/big", "longer than 100,000 bytes"),
        ("/bomb", "longer than 100,000 bytes"),
        ("/drip", "not complete after 1 s"),
        ("/picture", "content type is image/png"),
        ("/missing", "answers 404"),
    ],
)
def test_a_server_gets_away_with_nothing(site: str, path: str, why: str) -> None:
    start = time.monotonic()
    with pytest.raises(FetchError, match=why):
        fetch(site + path, max_bytes=100_000, timeout_s=1.0 if path == "/drip" else 20.0)
    assert time.monotonic() - start < 10


def test_the_connection_goes_to_the_address_that_was_checked(site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name resolves to another address the second time: nobody asks a second time."""
    port = int(site.rpartition(":")[2])
    real, names = socket.getaddrinfo, []

    def resolve(host: str, *args: Any, **kwargs: Any) -> Any:
        if host != "rebinding.example":
            return real(host, *args, **kwargs)
        names.append(host)
        return real("127.0.0.1" if len(names) == 1 else "10.0.0.1", *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    item, content = fetch(f"http://rebinding.example:{port}/page")
    assert content == PAGE and names == ["rebinding.example"]
    assert Site.requests == [("/page", f"rebinding.example:{port}")]


def test_a_folder_keeps_what_was_fetched(site: str, tmp_path: Path) -> None:
    urls = [f"{site}/page", f"{site}/notes.md"]
    first, failures = fetch_all([*urls, f"{site}/missing"], tmp_path)
    assert list(failures) == [f"{site}/missing"] and [item.url for item in first] == urls
    assert [Path(item.file).suffix for item in first] == [".html", ".md"]
    Site.requests.clear()
    assert fetch_all(urls, tmp_path) == (first, {}) and not Site.requests
    (tmp_path / first[0].file).write_bytes(b"edited")
    again, _ = fetch_all(urls, tmp_path)
    assert [path for path, _ in Site.requests] == ["/page"] and again[0].sha256 == first[0].sha256
    fetch_all(urls[1:], tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"index.jsonl", first[1].file}


def test_ingest_reads_urls_once_and_names_what_fails(site: str, tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text("Boats leave at nine. " * 5)
    (tmp_path / "base").mkdir()
    from tokenizers import Tokenizer, models

    Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]")).save(str(tmp_path / "base" / "tokenizer.json"))
    (tmp_path / "base" / "config.json").write_text("{}")

    def recipe(*paths: str) -> Recipe:
        documents = DocumentSettings(paths=("own.txt", *paths), chunk_tokens=32)
        return Recipe(folder=tmp_path, documents=documents, model=ModelSettings(base=str(tmp_path / "base")))

    run = RunFolder.create(tmp_path / "run")
    good = recipe(f"{site}/moved", f"{site}/notes.md").with_absolute_paths()
    summary = ingest(run, good)
    documents = {document.source: document for document in run.read_records("documents.jsonl", Document)}
    assert summary.figures["files"] == 1 and summary.figures["pages fetched"] == 2
    page = documents[f"{site}/moved"]
    assert page.title == "Harbor rules" and "Dues are 12 euros." in page.text
    assert page.metadata["url"] == f"{site}/page" and page.metadata["fetched_on"].startswith("20")
    assert documents[f"{site}/notes.md"].title == "Tides"
    Site.requests.clear()
    ingest(run, good)
    assert not Site.requests
    assert source_digest(good) != source_digest(recipe())
    assert "fetched" in stages_of(good)[0].writes and "fetched" not in stages_of(recipe())[0].writes
    with pytest.raises(DocumentError) as caught:
        ingest(run, recipe(f"{site}/inside", f"{site}/page"))
    assert "/inside: 127.0.0.1 has the address 127.0.0.1, which is not public" in caught.value.cause

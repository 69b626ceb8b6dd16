"""The marking page over HTTP on this machine: some browsers keep nothing for a page that is opened as a file."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tunewright import console
from tunewright.annotation.plan import KeyItem, MarkingKey, Pair
from tunewright.errors import UserError
from tunewright.html.render import page_file, render
from tunewright.run_folder import RunFile, RunFolder

PAGE = RunFile.MARKING_PAGE


def _shown(item: KeyItem, pair: Pair) -> dict[str, Any]:
    question = pair.question
    return {
        "item": item.item,
        "question": question.question,
        "passage": question.passage,
        "gold": question.gold,
        "evidence": question.evidence.quote if question.evidence else None,
        "sides": [
            {"name": item.left_name, "text": pair.texts[item.left]},
            {"name": item.right_name, "text": pair.texts[item.right]},
        ],
    }


def _inert(content: object) -> str:
    """Return JSON that can stand inside a script element: no tag, comment or entity can begin in it."""
    text = json.dumps(content)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _fingerprint(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def marking_page(key: MarkingKey, found: Sequence[Pair]) -> str:
    """Return the page. Of the key, only salted names and the order get in.

    Its content policy lets nothing run but the one script and the one style sheet, and nothing be fetched.
    """
    from markupsafe import Markup

    known: Mapping[str, Pair] = {pair.question.id: pair for pair in found}
    items = [_shown(item, known[item.question]) for item in key.items]
    script, sheet = page_file("marking.js"), page_file("marking.css")
    view = {
        "content": Markup(_inert({"page": key.page, "items": items})),
        "script": Markup(script),
        "sheet": Markup(sheet),
        "script_hash": _fingerprint(script),
        "sheet_hash": _fingerprint(sheet),
    }
    return render("marking.html", view)


def page_server(run: RunFolder, port: int = 0) -> ThreadingHTTPServer:
    """Return a server of the page alone, on the loopback address; the marks stay in the browser.

    Args:
        run: a run folder with its marking page.
        port: to listen on; 0 takes a free one.

    Raises:
        UserError: the port is taken.
    """
    page = run.file(PAGE).read_bytes()

    class Door(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            # A name that a foreign page has pointed at this machine is no way in.
            asked = self.headers.get("Host", "").rpartition(":")[0] in ("127.0.0.1", "localhost")
            found = asked and self.path == "/"
            self.send_response(HTTPStatus.OK if found else HTTPStatus.NOT_FOUND)
            body = page if found else b""
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Print nothing for a request."""

    try:
        return ThreadingHTTPServer(("127.0.0.1", port), Door)
    except OSError as error:
        raise UserError(
            f"port {port} cannot be taken", error.strerror or str(error), "name another: --port 0"
        ) from error


def serve_page(run: RunFolder, port: int) -> None:
    """Serve the page until Ctrl-C."""
    with page_server(run, port) as server:
        console.line(
            f"marking at http://127.0.0.1:{server.server_address[1]}/ (Ctrl-C ends; the marks stay in the browser)"
        )
        server.serve_forever()

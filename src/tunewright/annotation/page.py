"""The marking page as one HTML file, and a server for it on this machine.

The server is there for browsers that store nothing for a page that is opened as a file.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tunewright import console
from tunewright.annotation.plan import KeyItem, MarkingKey, MarkingPair
from tunewright.errors import UserError
from tunewright.html.render import page_file, render

_PATIENCE_S = 30.0  # with a client that sends nothing: each keeps a thread and an open file


def _item_view(item: KeyItem, pair: MarkingPair) -> dict[str, Any]:
    question = pair.question
    return {
        "item": item.item,
        "question": question.question,
        "passage": question.passage,
        "gold": question.shown_gold,
        "evidence": question.evidence.quote if question.evidence else None,
        "sides": [
            {"name": item.left_name, "text": pair.texts[item.left]},
            {"name": item.right_name, "text": pair.texts[item.right]},
        ],
    }


def _inert(content: object) -> str:
    """Return JSON that is safe inside a script element: no tag, comment or entity can begin in it."""
    text = json.dumps(content)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _policy_hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def marking_page(key: MarkingKey, answer_pairs: Sequence[MarkingPair]) -> str:
    """Return the page. Of the key it contains only salted names and the order.

    Its content policy allows the one script and the one style sheet, and no request at all.
    """
    from markupsafe import Markup

    by_question: Mapping[str, MarkingPair] = {pair.question.id: pair for pair in answer_pairs}
    items = [_item_view(item, by_question[item.question]) for item in key.items]
    script, style = page_file("marking.js"), page_file("marking.css")
    view = {
        "content": Markup(_inert({"page": key.page, "items": items})),
        "script": Markup(script),
        "style_sheet": Markup(style),
        "script_hash": _policy_hash(script),
        "style_hash": _policy_hash(style),
    }
    return render("marking.html", view)


def page_server(page: bytes, port: int = 0) -> ThreadingHTTPServer:
    """Return a server of the page alone, on the loopback address; the marks stay in the browser.

    Args:
        page: the marking page, UTF-8.
        port: to listen on; 0 takes a free one.

    Raises:
        UserError: the port is taken.
    """

    class PageHandler(BaseHTTPRequestHandler):
        timeout = _PATIENCE_S

        def do_GET(self) -> None:
            # A foreign page may point a name of its own at this machine: only local names get an answer.
            is_local = self.headers.get("Host", "").rpartition(":")[0] in ("127.0.0.1", "localhost")
            is_page = is_local and self.path == "/"
            self.send_response(HTTPStatus.OK if is_page else HTTPStatus.NOT_FOUND)
            body = page if is_page else b""
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Print nothing for a request."""

    try:
        return ThreadingHTTPServer(("127.0.0.1", port), PageHandler)
    except OSError as error:
        raise UserError(
            f"port {port} cannot be used", error.strerror or str(error), "take a free one: --port 0"
        ) from error


def serve_page(page: bytes, port: int) -> None:
    """Serve the page until Ctrl-C."""
    with page_server(page, port) as server:
        console.line(
            f"marking at http://127.0.0.1:{server.server_address[1]}/ (Ctrl-C ends; the marks stay in the browser)"
        )
        server.serve_forever()

"""The marking page over HTTP on this machine: some browsers keep nothing for a page that is opened as a file."""

from __future__ import annotations

from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tunewright import console
from tunewright.errors import UserError
from tunewright.evaluation.marking_page import PAGE
from tunewright.rundir import RunFolder


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

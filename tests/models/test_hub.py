"""The hub, as far as a stand-in on the loopback can play it: success, gated, missing, refused, unreachable."""

import json
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

CODE = """
import sys
from tunewright.errors import ModelError
from tunewright.models.source import locate
try:
    print(sorted(p.name for p in locate("owner/name").iterdir()))
except ModelError as error:
    print(error)
"""
FILES = {"config.json": b'{"model_type": "llama"}', "tokenizer.json": b"{}"}


@contextmanager
def hub(status, error_code=""):
    """Answer every request with this status, or play a hub with one model."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            name = self.path.rpartition("/")[2].partition("?")[0]
            body, code = b"{}", status
            if status == 200 and "/resolve/" in self.path:
                body = FILES.get(name, b"")
                code = 200 if name in FILES else 404
            elif status == 200 and "/tree/" in self.path:
                body = json.dumps(
                    [{"type": "file", "path": n, "size": len(c), "oid": "b" * 40} for n, c in FILES.items()]
                ).encode()
            elif status == 200:
                body = json.dumps(
                    {"id": "owner/name", "sha": "a" * 40, "siblings": [{"rfilename": n} for n in FILES]}
                ).encode()
            self.send_response(code)
            if error_code:
                self.send_header("X-Error-Code", error_code)
            if code == 200 and name in FILES:
                self.send_header("ETag", f'"{name}"')
                self.send_header("X-Repo-Commit", "a" * 40)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


def ask(endpoint, tmp_path, **more):
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1", **more}
    environment.pop("HF_TOKEN", None)
    command = [sys.executable, "-c", CODE]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=True).stdout


def test_a_model_is_fetched_and_found_again_without_network(tmp_path):
    with hub(200) as endpoint:
        assert ask(endpoint, tmp_path) == "['config.json', 'tokenizer.json']\n"
    assert ask(endpoint, tmp_path, HF_HUB_OFFLINE="1") == "['config.json', 'tokenizer.json']\n"


@pytest.mark.parametrize(
    "status, code, words",
    [
        (403, "GatedRepo", ["is gated", "licence", "HF_TOKEN"]),
        (401, "GatedRepo", ["is gated", "HF_TOKEN"]),
        (404, "RepoNotFound", ["no model owner/name", "404", "spelling"]),
        (401, "", ["owner/name", "401", "HF_TOKEN"]),
        (403, "", ["would not give", "403", "HF_TOKEN"]),
    ],
)
def test_refusals_are_told_apart(tmp_path, status, code, words):
    with hub(status, code) as endpoint:
        told = ask(endpoint, tmp_path)
    for word in words:
        assert word in told, told


def test_no_network_is_said(tmp_path):
    told = ask("http://127.0.0.1:9", tmp_path)
    assert "cannot be reached" in told
    assert "model.base=/path/to/name" in told

"""A real HTTP server on the loopback that plays the hub: accounts, repositories, large files, commits, and faults."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote

TOKEN = "hf_standInToken0123456789abcdefghij"
LARGE = 2000  # bytes from which a file is stored apart
SHA = "a" * 40


@dataclass
class Fault:
    """What happens to requests whose "METHOD path" matches, the first ``times`` of them.

    ``status`` answers with it; None breaks the connection in the middle of the body; ``hold`` waits for an event first.
    """

    pattern: str
    status: int | None = None
    times: int = 10**9
    code: str = ""
    message: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    hold: threading.Event | None = None
    met: int = 0


@dataclass
class Repo:
    private: bool = True
    files: dict[str, bytes] = field(default_factory=dict)
    large: set[str] = field(default_factory=set)
    commits: list[list[str]] = field(default_factory=list)


class Hub:
    """The server's state, free to be looked at and changed by a test."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.authorizations: set[str] = set()
        self.stored: Counter[str] = Counter()
        self.token = TOKEN
        self.url = ""
        self.lock = threading.Lock()

    def fault(self, request: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if re.search(fault.pattern, request) and fault.met < fault.times:
                    fault.met += 1
                    return fault
        return None


def git_digest(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *args: object) -> None:
        pass

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline().strip() or b"0", 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _send(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(raw)

    def _break(self) -> None:
        self.rfile.read(min(100, int(self.headers.get("Content-Length", 0))))
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def _any(self) -> None:
        request = f"{self.command} {self.path}"
        self.hub.requests.append(request)
        if sent := self.headers.get("Authorization"):
            self.hub.authorizations.add(sent)
        fault = self.hub.fault(request)
        if fault is not None:
            if fault.hold is not None:
                self._body()
                fault.hold.wait(60)
                return
            if fault.status is None:
                self._break()
                return
            self._body()
            headers = {"X-Error-Code": fault.code} if fault.code else {}
            headers |= {"X-Error-Message": fault.message} if fault.message else {}
            self._send(fault.status, {"error": fault.message}, headers | fault.headers)
            return
        body = self._body()
        for pattern, answer in _ROUTES:
            if match := re.fullmatch(pattern, request.partition("?")[0]):
                answer(self, body, *match.groups())
                return
        self._send(404, {"error": "no such page"})

    do_GET = do_HEAD = do_POST = do_PUT = _any

    def _allowed(self) -> bool:
        if self.headers.get("Authorization") == f"Bearer {self.hub.token}":
            return True
        self._send(401, {"error": "Invalid username or password."})
        return False

    def _repo(self, name: str) -> Repo | None:
        repo = self.hub.repos.get(name)
        if repo is None:
            self._send(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        return repo

    def whoami(self, _: bytes) -> None:
        if self._allowed():
            self._send(200, {"type": "user", "name": "me", "orgs": []})

    def create(self, body: bytes) -> None:
        if not self._allowed():
            return
        spec = json.loads(body)
        if spec["organization"] != "me":
            message = 'You don\'t have the rights to create a model under the namespace "them"'
            self._send(403, {"error": message}, {"X-Error-Message": message})
            return
        prefix = "datasets/" if spec.get("type") == "dataset" else ""
        name = f"{prefix}me/{spec['name']}"
        exists = name in self.hub.repos
        self.hub.repos.setdefault(name, Repo(private=spec.get("visibility") == "private"))
        self._send(409 if exists else 200, {"url": f"{self.hub.url}/{name}"})

    def info(self, _: bytes, kind: str, name: str) -> None:
        if repo := self._repo(_key(kind, name)):
            files = [{"rfilename": file} for file in repo.files]
            self._send(200, {"id": name, "sha": SHA, "private": repo.private, "siblings": files})

    def paths_info(self, body: bytes, kind: str, name: str) -> None:
        repo = self._repo(_key(kind, name))
        if repo is None:
            return
        wanted = parse_qs(body.decode())["paths"] if not body.startswith(b"{") else json.loads(body)["paths"]
        found = [(path, repo.files[path]) for path in wanted if path in repo.files]
        self._send(200, [{"type": "file", "path": p, "size": len(c), "oid": git_digest(c)} for p, c in found])

    def tree(self, _: bytes, kind: str, name: str, folder: str = "") -> None:
        repo = self._repo(_key(kind, name))
        if repo is None:
            return
        folder = unquote(folder)
        if folder and not any(path.startswith(f"{folder}/") for path in repo.files):
            self._send(404, {}, {"X-Error-Code": "EntryNotFound"})
            return
        entries: list[dict[str, Any]] = [
            {"type": "directory", "path": name, "oid": "0" * 40}
            for name in sorted({path.rpartition("/")[0] for path in repo.files} - {"", folder})
        ]
        for path, content in repo.files.items():
            if folder and not path.startswith(f"{folder}/"):
                continue
            entry = {"type": "file", "path": path, "size": len(content), "oid": git_digest(content)}
            if path in repo.large:
                digest = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 130}
            entries.append(entry)
        self._send(200, entries)

    def validate(self, _: bytes) -> None:
        self._send(200, {"errors": [], "warnings": []})

    def preupload(self, body: bytes, kind: str, name: str) -> None:
        repo = self._repo(_key(kind, name))
        if repo is None or not self._allowed():
            return
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["size"] >= LARGE and not file["path"].endswith(".md") else "regular",
                "shouldIgnore": False,
                "oid": git_digest(repo.files[file["path"]]) if file["path"] in repo.files else None,
            }
            for file in json.loads(body)["files"]
        ]
        self._send(200, {"files": files})

    def batch(self, body: bytes, name: str) -> None:
        if not self._allowed():
            return
        objects = []
        for item in json.loads(body)["objects"]:
            stored = item["oid"] in self.hub.objects
            action = {"actions": {"upload": {"href": f"{self.hub.url}/store/{item['oid']}?X-Sig=s3cr3t"}}}
            objects.append({**item, **({} if stored else action)})
        self._send(200, {"transfer": "basic", "objects": objects})

    def store(self, body: bytes, digest: str) -> None:
        if hashlib.sha256(body).hexdigest() != digest:
            self._send(400, {"error": "another content"})
            return
        self.hub.objects[digest] = body
        self.hub.stored[digest] += 1
        self._send(200, {})

    def commit(self, body: bytes, kind: str, name: str) -> None:
        repo = self._repo(_key(kind, name))
        if repo is None or not self._allowed():
            return
        lines = [json.loads(line) for line in body.splitlines()]
        files, large = {}, set()
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.hub.objects:
                    self._send(400, {"error": "a large file was not uploaded"})
                    return
                files[value["path"]] = self.hub.objects[value["oid"]]
                large.add(value["path"])
        repo.files.update(files)
        repo.large |= large
        repo.commits.append(sorted(files))
        self._send(200, {"commitUrl": f"{self.hub.url}/{name}/commit/{SHA}", "commitOid": SHA})

    def resolve(self, _: bytes, name: str, file: str) -> None:
        repo = self._repo(name)
        if repo is None:
            return
        if file not in repo.files:
            self._send(404, {}, {"X-Error-Code": "EntryNotFound"})
            return
        self._send(200, repo.files[file], {"ETag": f'"{git_digest(repo.files[file])}"', "X-Repo-Commit": SHA})


def _key(kind: str, name: str) -> str:
    return f"datasets/{name}" if kind == "datasets" else name


_NAME = r"([\w.-]+/[\w.-]+)"
_API = rf"/api/(models|datasets)/{_NAME}"
_ROUTES = (
    ("GET /api/whoami-v2", _Handler.whoami),
    ("POST /api/repos/create", _Handler.create),
    ("POST /api/validate-yaml", _Handler.validate),
    (rf"GET {_API}(?:/revision/\w+)?", _Handler.info),
    (rf"GET {_API}/tree/\w+", _Handler.tree),
    (rf"POST {_API}/preupload/main", _Handler.preupload),
    (rf"POST {_API}/commit/main", _Handler.commit),
    (r"POST /((?:datasets/)?[\w.-]+/[\w.-]+)\.git/info/lfs/objects/batch", _Handler.batch),
    (r"PUT /store/(\w+)", _Handler.store),
    (rf"GET {_API}/tree/\w+/(.+)", _Handler.tree),
    (rf"POST {_API}/paths-info/\w+", _Handler.paths_info),
    (r"(?:GET|HEAD) /((?:datasets/)?[\w.-]+/[\w.-]+)/resolve/\w+/(.+)", _Handler.resolve),
)


@contextmanager
def stand_in_hub(*faults: Fault) -> Iterator[Hub]:
    """Yield a hub with one account, "me", and one model, owner/name; its faults can be changed while it runs."""
    hub = Hub()
    hub.faults = list(faults)
    hub.repos["owner/name"] = Repo(False, {"config.json": b'{"model_type": "llama"}', "tokenizer.json": b"{}"})
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        for fault in hub.faults:
            if fault.hold is not None:
                fault.hold.set()
        server.shutdown()
        server.server_close()

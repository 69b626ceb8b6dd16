"""The page of what leaves a run: exports with their certificates, the server with its canary, and the push."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import Response

from tunewright.errors import UserError
from tunewright.run_folder import RunFile
from tunewright.studio.home import ADDRESS, absolute, fault_of
from tunewright.studio.jobs import DESK, Job, devices, log_tail
from tunewright.studio.runs import KnownRun
from tunewright.studio.web import Studio, job_view, page, redirect, safe, text_of

_TARGETS = {
    "adapter": ("",), "merged": ("", "bf16", "fp16", "fp32"), "gguf": ("", "q8_0", "f16", "q4_0", "bf16"),
    "gguf-adapter": ("",), "ollama": ("", "q8_0", "f16", "q4_0", "bf16"),
}  # fmt: skip
_ENGINES = ("auto", "vllm", "llama.cpp", "transformers")
_SERVER = "server"  # the queue of servers: they run until they are stopped, and no job waits for that
_LOG_BYTES = 30_000
_MOST_BYTES = 64_000  # of a certificate
_REPO = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)


def deliver(studio: Studio, request: Request, form: FormData) -> Response:
    """Show the exports, and the last export, server and push with what they printed."""
    run = studio.run(request)
    studio.jobs.move()
    own = studio.jobs.of(run.key, 200)
    steps = {
        kind: _step(studio, next((job for job in own if job.kind == kind), None))
        for kind in ("export", "serve", "push")
    }
    return page(
        "deliver-page.html",
        f"Deliver {run.name}",
        run=run,
        exports=_exports(run),
        targets=_TARGETS,
        engines=_ENGINES,
        steps=steps,
        lanes=devices(),
        has_adapter=(run.path / RunFile.ADAPTER).exists(),
        shown=_shown_push(own),
        waiting=next((step["job"] for step in steps.values() if step and _is_awaited(step)), None),
    )


def _step(studio: Studio, job: Job | None) -> dict[str, Any]:
    if job is None:
        return {}
    log = safe(log_tail(studio.jobs.log_path(job.id), _LOG_BYTES))
    addresses = ADDRESS.findall(log)
    address = addresses[-1] if addresses and job.state == "running" else ""
    return {**job_view(job), "log": log, "fault": fault_of(log), "address": address}


def _is_awaited(step: Mapping[str, Any]) -> bool:
    """Return whether a page is to follow a job: until it ends, or until its server listens."""
    job: Job = step["job"]
    return job.is_open or (job.state != "ended" and not step["address"])


def _exports(run: KnownRun) -> list[dict[str, Any]]:
    """Return each export with its size and what its certificate says; links are not followed."""
    rows = []
    with suppress(OSError):
        for entry in sorted(os.scandir(run.path / RunFile.EXPORTS), key=lambda entry: entry.name):
            if not entry.is_dir(follow_symlinks=False) or entry.name.startswith("."):
                continue
            folder = Path(entry.path)
            files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
            certificate = folder / "certificate.md"
            lines: list[str] = []
            if certificate.is_file() and not certificate.is_symlink() and certificate.stat().st_size < _MOST_BYTES:
                text = certificate.read_text(encoding="utf-8", errors="replace")
                lines = [line.removeprefix("- ") for line in text.splitlines() if line.startswith("- ")]
            rows.append(
                {
                    "name": entry.name,
                    "num_files": len(files),
                    "bytes": sum(p.stat().st_size for p in files),
                    "certificate": lines,
                }
            )
    return rows


def _shown_push(jobs: list[Job]) -> Job | None:
    """Return the push that was shown last, if nothing was sent since: only what was shown can be sent."""
    latest = next((job for job in jobs if job.kind == "push"), None)
    return latest if latest and latest.exit_code == 0 and "--yes" not in latest.arguments else None


def export(studio: Studio, request: Request, form: FormData) -> Response:
    """Export the tuned model, compared with the evaluated one before it gets its name."""
    run, target, dtype = studio.run(request), text_of(form, "target"), text_of(form, "dtype")
    if dtype not in _TARGETS.get(target, ()):
        raise UserError(f"{target} is not written as {dtype}", "", "leave the type empty for the usual one")
    words = ["export", absolute(run.path), "--to", target, *(["--dtype", dtype] if dtype else [])]
    return _started(studio, run, "export", devices()[0], words)


def serve(studio: Studio, request: Request, form: FormData) -> Response:
    """Start the OpenAI-compatible server of the tuned model on this machine alone; its canary comes first."""
    run, engine, port = studio.run(request), text_of(form, "engine"), text_of(form, "port") or "0"
    if engine not in _ENGINES or not port.isdecimal() or int(port) > 65535:
        raise UserError("this server cannot be started", f"{engine} on port {port}", "a port is 0 to 65535")
    return _started(studio, run, "serve", _SERVER, ["serve", absolute(run.path), "--engine", engine, "--port", port])


def push(studio: Studio, request: Request, form: FormData) -> Response:
    """Show what a push would send; nothing is sent."""
    run, repo, target = studio.run(request), text_of(form, "repo", 200), text_of(form, "target") or "adapter"
    exports = [row["name"] for row in _exports(run)]
    if not _REPO.fullmatch(repo) or ".." in repo or "--" in repo:
        raise UserError(f"{repo} is not a repository name", "a repository name is OWNER/NAME", "such as me/my-model")
    if target not in (*_TARGETS, *exports):
        raise UserError(f"there is no export {target}", "", "export it first")
    words = ["push", absolute(run.path), repo, "--to", target]
    words += ["--public"] if text_of(form, "public") == "yes" else []
    words += ["--with-data"] if text_of(form, "data") == "yes" else []
    return _started(studio, run, "push", DESK, words)


def send(studio: Studio, request: Request, form: FormData) -> Response:
    """Send what was shown last, once the name of the repository is typed again."""
    run = studio.run(request)
    shown = _shown_push(studio.jobs.of(run.key, 200))
    if shown is None:
        raise UserError("nothing was shown that could be sent", "a push is shown before it is sent", "press Show first")
    if text_of(form, "repo", 200) != shown.arguments[2] or text_of(form, "sure") != "yes":
        raise UserError("nothing was sent", f"type {shown.arguments[2]} again, and tick the box", "")
    return _started(studio, run, "push", DESK, [*shown.arguments, "--yes"])


def _started(studio: Studio, run: KnownRun, kind: str, lane: str, words: list[str]) -> Response:
    if any(job.state != "ended" and job.kind == kind for job in studio.jobs.of(run.key)):
        raise UserError(f"a {kind} of this run already runs or waits", "", "stop it first, or wait for it")
    studio.jobs.add(kind, run.key, lane, words)
    return redirect(f"/run/{run.key}/deliver#{kind}")

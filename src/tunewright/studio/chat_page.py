"""The chat page: arms side by side, streamed from a process of their own; thumbs become samples or preference pairs."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from tunewright.errors import UserError
from tunewright.run_folder import RunFile
from tunewright.studio.jobs import STUDIO_FOLDER
from tunewright.studio.runs import KnownRun
from tunewright.studio.sample_index import json_lines
from tunewright.studio.web import Studio, endpoint_form, page, redirect, safe, text_of

ARMS = ("base", "tuned", "few-shot", "similar-shot", "rag", "tuned+rag")
_MOST_TURNS = 50


@dataclass
class Conversation:
    """The process of one run's chat; a lock, since it answers one question at a time."""

    process: subprocess.Popen[str]
    lock: threading.Lock = field(default_factory=threading.Lock)


_open: dict[str, Conversation] = {}


def _conversation(studio: Studio, run: KnownRun) -> Conversation:
    for key, other in list(_open.items()):
        if other.process.poll() is not None:  # it ends by itself when nobody talks to it
            del _open[key]
    if run.key not in _open:
        log = studio.jobs.home / "logs" / f"chat-{run.key}.log"
        with log.open("ab") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "tunewright.studio.talk", str(run.path.absolute())],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, text=True, cwd=studio.folder,
                env={**os.environ, "NO_COLOR": "1"},
            )  # fmt: skip
        _open[run.key] = Conversation(process)
    return _open[run.key]


def _messages(studio: Studio, run: KnownRun, order: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the messages of the process for one order; of a process that dies, an error."""
    talk = _conversation(studio, run)
    with talk.lock:
        stdin, stdout = talk.process.stdin, talk.process.stdout
        assert stdin and stdout
        try:
            stdin.write(json.dumps(order) + "\n")
            stdin.flush()
            for line in stdout:
                message: dict[str, Any] = json.loads(line)
                if message.get("done"):
                    return
                yield message
        except (OSError, ValueError):
            pass
        talk.process.kill()
        _open.pop(run.key, None)
        yield {"error": "the chat ended", "cause": "its process was killed, perhaps for its memory", "hint": ""}


def _path(studio: Studio, run: KnownRun) -> Path:
    return studio.folder / STUDIO_FOLDER / f"chat-{run.key}.jsonl"


def _turns(studio: Studio, run: KnownRun) -> list[dict[str, Any]]:
    """Return the turns since the conversation began; they are on disk, and outlive server and process."""
    turns: list[dict[str, Any]] = []
    for entry in json_lines(_path(studio, run)):
        turns = [] if entry.get("new") else [*turns, entry]
    return turns[-_MOST_TURNS:]


def _note(studio: Studio, run: KnownRun, entry: dict[str, Any]) -> None:
    with _path(studio, run).open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _collected(studio: Studio, run: KnownRun, kind: str) -> Path:
    return studio.folder / f"{run.path.name}.{kind}.jsonl"


def chat(studio: Studio, request: Request, form: FormData) -> Response:
    """Show the conversation so far, and the form for a question."""
    run = studio.run(request)
    collected = {kind: sum(1 for _ in json_lines(_collected(studio, run, kind))) for kind in ("liked", "preferred")}
    return page(
        "chat-page.html",
        f"Chat with {run.name}",
        run=run,
        turns=_turns(studio, run),
        arms=ARMS,
        chosen=_chosen(_turns(studio, run)),
        collected=collected,
        names={kind: _collected(studio, run, kind).name for kind in collected},
        has_adapter=(run.path / RunFile.ADAPTER).exists(),
    )


def _chosen(turns: list[dict[str, Any]]) -> list[str]:
    return list(turns[-1]["answers"]) if turns else ["base", "tuned"]


def _order(studio: Studio, run: KnownRun, form: FormData) -> dict[str, Any]:
    question = text_of(form, "question", 8000)
    arms = [arm for arm in dict.fromkeys(form.getlist("arm")) if arm in ARMS]
    if not question:
        raise UserError("the question is empty", "", "type one")
    if not 1 <= len(arms) <= 3:
        raise UserError("choose one to three arms", "", "base and tuned are the usual pair")
    return {"question": question, "arms": arms, "turns": _turns(studio, run)}


def _whole(studio: Studio, run: KnownRun, order: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the messages, and keep the turn once it is whole."""
    answers = dict.fromkeys(order["arms"], "")
    passages: dict[str, list[str]] = {}
    failed = False
    for message in _messages(studio, run, order):
        failed = failed or "error" in message
        if "piece" in message:
            answers[message["arm"]] += message["piece"]
        elif message.get("passages"):
            passages[message["arm"]] = message["passages"]
        yield message
    if not failed:
        at = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        _note(studio, run, {"question": order["question"], "answers": answers, "passages": passages, "at": at})


async def ask(request: Request) -> Response:
    """Answer a question: as a stream to the page's script, as a new page without it."""
    studio: Studio = request.app.state.studio
    run = await run_in_threadpool(studio.run, request)
    form = await endpoint_form(request)
    order = await run_in_threadpool(_order, studio, run, form)
    messages = _whole(studio, run, order)
    if "text/event-stream" in request.headers.get("accept", ""):
        return StreamingResponse(_events(messages), media_type="text/event-stream")
    errors = await run_in_threadpool(lambda: [m for m in messages if "error" in m])
    if errors:
        raise UserError(errors[0]["error"], errors[0]["cause"], errors[0]["hint"])
    return redirect(f"/run/{run.key}/chat#last")


async def _events(messages: Iterator[dict[str, Any]]) -> AsyncIterator[str]:
    """Yield the messages as events; whoever leaves the page does not stop the answer, which is kept."""
    queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def pump() -> None:
        for message in messages:
            loop.call_soon_threadsafe(queue.put_nowait, message)
        loop.call_soon_threadsafe(queue.put_nowait, None)

    threading.Thread(target=pump, daemon=True).start()
    while (message := await queue.get()) is not None:
        yield f"data: {json.dumps({k: safe(v) if isinstance(v, str) else v for k, v in message.items()})}\n\n"
    yield "event: done\ndata: {}\n\n"


def why(studio: Studio, request: Request, form: FormData) -> Response:
    """Return the training samples and passages nearest to an answer."""
    run = studio.run(request)
    text = text_of(form, "text", 8000)
    lines = [line for message in _messages(studio, run, {"why": text}) for line in message.get("why", [])]
    return JSONResponse({"lines": [safe(line) for line in lines]})


def thumb(studio: Studio, request: Request, form: FormData) -> Response:
    """Keep a judgment: a good answer as a sample, a better one of two as a preference pair."""
    run = studio.run(request)
    turns = _turns(studio, run)
    number = text_of(form, "turn", 6)
    if not number.isdecimal() or int(number) >= len(turns):
        raise UserError("there is no such answer", "a new conversation may have begun", "")
    turn, arm = turns[int(number)], text_of(form, "arm")
    if arm not in turn["answers"]:
        raise UserError("there is no such answer", "", "")
    others = [answer for other, answer in turn["answers"].items() if other != arm and answer != turn["answers"][arm]]
    prompt = [{"role": "user", "content": turn["question"]}]
    if text_of(form, "kind") == "better" and others:
        pairs = [{"prompt": prompt, "chosen": turn["answers"][arm], "rejected": other} for other in others]
        _append(_collected(studio, run, "preferred"), pairs)
    else:
        _append(
            _collected(studio, run, "liked"),
            [{"messages": [*prompt, {"role": "assistant", "content": turn["answers"][arm]}]}],
        )
    return redirect(f"/run/{run.key}/chat#t{number}")


def _append(path: Path, rows: list[dict[str, Any]]) -> None:
    known = {json.dumps(row, sort_keys=True) for row in json_lines(path)}
    with path.open("a", encoding="utf-8") as file:
        for row in rows:
            if json.dumps(row, sort_keys=True) not in known:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")


def forget(studio: Studio, request: Request, form: FormData) -> Response:
    """Begin a new conversation; the earlier one stays in its file."""
    run = studio.run(request)
    _note(studio, run, {"new": True})
    return redirect(f"/run/{run.key}/chat")

"""A teacher for the benchmarks: an asyncio server with a fixed latency and so many slots, in a process of its own.

    python benchmarks/slow_teacher.py LATENCY_S SLOTS

Its address is the first line on stdout. It answers chat completions with a question made of the prompt's last
sentence, GET /calls with the (start, end) in seconds of every call that a slot was given to, and GET /count with their number.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def question(prompt: str) -> str:
    """Return a question made of words of the sentence in the prompt."""
    shown = re.search(r"this sentence answers: (.*)", prompt)
    words = re.findall(r"[A-Za-z]{4,}", shown.group(1) if shown else prompt)
    return f"What was reported about {' '.join(sorted(set(words), key=words.index)[1:6]).lower()}?"


def completion(body: bytes) -> bytes:
    text = question(json.loads(body)["messages"][-1]["content"])
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": len(body) // 4, "completion_tokens": len(text) // 4}
    return json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}).encode()


async def serve(latency_s: float, slots: int) -> None:
    free, calls = asyncio.Semaphore(slots), []

    async def answer(head: bytes, body: bytes) -> bytes:
        if head.startswith(b"GET"):
            return json.dumps(len(calls) if b"/count" in head.split(b" ")[1] else calls).encode()
        async with free:
            start = time.monotonic()
            call = [start, start]
            calls.append(call)
            await asyncio.sleep(latency_s)
            call[1] = time.monotonic()
        return completion(body)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
                reply = await answer(head, await reader.readexactly(int(length.group(1)) if length else 0))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(reply), reply))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the caller hung up, or was killed
        finally:
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0, backlog=2048)
    sys.stdout.write(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1\n")
    sys.stdout.flush()
    await server.serve_forever()


@contextmanager
def slow_teacher(latency_s: float, slots: int) -> Iterator[str]:
    """Run the server; yield its address."""
    command = [sys.executable, str(Path(__file__)), str(latency_s), str(slots)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout
            yield child.stdout.readline().strip()
        finally:
            child.kill()


def calls_of(url: str) -> list[tuple[float, float]]:
    """Return the (start, end) of the calls that the server has seen."""
    with urllib.request.urlopen(f"{url}/calls") as response:
        return [(start, end) for start, end in json.loads(response.read())]


def num_calls(url: str) -> int:
    """Return how many calls the server has begun to answer."""
    with urllib.request.urlopen(f"{url}/count") as response:
        return int(response.read())


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1]), int(sys.argv[2])))
